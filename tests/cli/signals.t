#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Signals: to the command what is for the command, and never a lock or a place in the queue that nobody has.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# The number of the signal that PROGRAM died of; 0: it exited; 128 more: a core was dumped.
death_of() {
    perl -e 'open(STDERR, ">", "/dev/null"); print system(@ARGV) & 255' "$@"
}
have_perl() {
    perl -e 1 2>/dev/null
}

# ---- while the command runs ----

# Writes each signal that it gets to $T/log, and ends at the one that its first argument names, with status 40.
cat >"$T/listen" <<'END'
#!/bin/sh
for name in TERM INT HUP QUIT USR1 USR2; do
    trap "echo $name >>'$T/log'; [ $name != $1 ] || { kill \$sleep; exit 40; }" $name
done
sleep 1000 &
sleep=$!
: >"$T/listening"
while :; do wait "$sleep"; done
END
chmod +x "$T/listen"

for name in TERM INT HUP QUIT USR1 USR2; do
    rm -f "$T/log" "$T/listening"
    background run flockctl acquire x -- "$T/listen" $name
    wait_for '[ -e "$T/listening" ]'
    kill -$name "$run_pid"
    reap run
    is "$status" 40 "$name is forwarded, and flockctl exits as the command does"
    log_is $name "once"
done

for name in TERM HUP INT QUIT USR1 USR2 KILL; do
    number=$(kill -l $name 2>/dev/null || echo 0)
    case $name in
    USR1) number=10 ;; USR2) number=12 ;; KILL) number=9 ;; TERM) number=15 ;; HUP) number=1 ;; INT) number=2 ;; QUIT) number=3 ;;
    esac
    run flockctl acquire x -- sh -c "kill -$name \$\$"
    is "$status" $((128 + number)) "the command died of $name: $((128 + number))"
    have_perl || continue
    case $name in
    TERM | HUP | INT | QUIT)
        is "$(death_of "$FLOCKCTL" acquire x -- sh -c "ulimit -c 0; kill -$name \$\$")" "$number" "  flockctl dies of it too, without a core"
        ;;
    *) is "$(death_of "$FLOCKCTL" acquire x -- sh -c "kill -$name \$\$")" 0 "  flockctl itself exits" ;;
    esac
done

# A terminal's signals reach the whole process group: to forward them would be to send them twice. USR1, which a process
# sends afterwards, is forwarded after whatever flockctl had got before.
if script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    cat >"$T/in_terminal" <<'END'
#!/bin/sh
trap : INT
"$FLOCKCTL" acquire x -- env --default-signal=INT "$T/listen" USR1
echo $? >"$T/status"
END
    chmod +x "$T/in_terminal"
    rm -f "$T/log" "$T/listening"
    mkfifo "$T/keys"
    background terminal sh -c 'exec script -qec "$T/in_terminal" /dev/null <"$T/keys"'
    exec 5>"$T/keys"
    wait_for '[ -e "$T/listening" ]'
    printf '\003' >&5
    wait_for 'grep -qs INT "$T/log"'
    for pid in $(pgrep -f "^$FLOCKCTL acquire x -- env"); do kill -USR1 "$pid"; done
    wait_for '[ -e "$T/status" ]'
    exec 5>&-
    log_is "INT USR1" "Ctrl-C reaches the command once, from the terminal"
    is "$(cat "$T/status")" 40 "and flockctl lives as long as the command does"
    reap terminal
else
    skip "no script(1) here, to have a terminal"
    skip "no script(1) here, to have a terminal"
fi

# ---- while it ends stragglers ----

# The first straggler line says that the command has ended and the others were sent SIGTERM.
end_stragglers() {
    background loop "$FLOCKCTL" run -k 1h -- sh -c 'sh -c "trap : TERM; : >\"\$T/deaf\"; while :; do sleep 0.05; done" &
        while [ ! -e "$T/deaf" ]; do sleep 0.01; done; exit 3'
    wait_for '[ -s "$T/loop.err" ]'
    kill -$1 "$loop_pid"
}
end_stragglers INT
reap loop
is "$status" 130 "INT while it ends stragglers: they are killed, and it dies of that, not of the command's status"
like "$err" 'at once: SIGKILL is sent to all' "  which is said"
rm "$T/deaf"
end_stragglers TERM
wait_for 'kill -TERM "$loop_pid" 2>/dev/null; ! tap_runs "$loop_pid"'
reap loop
is "$status" 143 "TERM: the same"

# ---- while it waits ----

