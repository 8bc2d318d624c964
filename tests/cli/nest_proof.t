#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What proves that a command runs under a hold, and what doesn't: no second holder, whatever the variable says.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

id_of() {
    sed -n 's/^FLOCKCTL_ID=//p' "$T/$1.env"
}

# try WANTED NAME [ENVIRONMENT]...: what trying once for x gives
try() {
    try_wanted=$1 try_name=$2
    shift 2
    run timeout 20 env "$@" "$FLOCKCTL" -q acquire -n x -- true
    is "$status" "$try_wanted" "$try_name"
}

# ---- the variable alone ----

hold h x
id=$(id_of h)
slot=$(flockctl path x)
try 75 "the variable alone proves nothing" FLOCKCTL_HELD="x@$id@200"
exec 9<"$slot"
try 75 "nor with a descriptor of something else" FLOCKCTL_HELD="x@$id@1"
try 75 "nor with one of the slot that only looks on" FLOCKCTL_HELD="x@$id@9"
exec 9<&-
exec 9<>"$slot"
try 75 "nor with one that isn't locked" FLOCKCTL_HELD="x@$id@9"
exec 9<&-
mkfifo "$T/other"
exec 9<>"$T/other"
flock -n 9
try 75 "nor with a locked one of another FIFO" FLOCKCTL_HELD="x@$id@9"
exec 9<&-
mkdir -p "$T/false/rows/x/slots"
mkfifo "$T/false/rows/x/slots/0"
exec 9<>"$T/false/rows/x/slots/0"
flock -n 9
try 75 "even if its path looks like a slot's" FLOCKCTL_HELD="x@$id@9"
exec 9<&-
for held in '' , ,, x @ @@ x@ x@@ x@@9 "x@$id" "x@$id@" "x@$id@-1" "x@$id@99999999999" "x@$id@9x" "@$id@9" \
    "x@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@9" "x@../..@9" "$(printf '\001\377')@a@9"; do
    run timeout 20 env FLOCKCTL_HELD="$held" "$FLOCKCTL" -q acquire -n x -- true
    [ "$status" = 75 ] || fail "FLOCKCTL_HELD='$held': exit status $status"
done
pass "a variable that can't be read is passed over"
let_go h
try 0 "a stale one is, too" FLOCKCTL_HELD="x@$id@9"

# A slot that somebody holds by hand, and another's id.
exec 8<"${slot%slots/0}latch"
flock 8
exec 9<>"$slot"
flock -n 9
exec 8<&-
try 75 "a slot that is held by hand, under an id that isn't its holder's" FLOCKCTL_HELD="x@other@9"
exec 9<&-

# ---- without the variable, without the descriptors ----

run timeout 20 "$FLOCKCTL" acquire x -- env -i "$FLOCKCTL" --dir "$FLOCKCTL_DIR" acquire -n x -- echo in
is "$status|$out|$err" "0|in|" "env -i: found by ancestry"
run timeout 20 "$FLOCKCTL" acquire x -- sh -c 'env -u FLOCKCTL_HELD "$FLOCKCTL" acquire -n x -- sh -c "env -u FLOCKCTL_HELD \"\$FLOCKCTL\" acquire -n x -- echo in"'
is "$status|$out" "0|in" "down to the nearest"
run timeout 20 "$FLOCKCTL" acquire -s x -- env -u FLOCKCTL_HELD "$FLOCKCTL" acquire -n -s x -- echo in
is "$status|$out" "0|in" "shared as well"
run timeout 20 "$FLOCKCTL" -q acquire -s x -- env -u FLOCKCTL_HELD "$FLOCKCTL" acquire x -- true
is "$status" 35 "and not alone under shared"
if command -v python3 >/dev/null; then
    cat >"$T/close_fds.py" <<'EOF'
import os, subprocess, sys
sys.exit(subprocess.run([os.environ["FLOCKCTL"], "acquire", "-n", "x", "--"] + sys.argv[1:]).returncode)
EOF
    run timeout 20 "$FLOCKCTL" acquire x -- python3 "$T/close_fds.py" echo in
    is "$status|$out|$err" "0|in|" "Python closes what it inherits: found by ancestry"
    cat >"$T/heir.py" <<'EOF'
