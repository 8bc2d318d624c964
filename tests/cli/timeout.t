#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Limits of time: never early, handed down to commands, and what happens when they are over.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

now_ms() {
    date +%s%3N
}

# ---- never early ----

early=0 wrong=0
for ms in 1 5 10 17 40 80 120 163; do
    for option in --timeout --deadline; do
        before=$(now_ms)
        "$FLOCKCTL" -q run $option ${ms}ms -- sleep 1000
        [ $? = 124 ] || wrong=$((wrong + 1))
        # The clock of date has been read before the limit began.
        [ $(($(now_ms) - before)) -ge $ms ] || early=$((early + 1))
    done
done
is "$wrong" 0 "a command whose time is over: 124"
is "$early" 0 "never before its time"
run flockctl run --timeout 0 -- sleep 0.05
is "$status|$err" "0|" "--timeout 0: no limit"
run flockctl run --timeout forever --deadline forever -- sh -c 'echo "[${FLOCKCTL_DEADLINE-}]"'
is "$status|$out" "0|[]" "forever: none either"
run flockctl run --timeout .05s -- sleep 1000
is "$status" 124 ".05s is a time, too"
run flockctl run --timeout 20 -- sh -c 'exit 3'
is "$status|$err" "3|" "in time: the command's status"
run flockctl run --timeout 0.1 -- sh -c 'trap "echo cleaned; exit 3" TERM; while :; do sleep 0.02; done'
is "$status|$out" "124|cleaned" "over its time: 124, whatever the command makes of the signal"
like "$err" '^flockctl: sh has run for 100 ms, the limit by --timeout: SIGTERM is sent to all its processes, SIGKILL after 10 s$' \
    "  and a message that says what happens"
run flockctl -q run --timeout 0.05 -- sleep 1000
is "$status|$err" "124|" "-q: without a message"

# Who reads neither what the command prints nor what we say can't keep it alive.
full_pipe full
background blocked sh -c 'exec "$FLOCKCTL" run --timeout 0.1 -k 0.1 -- sh -c "trap \"\" TERM; cat /dev/zero" >"$T/full" 2>&1'
reap blocked
is "$status" 124 "stdout and stderr are a full pipe: its time is over all the same"
exec 7>&-

# ---- signal and grace ----

run flockctl run --timeout 0.1 --signal INT -- sh -c 'trap "echo INT; exit" INT; trap "echo TERM; exit" TERM; while :; do sleep 0.02; done'
is "$status|$out" "124|INT" "--signal INT: that instead of TERM"
run flockctl run --timeout 0.1 --signal SIGUSR1 -- sh -c 'trap "echo USR1; exit" USR1; while :; do sleep 0.02; done'
is "$status|$out" "124|USR1" "--signal SIGUSR1"
run flockctl run --timeout 0.1 --signal 9 -- sh -c 'trap "" TERM; sleep 1000'
is "$status" 124 "--signal 9"
like "$err" ': SIGKILL is sent to all its processes$' "  is said once"
run flockctl run --timeout 0.1 --signal RTMIN+1 -- sleep 1000
is "$status" 124 "--signal RTMIN+1"
before=$(now_ms)
run flockctl run --timeout 0.1 -k 0.2 -- sh -c 'trap "" TERM; while :; do sleep 0.1; done'
is "$status" 124 "who ignores TERM is killed after the grace"
ok "  not before" [ $(($(now_ms) - before)) -ge 300 ]
like "$err" 'left after 200 ms: SIGKILL is sent to all' "  which is said"
run flockctl run --timeout 0.1 -k 0 -- sh -c 'trap "" TERM; while :; do sleep 0.1; done'
is "$status" 124 "-k 0: killed at once"
unlike "$err" 'left after' "  without a grace"
like "$err" 'SIGTERM is sent to all its processes, SIGKILL right after it$' "  which is said"
run flockctl run --timeout 0.1 -- sh -c 'kill -STOP $$'
is "$status" 124 "a command that is stopped can be ended, too"
run flockctl run --timeout 0.1 -k 5 -- sh -c 'sh -c "kill -STOP \$\$" & wait'
is "$status" 124 "and what it has started"
run flockctl run --detach --timeout 0.2 -- sh -c 'setsid sleep 1000 & echo $!; sleep 1000'
is "$status" 124 "--detach: a command whose time is over"
not_ok "  takes its tree along" kill -0 "$out" 2>/dev/null

# ---- signals to flockctl ----

# Counts the TERMs that it gets.
cat >"$T/counts" <<'END'
#!/bin/sh
trap 'echo TERM >>"$T/log"' TERM
: >"$T/counting"
while [ ! -e "$T/enough" ]; do sleep 0.02; done
exit 4
END
chmod +x "$T/counts"
: >"$T/log"
rm -f "$T/counting" "$T/enough"
background run flockctl run -- "$T/counts"
wait_for '[ -e "$T/counting" ]'
kill -TERM "$run_pid"
wait_for '[ -s "$T/log" ]'
kill -TERM "$run_pid"
: >"$T/enough"
reap run
is "$status|$(wc -l <"$T/log")" "4|1" "a second TERM at once doesn't count: timeout(1) sends two"
: >"$T/log"
rm -f "$T/counting" "$T/enough"
background run flockctl run -- "$T/counts"
wait_for '[ -e "$T/counting" ]'
kill -TERM "$run_pid"
# Until one counts: a moment only on a machine that is slow.
wait_for 'grep -q "at once: SIGKILL" "$T/run.err" || { kill -TERM "$run_pid" 2>/dev/null; false; }'
reap run
is "$status|$(wc -l <"$T/log")" "137|1" "one from a second later on ends the tree by SIGKILL"
like "$err" 'at once: SIGKILL is sent to all processes of .*counts' "  which is said"

