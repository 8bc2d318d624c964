#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# --cleanup: after the command, whatever becomes of it, and before the lock goes on.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

log_it="echo cleanup >>\"\$T/log\""

# nothing_registered NAME
nothing_registered() {
    is "$(registered)" "" "$1: nothing stays registered"
}

# ---- whatever becomes of the command ----

# ends STATUS WHAT ARGUMENT...: flockctl exits so, and the cleanup has run once, after the command
ends() {
    ends_status=$1 ends_what=$2
    shift 2
    : >"$T/log"
    run flockctl acquire --cleanup "$log_it" "$@"
    is "$status" "$ends_status" "$ends_what: exit $ends_status"
    log_is "command cleanup" "$ends_what: the cleanup runs after it, once"
    nothing_registered "$ends_what"
}

command="echo command >>\"\$T/log\""
ends 0 "it succeeds" x -- sh -c "$command"
ends 3 "it fails" x -- sh -c "$command; exit 3"
ends 137 "it dies of a signal" x -- sh -c "$command; kill -KILL \$\$"
ends 124 "its time is over" --timeout 0.3 x -- sh -c "$command; exec sleep 1000"
ends 0 "it leaves somebody behind" x -- sh -c "$command; setsid sleep 1000 &"
ends 0 "several names" x y z -- sh -c "$command"
if flockctl run --isolate user,pid -- true 2>/dev/null; then
    # shellcheck disable=SC2016
    ends 0 "in namespaces of its own" --isolate user,pid x -- sh -c "$command"'; echo "$$" >"$T/inner"'
    ok "(it had them)" [ "$(cat "$T/inner")" -lt 20 ]
else
    skip "no namespaces here"
fi

: >"$T/log"
run flockctl run --cleanup "$log_it" -- sh -c "$command; exit 5"
is "$status" 5 "run: exit 5"
log_is "command cleanup" "run: after it, once"
nothing_registered run

# shellcheck disable=SC2016
run flockctl once -o "$T/output" --tmpdir --cleanup "$log_it" -- sh -c '[ -d "$TMPDIR" ] && echo "$TMPDIR" >"$FLOCKCTL_OUT"'
is "$status|$err" "0|" "once: it builds"
log_is "command cleanup cleanup" "once: after it, once"
not_ok "once: its directory is gone" [ -e "$(cat "$T/output")" ]
nothing_registered once

# A signal that flockctl gets: the command has it first.
for name in TERM INT HUP; do
    rm -f "$T/log" "$T/begun"
    # shellcheck disable=SC2016
    background job flockctl acquire --cleanup "$log_it" x -- sh -c 'echo command >>"$T/log"; : >"$T/begun"; exec sleep 1000'
    wait_for '[ -e "$T/begun" ]'
    kill -$name "$job_pid"
    reap job
    case $name in TERM) number=15 ;; INT) number=2 ;; HUP) number=1 ;; esac
    is "$status" $((128 + number)) "$name: flockctl dies of it"
    log_is "command cleanup" "$name: the cleanup has run"
    nothing_registered $name
done

# ---- when the command isn't started ----

# unstarted STATUS WHAT ARGUMENT...
unstarted() {
    unstarted_status=$1 unstarted_what=$2
    shift 2
    : >"$T/log"
    run flockctl "$@"
    is "$status" "$unstarted_status" "$unstarted_what: exit $unstarted_status"
    log_is "" "$unstarted_what: there is nothing to clean up"
    nothing_registered "$unstarted_what"
}

unstarted 127 "a command that isn't there" acquire --cleanup "$log_it" x -- no-such-command
unstarted 127 "without a lock" run --cleanup "$log_it" -- no-such-command
unstarted 69 "a probe fails" acquire --cleanup "$log_it" --probe false x -- true
hold h x
unstarted 75 "the lock is taken" acquire -n --cleanup "$log_it" x -- true
let_go h
bad 125 '--while holds without a command; leave --cleanup out' acquire --while $$ --cleanup true x
bad 125 '--cleanup is empty' run --cleanup '' -- true
ln -s "$T/nowhere" "$T/unsafe"
bad 125 'unsafe' --dir "$T/unsafe" run --cleanup "$log_it" -- sh -c "$command"
log_is "" "what can't be registered keeps the command from starting"