signal_waiter() {
    queue w x
    kill -$1 "$w_pid"
    reap w
    is "$status" $((128 + $2)) "$1 while it waits: it dies of that"
    is "$(tickets x)" 0 "  and has left the queue"
    ok "  the command hasn't run" [ ! -e "$T/w.held" ]
}
hold h x
signal_waiter TERM 15
signal_waiter INT 2
signal_waiter HUP 1
signal_waiter QUIT 3
signal_waiter USR1 10
signal_waiter USR2 12

# ---- signals that the caller ignores ----

rm -f "$T/w.held" "$T/w.go"
mkfifo "$T/w.go"
background w env --ignore-signal=HUP "$FLOCKCTL" acquire x -- sh -c ': >"$T/w.held"; read -r line <"$T/w.go"'
wait_for '[ "$(tickets x)" = 1 ]'
background n nohup "$FLOCKCTL" acquire x -- sh -c 'echo ran'
wait_for '[ "$(tickets x)" = 2 ]'
kill -HUP "$w_pid" "$n_pid"
let_go h
has_it w
pass "nohup: a hang-up doesn't end the wait"
kill -HUP "$w_pid"
let_go w
is "$status" 0 "nor the command"
reap n
is "$status|$out" "0|ran" "nohup's own doing is the same"

rm -f "$T/log" "$T/listening"
background run env --ignore-signal=HUP "$FLOCKCTL" acquire x -- env --default-signal=HUP "$T/listen" HUP
wait_for '[ -e "$T/listening" ]'
kill -HUP "$run_pid"
reap run
is "$status" 40 "a command that has a handler for what we ignore gets it"

run env --ignore-signal=CHLD "$FLOCKCTL" acquire x -- sh -c 'exit 7'
is "$status" 7 "SIGCHLD ignored by the caller: the command's status arrives all the same"
run env --ignore-signal=CHLD "$FLOCKCTL" acquire x -- sh -c 'sleep 0 & wait $!; echo $?'
is "$status|$out" "0|0" "and the command can wait for its own children"
run env --block-signal=CHLD "$FLOCKCTL" acquire x -- sh -c 'exit 7'
is "$status" 7 "SIGCHLD blocked by the caller: the same"
run flockctl acquire x -- grep SigBlk /proc/self/status
is "$out" "$(grep SigBlk /proc/self/status)" "the command's signal mask is the caller's, nothing blocked"
run env --block-signal=USR1 "$FLOCKCTL" acquire x -- grep SigBlk /proc/self/status
is "$out" "$(env --block-signal=USR1 grep SigBlk /proc/self/status)" "something blocked"
# (The C library ignores its own two, 32 and 33, in what it spawns.)
run flockctl acquire x -- grep -o 'SigIgn:.*' /proc/self/status
like "$out" '[08]0000000$' "nothing is ignored"
run env --ignore-signal=USR1,CHLD "$FLOCKCTL" acquire x -- grep SigIgn /proc/self/status
like "$out" '[08]00[01]0200$' "what the caller ignores stays so"

# ---- between acquiring and exec ----

# With -v flockctl writes a line once it has the lock; into a full pipe it blocks there until somebody reads.
full_pipe full
rm -f "$T/started"
background late sh -c 'exec "$FLOCKCTL" -v acquire x -- touch "$T/started" 2>"$T/full"'
wait_for 'grep -q "FLOCK.* $late_pid " /proc/locks'
wait_for '! flockctl -q acquire -n x -- true'
kill -TERM "$late_pid"
cat <&7 >/dev/null &
reader=$!
reap late
is "$status" 143 "signalled after it got the lock and before the command: it dies of that"
ok "the command didn't start" [ ! -e "$T/started" ]
kill "$reader"
exec 7>&-
nothing_left x

# ---- at any moment ----

# Either the command never started or it has ended when flockctl has: the command inherits the lock, so that a free lock
# proves it. The moments are spread over the time that one run takes, signalled or not.
: >"$T/log"
wrong=0 cut=0 whole=0
for i in $(seq 200); do
    "$FLOCKCTL" acquire x -- "$T/command" 2>/dev/null &
    pid=$!
    spin=$((i * 20))
    while [ $spin -gt 0 ]; do spin=$((spin - 1)); done
    kill -TERM $pid 2>/dev/null
    wait $pid 2>/dev/null
    case $? in
    143) cut=$((cut + 1)) ;;
    0 | 127) whole=$((whole + 1)) ;;
    *) wrong=$((wrong + 1)) ;;
    esac
    flockctl acquire -n x -c 'echo "free ${FLOCKCTL_ABANDONED-}"' >>"$T/log" 2>&1
done
is "$wrong" 0 "TERM at 200 moments: it died of that ($cut) or had ended ($whole)"
is "$(sort "$T/log" | uniq -c | sed 's/^ *//; s/ *$//')" "200 free" "the lock was free each time, and nobody was told of a death"
nothing_left x

done_testing
