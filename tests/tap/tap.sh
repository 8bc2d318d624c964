# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh disable=SC2034,SC2046,SC2086
#
# A writer of TAP, the Test Anything Protocol, for POSIX sh. A test begins with
#
#     #!/bin/sh
#     . "$(dirname "$0")/../tap/tap.sh"
#
# and ends with done_testing, or has plan N at its start. It runs in automake's harness, under prove, and by hand.
#
# There are: $FLOCKCTL and flockctl, the tool of the build tree; $T, a private directory, removed at the end with every
# background job killed; $FLOCKCTL_DIR, not made yet; $FLOCKCTL_CONFIG, an empty file; $top_srcdir, $top_builddir.
# $TAP_DEADLINE (seconds, default 120), set before the line above, ends a test that hangs.

# A test runs as a child of timeout(1), in a process group that dies with it at the deadline, and with the signals as a
# login shell has them: INT and QUIT are ignored in a script's background jobs, and what is ignored is inherited.
if [ "${TAP_GUARDED-}" != "$0" ]; then
    TAP_GUARDED=$0
    export TAP_GUARDED
    exec env --default-signal timeout -k 10 "${TAP_DEADLINE:-120}" /bin/sh "$0" "$@"
fi
unset TAP_GUARDED

tap_count=0 tap_failed=0 tap_plan='' tap_jobs=''
tap_newline='
'

for tap_variable in $(env | sed -n 's/^\(FLOCKCTL_[A-Z0-9_]*\)=.*/\1/p'); do
    case $tap_variable in
    FLOCKCTL_REQUIRE_*) ;;
    *) unset "$tap_variable" ;;
    esac
done
unset tap_variable

# Outside of the harness: the build tree is the working directory, or the one that this script lies in.
: "${top_srcdir:=$(cd "$(dirname "$0")/../.." && pwd)}"
if [ -z "${top_builddir-}" ]; then
    if [ -x tools/flockctl ]; then
        top_builddir=$PWD
    else
        top_builddir=$top_srcdir
    fi
fi
: "${FLOCKCTL:=$top_builddir/tools/flockctl}"
LC_ALL=C
export FLOCKCTL top_srcdir top_builddir LC_ALL

# One line, since a second one would be TAP of its own.
tap_line() {
    case $1 in
    *"$tap_newline"*) printf '%s\n' "$1" | tr '\n' ' ' && echo ;;
    *) printf '%s\n' "$1" ;;
    esac
}

bail_out() {
    tap_line "Bail out! $*"
    exit 1
}

# Fails, as what went before it has: `is ... || diag ...`
diag() {
    printf '%s\n' "$*" | sed 's/^/# /' >&2
    return 1
}

# What still runs in our process group, which timeout has made: our jobs, and what they left behind.
tap_group() {
    cat /proc/[0-9]*/stat 2>/dev/null |
        awk -v group="$PPID" -v self="$$" '{ pid = $1; sub(/.*\) /, "") }
            $3 == group && $1 !~ /[ZX]/ && pid != group && pid != self { print pid }'
}

# A zombie doesn't run: it waits for us.
tap_runs() {
    case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in
    '' | Z* | X*) return 1 ;;
    esac
}

tap_cleanup() {
    tap_status=$?
    trap '' HUP INT TERM
    # CONT after TERM: a stopped job ends only when it goes on.
    kill -TERM $tap_jobs 2>/dev/null
    kill -CONT $tap_jobs 2>/dev/null
    for tap_job in $tap_jobs; do
        tap_tries=0
        while [ $tap_tries -lt 100 ] && tap_runs "$tap_job"; do
            sleep 0.02
            tap_tries=$((tap_tries + 1))
        done
    done
    kill -KILL $tap_jobs $(tap_group) 2>/dev/null
    wait
    chmod -R u+rwx "$T" 2>/dev/null
    rm -rf "$T"
    case $tap_plan in
    all) tap_status=0 ;;
    "$tap_count") [ "$tap_failed" = 0 ] || tap_status=1 ;;
    *) tap_status=1 ;;
    esac
    exit "$tap_status"
}

