#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# `flockctl run`, and what it shares with acquire: statuses, messages, signals and stops, the probe, the report, the options
# about files, groups and namespaces.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# ---- statuses ----

run flockctl run -- sh -c 'exit 7'
is "$status|$out|$err" "7||" "run: exits as the command does"
run flockctl run -c 'echo "$1 $0"; exit 8'
is "$status|$out" "8| sh" "-c: a line for the shell"
is "$(echo input | "$FLOCKCTL" run -- cat)" input "the command has our stdin"
run flockctl run -- sh -c 'ls /proc/$$/fd'
ours=$(sh -c 'ls /proc/$$/fd')
is "$out" "$ours" "and no descriptor more than without flockctl"
run flockctl run -- grep SigBlk /proc/self/status
is "$out" "$(grep SigBlk /proc/self/status)" "the signal mask is the caller's"
run env --block-signal=USR1,TSTP "$FLOCKCTL" run -- grep SigBlk /proc/self/status
is "$out" "$(env --block-signal=USR1,TSTP grep SigBlk /proc/self/status)" "whatever that is"
ok "no lock directory is made" [ ! -e "$FLOCKCTL_DIR" ]
for name in TERM INT HUP QUIT; do
    run flockctl run -- sh -c "kill -$name \$\$"
    [ "$name" != TERM ] || is "$status" 143 "the command died of TERM: so does flockctl"
    [ "$name" != INT ] || is "$status" 130 "of INT"
    [ "$name" != HUP ] || is "$status" 129 "of HUP"
    [ "$name" != QUIT ] || is "$status" 131 "of QUIT"
done

# ---- what can't be run ----

printf '#!%s/no/interpreter -x\necho ran\n' "$T" >"$T/no_interpreter"
printf '#!/bin/sh\r\necho ran\r\n' >"$T/dos"
printf '#! /bin/sh -e\necho "ran $1"\n' >"$T/fine"
chmod +x "$T/no_interpreter" "$T/dos" "$T/fine"
# A directory of PATH that is closed to us would make another error of it.
whole_path=$PATH
PATH=/usr/bin:/bin
bad 127 'command "no-such-command" wasn.t found in PATH; check the spelling' run -- no-such-command
bad 127 "command .$T/nowhere. wasn.t found; check the path" run -- "$T/nowhere"
bad 127 "command .$T/no_interpreter. can.t be run: the first line of $T/no_interpreter names the interpreter $T/no/interpreter, which isn.t there; " run -- "$T/no_interpreter"
bad 127 "first line of $T/dos ends with a carriage return.* remove it" run -- "$T/dos"
run env PATH="$T:$PATH" "$FLOCKCTL" run -- no_interpreter
like "$err" "^flockctl: the command .no_interpreter. can.t be run: the first line of $T/no_interpreter names the interpreter $T/no/inter" "the same through PATH"
run flockctl run -- "$T/fine" x
is "$status|$out" "0|ran x" "an interpreter that is there"
run flockctl run --output "$T/both" -- no-such-command
is "$status" 127 "with a copy of the output it's the same"
PATH=$whole_path
bad 126 "command .$T. can.t be run: it isn.t an executable file" run -- "$T"
bad 125 'run needs "--" before the command; for example: flockctl run -- true' run true
bad 125 'run needs "--".*flockctl run -- COMMAND$' run
bad 125 'no command behind "--"; for example: flockctl run -- COMMAND' run --
bad 125 "run doesn't take .x." run x -- true
bad 125 '-c and "-- COMMAND" can.t both' run -c true -- true
bad 125 "isn't an option of flockctl run" run --slots 2 -- true
bad 125 "isn't an option of flockctl run" run --probe true -- true
bad 125 'leave --timeout out' acquire --while $$ --timeout 3 x
bad 125 'leave --probe out' acquire --while $$ --probe true x

# ---- detach ----

run flockctl run --detach -- sh -c 'sleep 1000 & echo $!; exit 4'
is "$status|$err" "4|" "--detach: the command's status, at once"
ok "  and what it leaves behind lives" kill "$out"
run flockctl run --detach -- sh -c 'setsid sh -c "echo \$\$; exec sleep 1000" & sleep 0.2'
ok "  in a session of its own too" kill "$out"

# ---- waiting ----