# A signal while it is being registered, which waits for the latch.
mkfifo "$T/probe.go"
rm -f "$T/probing" "$T/started"
# shellcheck disable=SC2016
background late "$FLOCKCTL" acquire --tmpdir --cleanup "$log_it" --probe ': >"$T/probing"; read -r line <"$T/probe.go"' x -- touch "$T/started"
wait_for '[ -e "$T/probing" ]'
: >"$T/log"
exec 9>>"$FLOCKCTL_DIR/rows/x/latch"
flock 9
timeout 10 sh -c 'echo >"$1"' sh "$T/probe.go"
wait_for 'ls -A "$FLOCKCTL_DIR/rows/x/state" 2>/dev/null | grep -q .'
kill -TERM "$late_pid"
exec 9>&-
reap late
is "$status" 143 "a signal while the cleanup is registered: flockctl dies of it"
not_ok "the command isn't started" [ -e "$T/started" ]
log_is "" "there is nothing to clean up"
nothing_registered "a signal while it is registered"

# ---- before the lock goes on ----

mkfifo "$T/finish"
# shellcheck disable=SC2016
hold h --cleanup 'echo cleanup >>"$T/log"; : >"$T/begun"; read -r line <"$T/finish"; echo cleaned >>"$T/log"' db
queue next db
rm -f "$T/begun"
: >"$T/log"
timeout 10 sh -c 'echo >"$1"' sh "$T/h.go"
wait_for '[ -e "$T/begun" ]'
run flockctl -q status db
is "$status" 1 "while the cleanup runs the lock is taken"
run flockctl acquire -n db -- true
is "$status" 75 "nobody gets it"
like "$(registered)" ' db .*cleaning.*finish' "what is being cleaned up is listed"
kill -TERM "$h_pid"
timeout 10 sh -c 'echo >"$1"' sh "$T/finish"
reap h
is "$status" 143 "a signal that comes meanwhile is died of afterwards"
has_it next
log_is "cleanup cleaned next" "the next one has it after the cleanup, which wasn't cut short"
let_go next

# meanwhile SIGNAL STATUS WHAT ARGUMENT...: a signal that flockctl gets while it cleans up
mkdir "$T/meanwhile"
meanwhile() {
    meanwhile_signal=$1 meanwhile_status=$2 meanwhile_what="$3, $1 while it cleans up"
    shift 3
    rm -f "$T/begun" "$T/report"
    : >"$T/log"
    background meanwhile "$FLOCKCTL" "$@"
    wait_for '[ -e "$T/begun" ]'
    kill -"$meanwhile_signal" "$meanwhile_pid"
    timeout 10 sh -c 'echo >"$1"' sh "$T/finish"
    reap meanwhile
    is "$status" "$meanwhile_status" "$meanwhile_what: exit $meanwhile_status"
    log_is "cleaned" "$meanwhile_what: that isn't cut short"
    nothing_registered "$meanwhile_what"
}
report_is() {
    is "$(sed 's/.*"status":\([0-9]*\),"exit":\([0-9]*\),.*/\1 \2/' "$T/report")" "$1" "  the report is written"
}
# shellcheck disable=SC2016
slowly=': >"$T/begun"; read -r line <"$T/finish"; echo cleaned >>"$T/log"'
meanwhile TERM 143 acquire acquire --report "$T/report" --cleanup "$slowly" x -- sh -c 'exit 3'
report_is "143 3"
meanwhile HUP 129 run run --report "$T/report" --output "$T/copy" --cleanup "$slowly" -- sh -c 'exit 3'
report_is "129 3"
meanwhile USR1 3 run run --report "$T/report" --cleanup "$slowly" -- sh -c 'exit 3'
report_is "3 3"
# shellcheck disable=SC2016
meanwhile TERM 143 "what the command has registered" run -- sh -c '"$FLOCKCTL" state add --cleanup "$0" >/dev/null' "$slowly"
# shellcheck disable=SC2016
meanwhile TERM 143 once once -o "$T/meanwhile/output" --cleanup "$slowly" -- sh -c 'echo built >"$FLOCKCTL_OUT"'
is "$(cat "$T/meanwhile/output")" built "  what was built is there all the same"
meanwhile USR2 4 "once --use" once --use "$T/meanwhile/output" --cleanup "$slowly" -- sh -c 'exit 4'

