#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Nesting: who asks for a name that a flockctl around it holds draws from that hold.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# The row below the hold of a job of helpers.sh.
below() {
    echo "$2/under/$(sed -n 's/^FLOCKCTL_ID=//p' "$T/$1.env")"
}

# What recipes do: who has slot K has the directory in/K alone.
mkdir "$T/in"
cat >"$T/recipe" <<'EOF'
mkdir "$T/in/$FLOCKCTL_SLOT" || echo "overlap $FLOCKCTL_SLOT" >>"$T/overlaps"
ls "$T/in" | wc -l >>"$T/counts"
"$FLOCKCTL" acquire -n "$FLOCKCTL_NAME" -- rmdir "$T/in/$FLOCKCTL_SLOT"
EOF

# ---- a suite ----

ok "define podman 2" flockctl define podman --slots 2
cat >"$T/suite.mk" <<'EOF'
all: 1 2 3 4 5 6 7 8
1 2 3 4 5 6 7 8:
	@"$$FLOCKCTL" acquire podman -- sh "$$T/recipe"
EOF
run timeout 60 "$FLOCKCTL" acquire podman:all -- make -s -j8 -f "$T/suite.mk"
is "$status|$err" "0|" "a suite holds all of podman, and make -j8 runs eight recipes that take one each"
is "$(wc -l <"$T/counts")" 8 "all have run, each with a nested one below it"
not_ok "never two with the same slot, so never more than two" [ -e "$T/overlaps" ]
nothing_left podman
is "$(ls "$FLOCKCTL_DIR/rows/podman/under")" "" "nothing is left of what lay below the holds"

# Two do run together: each waits for the other.
mkfifo "$T/a" "$T/b"
run timeout 60 "$FLOCKCTL" acquire podman:2 -- sh -c '
    "$FLOCKCTL" acquire podman -- sh -c "echo >\"\$T/a\"; read -r line <\"\$T/b\"" &
    "$FLOCKCTL" acquire podman -- sh -c "read -r line <\"\$T/a\"; echo >\"\$T/b\"" && wait $!'
is "$status|$err" "0|" "two of them run at the same time"

# ---- one name ----

run timeout 20 "$FLOCKCTL" acquire x -- "$FLOCKCTL" acquire -n x -- echo in
is "$status|$out|$err" "0|in|" "an exclusive lock nested once passes at once"
run timeout 20 "$FLOCKCTL" acquire x -- "$FLOCKCTL" acquire -n x -- "$FLOCKCTL" acquire -n x -- "$FLOCKCTL" acquire -n x:all -- echo in
is "$status|$out|$err" "0|in|" "and three levels deep"
run timeout 20 "$FLOCKCTL" acquire x -- sh -c '"$FLOCKCTL" acquire -n x -- true; "$FLOCKCTL" acquire -n x -- echo again'
is "$status|$out" "0|again" "one after the other"
nothing_left x
is "$(ls "$FLOCKCTL_DIR/rows/x/under")" "" "nothing is left"

# Siblings take turns. The outer command runs what the test writes into its FIFO.
agent() {
    rm -f "$T/$1.do" "$T/$1.done" "$T/$1.held"
    mkfifo "$T/$1.do" "$T/$1.done"
    agent_name=$1
    shift
    background "$agent_name" "$FLOCKCTL" acquire "$@" -- sh -c '
        env | grep "^FLOCKCTL_" >"$T/$1.env"
        : >"$T/$1.held"
        while read -r line <"$T/$1.do"; do
            eval "$line"
            echo "$?" >"$T/$1.done"
        done' sh "$agent_name"
    has_it "$agent_name"
}

# tell AGENT LINE: runs it there, leaves its exit status in $status
tell() {
    timeout 20 sh -c 'printf "%s\n" "$2" >"$1"' sh "$T/$1.do" "$2"
    status=$(timeout 20 cat "$T/$1.done")
}

# finish AGENT: it ends
finish() {
    timeout 20 sh -c 'echo exit >"$1"' sh "$T/$1.do"
    reap "$1"
}

# start_below AGENT JOB NAMES, queue_below: as start and queue of helpers.sh, but below the agent's hold.
start_below() {
    rm -f "$T/$2.go" "$T/$2.held"
    mkfifo "$T/$2.go"
    tell "$1" "\"\$FLOCKCTL\" acquire $3 -- sh -c 'echo $2 >>\"\$T/log\"; echo \"\$FLOCKCTL_SLOTS\" >\"\$T/$2.slots\"; : >\"\$T/$2.held\"; read -r line <\"\$T/$2.go\"' </dev/null 2>\"\$T/$2.err\" &"
}
queue_below() {
    queue_number=$(last_number "$(below "$1" x)")
    start_below "$@"
    wait_for "[ \$(last_number '$(below "$1" x)') -gt $queue_number ]"
    flock_latch "$(below "$1" x)"
}
go() {
    timeout 10 sh -c 'echo >"$1"' sh "$T/$1.go"
}

agent o x
start_below o s1 x
has_it s1
queue_below o s2 x
queue_below o s3 x
tell o '"$FLOCKCTL" -q acquire -n x -- true'
is "$status" 75 "trying once: a sibling has it"
go s1
has_it s2
go s2
has_it s3
log_is "s1 s2 s3" "siblings take turns, first come, first served"
run flockctl -q acquire -n x -- true
is "$status" 75 "nobody else has it meanwhile"
go s3
tell o wait
finish o
rm -f "$T/log"