state_is() {
    [ "$(state_of "$1")" = "$2" ]
}
switches() {
    sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "/proc/$quiet_pid/status"
}
mkfifo "$T/quiet.go"
background quiet "$FLOCKCTL" run --timeout 1h -- sh -c 'echo >"$T/quiet.held"; read -r line <"$T/quiet.go"'
has_it quiet
wait_for 'state_is "$quiet_pid" S'
before=$(switches)
sleep 0.5
is "$(switches)" "$before" "while the command runs flockctl sleeps, without a wake-up"
let_go quiet

# ---- stops ----

echo 'echo $$ >"$T/stopping"; read -r line <"$T/go"; exit 3' >"$T/stops"
mkfifo "$T/go"
stops() {
    rm -f "$T/stopping"
    background stops "$FLOCKCTL" run "$@" -- sh "$T/stops"
    wait_for '[ -s "$T/stopping" ]'
    read -r command <"$T/stopping"
}
stops
kill -STOP "$command"
wait_for 'state_is "$command" T'
kill -USR1 "$stops_pid"
kill -CONT "$command"
reap stops
is "$status" 138 "who stops the command with STOP and continues it need not know of flockctl, which goes on"
stops
# The test's own process group isn't an orphaned one, since its parent made it, so that these do stop.
for name in TSTP TTIN TTOU; do
    kill -$name "$stops_pid"
    wait_for 'state_is "$command" T && state_is "$stops_pid" T'
    pass "$name that a process sends to flockctl stops the command, then flockctl"
    kill -CONT "$command" "$stops_pid"
    wait_for '! state_is "$command" T && ! state_is "$stops_pid" T'
    pass "  and both go on"
done
echo >"$T/go"
reap stops
is "$status" 3 "the command's status arrives"
stops --timeout 60 --pgrp
kill -STOP "$command"
wait_for 'state_is "$command" T'
kill -CONT "$command"
is "$(sed 's/.*) //' "/proc/$command/stat" | cut -d' ' -f3)" "$command" "--pgrp: a process group of its own"
echo >"$T/go"
reap stops
is "$status" 3 "a command with a limit may be stopped, too"

# A waiter that stops gives its place up.
: >"$T/log"
hold h x
queue a x
queue b x
kill -TSTP "$a_pid"
wait_for 'state_is "$a_pid" T'
is "$(tickets x)" 1 "TSTP while it waits: its ticket is gone"
let_go h
has_it b
pass "  and who was behind it has the lock"
kill -CONT "$a_pid"
wait_for '[ "$(tickets x)" = 1 ]'
pass "  continued, it queues again"
let_go b
has_it a
let_go a
is "$status" 0 "  and is served"
log_is "h b a" "  after those who came meanwhile"
hold h x
background w "$FLOCKCTL" acquire -w 0.3 x -- true
wait_for '[ "$(tickets x)" = 1 ]'
kill -TSTP "$w_pid"
wait_for 'state_is "$w_pid" T'
sleep 0.4
kill -CONT "$w_pid"
reap w
is "$status" 75 "its time to wait goes on while it is stopped"
let_go h

# ---- probe ----

run flockctl acquire --probe 'echo "$FLOCKCTL_NAME" >"$T/probed"; cat >>"$T/probed"' x -- cat "$T/probed"
is "$status|$out|$err" "0|x|" "a probe comes before the command, with its environment, and an empty stdin"
run flockctl acquire -s --probe '"$FLOCKCTL" acquire -n x -- true 2>"$T/refused"; echo $? >"$T/probed"' x -- cat "$T/probed"
is "$out" 35 "under the lock: what is shared around it can't be had alone"
run flockctl acquire --probe 'echo one; printf "two\033\n\n"; exit 3' x -- echo ran
is "$status|$out|$err" '69||flockctl: the probe "echo one; printf "two\033\n\n"; exit 3" failed with exit status 3, so "echo" wasn'"'"'t started; it has printed, at last:
flockctl:   one
flockctl:   two\x1b' "one that fails: 69, and what it has printed is shown"
run flockctl acquire --probe 'seq 100000; exit 1' x -- echo ran
is "$(printf '%s\n' "$err" | tail -n +2 | sed 's/^flockctl:   //' | cksum)" "$(seq 100000 | tail -c 4096 | sed 1d | cksum)" "  the last 4 KB of it, in whole lines"
bad 69 'probe "false" failed with exit status 1, so "echo" wasn.t started; it has printed nothing$' acquire -E 9 --probe false x -- echo ran
bad 69 'died of signal 9, ' acquire --probe 'kill -9 $$' x -- echo ran
bad 69 "wasn't done in 100 ms, .*it has printed: begun$" acquire --probe 'echo begun; sleep 1000' --probe-timeout 0.1 x -- echo ran
bad 124 'probe "sleep 1000" had not ended when the time was over that is given by --deadline, so "echo" ' acquire --probe 'sleep 1000' --deadline 0.1 x -- echo ran
run flockctl acquire --probe 'sleep 1000 & echo $! >"$T/probed"' x -- sh -c 'read -r pid <"$T/probed"; kill -0 "$pid"'
is "$status" 1 "what a probe leaves behind is ended before the command starts"
rm -f "$T/probing" "$T/started"
background p "$FLOCKCTL" acquire --probe 'trap "exit 0" TERM; : >"$T/probing"; while :; do sleep 0.02; done' x -- touch "$T/started"
wait_for '[ -e "$T/probing" ]'
kill -TERM "$p_pid"
reap p
is "$status" 143 "TERM while the probe runs: flockctl dies of it, even if the probe succeeds"
ok "  and the command isn't started" [ ! -e "$T/started" ]

