# SPDX-License-Identifier: LGPL-2.1-or-later

# A call is described in one page of man3 and named in that page's NAME section; `make install` makes a link of each name there. The
# program of each EXAMPLES section, between .EX and .EE, is compiled and run by tests/cli/manual.t.
doc_man3 = \
	doc/flk_acquire.3 \
	doc/flk_error.3 \
	doc/flk_hold.3 \
	doc/flk_id.3 \
	doc/flk_inspect.3 \
	doc/flk_once.3 \
	doc/flk_pool.3 \
	doc/flk_row.3 \
	doc/flk_run.3 \
	doc/flk_state.3 \
	doc/libflockctl.3
dist_man_MANS = doc/flockctl.1 doc/flockctl.7 $(doc_man3)
EXTRA_DIST += doc/links.awk

doc_man3_links = $(AWK) -f $(srcdir)/doc/links.awk $(doc_man3:%=$(srcdir)/%)
install-data-hook:
	@$(doc_man3_links) | while read -r page name; do \
		echo ".so man3/$$page" >"$(DESTDIR)$(man3dir)/$$name.3" || exit; done
uninstall-hook:
	@$(doc_man3_links) | while read -r page name; do rm -f "$(DESTDIR)$(man3dir)/$$name.3"; done

# One file, to be copied or found through PYTHONPATH.
dist_pkgdata_DATA = python/flockctl.py

dist_doc_DATA = README NEWS doc/design.md

# Makefiles, scripts, and what needs frameworks or libraries that may not be there: tests/cli/bridges.t and examples.t compile those.
doc_examples = \
	doc/examples/CMakeLists.txt \
	doc/examples/cmocka.c \
	doc/examples/engine.bats \
	doc/examples/engine.h \
	doc/examples/engine.sh \
	doc/examples/engine.t \
	doc/examples/glib.c \
	doc/examples/gtest.cc \
	doc/examples/tap.c \
	doc/examples/test_engine.py \
	doc/examples/uv.c \
	doc/examples/guarded.mk \
	doc/examples/initrd.mk \
	doc/examples/join.py \
	doc/examples/join.sh \
	doc/examples/nested.mk
EXTRA_DIST += $(doc_examples)

# Example programs, compiled by `make check` as a user would: the public header, the shared library, nothing else. For a NAME:
#   doc_examples_NAME_CPPFLAGS = -I$(top_srcdir)/lib
#   doc_examples_NAME_LDADD = lib/libflockctl.la
doc_example_programs = \
	doc/examples/events \
	doc/examples/hold \
	doc/examples/run
check_PROGRAMS += $(doc_example_programs)
doc_examples_events_CPPFLAGS = -I$(top_srcdir)/lib
doc_examples_events_LDADD = lib/libflockctl.la
doc_examples_hold_CPPFLAGS = -I$(top_srcdir)/lib
doc_examples_hold_LDADD = lib/libflockctl.la
doc_examples_run_CPPFLAGS = -I$(top_srcdir)/lib
doc_examples_run_LDADD = lib/libflockctl.la