# shellcheck disable=SC2016
run flockctl acquire --cleanup 'flockctl() { "$FLOCKCTL" "$@"; }; flockctl acquire -n db -- echo "passed through" >&2' db -- true
is "$status" 0 "a cleanup that needs the very lock"
is "$err" "passed through" "passes through as nested"

# ---- what it gets ----

# shellcheck disable=SC2016
cd "$T" && mkdir here && cd here || exit
# shellcheck disable=SC2016
run flockctl acquire --timeout 100 --label 'my test' --cleanup 'env >"$T/cleanup.env"; pwd >"$T/cleanup.pwd"; read -r line || echo "no input" >"$T/cleanup.in"; echo printed' \
    x y -- sh -c 'env >"$T/command.env"; cd /'
is "$out|$err" "|printed" "what it prints goes to stderr"
is "$(cat "$T/cleanup.in")" "no input" "its stdin is /dev/null"
is "$(cat "$T/cleanup.pwd")" "$T/here" "it runs where flockctl was started"
variable() {
    sed -n "s/^$1=//p" "$T/cleanup.env"
}
like "$(variable FLOCKCTL_STATE_ID)" '^[a-z][a-z0-9]+$' "it has FLOCKCTL_STATE_ID"
is "$(variable FLOCKCTL_STATE_LABEL)|$(variable FLOCKCTL_STATE_ATTEMPT)" "my test|1" "the label, and the number of the attempt"
is "$(variable FLOCKCTL_ID)|$(variable FLOCKCTL_NAME)" "$(sed -n 's/^FLOCKCTL_ID=//p' "$T/command.env")|x y" "the id and the names of the command"
is "$(variable FLOCKCTL_DEADLINE)" "" "but not the command's deadline"
cd "$T" || exit

# ---- kill -9 ----

# shellcheck disable=SC2016
hold h --tmpdir --label killed --cleanup 'echo "cleanup $FLOCKCTL_STATE_ATTEMPT $FLOCKCTL_STATE_LABEL" >>"$T/log"; ls -d "$TMPDIR" >/dev/null || echo lost >>"$T/log"' db
directory=$(sed -n 's/^FLOCKCTL_TMPDIR=//p' "$T/h.env")
ok "a directory" [ -d "$directory" ]
queue next db
: >"$T/log"
kill -KILL "$h_pid"
reap h
has_it next
log_is "cleanup 1 killed next" "flockctl is killed: the next one cleans up before it has the lock"
not_ok "the directory is gone" [ -e "$directory" ]
nothing_registered "killed"
let_go next
like "$err" "cleaned up what pid $h_pid has left" "and says so"

# shellcheck disable=SC2016
background job flockctl run --tmpdir --cleanup 'echo "$FLOCKCTL_STATE_ATTEMPT" >>"$T/log"' -- sh -c 'echo "$TMPDIR" >"$T/run.dir.new"; mv "$T/run.dir.new" "$T/run.dir"; exec sleep 1000'
wait_for '[ -e "$T/run.dir" ]'
: >"$T/log"
kill -KILL "$job_pid"
reap job
flockctl -q reap
log_is 1 "without a lock: flockctl reap does it"
not_ok "with the directory" [ -e "$(cat "$T/run.dir")" ]

# Those who only look have an item's lock for a moment.
: >"$T/log"
rm -f "$T/enough"
background looker sh -c 'while [ ! -e "$T/enough" ]; do "$FLOCKCTL" state list >/dev/null; done'
count=$((50 * ${STRESS_SCALE:-1}))
for i in $(seq "$count"); do
    flockctl run --cleanup "echo $i >>\"\$T/log\"" -- true
done
is "$(wc -l <"$T/log")" "$count" "state list meanwhile: at the end of each of $count commands the cleanup has run"
: >"$T/enough"
reap looker