# ---- how many ----

ok "define row 5" flockctl define row --slots 5
hold h row:2
agent o row:3
is "$(sed -n 's/^FLOCKCTL_SLOTS=//p' "$T/o.env")" "2 3 4" "an outer hold of three of five"
start_below o n1 row:2
has_it n1
start_below o n2 row
has_it n2
is "$(cat "$T/n1.slots")|$(cat "$T/n2.slots")" "2 3|4" "those below it have its slots"
tell o '"$FLOCKCTL" -q acquire -n row -- true'
is "$status" 75 "and there is no fourth"
go n1
go n2
tell o wait
tell o '"$FLOCKCTL" acquire -n row:all -- sh -c "echo \$FLOCKCTL_SLOTS >\"\$T/all\""'
is "$status|$(cat "$T/all")" "0|2 3 4" "all are all of the outer hold"
tell o '"$FLOCKCTL" acquire -n --slots 5 row -- true'
is "$status" 0 "--slots is the size of the row itself"
tell o '"$FLOCKCTL" acquire -n --slots 3 row -- true 2>"$T/slots.err"'
is "$status" 125 "and not of the outer hold"
like "$(cat "$T/slots.err")" "row has 5 slots, not 3" "as it says"
tell o '"$FLOCKCTL" acquire row:4 -- true 2>"$T/more.err"'
is "$status" 35 "more than the outer hold has: 35, at once"
like "$(cat "$T/more.err")" "^flockctl: pid $o_pid \(.*\), whose command this runs under, holds 3 slots of row, so 4 can't" "it says whose"
tell o '"$FLOCKCTL" acquire -n row:4 -- true 2>/dev/null'
is "$status" 35 "with -n too"
tell o '"$FLOCKCTL" acquire row:6 -- true 2>/dev/null'
is "$status" 125 "more than the row has is wrong everywhere"
tell o '"$FLOCKCTL" resize row 7 2>"$T/resize.err"'
is "$status" 35 "a command can't resize what it runs under"
like "$(cat "$T/resize.err")" "can't be had whole meanwhile" "it says why"
run flockctl -q resize -n row 7
is "$status" 75 "nobody else can meanwhile"
let_go h
start_below o n3 row
has_it n3
background r "$FLOCKCTL" resize row 7
wait_for "[ \$(tickets row) = 1 ]"
go n3
tell o wait
finish o
reap r
is "$status" 0 "who resizes it waits for the outer hold, as usual"
run flockctl acquire -n row:all -- sh -c 'echo $FLOCKCTL_SLOTS'
is "$out" "0 1 2 3 4 5 6" "and then has done it"
not_ok "what lay below is gone with the old row" [ -e "$FLOCKCTL_DIR/rows/row/under" ]

# ---- shared ----

agent o -s x
queue w x
tell o '"$FLOCKCTL" acquire -n -s x -- true'
is "$status" 0 "shared under shared passes, whoever queues outside"
tell o '"$FLOCKCTL" acquire x -- true 2>"$T/alone.err"'
is "$status" 35 "exclusive under shared: 35"
like "$(cat "$T/alone.err")" "holds x shared, so it can't be had alone" "it says why"
finish o
has_it w
let_go w
run timeout 20 "$FLOCKCTL" acquire x -- "$FLOCKCTL" acquire -n -s x -- "$FLOCKCTL" acquire -n -s x -- echo in
is "$status|$out" "0|in" "shared under exclusive, and again under that"
run timeout 20 "$FLOCKCTL" -q acquire x -- "$FLOCKCTL" -q acquire -s x -- "$FLOCKCTL" -q acquire x -- true
is "$status" 35 "the nearest hold counts"

# ---- several names ----

ok "define y" flockctl define y --slots 1
run timeout 20 "$FLOCKCTL" acquire x row:2 -- "$FLOCKCTL" acquire -n row:2 y x -- sh -c '
    "$FLOCKCTL" acquire -n y x row -- echo "$FLOCKCTL_NAME|$FLOCKCTL_SLOTS_1|$FLOCKCTL_SLOTS_2|$FLOCKCTL_SLOTS_3"'
is "$status|$out" "0|row y x|0 1|0|0" "several names, some nested and some not"
hold h y
agent o x
tell o '"$FLOCKCTL" acquire -w 10ms x y -- true 2>/dev/null'
is "$status" 75 "one below a hold waits for another row as everybody does"
start_below o n 'x y'
wait_for "[ \$(tickets y) = 1 ]"
let_go h
has_it n
pass "and is served"
go n
tell o wait
finish o

# ---- what it must not be taken for ----

run timeout 20 "$FLOCKCTL" acquire x -- "$FLOCKCTL" remove x
is "$status" 35 "a command can't remove what it runs under"
run timeout 20 "$FLOCKCTL" acquire x -- sh -c '"$FLOCKCTL" --dir "$T/elsewhere" acquire -n x -- sh -c "echo \$FLOCKCTL_SLOTS"; ls "$T/elsewhere/rows/x"'
unlike "$out" under "another lock directory has other locks"
nothing_left x y row
done_testing
