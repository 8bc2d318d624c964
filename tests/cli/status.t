#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# status and holders name whoever really has a lock and who waits for it, and disturb nobody.
# shellcheck disable=SC2016,SC2154
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

pty=$top_builddir/tests/cli/pty
escape=$(printf '\033')
control="[[:cntrl:]]|$(printf '\233')"

# lines NAME: its lines of the table, the columns NAME SLOT STATE PID
lines() {
    flockctl status "$1" | awk 'NR > 1 { print $1, $2, $3, $4 }'
}

# json_is_good NAME: what --json prints is what the manual says
json_is_good() {
    if command -v python3 >/dev/null; then
        is "$(flockctl status --json 2>/dev/null | python3 "$top_srcdir/tests/cli/status.py" "$top_srcdir/doc/flockctl.1" 2>&1)" \
            "" "$1"
    else
        skip "no python3 here"
    fi
}

# quietly STATUS NAME...: what -q answers
quietly() {
    run flockctl -q status "$2"
    is "$status|$out|$err" "$1||" "$3"
}

# ---- nobody ----

run flockctl status
is "$status|$out|$err" "0|NAME  SLOT  STATE  PID  SINCE  COMMAND  LABEL|" "without any name: the titles"
is "$(lines x)" "x - free -" "a name that nobody has used is free"
quietly 0 x "-q says so"
[ ! -e "$FLOCKCTL_DIR/rows/x" ]
is "$?" 0 "neither makes it"
run flockctl holders x
is "$status|$out|$err" "1||" "nobody holds it"
json_is_good "JSON of nothing"
bad 125 'the name "a/b" has "/" at position 2' status a/b
bad 125 'holders needs a name' holders
bad 125 'one name.*flockctl -q status NAME' -q status
bad 125 'one name.*flockctl -q status NAME' -q status x y
bad 125 'not a value for --color.*auto, always or never' status --color red
bad 125 '--watch needs a terminal' status --watch
bad 125 '--watch draws a table; leave --json out' status --watch --json

# ---- held and waited for ----

flockctl define two --slots 2
hold h -l nightly two
is "$(lines two)" "two 0 held $h_pid
two 1 free -" "a slot that is held and one that is free"
quietly 0 two "one of two is free"
like "$(flockctl status two)" "held +$h_pid +[0-9][0-9]:[0-9][0-9]:[0-9][0-9] +[^ ]*flockctl acquire -l nightly two -- sh .* nightly$" \
    "since when, command line, label"
queue all two:all
quietly 1 two "it is left free for the one in line"
queue one two
queue third two
is "$(lines two)" "two 0 held $h_pid
two 1 free -
two x2 waiting $all_pid
two x1 waiting $one_pid
two x1 waiting $third_pid" "those who wait, in their order, with what they want"
like "$(flockctl status two)" "waiting +$all_pid +for [0-9]+ s" "and for how long"
is "$(flockctl holders two)" "$h_pid" "holders: the one that has it"
stop_process "$one_pid"
is "$(lines two | sed -n 4p)" "two x1 stopped $one_pid" "a stopped one is shown to be"
json_is_good "JSON of held, free, waiting"
kill -9 "$all_pid"
wait_for '[ "$(state_of "$all_pid")" = "" ] || [ "$(state_of "$all_pid")" = Z ]'
unlike "$(lines two)" " $all_pid$" "a killed waiter is gone"
kill -CONT "$one_pid"
let_go h
for job in one third; do has_it $job; let_go $job; done
hold a -s sh
hold b -s sh
queue w sh
is "$(lines sh | sort)" "$(printf 'sh 0 held %s\n' "$a_pid" "$b_pid" | sort; echo "sh x1 waiting $w_pid")" "two that share it"
queue r -s sh
like "$(lines sh)" "^sh shared waiting $r_pid$" "and one that wants to"
is "$(flockctl holders sh | sort -n)" "$(printf '%s\n' "$a_pid" "$b_pid" | sort -n)" "holders: both"
for job in a b w r; do has_it $job; let_go $job; done
quietly 0 sh "then it is free"

# ---- the acquirer is gone ----

