#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# events NAME: what the history has of it, without times and processes
events() {
    flockctl log "$1" | sed 's/^[-0-9]* [:.0-9]*  \([a-z]*\)  .*/\1/' | tr '\n' ' ' | sed 's/ $//'
}

run flockctl log
is "$status|$out" "0|" "without a history nothing is printed"
like "$err" 'no history in .*/root/log; .*flockctl log --on' "but what to do"
run flockctl -q log
is "$status|$out$err" "0|" "not with -q"
flockctl acquire before -- true
not_ok "off is off" [ -e "$FLOCKCTL_DIR/log" ]

# ---- on, and what it has ----

run flockctl log --on
is "$status|$out$err" "0|" "log --on"
flockctl acquire -l 'a label' free -- true
is "$(events free)" "acquire release" "a command acquires and releases"
like "$(flockctl log free)" '^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}\.[0-9]{3}  acquire  free slot 0 waited 0\.[0-9]{3} s by pid [0-9]+ \(.*acquire -l a label free -- true\) "a label"$' \
    "a line says when, what, which slot, how long, who, and its label"
like "$(flockctl log free)" '  release  free slot 0 held 0\.[0-9]{3} s by pid' "and how long it was held"
is "$(events before)" "" "nothing is known of what was before"

hold first turns
queue second turns
let_go first
let_go second
is "$(events turns)" "acquire wait release acquire release" "a hand-off in the order in which it happened"

hold first late
run flockctl acquire -w 10ms late -- true
run flockctl acquire -n late -- true
kill -9 "$first_pid"
wait_for '[ ! -e "/proc/$(cat "$T/first.command")" ]'
reap first
flockctl -q acquire late -- true
is "$(events late)" "acquire wait timeout abandonment acquire release" "a timeout, and the end of a holder that was killed"
like "$(flockctl log late)" "abandonment  late slot 0 by pid [0-9]+ .* of pid $first_pid \(" "who had it is said"

flockctl define pool --slots 3
flockctl acquire pool:2 -- "$FLOCKCTL" acquire pool -- true
like "$(flockctl log pool)" 'acquire  pool slot 0,1 waited' "several slots"
like "$(flockctl log pool)" 'acquire  pool \(nested\) slot 0 waited' "a request that draws from a hold around it"

mkfifo "$T/d1" "$T/d2"
background one "$FLOCKCTL" acquire dead1 -- sh -c 'echo >"$T/d1"; "$FLOCKCTL" acquire dead2 -- true'
background two "$FLOCKCTL" acquire dead2 -- sh -c 'read -r line <"$T/d1"; "$FLOCKCTL" acquire dead1 -- true'
reap one
reap two
like "$(flockctl log | grep -c '  deadlock  dead[12] .*: a deadlock: pid ')" '^1$' "a deadlock, with all that is in it"

mkdir "$T/out"
cd "$T/out" || exit
output="$(printf 'a "b" \303\244')"
flockctl once -o "$output" -- sh -c 'echo >"$FLOCKCTL_OUT"'
is "$(events "./$output")" "acquire release" "an output, by its path"
is "$(events "../out/$output")" "acquire release" "however that is spelled"
bad 125 'the name "a b" has " " at position 2' log "a b"
cd "$T" || exit

hold victim evicted
run flockctl evict -y evicted
reap victim
like "$(flockctl log evicted)" "eviction  evicted by pid [0-9]+ \(.*evict -y evicted\): pid $victim_pid \(.*\) signal 15$" \
    "an eviction: who, whom, with which signal"

# ---- as JSON ----

if command -v python3 >/dev/null; then
    run python3 -c '
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
assert all(type(l["time"]) is int and l["event"] and l["name"] and l["pid"] and "command" in l for l in lines)
assert sorted(set(l["event"] for l in lines)) == ["abandonment", "acquire", "deadlock", "eviction", "release", "timeout", "wait"]
assert all(l["slots"] and l["waited"] >= 0 for l in lines if l["event"] == "acquire")
assert all(l["slots"] and l["held"] >= 0 for l in lines if l["event"] == "release")
assert all(l["wants"] and l["waited"] > 0 for l in lines if l["event"] == "timeout")
assert all(l["other"]["pid"] and l["other"]["command"] for l in lines if l["event"] in ("abandonment", "eviction"))
print(len(lines))' "$FLOCKCTL_DIR/log"
    is "$status $err" "0 " "the file is one line of JSON each, with the fields of the manual"
else
    skip "there is no python3 to read JSON with"
fi

# ---- what others wrote into it ----

{
    printf '{"time":1,"event":"acquire","name":"evil","pid":1,"command":"\033[31m\\u001b \302\233"}\n'
    printf 'no JSON\n{"time":1\n{"time":1,"event":"acquire","name":"evil\n'
    head -c 1000000 /dev/zero
    printf '\n{"time":2,"event":"wait","name":"evil","pid":2,"command":"last"}\n'
} >>"$FLOCKCTL_DIR/log"
run flockctl log evil
is "$(printf '%s' "$out" | tr -d '\n' | tr -d '[:print:]' | wc -c)" 0 "nothing that a terminal would obey is printed"
like "$out" 'by pid 1 \(\\x1b\[31m\\u001b \\xc2\)|by pid 1 \(\\x1b' "but escaped"
like "$out" 'wait  evil by pid 2 \(last\)' "lines that make no sense are passed over"
is "$status" 0 "which is no failure"

# ---- another file; off ----

FLOCKCTL_LOG=$T/mine flockctl acquire mine -- true
is "$(FLOCKCTL_LOG=$T/mine events mine)|$(events mine)" "acquire release|" "FLOCKCTL_LOG names another file"
flockctl log --off
flockctl acquire nobody -- true
is "$(events nobody)" "" "log --off"
FLOCKCTL_LOG=$T/mine flockctl acquire mine -- true
is "$(FLOCKCTL_LOG=$T/mine events mine)" "acquire release acquire release" "which FLOCKCTL_LOG doesn't need"

# ---- follow ----

flockctl log --on
rm -f "$FLOCKCTL_DIR/log"
background follow "$FLOCKCTL" log --follow seen
wait_for 'grep -q inotify "/proc/$follow_pid/fdinfo/"* 2>/dev/null'
flockctl acquire seen -- true
flockctl acquire unseen -- true
wait_for '[ "$(grep -c "  release  seen" "$T/follow.out")" = 1 ]'
pass "--follow prints what is added to a file that wasn't there"
is "$(grep -c unseen "$T/follow.out")" 0 "of that name only"
mv "$FLOCKCTL_DIR/log" "$FLOCKCTL_DIR/log.1"
flockctl acquire seen -- true
wait_for '[ "$(grep -c "  release  seen" "$T/follow.out")" = 2 ]'
pass "and goes on with the new one after a rotation"
is "$(events seen)" "acquire release acquire release" "both of which are shown"
kill "$follow_pid"
reap follow
mkfifo "$T/reader"
background follow sh -c 'exec "$FLOCKCTL" log -f seen >"$T/reader"'
exec 5<"$T/reader"
read -r line <&5
like "$line" acquire "into a pipe"
exec 5<&-
reap follow
pass "it ends when nobody reads any more"

bad 125 'log doesn.t take "more"' log seen more
bad 125 'log --on doesn.t follow' log --on --follow
bad 125 'log doesn.t take "seen"' log --on seen
done_testing
