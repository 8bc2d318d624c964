#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The whole tree ends, wherever its processes hide, and nobody else; the lock is taken for as long as one of them lives.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

grow=$top_builddir/tests/cli/grow observe=$top_builddir/tests/cli/observe
export grow observe
scale=${STRESS_SCALE:-1}
mkfifo "$T/alive"

# tree JOB COMMAND [OPTION]...: flockctl acquire [OPTION]... x, whose COMMAND and all below it have $T/alive open. Returns when
# the tree is there, with an observer looking.
tree() {
    tree_job=$1 tree_command=$2
    shift 2
    rm -f "$T/ready" "$T/looking.out"
    background "$tree_job" "$FLOCKCTL" acquire "$@" x -- sh -c 'exec 9<>"$T/alive"; '"$tree_command"
    wait_for '[ -e "$T/ready" ]'
    background looking "$observe" "$FLOCKCTL_DIR/rows/x/slots/0" "$T/alive"
    wait_for '[ -s "$T/looking.out" ]'
}

# tree_is_gone WHAT
tree_is_gone() {
    reap looking
    ok "$1: nobody of the tree is left" "$observe" "$T/alive"
    like "$out" ' last$' "  and the lock wasn't free before the last one had ended"
    looks=$(printf '%s\n' "$out" | sed -n '2s/ .*//p')
    ok "  in ${looks:-no} looks" [ "${looks:-0}" -ge "${2:-1}" ]
}

# Whether it runs, quietly.
lives() {
    kill -0 "$1" 2>/dev/null
}

# ---- another user's, which we don't even see: it takes some seconds to find that out ----

if [ "$(id -u)" = 0 ] && setpriv --bounding-set=-kill true 2>/dev/null; then
    may_drop=yes
    cat >"$T/hides" <<'END'
umount -l /proc && mount -t proc -o hidepid=2 proc /proc && : >"$T/hidden"
exec setpriv --regid=1 --clear-groups --bounding-set=-kill,-sys_ptrace "$FLOCKCTL" run -- \
    sh -c 'setpriv --reuid=64321 --regid=64321 --clear-groups sleep 1000 & echo $!; exit 7'
END
    background hides unshare -m sh "$T/hides"
fi

# ---- everything at once: 200 of all kinds, a shell that ignores TERM, one that forks all the time ----

tree hard '"$grow" forks & sh -c "trap : TERM; while :; do sleep 0.1; done" & exec "$grow" 200 "$T/ready"' --timeout 1.2 -k 0.7
reap hard
is "$status" 124 "a tree of 200 whose time is over"
tree_is_gone "hard" 1000
like "$(cat "$T/hard.err")" 'limit by --timeout: SIGTERM' "  its end is announced"
like "$(cat "$T/hard.err")" 'left after 700 ms: SIGKILL' "  and what comes after the grace"

# ---- what the command leaves behind ----

tree left '"$grow" 50 "$T/ready" 1' -k 0.2
reap left
is "$status" 0 "a command that leaves 50 behind"
tree_is_gone "left"
is "$(grep -c "^flockctl: pid [0-9]* (.*grow 50 .*) has outlived the command and is sent SIGTERM" "$T/left.err")" 5 \
    "  five are named"
like "$(cat "$T/left.err")" '^flockctl: and 45 more$' "  the others are counted"
is "$(grep -c "SIGTERM; --detach leaves such processes alone" "$T/left.err")" 1 "  and what else can be done is said once"
rm -f "$T/ready"
run flockctl -q acquire -k 0.3 x -- "$grow" 5 "$T/ready" 0
is "$status|$err" "0|" "-q: none is"
run flockctl run -k 0 -- sh -c 'sleep 1000 &'
like "$err" '^flockctl: pid [0-9]+ .sleep 1000. has outlived the command and is killed; --detach' "-k 0: killed at once"
run flockctl run -- sh -c 'trap "" HUP; (sleep 0.02; echo done) & exit 5'
is "$status|$out|$err" "5|done|" "what is just ending by itself isn't ended"
run flockctl run -- sh -c 'sh -c "trap \"echo cleaned >\\\"\$T/cleaned\\\"; exit\" TERM; : >\"\$T/trapped\"; while :; do sleep 0.02; done" &
    while [ ! -e "$T/trapped" ]; do sleep 0.01; done'
is "$(cat "$T/cleaned" 2>&1)" cleaned "who has a handler for TERM is given the time"

# ---- the caller's ways ----

run env --ignore-signal=CHLD "$FLOCKCTL" run -- sh -c 'sleep 1000 & echo $!; exit 7'
is "$status" 7 "SIGCHLD ignored by the caller: the command's status"
not_ok "  and its straggler has ended" lives "$out"
run env --block-signal=CHLD "$FLOCKCTL" run -- sh -c 'sleep 1000 & echo $!; exit 7'
is "$status" 7 "SIGCHLD blocked by the caller: the same"
not_ok "  and the same" lives "$out"
run sh -c 'sleep 1000 & echo $!; exec "$FLOCKCTL" run -- sh -c "sleep 1000 & echo \$!; exit 8"'
is "$status" 8 "the caller had a child before it became flockctl: it isn't waited for"
set -- $out
ok "  and lives on" kill "$1"
not_ok "  the command's doesn't" lives "$2"
background theirs sh -c 'sleep 0.1 & exec "$FLOCKCTL" run -- sh -c "sleep 0.3; exit 9"'
reap theirs
is "$status|$err" "9|" "such a child may end at any time"