# ---- report ----

field() {
    sed -n "\$s/.*\"$1\":\([^,}]*\).*/\1/p" "$T/report"
}
rm -f "$T/report"
run flockctl acquire --report "$T/report" --slots 3 three:2 -- sh -c 'exit 5' 'a "b" \ c' "$(printf 'd\te\377')"
is "$(wc -l <"$T/report")" 1 "--report: a line"
is "$(field schema)|$(field exit)|$(field signal)|$(field status)|$(field timed_out)|$(field stragglers)|$(field left)" "1|5|null|5|false|0|0" "  what came of it"
like "$(cat "$T/report")" '"command":\["sh","-c","exit 5","a \\"b\\" \\\\ c","d\\u0009e\\ufffd"\]' "  the command, as JSON has it"
like "$(cat "$T/report")" '"slots":\{"three":\[0,1\]\}' "  the slots"
like "$(cat "$T/report")" '"started":"20[0-9-]*T[0-9:]*\.[0-9]{3}Z"' "  when"
like "$(field id)" '^"[a-z][a-z0-9]+"$' "  the hold"
run flockctl run --report "$T/report" --timeout 0.1 -- sleep 1000
is "$(wc -l <"$T/report")" 2 "appended"
is "$(field exit)|$(field signal)|$(field status)|$(field timed_out)|$(field id)" "null|15|124|true|null" "  one whose time was over, without a lock"
ok "  which ran for as long as it was allowed to" [ "$(field ran_ms)" -ge 100 ]
run flockctl -q run --report "$T/report" -- sh -c 'sleep 1000 & i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done'
is "$(field stragglers)" 1 "  one that left something behind"
ok "  and took some time of a processor, and memory" [ "$(field user_ms)" -gt 0 ] && [ "$(field max_rss_kib)" -gt 100 ]
python=$(command -v python3 || command -v python)
if [ -n "$python" ]; then
    ok "each line is JSON" "$python" -c 'import json, sys; [json.loads(line) for line in open(sys.argv[1])]' "$T/report"
else
    skip "no Python"
fi
bad 125 "can't open the report $T/no/report: No such file.*check the path" run --report "$T/no/report" -- echo ran
if [ -w /dev/full ]; then
    run flockctl run --report /dev/full -- sh -c 'exit 6'
    is "$status" 6 "a report that can't be written changes no status"
    like "$err" "^flockctl: can't write the report /dev/full: No space" "  and is told"
else
    skip "no /dev/full"
    skip "no /dev/full"
fi

# ---- copies, cgroup, namespaces: what the tool makes of them ----

run flockctl run --output "$T/both" -- sh -c 'echo out; echo err >&2; exit 2'
is "$status|$out|$err" "2|out|err" "--output: shown"
is "$(sort "$T/both" | tr '\n' ' ')" "err out " "  and copied"
run flockctl run --stdout "$T/one" --stderr "$T/two" -- sh -c 'echo out; echo err >&2'
is "$out|$err|$(cat "$T/one")|$(cat "$T/two")" "out|err|out|err" "--stdout, --stderr: one each"
run flockctl run --stdout "$T/one" --stderr "$T/one" -- sh -c 'echo out; echo err >&2'
is "$(sort "$T/one" | tr '\n' ' ')" "err out " "  the same file for both"
run flockctl run --output-limit 1K --stdout "$T/one" -- seq 1000
is "$(printf '%s\n' "$out" | wc -l)" 1000 "--output-limit: all is shown"
is "$(head -c 1024 "$T/one" | cksum)" "$(seq 1000 | head -c 1024 | cksum)" "  so much is copied"

