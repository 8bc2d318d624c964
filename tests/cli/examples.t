#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What doc/examples/ shows, works.
# shellcheck disable=SC2015,SC2016,SC2154
. "$(dirname "$0")/../tap/tap.sh"
. "$top_builddir/tests/compile.sh"

examples=$top_srcdir/doc/examples
hold=$top_builddir/doc/examples/hold
events=$top_builddir/doc/examples/events
run_example=$top_builddir/doc/examples/run
[ -x "$hold" ] && [ -x "$events" ] && [ -x "$run_example" ] || bail_out "the example programs are not there: run make check first"

# ---- guarded.mk ----

# $most recipes were between their first and last line at once.
count_most() {
    most=$(awk '/^begin / { if (++now > most) most = now } /^end / { now-- } END { print most + 0 }' guarded.log)
}

guarded() {
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "${MAKE:-make}" -s -f "$examples/guarded.mk" "FLOCKCTL=$FLOCKCTL" "$@"
}

mkdir "$T/make" && cd "$T/make" || bail_out "no directory to make in"
run guarded -j8
is "$status" 0 "guarded.mk: all recipes of make -j8 succeed"
is "$(grep -c '^end ' guarded.log)" 8 "guarded.mk: eight ran"
count_most
ok "guarded.mk: never more than two at once" [ "$most" -le 2 ]

run guarded clean
is "$status:$(ls)" "0:" "guarded.mk: clean leaves nothing"
guarded -j8 >"$T/first.out" 2>&1 &
first=$!
run guarded -j8
wait "$first"
is "$status:$?" 0:0 "guarded.mk: two makes at once succeed"
is "$(grep -c '^end ' guarded.log)" 16 "guarded.mk: eight ran of each"
count_most
ok "guarded.mk: never more than two at once of both" [ "$most" -le 2 ]
is "$(grep -c '^built ' guarded.log)" 1 "guarded.mk: one of both built the image"
cd "$T" || exit

# ---- nested.mk ----

nested() {
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "${MAKE:-make}" -s -f "$examples/nested.mk" "FLOCKCTL=$FLOCKCTL" "$@"
}

mkdir "$T/suites" && cd "$T/suites" || bail_out "no directory to make in"
nested >"$T/first.out" 2>&1 &
first=$!
nested >"$T/second.out" 2>&1 &
run nested -j8 tests
wait "$first"
is "$status:$?" 0:0 "nested.mk: two suites and tests by themselves succeed at once"
wait
is "$(grep -c '^end ' nested.log)" 24 "nested.mk: all their tests ran"
mv nested.log guarded.log
count_most
ok "nested.mk: never more than two at once" [ "$most" -le 2 ]
like "$(cat guarded.log)" "in slot 1$" "nested.mk: in both slots"
# Whoever began after a reset and before that suite's end was below it, eight of them.
is "$(awk '/^reset/ { reset = 1; n = 0 } /^begin/ { n++ } /^passed/ && reset { print n; reset = 0 }' guarded.log | tr '\n' ' ')" "8 8 " \
    "nested.mk: nobody else comes between a suite and its tests"
mv guarded.log nested.log
run nested clean
is "$status:$(ls)" "0:" "nested.mk: clean leaves nothing"
cd "$T" || exit

# hold_with PROGRAM [ARG]...: a holder in the background, until let_go
mkfifo "$T/go"
hold_with() {
    rm -f "$T/holder.out"
    background holder "$@" sh -c 'echo up; read -r _ <"$T/go"'
    wait_for '[ -s "$T/holder.out" ]'
}

let_go() {
    echo >"$T/go"
    reap holder
}

# queues NAME: somebody does
queues() {
    [ -n "$(ls "$FLOCKCTL_DIR/rows/$1/queue")" ]
}

# ---- hold.c ----

# start NAME PROGRAM [ARG]...: in the background, with its input from the descriptor 7 of this script
start() {
    start_name=$1
    shift
    rm -f "$T/$start_name.in" "$T/$start_name.out"
    mkfifo "$T/$start_name.in"
    background "$start_name" sh -c 'input=$1; shift; exec "$@" <"$input"' sh "$T/$start_name.in" "$@"
    exec 7>"$T/$start_name.in"
}

hold_with flockctl acquire hold --
run "$hold" hold 0
is "$status" 75 "hold: refused while flockctl holds it"
like "$err" "^hold: hold is taken by pid [0-9]+ " "hold: says who holds it"
run "$hold" hold 0.05
like "$status:$err" "^75:hold: hold is still taken .* after [0-9.]+ s$" "hold: waits until its deadline"
let_go
run flockctl acquire hold -- "$hold" hold 0
is "$status" 0 "hold: below a flockctl it draws from what that one holds"

start held "$hold" hold 10
wait_for '[ -s "$T/held.out" ]'
like "$(cat "$T/held.out")" "^holding slot 0 of hold as [a-z][a-z0-9]+$" "hold: says what it holds"
run flockctl acquire -n hold -- true
is "$status" 75 "hold: flockctl is refused while it holds"
exec 7>&-
reap held
is "$status" 0 "hold: ends at the end of its input"
ok "hold: released" flockctl acquire -n hold -- true