import os, subprocess
open(os.environ["T"] + "/heir.runs", "w").close()
open(os.environ["T"] + "/heir.go").close()
with open(os.environ["T"] + "/heir.out", "w") as out:
    subprocess.run([os.environ["FLOCKCTL"], "acquire", "-w", "15", "x", "--", "echo", "in"], stdout=out)
open(os.environ["T"] + "/heir.done", "w").close()
EOF
    mkfifo "$T/heir.go"
    background killed "$FLOCKCTL" acquire x -- sh -c 'python3 "$T/heir.py" & wait'
    wait_for '[ -e "$T/heir.runs" ]'
    kill -KILL "$killed_pid"
    reap killed
    timeout 10 sh -c 'echo >"$T/heir.go"'
    wait_for '[ -e "$T/heir.done" ]'
    is "$(cat "$T/heir.out")" in "even when the flockctl around it was killed: an heir above still has the slot"
else
    skip "there is no python3"
    skip "the same"
fi

# Who isn't below it isn't, even with its environment.
hold h x
run timeout 20 env $(grep -v -e SLOTS= "$T/h.env") "$FLOCKCTL" -q acquire -n x -- true
is "$status" 75 "the whole environment of another command proves nothing"
let_go h

# ---- --detach, --while ----

run timeout 20 "$FLOCKCTL" acquire --detach x -- sh -c 'echo "${FLOCKCTL_HELD-none}"; "$FLOCKCTL" -q acquire -n x -- true'
is "$status|$out" "75|none" "--detach exports nothing, and nothing is drawn from it"
run timeout 20 "$FLOCKCTL" acquire x -- sh -c '"$FLOCKCTL" acquire --detach x -- sh -c "echo \$FLOCKCTL_HELD; \"\$FLOCKCTL\" -q acquire -n x -- true; echo \$?"; "$FLOCKCTL" acquire -n x -- echo free'
like "$out" '^x@[a-z0-9]*@[0-9]*$' "below another hold it hands on that one's"
is "$(printf '%s\n' "$out" | tail -n 2 | tr '\n' ' ')" "75 free " "of which it is a holder like any other"
mkfifo "$T/process.go"
run timeout 20 "$FLOCKCTL" acquire x -- sh -c '
    sh -c "echo \$\$ >\"\$T/process\"; read -r line <\"\$T/process.go\"" &
    while ! [ -s "$T/process" ]; do sleep 0.01; done
    "$FLOCKCTL" acquire --while "$(cat "$T/process")" x
    "$FLOCKCTL" -q acquire -n x -- true
    echo "$?"
    kill "$(cat "$T/process")"
    "$FLOCKCTL" acquire x -- echo free' 7<>/dev/null
is "$(printf '%s\n' "$out" | tail -n 2 | tr '\n' ' ')" "75 free " "--while below a hold draws from it"

# ---- who outlives the hold ----

# straggler NAME: a shell that has outlived the flockctl it ran under, which was killed. It does what `tell` says.
straggler() {
    rm -f "$T/$1.do" "$T/$1.done" "$T/$1.held"
    mkfifo "$T/$1.do" "$T/$1.done"
    cat >"$T/straggler" <<'EOF'
echo $$ >"$T/$1.pid"
: >"$T/$1.held"
while read -r line <"$T/$1.do"; do
    eval "$line"
    echo "$?" >"$T/$1.done"
done
EOF
    background outer "$FLOCKCTL" acquire x -- sh -c 'sh "$T/straggler" "$1" </dev/null & wait' sh "$1"
    has_it "$1"
    kill -KILL "$outer_pid"
    reap outer
}
tell() {
    timeout 20 sh -c 'printf "%s\n" "$2" >"$1"' sh "$T/$1.do" "$2"
    status=$(timeout 20 cat "$T/$1.done")
}
finish() {
    timeout 20 sh -c 'echo exit >"$1"' sh "$T/$1.do"
    wait_for "! [ -e /proc/$(cat "$T/$1.pid") ]"
}

