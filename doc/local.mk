# SPDX-License-Identifier: LGPL-2.1-or-later

dist_man_MANS = doc/flockctl.1 doc/flockctl.7 doc/libflockctl.3
dist_doc_DATA = README NEWS doc/design.md

# What isn't compiled: Makefiles, scripts.
doc_examples = \
	doc/examples/guarded.mk \
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