# A child that outlives its flockctl and its parent, and keeps the slot.
cat >"$T/leave" <<'END'
#!/bin/sh
sleep 1000 &
echo $! >"$T/$1.heir"
: >"$T/$1.held"
wait
END
chmod +x "$T/leave"
# leave JOB NAME: a lock that a child keeps, whose acquirer is dead; the child's pid is in $heir
leave() {
    rm -f "$T/$1.held"
    background "$1" "$FLOCKCTL" acquire "$2" -- "$T/leave" "$1"
    has_it "$1"
    heir=$(cat "$T/$1.heir")
    eval "leave_pid=\$${1}_pid"
    kill -9 "$leave_pid"
    reap "$1"
    wait_for "[ \"\$(flockctl holders '$2')\" = '$heir' ]"
}
leave l gone
is "$(lines gone)" "gone 0 inherited $heir" "the acquirer was killed: the child that keeps it is named"
like "$(flockctl status gone)" "sleep 1000 \\(from pid $l_pid: .*flockctl acquire gone" "and where it has it from"
quietly 1 gone "it is taken"
json_is_good "JSON of inherited"
kill "$heir"
wait_for '[ "$(lines gone)" = "gone 0 abandoned -" ]'
like "$(flockctl status gone)" "pid $l_pid died holding it" "when that has ended, too: abandoned, by whom"
quietly 0 gone "it can be had"
run flockctl holders gone
is "$status|$out" "1|" "and has no holder"
json_is_good "JSON of abandoned"

# ---- text of others ----

hold odd -l "a${escape}[31mb
c$(printf '\302\233')$(printf '\377')" odd
background odd_waiter "$FLOCKCTL" acquire odd -- echo "${escape}]0;title" "$(printf '\303\244\342\200\256')"
wait_for '[ "$(tickets odd)" = 1 ]'
unlike "$(flockctl status odd)" "$control" "control characters of labels and command lines are escaped"
like "$(flockctl status odd)" 'a\\x1b\[31mb\\x0ac' "the label's"
like "$(flockctl status odd)" 'echo \\x1b\]0;title' "and the command's"
unlike "$(flockctl status --json odd)" "$control" "in JSON, too"
like "$(flockctl status --json odd)" '"a\\u001b\[31mb\\u000ac\\u009b\\ufffd"' "where what isn't UTF-8 is U+FFFD"
json_is_good "JSON of odd text"
let_go odd
reap odd_waiter

# ---- pools ----

flockctl define values --values first,second,third --check 'test ! -e "$T/in-use.$FLOCKCTL_VALUE"'
background draws "$FLOCKCTL" acquire values:2 -- sh -c '"$FLOCKCTL" acquire values -- sh -c ": >\"\$T/draws.held\"; exec sleep 1000" &
    wait'
has_it draws
like "$(flockctl status values)" "^NAME +SLOT +VALUE +STATE.*
values +0 +first +held +$draws_pid .*
values +1 +second +held +$draws_pid .*
values +2 +third +free .*
  values +0 +first +held +[0-9]+ .*
  values +1 +second +free " "a column more for values, also of what was drawn from a hold"
json_is_good "JSON of a pool, and of a row below a hold"
kill "$draws_pid"
reap draws
hold dies values
kill -9 "$dies_pid"
reap dies
wait_for '[ "$(flockctl status values | grep -c " abandoned ")" = 1 ]'
: >"$T/in-use.first"
flockctl acquire values -- true
like "$(flockctl status values)" "^values +0 +first +blocked .* \\(in use by others; pid $dies_pid died holding it: .*flockctl acquire values --" \
    "a blocked value, and that its last holder died"
like "$(flockctl status --json values)" "\"state\":\"blocked\",\"value\":\"first\",\"holders\":\[\],\"last\":\{\"pid\":$dies_pid,.*\"blocked\":\"2" \
    "in JSON, too"
json_is_good "JSON of a blocked value"
flockctl remove values

# ---- damaged ----

flockctl define sick --slots 1
rm "$FLOCKCTL_DIR/rows/sick/latch"
run flockctl status
is "$status" 125 "a damaged row is an error"
like "$err" '^flockctl: the row sick is damaged: it has no latch' "which says what it is"
like "$out" '^two +0 +free' "the others are shown"
json_is_good "JSON with a problem"
rm -r "$FLOCKCTL_DIR/rows/sick"