straggler s
try 75 "flockctl is killed: a process of its command keeps the lock"
tell s '"$FLOCKCTL" acquire -n x -- true'
is "$status" 0 "and may draw from the hold: it has the slot"
mkfifo "$T/inner.go"
tell s '"$FLOCKCTL" acquire x -- sh -c ": >\"\$T/inner.held\"; read -r line <\"\$T/inner.go\"" </dev/null &'
has_it inner
tell s '"$FLOCKCTL" -q acquire -n x -- true'
is "$status" 75 "one at a time"
finish s
try 75 "one that draws keeps the slot, too"
ok "what lies below the hold is still there" [ -n "$(ls "$FLOCKCTL_DIR/rows/x/under")" ]
timeout 20 sh -c 'echo >"$T/inner.go"'
run timeout 20 "$FLOCKCTL" -q acquire x -- sh -c 'echo "$FLOCKCTL_ABANDONED"'
is "$status|$out" "0|1" "when that has ended the lock goes on; its holder was killed"
is "$(ls "$FLOCKCTL_DIR/rows/x/under")" "" "and what lay below that one's hold is deleted"

# The one that draws is killed as well, with the straggler's slot still there: nothing is free.
straggler s
tell s '"$FLOCKCTL" acquire x -- sh -c "kill -KILL \$PPID" 2>/dev/null'
tell s '"$FLOCKCTL" -q acquire -n x -- sh -c "test \"\$FLOCKCTL_ABANDONED\" = 1"'
is "$status" 0 "the death of one that draws is told to the next one that does"
try 75 "and not outside, where it is still taken"
finish s

# ---- killed while one inside runs ----

rm -f "$T/inner.held" "$T/inner.go"
mkfifo "$T/inner.go"
background outer "$FLOCKCTL" acquire x -- sh -c '"$FLOCKCTL" acquire x -- sh -c ": >\"\$T/inner.held\"; read -r line <\"\$T/inner.go\"" & wait'
has_it inner
queue w x
kill -KILL "$outer_pid"
reap outer
try 75 "the outer flockctl is killed while an inner one runs: the lock stays taken"
is "$(tickets x)" 1 "who waits goes on waiting"
timeout 20 sh -c 'echo >"$T/inner.go"'
has_it w
pass "until the inner one has ended"
let_go w
is "$(ls "$FLOCKCTL_DIR/rows/x/under")" "" "nothing is left below"

# ---- pid namespaces ----

if "$FLOCKCTL" run --isolate pid -- true 2>/dev/null; then
    run timeout 20 "$FLOCKCTL" acquire --isolate pid,mount x -- "$FLOCKCTL" acquire -n x -- echo in
    is "$status|$out" "0|in" "in a pid namespace of its own the descriptor is proof"
    run timeout 20 "$FLOCKCTL" acquire --isolate pid,mount x -- sh -c 'env -u FLOCKCTL_HELD "$FLOCKCTL" -q acquire -n x -- true'
    is "$status" 75 "who only looks for ancestors finds none there, and draws from nothing"
else
    skip "no pid namespaces here"
    skip "no pid namespaces here"
fi

# ---- what lies below a hold is damaged ----

# damaged WHAT COMMAND: with the row below a hold made so, a request there fails and says it
damaged() {
    run timeout 20 "$FLOCKCTL" acquire x -- sh -c 'under=$FLOCKCTL_DIR/rows/x/under; mkdir -p "$under"; under=$under/$FLOCKCTL_ID
        eval "$1"; "$FLOCKCTL" acquire -n x -- true; status=$?; rm -rf "$under"; exit $status' sh "$2"
    is "$status" 125 "the row below a hold is damaged: $1"
    like "$err" "^flockctl: the row x/under/[a-z0-9]* is damaged: .*rm -r $FLOCKCTL_DIR/rows/x/under/" "it says so, and what to delete"
}
ok "define two" flockctl define two --slots 2
damaged "a file" ': >"$under"'
damaged "a symbolic link" 'ln -s "$FLOCKCTL_DIR/rows/x" "$under"'
damaged "no latch" 'mkdir "$under"'
damaged "more slots than the hold" 'cp -a "$FLOCKCTL_DIR/rows/two" "$under"'

# ---- the record ----

hold h x
record() {
    tail -c +129 "$FLOCKCTL_DIR/rows/x/latch" | sed '/^end$/q'
}
like "$(record)" '^nests=1$' "the record says that a command runs under the hold"
let_go h
like "$(record | tr '\n' ' ')" '[-~] ended=0*[1-9][0-9]{18} id=' "and, at the end, since when it has ended"
hold h --detach x
unlike "$(record)" '^nests=' "not with --detach"
let_go h
like "$(record | tr '\n' ' ')" '[-~] ended=0{20} id=' "which hands nothing on, so that its end is the slot's"
nothing_left x
done_testing
