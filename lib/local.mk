# SPDX-License-Identifier: LGPL-2.1-or-later

libflk_sources = \
	lib/arena.c lib/arena.h \
	lib/cancel.c lib/cancel.h \
	lib/cgroup.c lib/cgroup.h \
	lib/check.c lib/check.h \
	lib/config.c lib/config.h \
	lib/copy.c lib/copy.h \
	lib/deadline.c lib/deadline.h \
	lib/deadlock.c lib/deadlock.h \
	lib/error.c lib/error.h \
	lib/failure.c lib/failure.h \
	lib/fd.c lib/fd.h \
	lib/gc.c lib/gc.h \
	lib/helper.c lib/helper.h \
	lib/held.c lib/held.h \
	lib/hold.c lib/hold.h \
	lib/id.c lib/id.h \
	lib/index.c lib/index.h \
	lib/inspect.c lib/inspect.h \
	lib/isolate.c lib/isolate.h \
	lib/json.c lib/json.h \
	lib/latch.c lib/latch.h \
	lib/log.c lib/log.h \
	lib/looker.h \
	lib/manage.c \
	lib/nest.c lib/nest.h \
	lib/once.c lib/once.h \
	lib/output.c lib/output.h \
	lib/owner.c lib/owner.h \
	lib/picture.c \
	lib/pool.c lib/pool.h \
	lib/proc.c lib/proc.h \
	lib/publish.c lib/publish.h \
	lib/queue.c lib/queue.h \
	lib/ready.c lib/ready.h \
	lib/reap.c lib/reap.h \
	lib/record.c lib/record.h \
	lib/reduction.c lib/reduction.h \
	lib/registry.c lib/registry.h \
	lib/removal.c lib/removal.h \
	lib/request.c lib/request.h \
	lib/root.c lib/root.h \
	lib/row.c lib/row.h \
	lib/run.c lib/run.h \
	lib/shared.c lib/shared.h \
	lib/slot.c lib/slot.h \
	lib/stamp.c lib/stamp.h \
	lib/start.c lib/start.h \
	lib/state.c lib/state.h \
	lib/supervise.c lib/supervise.h \
	lib/tree.c lib/tree.h \
	lib/trial.c lib/trial.h \
	lib/utf8.c lib/utf8.h \
	lib/values.c lib/values.h \
	lib/waiting.c lib/waiting.h

include_HEADERS = lib/flockctl.h lib/flockctl.hpp
pkgconfig_DATA = lib/flockctl.pc
lib_LTLIBRARIES = lib/libflockctl.la

# Everything, with the internals still in reach: for the tool and the unit tests, which need no shared library to run.
noinst_LTLIBRARIES += lib/libflk.la
lib_libflk_la_SOURCES = $(libflk_sources)
lib_libflk_la_CFLAGS = $(AM_CFLAGS) $(FLK_LIB_CFLAGS)
lib_libflk_la_CPPFLAGS = $(AM_CPPFLAGS) -DFLK_TOOL='"$(bindir)/flockctl"'

lib_libflockctl_la_SOURCES =
lib_libflockctl_la_LIBADD = lib/libflk.la $(URCU_LIBS)
# A dlclose() leaves it where it is: liburcu keeps a destructor for the end of every thread that has read through it.
lib_libflockctl_la_LDFLAGS = $(AM_LDFLAGS) -version-info 0:0:0 -no-undefined -Wl,-z,nodelete
EXTRA_DIST += lib/libflockctl.map lib/libflockctl.abi lib/abi.sh

# What tests/cli/abi.t compares with; to be called when the interface has changed and is meant to.
abi: lib/libflockctl.la
	$(SHELL) $(srcdir)/lib/abi.sh write $(srcdir) lib/.libs/libflockctl.so "$(CC)"
.PHONY: abi

if HAVE_VERSION_SCRIPT
lib_libflockctl_la_LDFLAGS += -Wl,--version-script=$(top_srcdir)/lib/libflockctl.map
EXTRA_lib_libflockctl_la_DEPENDENCIES = lib/libflockctl.map
endif