# ---- kill -9 of flockctl ----

# Whoever has the lock next sees that nobody is left of the tree before. The moments: from before there is a command to after.
: >"$T/log"
for i in $(seq $((20 * scale))); do
    mkfifo "$T/run$i"
    "$FLOCKCTL" -q acquire x -- sh -c 'exec 9<>"$1"; (setsid sleep 0.1) & sh -c "sleep 0.05; :" & wait' sh "$T/run$i" 2>/dev/null &
    pid=$!
    spin=$(($(od -An -N2 -tu2 /dev/urandom) % 3000))
    while [ $spin -gt 0 ]; do spin=$((spin - 1)); done
    kill -KILL $pid 2>/dev/null
    "$FLOCKCTL" -q acquire -w 20 x -- sh -c '"$observe" "$1" && echo gone' sh "$T/run$i" >>"$T/log" 2>/dev/null
    wait $pid 2>/dev/null
    rm "$T/run$i"
done
is "$(sort "$T/log" | uniq -c | tr -s ' ')" " $((20 * scale)) gone" "kill -9 at random moments: the lock is taken until the last of the tree has ended"

python=$(command -v python3 || command -v python)
if [ -n "$python" ]; then
    cat >"$T/closes.py" <<'END'
import os, subprocess
child = subprocess.Popen(["sleep", "1000"])
with open(os.environ["T"] + "/closes.pid", "w") as file:
    file.write(str(child.pid))
open(os.environ["T"] + "/closes.held", "w")
child.wait()
END
    background closes "$FLOCKCTL" acquire x -- "$python" "$T/closes.py"
    has_it closes
    kill -KILL "$closes_pid"
    reap closes
    run flockctl -q acquire -w 10 x -- true
    is "$status" 0 "the documented limit: who closes what it inherits (Python's subprocess) keeps no lock after a kill -9"
    ok "  though it lives" kill "$(cat "$T/closes.pid")"
else
    skip "no Python"
    skip "no Python"
fi

if "$FLOCKCTL" run --isolate pid -- true 2>/dev/null; then
    tree inside 'exec "$grow" 20 "$T/ready"' --isolate pid
    kill -KILL "$inside_pid"
    reap inside
    run flockctl -q acquire -w 10 x -- true
    is "$status" 0 "--isolate pid: kill -9 of flockctl frees the lock"
    tree_is_gone "isolate pid"
    tree inside 'exec "$grow" 20 "$T/ready" 1' --isolate pid
    reap inside
    is "$status" 0 "--isolate pid: they end when the command does"
    tree_is_gone "isolate pid"
else
    for i in 1 2 3 4 5 6 7 8; do skip "no pid namespaces here"; done
fi

# ---- another user's ----

if [ "${may_drop-}" ]; then
    # Root without the right to signal others' processes, as an ordinary user is to those of sudo.
    cat >"$T/becomes" <<'END'
setpriv --reuid=64321 --regid=64321 --clear-groups sleep 1000 &
echo $! >"$T/foreign"
until grep -q 'Uid:.*64321' "/proc/$!/status"; do sleep 0.01; done
exit "$1"
END
    run setpriv --bounding-set=-kill "$FLOCKCTL" acquire x -- sh "$T/becomes" 6
    read -r foreign <"$T/foreign"
    is "$status" 6 "a straggler that is another user's: flockctl ends all the same"
    like "$err" "^flockctl: pid $foreign \\(sleep 1000\\) can't be ended: .*another user's.*keeps a lock" "  names it"
    run flockctl -q acquire -n x -- true
    is "$status" 75 "  and the slot stays taken"
    kill "$foreign"
    run flockctl -q acquire -w 10 x -- true
    is "$status" 0 "  until it ends"
    run setpriv --bounding-set=-kill "$FLOCKCTL" run --timeout 0.2 -- setpriv --reuid=64321 --regid=64321 --clear-groups sleep 1000
    is "$status" 124 "a command that is another user's and whose time is over: 124"
    like "$err" "can't be ended: .*another user's" "  and named"
    kill $(printf '%s\n' "$err" | sed -n 's/^flockctl: pid \([0-9]*\) (sleep.*/\1/p')
    rm -f "$T/ran"
    # A sanitizer's runtime can't start properly without /proc either.
    if grep -q __asan_init "$FLOCKCTL"; then
        skip "no /proc: not with AddressSanitizer"
    else
        run unshare -m sh -c 'umount -l /proc; exec "$FLOCKCTL" run -- touch "$T/ran"'
        like "$status $err" "^125 flockctl: /proc isn't mounted" "without /proc: 125"
        ok "  and the command isn't started" [ ! -e "$T/ran" ]
    fi
    reap hides
    if [ -e "$T/hidden" ]; then
        is "$status" 7 "a straggler that /proc hides isn't waited for"
        like "$err" "^flockctl: processes that outlived the command can't be found, and go on: .*hidden" "  which is said"
        kill "$out"
    else
        skip "/proc can't be mounted here"
        skip "/proc can't be mounted here"
    fi
else
    for i in 1 2 3 4 5 6 7 8 9 10; do skip "needs root and setpriv"; done
fi

nothing_left x
done_testing
