#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# flockctl acquire --while PID: a lock for as long as another process lives.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# live JOB: a process that lives until it is killed, $JOB_pid
live() {
    background "$1" sleep 1000
}
end() {
    eval "kill -KILL \$${1}_pid"
    reap "$1"
}
# The keeper of a name, as the busy message names it.
keeper() {
    flockctl acquire -n "$1" -- true 2>&1 | sed -n 's/.* by pid \([0-9]*\) .*/\1/p'
}

# ---- hold and release ----

live p
run flockctl acquire --while "$p_pid" x
is "$status|$err" "0|" "it returns once it has the lock"
like "$out" '^[a-z][a-z0-9]{1,23}$' "printing the id: $out"
run flockctl -q acquire -n x -- true
is "$status" 75 "the lock is held"
queue w x
end p
has_it w
pass "until the process ends"
not_ok "which isn't abandonment" grep -q ABANDONED "$T/w.env"
let_go w

cat >"$T/script" <<'END'
#!/bin/sh
id=$("$FLOCKCTL" acquire --while $$ x) || exit
echo "$id"
"$FLOCKCTL" -q acquire -n x -- true
echo $?
END
run timeout 20 sh "$T/script"
is "$status" 0 'id=$(flockctl acquire --while $$ x) returns'
like "$out" '^[a-z][a-z0-9]{1,23}$' "with the id"
like "$out" '^75$' "and the script holds it"
run flockctl acquire -w 20 x -- true
is "$status" 0 "until it ends"

live p
run flockctl --dir "$T/elsewhere" acquire --while "$p_pid" -q -s x
run flockctl --dir "$T/elsewhere" acquire -n -s x -- true
is "$status" 0 "--shared"
end p
live p
ok "a row of three" flockctl define three --slots 3
run flockctl acquire --while "$p_pid" three:2 x
is "$status" 0 "several names, a count"
run flockctl acquire -n three -c 'echo $FLOCKCTL_SLOT'
is "$out" 2 "two of three are held"
run flockctl acquire -n x -- true
is "$status" 75 "and the other name"
end p
run flockctl acquire -w 20 three:all x -- true
is "$status" 0 "all until it ends"

# The keeper is on nobody's terminal, pipe or process group.
live p
run flockctl acquire --while "$p_pid" x
keeper_pid=$(keeper x)
ok "somebody keeps it" kill -0 "$keeper_pid"
is "$(readlink "/proc/$keeper_pid/fd/0" "/proc/$keeper_pid/fd/1" "/proc/$keeper_pid/fd/2" | uniq)" /dev/null "on /dev/null"
is "$(sed 's/.*) //' "/proc/$keeper_pid/stat" | cut -d ' ' -f 3,4)" "$keeper_pid $keeper_pid" "in a session of its own"
kill -TERM "$keeper_pid"
hold w -w 20 x
not_ok "TERM ends it; that is no abandonment" grep -q ABANDONED "$T/w.env"
let_go w
run flockctl acquire --while "$p_pid" x
kill -KILL "$(keeper x)"
hold w -w 20 x
ok "KILL is" grep -q ABANDONED=1 "$T/w.env"
let_go w
end p

# ---- not acquired ----

hold h x
live p
run flockctl acquire -n --while "$p_pid" x
is "$status|$out" "75|" "taken and -n: 75, and no id"
like "$err" "^flockctl: x is taken by pid $h_pid" "the message says by whom"
run flockctl acquire -q -w 30ms -E 9 --while "$p_pid" x
is "$status|$out|$err" "9||" "-w, -E and -q as ever"
run flockctl acquire -q -n -E 0 --while "$p_pid" x
is "$status|$out" "0|" "-E 0: no id is printed"

background waiter flockctl acquire --while "$p_pid" x
wait_for '[ "$(tickets x)" = 1 ]'
end p
reap waiter
is "$status|$out" "75|" "the process ends while it waits: 75"
like "$err" "^flockctl: process $p_pid has ended before the lock was acquired" "and says so"
is "$(tickets x)" 0 "nobody is left in the queue"

gone=$p_pid
bad 125 "no process $gone to hold it for: No such process" acquire --while "$gone" x
is "$(tickets x)" 0 "nobody queues for a process that is gone"
bad 125 '"0" is not a process id' acquire --while 0 x
bad 125 '"me" is not a process id' acquire --while me x
bad 125 '"-1" is not a process id' acquire --while=-1 x
bad 125 'leave the command out' acquire --while 1 x -- true
bad 125 'leave the command out' acquire --while 1 x -c true
bad 125 'leave --detach out' acquire --while 1 --detach x
bad 125 'needs a name' acquire --while 1

# ---- the one that waits for it is killed ----

live p
for name in TERM KILL INT; do
    background waiter flockctl acquire --while "$p_pid" x
    wait_for '[ "$(tickets x)" = 1 ]'
    kill -$name "$waiter_pid"
    reap waiter
    wait_for '[ "$(tickets x)" = 0 ]'
    pass "$name while it waits: nobody stays in the queue for it"
done
queue next x
let_go h
has_it next
let_go next
run flockctl acquire -w 20 x -- true
is "$status" 0 "and nobody got it for one that was killed"
end p
is "$(env --ignore-signal=CHLD "$FLOCKCTL" acquire --while $$ y | wc -l)" 1 "SIGCHLD ignored by the caller: the same"

# ---- an id that can't be told ----

if [ -w /dev/full ]; then
    live p
    run sh -c '"$FLOCKCTL" acquire --while "$1" x >/dev/full' sh "$p_pid"
    is "$status" 125 "the id can't be printed: 125"
    run flockctl acquire -w 20 x -- true
    is "$status" 0 "and nothing is held"
    end p
fi
nothing_left x three
done_testing