# ---- colours, width, --watch ----

like "$(flockctl status --color always two)" "${escape}\[32mfree${escape}\[0m" "--color always"
unlike "$(flockctl status two)" "$escape" "no colours in a pipe"
if "$pty" true </dev/null 2>/dev/null; then
    # on_terminal COMMAND: what it prints on a terminal
    on_terminal() {
        TERM=xterm "$pty" sh -c "$1" </dev/null | tr -d '\r'
    }
    hold long long
    like "$(on_terminal '"$FLOCKCTL" status two')" "${escape}\[32mfree" "colours on a terminal"
    unlike "$(on_terminal 'NO_COLOR=1 "$FLOCKCTL" status two')" "$escape" "not with NO_COLOR"
    unlike "$(on_terminal 'TERM=dumb "$FLOCKCTL" status two')" "$escape" "nor on one that has none"
    for width in 100 60 20; do
        printed=$(on_terminal "stty cols $width; \"\$FLOCKCTL\" status --color never long")
        is "$(printf '%s\n' "$printed" | awk -v width=$width 'length > width { long++ } END { print NR, long + 0 }')" "2 0" \
            "on $width columns no line is longer"
    done
    like "$(on_terminal 'stty cols 100; "$FLOCKCTL" status --color never long')" '(flockctl|/).*\.\.\.' "the command is cut"
    let_go long

    # What it draws is read all the time, so it draws all the time.
    cat >"$T/steps" <<'END'
expect NAME
run : >"$T/watching"
expect all-done
send \003
END
    background watch sh -c 'exec "$0" "$FLOCKCTL" status --watch <"$T/steps"' "$pty"
    wait_for '[ -e "$T/watching" ]'
    run "$top_builddir/tests/cli/handoff" busy "$((10000 * ${STRESS_SCALE:-1}))"
    is "$status|$out" "0|1 had, 0 by look" "10,000 hand-offs under --watch: not one wake-up is lost"
    hold last -l all-done last
    reap watch
    is "$status" 130 "--watch draws until Ctrl-C" || diag "$err"
    let_go last
else
    for i in 1 2 3 4 5 6 7 8 9; do skip "no pseudo-terminals here"; done
fi