run sh -c '"$FLOCKCTL" run --output "$T/both" -- sh -c "i=0; while [ \$i -lt 200 ]; do echo \$i; i=\$((i + 1)); echo \$i >&2; i=\$((i + 1)); done" 2>&1'
is "$out" "$(seq 0 199)" "both shown in one place: in the order in which they were printed"
is "$(cat "$T/both")" "$out" "  in the copy, too"

mkfifo "$T/fifo"
bad 125 "can't open $T/fifo for the copy of the output: nobody reads from it" run --output "$T/fifo" -- echo ran
bad 125 "can't open the report $T/fifo: nobody reads from it" run --report "$T/fifo" -- echo ran
exec 8<>"$T/fifo"
run flockctl run --output "$T/fifo" --report "$T/fifo" -- echo shown
read -r line <&8
is "$status|$out|$line" "0|shown|shown" "a FIFO with a reader is a file like any other"
exec 8<&-
bad 125 "redirect instead" run --detach --output "$T/a" -- true
bad 125 "--stderr ends with flockctl" run --detach --stderr "$T/a" -- true

# Somebody who doesn't read what is shown, and doesn't go away either.
mkfifo "$T/unread"
exec 8<>"$T/unread"
background unread sh -c 'exec "$FLOCKCTL" acquire unread --output "$T/unread.copy" -- sh -c ": >\"\$T/unread.held\"; head -c 100000 /dev/zero" >"$T/unread"'
has_it unread
ok "a reader that doesn't read keeps flockctl, but not the lock" flockctl -q acquire -w 20 unread -- true
kill -TERM "$unread_pid"
reap unread
is "$status" 143 "  and a signal ends it"
exec 8>&-
exec 8<>"$T/unread"
background unread sh -c 'exec "$FLOCKCTL" once -o "$T/unread.output" --report "$T/unread.report" -- sh -c "echo >\"\$FLOCKCTL_OUT\"; head -c 100000 /dev/zero >&2" 2>"$T/unread"'
wait_for '[ -s "$T/unread.report" ]'
kill -TERM "$unread_pid"
wait_for '! tap_runs "$unread_pid"'
kill -KILL "$unread_pid" 2>/dev/null
reap unread
is "$status" 143 "  once: the same"
exec 8>&-
run flockctl -q once -n -o "$T/unread.output" -- sh -c 'echo built >"$FLOCKCTL_OUT"'
is "$status|$(cat "$T/unread.output")" "0|built" "  and the next one builds"

bad 125 'give either that, or --stdout and --stderr' run --output "$T/a" --stdout "$T/b" -- true
bad 125 'there is none; give --output FILE' run --output-limit 3K -- true
bad 125 '"3X" is not a size' run --output-limit 3X --output "$T/a" -- true
bad 125 "$T/no/copy" run --output "$T/no/copy" -- true
run flockctl -q acquire -n --output "$T/untouched" x -- true
hold h x
echo kept >"$T/untouched"
run flockctl -q acquire -n --output "$T/untouched" x -- true
is "$status|$(cat "$T/untouched")" "75|kept" "a command that doesn't start truncates nothing"
let_go h

bad 125 'nonsense' run --isolate pid,nonsense -- true
bad 125 '\.\.' run --cgroup ../other -- true
run flockctl run --isolate pid -- sh -c 'echo $$; exit 3'
case $status in
3)
    is "$out" 2 "--isolate pid: a pid namespace with an init of ours"
    run flockctl run --isolate pid --timeout 0.1 -- sleep 1000
    is "$status" 124 "  whose command has a limit too"
    run flockctl run --isolate pid -- sh -c 'kill -TERM $$'
    is "$status" 143 "  and may die of a signal, as flockctl does then"
    bad 127 "nowhere. wasn.t found" run --isolate pid -- "$T/nowhere"
    run flockctl run --isolate pid -- sh -c 'exit 130'
    is "$status" 130 "  or exit so"
    ;;
*)
    for i in 1 2 3 4 5 6 7; do skip "no pid namespaces here"; done
    ;;
esac

nothing_left x three
done_testing
