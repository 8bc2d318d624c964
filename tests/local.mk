# SPDX-License-Identifier: LGPL-2.1-or-later

# A new test is a line in one of these lists. tests/unit/NAME and tests/stress/NAME are made from NAME.c, our TAP writer
# and the convenience archive; tests/cli/NAME.t is an executable shell script that reads tests/tap/tap.sh.
tests_unit = \
	tests/unit/cancel \
	tests/unit/cgroup \
	tests/unit/check \
	tests/unit/config \
	tests/unit/copy \
	tests/unit/deadline \
	tests/unit/deadlock \
	tests/unit/digest \
	tests/unit/dlopen \
	tests/unit/error \
	tests/unit/faults \
	tests/unit/fd \
	tests/unit/gc \
	tests/unit/hold \
	tests/unit/host \
	tests/unit/id \
	tests/unit/inputs \
	tests/unit/inspect \
	tests/unit/isolate \
	tests/unit/kernel \
	tests/unit/key \
	tests/unit/known \
	tests/unit/latch \
	tests/unit/log \
	tests/unit/longlived \
	tests/unit/nest \
	tests/unit/once \
	tests/unit/output \
	tests/unit/owner \
	tests/unit/publish \
	tests/unit/queue \
	tests/unit/ready \
	tests/unit/record \
	tests/unit/registry \
	tests/unit/removal \
	tests/unit/request \
	tests/unit/root \
	tests/unit/row \
	tests/unit/run \
	tests/unit/slot \
	tests/unit/state \
	tests/unit/stamp \
	tests/unit/supervise \
	tests/unit/tree \
	tests/unit/trial \
	tests/unit/values

# These are about parts of the tool.
tests_unit_digest_SOURCES = tests/unit/digest.c tools/digest.c
tests_unit_digest_LDADD = $(LDADD) $(CRYPTO_TOOL_LIBS)
tests_unit_inputs_SOURCES = tests/unit/inputs.c tools/digest.c tools/inputs.c tools/known.c
tests_unit_inputs_LDADD = $(LDADD) $(CRYPTO_TOOL_LIBS)
tests_unit_key_SOURCES = tests/unit/key.c tools/digest.c tools/inputs.c tools/key.c tools/known.c tools/message.c
tests_unit_key_LDADD = $(LDADD) $(CRYPTO_TOOL_LIBS)
tests_unit_known_SOURCES = tests/unit/known.c tools/known.c

tests_cli = \
	tests/cli/abandoned.t \
	tests/cli/abi.t \
	tests/cli/acquire.t \
	tests/cli/bridges.t \
	tests/cli/cleanup.t \
	tests/cli/completion.t \
	tests/cli/deadlock.t \
	tests/cli/define.t \
	tests/cli/evict.t \
	tests/cli/examples.t \
	tests/cli/faults.t \
	tests/cli/gc.t \
	tests/cli/header.t \
	tests/cli/id.t \
	tests/cli/initrd.t \
	tests/cli/kill.t \
	tests/cli/log.t \
	tests/cli/manual.t \
	tests/cli/messages.t \
	tests/cli/nest.t \
	tests/cli/nest_proof.t \
	tests/cli/once.t \
	tests/cli/once_key.t \
	tests/cli/order.t \
	tests/cli/podman.t \
	tests/cli/pool.t \
	tests/cli/reap.t \
	tests/cli/once_list.t \
	tests/cli/prune.t \
	tests/cli/run.t \
	tests/cli/shell.t \
	tests/cli/signals.t \
	tests/cli/state.t \
	tests/cli/status.t \
	tests/cli/terminal.t \
	tests/cli/timeout.t \
	tests/cli/tmpdir.t \
	tests/cli/tree.t \
	tests/cli/while.t
# What they use beside the tool: a tree of processes, a lock that changes hands, an eye on a lock, a terminal to run a command on.
tests_cli_helpers = \
	tests/cli/grow \
	tests/cli/handoff \
	tests/cli/observe \
	tests/cli/occupy \
	tests/cli/pty
tests_cli_grow_LDADD =
tests_cli_observe_LDADD =
tests_cli_occupy_LDADD =
tests_cli_pty_LDADD =

# Short in `make check`, long in `make check-stress`: STRESS_SCALE multiplies what they do.
tests_stress = \
	tests/stress/deadlock \
	tests/stress/guest \
	tests/stress/nest \
	tests/stress/once \
	tests/stress/once_faults \
	tests/stress/queue \
	tests/stress/reap \
	tests/stress/tryonce

tests_unit_faults_LDFLAGS = $(AM_LDFLAGS) -Wl$(comma)--wrap=clock_gettime
tests_unit_registry_LDFLAGS = $(AM_LDFLAGS) -Wl$(comma)--wrap=pthread_atfork
tests_unit_host_LDFLAGS = $(AM_LDFLAGS) -Wl$(comma)--wrap=fk_queue_enter

# It loads the shared library itself.
tests_unit_dlopen_LDADD = tests/tap/libtap.la
EXTRA_tests_unit_dlopen_DEPENDENCIES = lib/libflockctl.la

# The referee stands between the library's modules: these calls of one to another go through it.
comma = ,
tests_stress_queue_SOURCES = tests/stress/queue.c tests/stress/referee.c tests/stress/referee.h
tests_stress_queue_LDFLAGS = $(AM_LDFLAGS) $(REFEREE_CALLS:%=-Wl$(comma)--wrap=%)
REFEREE_CALLS = fk_slots_take fk_queue_enter fk_queue_admit fk_queue_leave fk_queue_pass fk_queue_is_stopped fk_part_end \
	fk_row_delete fk_row_exchange flk_hold_release flk_hold_decline