# ---- events.c, uv.c, glib.c: the same in three loops ----

# in_a_loop NAME PROGRAM
in_a_loop() {
    loop=$1
    hold_with flockctl acquire "$loop" --
    start waiter "$2" "$loop"
    echo hello >&7
    wait_for '[ -s "$T/waiter.out" ]'
    is "$(cat "$T/waiter.out")" "still waiting" "$loop: does other things while it waits"
    let_go
    wait_for 'grep -q "^acquired $loop as " "$T/waiter.out"'
    run flockctl acquire -n "$loop" -- true
    is "$status" 75 "$loop: flockctl is refused while it holds"
    echo hello >&7
    wait_for 'grep -q "^I have it" "$T/waiter.out"'
    is "$(sed -n 3p "$T/waiter.out")" "I have it" "$loop: goes on with the lock"
    exec 7>&-
    reap waiter
    is "$status" 0 "$loop: ends at the end of its input"
    ok "$loop: released" flockctl acquire -n "$loop" -- true

    hold_with flockctl acquire "$loop" --
    start waiter "$2" "$loop"
    wait_for 'queues "$loop"'
    exec 7>&-
    reap waiter
    is "$status:$out" "0:" "$loop: gives up at the end of its input"
    not_ok "$loop: has left the queue" queues "$loop"
    let_go
}

# of_package NAME PACKAGE: the example NAME.c needs a library that may not be there
of_package() {
    if pkg-config --exists "$2" 2>/dev/null; then
        # shellcheck disable=SC2046
        ok "$1.c compiles" compile_c "$T/$1" "$examples/$1.c" -Wall -Wextra $(pkg-config --cflags --libs "$2")
        in_a_loop "$1" "$T/$1"
    else
        lacks "$2"
    fi
}

in_a_loop events "$events"
of_package uv libuv
of_package glib glib-2.0

# ---- run.c ----

FLOCKCTL_TOOL=$FLOCKCTL
export FLOCKCTL_TOOL
run "$run_example" run 10 sh -c 'env -u FLOCKCTL_HELD "$FLOCKCTL_TOOL" -q acquire -n run -- true; echo "$FLOCKCTL_NAME $?"
    "$FLOCKCTL_TOOL" acquire -n run -- echo below; exit 3'
is "$status" 3 "run: exits as its command does"
is "$out" "run 75
below
ended with 3" "run: the command has the lock; who draws from it passes, and nobody else does"
run "$run_example" run 10 sh -c 'setsid sleep 1000 & exit 0'
is "$out" "ended with 0
left 1 processes, which were ended" "run: what it leaves behind is ended"
run "$run_example" run 0.1 sleep 1000
like "$status:$out" "^1:took too long, and was ended after [1-9][0-9][0-9]+ ms$" "run: a limit"
run "$run_example" run 10 /no/such/command
like "$status:$err" "^1:run: .*/no/such/command" "run: a command that isn't there"
ok "run: released" flockctl acquire -n run -- true

# ---- join.sh, join.py ----

# join SCRIPT: run as a command, and as a holder
join() {
    script=$examples/$1 name=$1
    run "$script" "$name" sh -c 'exit 3'
    is "$status" 3 "$name: exits as its command does"
    run flockctl acquire "$name" -- "$script" "$name" true
    like "$status:$err" "^75:$name: .* is taken" "$name: refused while flockctl holds it"
    run "$script" "$name" "$FLOCKCTL" acquire -n "$name" -- true
    like "$status:$err" "^75:flockctl: $name is taken" "$name: flockctl is refused while it holds"
    ok "$name: released" flockctl acquire -n "$name" -- true
    hold_with "$script" "$name"
    background waiter flockctl acquire "$name" -- true
    wait_for 'queues "$name"'
    let_go
    reap waiter
    is "$status" 0 "$name: lets in who waits for it"

    flockctl define "$name-2" --slots 2
    run flockctl acquire "$name-2" -- "$script" "$name-2" true
    is "$status" 0 "$name: takes the second slot when the first is held"
    run "$script" "$name-2" flockctl_examples_no_such_command
    not_ok "$name: fails when its command does" [ "$status" = 0 ]
    run flockctl acquire "$name-2:all" -- "$script" "$name-2" true
    is "$status" 75 "$name: refused when both slots are held"
    run "$script" "$name"
    like "$err" "$name NAME COMMAND" "$name: without a command it says how it is used"
}

if command -v flock >/dev/null; then
    join join.sh
else
    skip "join.sh: flock(1) isn't installed"
fi

if python3 -c 'import fcntl, subprocess' 2>/dev/null; then
    join join.py
    run "$examples/join.py" join.py sh -c 'kill -9 $PPID'
    run flockctl acquire join.py -- true
    like "$err" "the last holder, pid [0-9]+, died" "join.py: when it is killed, the next holder is told"
    hold_with flockctl acquire join.py --
    background waiter flockctl acquire join.py -- true
    wait_for 'queues join.py'
    run "$examples/join.py" join.py true
    like "$status:$err" "^75:join.py: join.py has a queue" "join.py: doesn't overtake those who queue"
    let_go
    reap waiter
    is "$status" 0 "join.py: and they are served"
else
    skip "join.py: python3 isn't installed"
fi

done_testing
