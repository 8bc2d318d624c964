# SPDX-License-Identifier: LGPL-2.1-or-later

bin_PROGRAMS = tools/flockctl
tools_flockctl_SOURCES = \
	tools/acquire.h \
	tools/digest.c tools/digest.h \
	tools/cleanup.c tools/cleanup.h \
	tools/exit_status.h \
	tools/flockctl.c \
	tools/inputs.c tools/inputs.h \
	tools/job.c tools/job.h \
	tools/keeper.c \
	tools/key.c tools/key.h \
	tools/known.c tools/known.h \
	tools/message.c tools/message.h \
	tools/once_list.c tools/once_list.h \
	tools/options.c tools/options.h \
	tools/outputs.c tools/outputs.h \
	tools/pool.c tools/pool.h \
	tools/probe.c tools/probe.h \
	tools/report.c tools/report.h \
	tools/signals.c tools/signals.h \
	tools/states.c tools/states.h \
	tools/table.c tools/table.h \
	tools/verb_acquire.c \
	tools/verb_define.c \
	tools/verb_dir.c \
	tools/verb_evict.c \
	tools/verb_gc.c \
	tools/verb_help.c \
	tools/verb_holders.c \
	tools/verb_id.c \
	tools/verb_log.c \
	tools/verb_once.c \
	tools/verb_path.c \
	tools/verb_reap.c \
	tools/verb_prune.c \
	tools/verb_remove.c \
	tools/verb_resize.c \
	tools/verb_run.c \
	tools/verb_state.c \
	tools/verb_status.c \
	tools/verb_supervise.c \
	tools/verb_version.c \
	tools/verbs.h

# The library as an archive, and those of liburcu and libcrypto where that works: a script starts the tool thousands of times, and
# liburcu's shared libraries add a sixth to each start, libcrypto's more. It also makes tools/flockctl itself the program, with no libtool wrapper.
tools_flockctl_LDADD = lib/libflk.la $(URCU_TOOL_LIBS) $(CRYPTO_TOOL_LIBS)
# The same for libc: without the dynamic loader the tool starts in three quarters of the time.
tools_flockctl_LDFLAGS = $(AM_LDFLAGS) $(FLK_TOOL_LDFLAGS)

# Beside the tool, where `. flockctl.sh` finds it.
dist_bin_SCRIPTS = tools/flockctl.sh

bashcompletiondir = $(datadir)/bash-completion/completions
dist_bashcompletion_DATA = tools/completion/flockctl