# What others do between two looks at a directory.
tests_unit_removal_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=getdents64

# Built and run by `make bench` only.
tests_bench = \
	tests/bench/deadlock \
	tests/bench/inputs \
	tests/bench/uncontended \
	tests/bench/handoff \
	tests/bench/held \
	tests/bench/throughput \
	tests/bench/wakeups \
	tests/bench/status \
	tests/bench/late \
	tests/bench/once \
	tests/bench/ready \
	tests/bench/reap \
	tests/bench/run
tests_bench_helpers = tests/bench/spawn
tests_bench_scripts = \
	tests/bench/copy.sh \
	tests/bench/start.sh
tests_bench_deadlock_SOURCES = tests/bench/deadlock.c $(tests_bench_shared)
tests_bench_inputs_SOURCES = tests/bench/inputs.c tools/digest.c tools/inputs.c tools/known.c $(tests_bench_shared)
tests_bench_inputs_LDADD = $(LDADD) $(CRYPTO_TOOL_LIBS)
tests_bench_uncontended_SOURCES = tests/bench/uncontended.c $(tests_bench_shared)
tests_bench_handoff_SOURCES = tests/bench/handoff.c $(tests_bench_shared)
tests_bench_throughput_SOURCES = tests/bench/throughput.c $(tests_bench_shared)
tests_bench_once_SOURCES = tests/bench/once.c $(tests_bench_shared)
tests_bench_run_SOURCES = tests/bench/run.c $(tests_bench_shared)
tests_bench_wakeups_SOURCES = tests/bench/wakeups.c $(tests_bench_shared)
tests_bench_late_SOURCES = tests/bench/late.c $(tests_bench_shared)
tests_bench_spawn_SOURCES = tests/bench/spawn.c $(tests_bench_shared)
tests_bench_status_SOURCES = tests/bench/status.c $(tests_bench_shared)
# Its peer is liburcu's hash table.
tests_bench_reap_SOURCES = tests/bench/reap.c $(tests_bench_shared)
tests_bench_held_SOURCES = tests/bench/held.c tests/bench/lookup.c tests/bench/lookup.h $(tests_bench_shared)
tests_bench_ready_SOURCES = tests/bench/ready.c tests/bench/lookup.c tests/bench/lookup.h $(tests_bench_shared)
tests_bench_held_LDADD = $(LDADD) -lurcu-cds
tests_bench_ready_LDADD = $(LDADD) -lurcu-cds
tests_bench_shared = tests/bench/bench.c tests/bench/bench.h

# Made anew when compile.sh.in changes.
noinst_DATA = tests/compile.sh

check_LTLIBRARIES = tests/tap/libtap.la tests/unit/libhelpers.la
tests_tap_libtap_la_SOURCES = tests/tap/tap.c tests/tap/tap.h
tests_unit_libhelpers_la_SOURCES = tests/unit/helpers.c tests/unit/helpers.h

check_PROGRAMS += $(tests_unit) $(tests_stress) $(tests_cli_helpers)
EXTRA_PROGRAMS += $(tests_bench) $(tests_bench_helpers)
EXTRA_DIST += tests/README tests/tap/tap.sh tests/installed.sh tests/cli/helpers.sh tests/cli/bridges.py tests/cli/header.cc tests/cli/status.py $(tests_cli) $(tests_bench_scripts)
AM_CPPFLAGS += -I$(top_srcdir)/tests/tap
LDADD = tests/unit/libhelpers.la tests/tap/libtap.la lib/libflk.la $(URCU_TOOL_LIBS)

TESTS = $(tests_unit) $(tests_stress) $(tests_cli)
TEST_EXTENSIONS = .t
LOG_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
T_LOG_DRIVER = $(LOG_DRIVER)
# What a test says on stderr stands beside its result.
AM_LOG_DRIVER_FLAGS = --merge
AM_T_LOG_DRIVER_FLAGS = --merge
AM_TESTS_ENVIRONMENT = \
	unset MAKEFLAGS MFLAGS MAKELEVEL; \
	top_srcdir='$(abs_top_srcdir)'; top_builddir='$(abs_top_builddir)'; \
	FLOCKCTL='$(abs_top_builddir)/tools/flockctl'; \
	export top_srcdir top_builddir FLOCKCTL;

# The same tests under prove: `make prove PROVE_FLAGS=-j4`.
PROVE_FLAGS =
prove: all $(check_PROGRAMS)
	@$(AM_TESTS_ENVIRONMENT) $(TESTS_ENVIRONMENT) set -- $(tests_unit) $(tests_stress); \
	for t in $(tests_cli); do set -- "$$@" "$(srcdir)/$$t"; done; \
	$(PROVE) --exec '' $(PROVE_FLAGS) "$$@"

# Of what is installed.
installcheck-local:
	@$(AM_TESTS_ENVIRONMENT) "$(srcdir)/tests/installed.sh" "$(DESTDIR)$(bindir)" "$(DESTDIR)$(libdir)" \
		"$(DESTDIR)$(datadir)" "$(DESTDIR)$(mandir)"

check-stress:
	STRESS_SCALE=$${STRESS_SCALE:-10} $(MAKE) $(AM_MAKEFLAGS) check TESTS='$(tests_stress) tests/cli/tree.t'

bench: all $(tests_bench) $(tests_bench_helpers)
	@$(AM_TESTS_ENVIRONMENT) set -- $(tests_bench); \
	for t in $(tests_bench_scripts); do set -- "$$@" "$(srcdir)/$$t"; done; \
	for b; do echo "== $$b"; "$$b" || exit; done

.PHONY: prove check-stress bench