T=$(mktemp -d "${TMPDIR:-/tmp}/flockctl-test.XXXXXX") || bail_out "no temporary directory"
export T
trap tap_cleanup EXIT
trap 'bail_out "the test was ended by a signal, or its deadline has passed"' HUP INT TERM
FLOCKCTL_DIR=$T/root FLOCKCTL_CONFIG=$T/flockctl.conf
export FLOCKCTL_DIR FLOCKCTL_CONFIG
: >"$FLOCKCTL_CONFIG"
[ -x "$FLOCKCTL" ] || bail_out "$FLOCKCTL is not there: run make first, or set FLOCKCTL"

flockctl() {
    "$FLOCKCTL" "$@"
}

plan() {
    tap_plan=$1
    echo "1..$1"
}

done_testing() {
    [ -n "$tap_plan" ] || plan "$tap_count"
    exit
}

skip_all() {
    tap_line "1..0 # SKIP $*"
    tap_plan=all
    exit
}

pass() {
    tap_count=$((tap_count + 1))
    tap_line "ok $tap_count - $*"
}

fail() {
    tap_count=$((tap_count + 1)) tap_failed=$((tap_failed + 1))
    tap_line "not ok $tap_count - $*"
    return 1
}

# skip REASON: in the place of one test
skip() {
    tap_count=$((tap_count + 1))
    tap_line "ok $tap_count # SKIP $*"
}

# ok NAME COMMAND...: it succeeds
ok() {
    tap_name=$1
    shift
    if "$@"; then
        pass "$tap_name"
    else
        fail "$tap_name" || diag "failed: $*"
    fi
}

# not_ok NAME COMMAND...: it fails
not_ok() {
    tap_name=$1
    shift
    if "$@"; then
        fail "$tap_name" || diag "succeeded: $*"
    else
        pass "$tap_name"
    fi
}

# is GOT WANTED NAME
is() {
    if [ "$1" = "$2" ]; then
        pass "$3"
    else
        fail "$3" || diag "   got \"$1\"
wanted \"$2\""
    fi
}

# like GOT PATTERN NAME: a line of GOT matches the extended regular expression
like() {
    if printf '%s\n' "$1" | grep -Eq -e "$2"; then
        pass "$3"
    else
        fail "$3" || diag "   got \"$1\"
wanted a match for $2"
    fi
}

# unlike GOT PATTERN NAME
unlike() {
    if printf '%s\n' "$1" | grep -Eq -e "$2"; then
        fail "$3" || diag "   got \"$1\"
wanted no match for $2"
    else
        pass "$3"
    fi
}

# run COMMAND...: leaves $status, $out and $err
run() {
    status=0
    "$@" >"$T/.out" 2>"$T/.err" || status=$?
    out=$(cat "$T/.out") err=$(cat "$T/.err")
}

# background NAME PROGRAM [ARG]...: one process, its output in $T/NAME.out and $T/NAME.err, since a harness waits for
# everybody who has its own output open. Its pid is in $NAME_pid. A program, or flockctl; another function would need a
# subshell of its own, whose pid isn't the one to signal.
background() {
    tap_name=$1
    shift
    [ "$1" != flockctl ] || { shift && set -- "$FLOCKCTL" "$@"; }
    env --default-signal=INT,QUIT "$@" </dev/null >"$T/$tap_name.out" 2>"$T/$tap_name.err" &
    tap_jobs="$tap_jobs $!"
    eval "${tap_name}_pid=$!"
}

# reap NAME: waits for a background job to end, and leaves its $status, $out and $err
reap() {
    eval "tap_job=\$${1}_pid"
    status=0
    wait "$tap_job" 2>/dev/null || status=$?
    out=$(cat "$T/$1.out") err=$(cat "$T/$1.err")
    tap_left=
    for tap_other in $tap_jobs; do
        [ "$tap_other" = "$tap_job" ] || tap_left="$tap_left $tap_other"
    done
    tap_jobs=$tap_left
}

# wait_for CONDITION: until the shell code succeeds. It is there to see an event, never to prove that there is none; the
# limit of some ten seconds only ends a broken test, which then has failed.
wait_for() {
    tap_tries=0
    until eval "$1"; do
        tap_tries=$((tap_tries + 1))
        if [ $tap_tries -gt 1000 ]; then
            fail "waited for: $1"
            return
        fi
        sleep 0.01
    done
}