# ---- for waiting and command ----

hold h x
before=$(now_ms)
run flockctl acquire --deadline 0.2 x -- true
is "$status" 75 "--deadline while it waits: not acquired"
ok "  not before" [ $(($(now_ms) - before)) -ge 200 ]
like "$err" 'the time is over that is given by --deadline' "  and says why"
run flockctl acquire -w 0.05 --deadline 20 x -- true
is "$status" 75 "-w is over before --deadline"
unlike "$err" 'time is over' "  which isn't blamed"
run flockctl acquire -E 9 --deadline 0.05 x -- true
is "$status" 9 "-E is for a deadline, too"
start w --deadline 1 --report "$T/report" x
wait_for '[ "$(tickets x)" = 1 ]'
sleep 0.2 # it takes a part of the time, that's all
let_go h
has_it w
reap w
is "$status" 124 "--deadline: the command has what is left of it"
both=$(sed 's/.*"waited_ms":\([0-9]*\).*/\1/; q' "$T/report") both=$((both + $(sed 's/.*"ran_ms":\([0-9]*\).*/\1/; q' "$T/report")))
ok "  together with the wait ($both ms)" [ "$both" -ge 950 ]
like "$err" 'the limit by --deadline' "  and says so"
hold h x
start w --timeout 0.3 x
wait_for '[ "$(tickets x)" = 1 ]'
sleep 0.4
let_go h
has_it w
pass "--timeout: waiting doesn't count"
reap w
is "$status" 124 "  the command does"

# ---- handed down ----

# The inner one ends a tenth earlier, which has to be more than what a busy machine keeps it from running.
run flockctl run --timeout 2 -- "$FLOCKCTL" run -- sleep 1000
is "$status" 124 "a nested run ends with the time of the one around it"
is "$(printf '%s\n' "$err" | grep -c .)" 1 "  with one message"
like "$err" 'FLOCKCTL_DEADLINE, which the flockctl around us has set: SIGTERM' "  the inner one's"
run flockctl run --timeout 2 -- "$FLOCKCTL" run --timeout 100 -- "$FLOCKCTL" run -- sh -c 'echo $FLOCKCTL_DEADLINE; sleep 1000'
is "$status|$(printf '%s\n' "$err" | grep -c .)" "124|1" "three levels: the innermost ends first"
inner=${out%%@*}
out=$(flockctl run --timeout 100 -- sh -c 'echo $FLOCKCTL_DEADLINE; "$FLOCKCTL" run -- sh -c "echo \$FLOCKCTL_DEADLINE"; "$FLOCKCTL" run --timeout 9 -- sh -c "echo \$FLOCKCTL_DEADLINE"' |
    sed 's/@.*//')
set -- $out
ok "the inner deadline is before the outer" [ "$2" -lt "$1" ]
is $((($1 - $2) / 1000000)) 200 "  by 200 ms"
ok "  and a nearer one of its own nearer" [ "$3" -lt "$2" ]
hold h x
run flockctl run --timeout 2 -- "$FLOCKCTL" acquire x -- true
is "$status" 75 "a nested wait ends with the time of the one around it"
like "$err" 'time is over that is given by FLOCKCTL_DEADLINE' "  and says why"
for verb in "resize x 2" "remove x" "acquire --while $$ x"; do
    run flockctl run --timeout 2 -- sh -c '"$FLOCKCTL" '"$verb"'; echo $?'
    is "$status|$out" "0|75" "the same for $verb"
    like "$err" 'time is over that is given by FLOCKCTL_DEADLINE' "  and says why"
done
let_go h

run env FLOCKCTL_DEADLINE=1@nonsense "$FLOCKCTL" run -- true
is "$status" 125 "FLOCKCTL_DEADLINE malformed: 125"
like "$err" '^flockctl: FLOCKCTL_DEADLINE is malformed: 1@nonsense; .*unset it$' "  and says so"
here=$(flockctl run --timeout 100 -- sh -c 'echo $FLOCKCTL_DEADLINE')
past=1@${here#*@}
other=1@00000000-0000-0000-0000-000000000000/${here##*/}
run env FLOCKCTL_DEADLINE="$past" "$FLOCKCTL" run -- echo ran
is "$status|$out" "124|" "one that has passed: the command isn't started"
like "$err" "^flockctl: echo wasn't started: the time is over that is given by FLOCKCTL_DEADLINE" "  and says so"
run env FLOCKCTL_DEADLINE="$past" "$FLOCKCTL" acquire x -- echo ran
is "$status|$out" "124|" "the same with a lock that is free"
run env FLOCKCTL_DEADLINE="$other" "$FLOCKCTL" run -- echo ran
is "$status|$out|$err" "0|ran|" "one of another boot is passed over"
run env FLOCKCTL_DEADLINE="$other" "$FLOCKCTL" -v run -- echo ran
like "$err" 'another boot or time namespace' "  which -v says"
run env FLOCKCTL_DEADLINE= "$FLOCKCTL" run -- echo ran
is "$status|$out" "0|ran" "an empty one is none"

# ---- wrong ----

bad 125 '"-1" is not a time for --timeout' run --timeout -1 -- true
bad 125 '"1e3" is not a time for --deadline' run --deadline 1e3 -- true
bad 125 '"." is not a time for --timeout' run --timeout . -- true
bad 125 '"soon" is not a time for --kill-after' run -k soon -- true
bad 125 '"FOO" is not a signal; ' run --signal FOO -- true
bad 125 '"99" is not a signal; ' run --signal 99 -- true

nothing_left x
done_testing