# In the middle of the cleanup: what the next one begins is the second attempt, when the first has ended.
rm -f "$T/begun"
# shellcheck disable=SC2016
hold h --cleanup 'echo "begins $FLOCKCTL_STATE_ATTEMPT" >>"$T/log"; [ "$FLOCKCTL_STATE_ATTEMPT" != 1 ] || { : >"$T/begun"; exec sleep 1000; }' db
: >"$T/log"
timeout 10 sh -c 'echo >"$1"' sh "$T/h.go"
wait_for '[ -e "$T/begun" ]'
kill -KILL "$h_pid"
reap h
run flockctl -q acquire -w 100 db -- sh -c 'echo next >>"$T/log"'
log_is "begins 1 begins 2 next" "killed while it cleaned up: it is done again, and told so"
nothing_registered "killed while it cleaned up"

# At random moments. Whoever comes next cleans up what is left, and at last flockctl reap.
mkdir "$T/tmp"
: >"$T/started"
: >"$T/cleaned"
count=$((25 * ${STRESS_SCALE:-1}))
awk -v n="$count" -v seed="$$" 'BEGIN { srand(seed); while (n-- > 0) printf "%.4f\n", rand() * rand() * 0.1 }' >"$T/delays"
while read -r delay; do
    # shellcheck disable=SC2016
    background job env TMPDIR="$T/tmp" "$FLOCKCTL" -q acquire --tmpdir --cleanup 'echo "$FLOCKCTL_ID $FLOCKCTL_STATE_ATTEMPT" >>"$T/cleaned"' x -- \
        sh -c 'echo "$FLOCKCTL_ID" >>"$T/started"; : >"$TMPDIR/file"; chmod 0 "$TMPDIR"'
    sleep "$delay"
    kill -KILL "$job_pid" 2>/dev/null
    reap job
done <"$T/delays"
wait_for 'flockctl -q reap; [ "$(registered)" = "" ]' # what a killed one was at is somebody's until its helper has ended it
lost=$(sort "$T/started" | while read -r id; do grep -q "^$id " "$T/cleaned" || echo "$id"; done)
is "$lost" "" "flockctl is killed at $count random moments: no cleanup is lost ($(wc -l <"$T/started") commands, $(wc -l <"$T/cleaned") cleanups)"
is "$(sort "$T/cleaned" | uniq -d)" "" "none is done twice, but that a killed one is begun again"
is "$(ls -A "$T/tmp")" "" "no directory is left"
nothing_registered "random moments"

# ---- when it fails ----

# shellcheck disable=SC2016
run flockctl acquire --cleanup 'exit 7' x -- sh -c 'exit 3'
is "$status" 3 "the cleanup fails: the exit status is the command's"
like "$err" '^flockctl: cleaning up .* failed with exit status 7 \(exit 7\); flockctl state drop' "that is told"
like "$(registered)" ' x .*exit 7' "it stays registered"
flockctl state drop "$(registered | sed 's/ .*//')"
nothing_registered "dropped by hand"

# ---- with --detach ----

# shellcheck disable=SC2016
run flockctl acquire --detach --cleanup 'kill -0 "$(cat "$T/left")" && echo "still there" >&2' x -- sh -c 'sleep 1000 & echo $! >"$T/left"'
is "$status|$err" "0|still there" "--detach: it runs when the command itself has ended"
kill "$(cat "$T/left")"

# ---- when what it would end keeps the slot ----

cat >"$T/keep" <<'END'
#!/bin/sh
setsid sleep 1000 &
echo $! >"$T/keeper.heir"
: >"$T/keeper.held"
wait
END
chmod +x "$T/keep"
# shellcheck disable=SC2016
background keeper "$FLOCKCTL" acquire --cleanup 'kill "$(cat "$T/keeper.heir")"; echo ended >>"$T/ended"' x -- "$T/keep"
has_it keeper
kill -KILL "$keeper_pid"
reap keeper
echo >"$FLOCKCTL_DIR/reaped" # nobody sees to all that there is for a minute
run flockctl acquire -w 30 x -- true
is "$status" 0 "a process that its cleanup ends has kept the lock: the first in line runs it while it waits"
is "$(cat "$T/ended")" "ended" "once"
nothing_registered "a slot that was kept"

done_testing