# ---- other users, hidden processes ----

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    tool_for_others
    mkdir "$T/theirs"
    chown 64321:64321 "$T/theirs"
    as_user() {
        FLOCKCTL_DIR=$T/theirs/root setpriv --reuid 64321 --regid 64321 --clear-groups "$@"
    }
    as_user "$FLOCKCTL" define mine --slots 1
    as_user "$FLOCKCTL" define roots --slots 1
    mkfifo "$T/theirs/go"
    chown 64321 "$T/theirs/go"
    FLOCKCTL_DIR=$T/theirs/root background mine setpriv --reuid 64321 --regid 64321 --clear-groups "$FLOCKCTL" acquire mine -- \
        sh -c 'sleep 1000 & echo $! >"$1/heir"; : >"$1/held"; wait' sh "$T/theirs"
    background roots sh -c 'exec 9<>"$1"; flock -n 9 || exit; : >"$2"; exec sleep 1000' sh \
        "$T/theirs/root/rows/roots/slots/0" "$T/roots.held"
    has_it roots
    wait_for '[ -e "$T/theirs/held" ]'
    look=$(as_user "$FLOCKCTL" status)
    like "$look" "^mine +0 +held +$mine_pid " "an ordinary user sees what is theirs"
    like "$look" '^roots +0 +held +\? .*a process that we may not see' "and that root has the other one, not who"
    is "$(as_user "$FLOCKCTL" holders roots 2>&1 | cut -c1-40)" "flockctl: 1 more that have no number her" "holders counts it"
    run as_user "$FLOCKCTL" -q status roots
    is "$status" 1 "and -q says that it is taken"
    kill -9 "$mine_pid"
    heir=$(cat "$T/theirs/heir")
    wait_for '[ "$(as_user "$FLOCKCTL" holders mine)" = "$heir" ]'
    like "$(as_user "$FLOCKCTL" status mine)" "^mine +0 +inherited +$heir " "the child that keeps it, when its acquirer is dead"
    FLOCKCTL_DIR=$T/theirs/root
    if unshare -m --propagation private mount -t proc -o hidepid=2 proc /proc 2>/dev/null; then
        look=$(unshare -m --propagation private sh -c 'mount -t proc -o hidepid=2 proc /proc && shift &&
            exec setpriv --reuid 64321 --regid 64321 --clear-groups "$@"' sh - "$FLOCKCTL" status)
        like "$look" "^mine +0 +inherited +$heir " "with hidepid=2 the same: our own"
        like "$look" '^roots +0 +held +\? .*a process that we may not see' "and what is hidden is not taken for dead"
    else
        skip "proc can't be mounted here"
        skip "proc can't be mounted here"
    fi
    FLOCKCTL_DIR=$T/root
    kill "$heir" "$roots_pid"
    reap roots
else
    for i in 1 2 3 4 5 6 7; do skip "needs root, and setpriv"; done
fi

# ---- other namespaces ----

if unshare -pf --mount-proc true 2>/dev/null; then
    background inside unshare -pf --mount-proc --kill-child "$FLOCKCTL" acquire ns -- sh -c ': >"$T/inside.held"; exec sleep 1000'
    has_it inside
    inner=$(flockctl holders ns | head -n 1)
    like "$(tr '\0' ' ' <"/proc/$inner/cmdline")" 'flockctl acquire ns' "a holder in a pid namespace below ours has its number here"
    like "$(flockctl status ns)" "held +$inner .*flockctl acquire ns" "it is held, not abandoned"
    like "$(flockctl status --json ns)" "\"pid\":$inner,[^}]*\"acquirer\":true" "by the one that acquired it"
    json_is_good "JSON of another namespace"
    hold outside there
    queue outside_too there
    look=$(unshare -pf --mount-proc "$FLOCKCTL" status there)
    namespace=$(readlink /proc/self/ns/pid | tr -dc 0-9)
    like "$look" "^there +0 +held +$outside_pid@$namespace " "one outside is shown with its namespace"
    like "$look" "^there +x1 +waiting +$outside_too_pid@$namespace " "and so is one that waits"
    is "$(unshare -pf --mount-proc "$FLOCKCTL" holders there 2>/dev/null)" "" "it has no number inside"
    run unshare -pf --mount-proc "$FLOCKCTL" -q status there
    is "$status" 1 "and isn't taken for dead"
    background heir_inside unshare -pf --mount-proc sh -c '"$FLOCKCTL" acquire nsheir -- sh -c "sleep 1000 & : >\"\$T/heir_inside.held\"; wait" &
        while [ ! -e "$T/heir_inside.held" ]; do sleep 0.01; done; kill -9 $!; wait $!
        "$FLOCKCTL" status nsheir >"$T/seen"; "$FLOCKCTL" evict -y nsheir; "$FLOCKCTL" status nsheir >>"$T/seen"'
    reap heir_inside
    is "$(awk '$3 != "STATE" { print $1, $2, $3 }' "$T/seen" | uniq | tr '\n' ';')" "nsheir 0 inherited;nsheir 0 abandoned;" \
        "inside, a dead acquirer and its heirs"
    let_go outside
    has_it outside_too
    let_go outside_too
    ok "evict from outside ends it" flockctl -q evict -y ns
    reap inside
else
    for i in 1 2 3 4 5 6 7 8 9 10; do skip "no pid namespaces here"; done
fi
if unshare -T -f --boottime 1000000 true 2>/dev/null; then
    background later unshare -T -f --boottime 1000000 --kill-child "$FLOCKCTL" acquire later -- sh -c ': >"$T/later.held"; exec sleep 1000'
    has_it later
    like "$(flockctl status later)" 'held +[0-9]+ .*flockctl acquire later' "a holder in another time namespace isn't taken for dead"
    like "$(flockctl status --json later)" '"foreign":true' "and is shown to be in one"
    hold earlier earlier
    like "$(unshare -T -f --boottime 1000000 "$FLOCKCTL" status earlier)" "held +$earlier_pid " "nor is one outside, from inside"
    let_go earlier
    ok "and evict ends it" flockctl -q evict -y later
    reap later
else
    for i in 1 2 3 4; do skip "no time namespaces here"; done
fi
done_testing
