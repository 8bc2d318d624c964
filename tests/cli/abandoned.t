#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A holder that died without releasing: what the next one is told, and --on-abandoned.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# abandon NAME...: its holder and all below it are killed
abandon() {
    rm -f "$T/dead.held"
    background dead "$FLOCKCTL" acquire "$@" -- sh -c ': >"$T/dead.held"; exec sleep 1000'
    has_it dead
    kill -KILL "$dead_pid"
    reap dead
}

told() {
    flockctl -q acquire "$1" -- sh -c 'echo "${FLOCKCTL_ABANDONED-no}"'
}

# ---- when it runs ----

run flockctl acquire --on-abandoned 'touch "$T/ran"' x -- echo in
is "$status|$out|$err" "0|in|" "nobody died: --on-abandoned doesn't run"
not_ok "not at all" [ -e "$T/ran" ]
abandon x
run flockctl acquire --on-abandoned 'cat >"$T/ran"; env | grep ^FLOCKCTL_ >>"$T/ran"' \
    --probe 'cp "$T/ran" "$T/probed"; touch "$T/probed"' x -- sh -c 'cat "$T/probed"; echo in'
is "$status" 0 "one did: it runs"
like "$out" '^FLOCKCTL_ABANDONED=1$' "before the probe and the command, with its environment"
like "$out" '^FLOCKCTL_NAME=x$' "all of it"
is "$(printf '%s\n' "$out" | sed -n '$p')" in "and an empty stdin; then comes the command"
like "$err" "^flockctl: the last holder, pid $dead_pid, died without releasing; first comes: cat" "the user is told"
is "$(told x)" no "that was it"

abandon x
hold_flag() {
    flockctl acquire -n x -- true 2>"$T/refused"
}
mkfifo "$T/checking.go"
background checking "$FLOCKCTL" -q acquire --on-abandoned 'echo >"$T/checking.in"; read -r line <"$T/checking.go"' x -- true
wait_for '[ -e "$T/checking.in" ]'
not_ok "it runs under the lock" hold_flag
timeout 10 sh -c 'echo >"$T/checking.go"'
reap checking
is "$status" 0 "of which it is the holder's"

# ---- when it fails ----

abandon x
run flockctl acquire --on-abandoned 'echo first; echo it is broken >&2; exit 3' --probe 'touch "$T/no"' x -- touch "$T/no"
is "$status" 69 "it fails: 69"
like "$err" "^flockctl: the --on-abandoned command \"echo first; .*\" failed with exit status 3, so \"touch\" wasn't started; it has printed, at last:" "as it says"
like "$err" "^flockctl:   it is broken" "with what it has said last"
not_ok "neither probe nor command has run" [ -e "$T/no" ]
run flockctl -q acquire -E 9 --on-abandoned false x -- touch "$T/no"
is "$status" 69 "the slot was given back with its mark: it runs again for the next one; -E doesn't change the status"
like "$err" "the --on-abandoned command \"false\" failed with exit status 1" "-q doesn't hide it"
run flockctl -q acquire --on-abandoned 'kill -KILL $$' x -- touch "$T/no"
is "$status" 69 "killed is failed, too"
run flockctl -q acquire --deadline 300ms --on-abandoned 'exec sleep 100' x -- touch "$T/no"
is "$status" 124 "one that the deadline ends: 124, as a command"
like "$err" "had not ended when the time was over that is given by --deadline" "as it says"
not_ok "the command has never run" [ -e "$T/no" ]
is "$(told x)" 1 "one without --on-abandoned is told"
is "$(told x)" no "once"

# It succeeds, and then the probe fails: the command never started, so it is told again.
abandon x
run flockctl -q acquire --on-abandoned true --probe false x -- true
is "$status" 69 "the probe fails afterwards: 69"
run flockctl -q acquire --on-abandoned 'echo again >"$T/again"' x -- cat "$T/again"
is "$out" again "then it runs again"

# flockctl is killed in the middle of it.
abandon x
rm -f "$T/middle.in"
background middle "$FLOCKCTL" -q acquire --on-abandoned 'touch "$T/middle.in"; exec sleep 1000' x -- true
wait_for '[ -e "$T/middle.in" ]'
kill -KILL "$middle_pid"
reap middle
is "$(told x)" 1 "flockctl is killed while it runs: told again"

# A signal while it runs: the command isn't started.
abandon x
rm -f "$T/middle.in"
background middle "$FLOCKCTL" -q acquire --on-abandoned 'touch "$T/middle.in"; exec sleep 1000' x -- touch "$T/no"
wait_for '[ -e "$T/middle.in" ]'
kill -TERM "$middle_pid"
reap middle
is "$status" 143 "a signal while it runs: flockctl dies of it"
not_ok "the command isn't started" [ -e "$T/no" ]
is "$(told x)" 1 "and the next one is told"

# ---- several slots and names ----

ok "define row 3" flockctl define row --slots 3
abandon row:2
run flockctl -q acquire --on-abandoned 'exit 1' y row:all -- true
is "$status" 69 "one of several names was abandoned"
run flockctl -q acquire --on-abandoned 'echo "$FLOCKCTL_SLOTS_2" >"$T/slots"' y row:all -- cat "$T/slots"
is "$status|$out" "0|0 1 2" "the mark is kept, and then dealt with"
is "$(told row) $(told y)" "no no" "once"
abandon -s z
run flockctl acquire --on-abandoned false z -- echo in
is "$status|$out|$err" "0|in|" "the death of a shared holder is none"

# ---- with --while ----

bad 125 "--while holds without a command; leave --?on-abandoned out" acquire --on-abandoned true --while $$ x
nothing_left x y z row
done_testing
