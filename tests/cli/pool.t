#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Pools: slots that have values, which of them is taken, and which are passed over.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# value_of JOB [VARIABLE]: what a job of hold() got
value_of() {
    sed -n "s/^FLOCKCTL_${2-VALUE}=//p" "$T/$1.env"
}

# ---- values ----

run flockctl define port --values 18080-18083
is "$status|$out|$err" "0||" "define a pool"
run flockctl define port --values 18080,18081,18082,18083
is "$status|$out|$err" "0||" "again with the same values"
is "$(flockctl path port | wc -l)" 4 "it has a slot for each"
run flockctl acquire port -- sh -c 'echo "$FLOCKCTL_SLOT $FLOCKCTL_VALUE, $FLOCKCTL_VALUES, $FLOCKCTL_VALUES_1"'
is "$status|$out" "0|0 18080, 18080, 18080" "a command gets the lowest"
run flockctl acquire port:3 -- sh -c 'echo "$FLOCKCTL_VALUE, $FLOCKCTL_VALUES"'
is "$out" "18080, 18080 18081 18082" "three of them"
run flockctl acquire port:all -- sh -c 'echo "$FLOCKCTL_VALUES"'
is "$out" "18080 18081 18082 18083" "all of them"
run flockctl acquire db port:2 -- sh -c 'echo "${FLOCKCTL_VALUE-none} ${FLOCKCTL_VALUES_1-none} $FLOCKCTL_VALUES_2"'
is "$out" "none none 18080 18081" "of several names: by position, and none for the first, which isn't a pool"
run flockctl acquire port -- "$FLOCKCTL" acquire db -- sh -c 'echo "${FLOCKCTL_VALUE-none} ${FLOCKCTL_VALUES_1-none}"'
is "$out" "none none" "nor does a name inside see those of one outside"
hold a port:2
hold b port
is "$(value_of a VALUES)|$(value_of b)" "18080 18081|18082" "what somebody has nobody else gets"
run flockctl acquire -n port:2 -- true
is "$status" 75 "two more there aren't"
let_go a
run flockctl acquire -n port -- sh -c 'echo "$FLOCKCTL_VALUE"'
is "$out" 18080 "the lowest that is free"
kill -KILL "$b_pid"
wait_for "flockctl -q acquire -n port:all -- true"
pass "a value is free again when its holder is killed"
flockctl define device --values /dev/a,/dev/b
run flockctl acquire --while $$ device
is "$status" 0 "--while holds one too"
run flockctl acquire -n device -- sh -c 'echo "$FLOCKCTL_VALUE"'
is "$out" /dev/b "which nobody else gets"
printf 'one\ntwo-3\n' >"$T/values"
flockctl define listed --values-from "$T/values"
run flockctl acquire listed:all -- sh -c 'echo "$FLOCKCTL_VALUES"'
is "$out" "one two-3" "values from a file"
run flockctl acquire --values 127.0.1.1-127.0.1.3 address:2 -- sh -c 'echo "$FLOCKCTL_VALUES"'
is "$status|$out" "0|127.0.1.1 127.0.1.2" "acquire makes the pool that it names"
run flockctl acquire --values 127.0.1.1-127.0.1.3 address -- true
is "$status" 0 "and finds it"

# ---- nested ----

run flockctl acquire port:2 -- sh -c '
    $FLOCKCTL acquire port -- sh -c "echo \$FLOCKCTL_VALUE \$FLOCKCTL_SLOT"
    $FLOCKCTL acquire port:2 -- sh -c "echo \$FLOCKCTL_VALUES"'
is "$out" "18080 0
18080 18081" "a nested request gets values of the hold above"
hold a port
run flockctl acquire port:2 -- "$FLOCKCTL" acquire port:all -- "$FLOCKCTL" acquire port -- \
    "$FLOCKCTL" status --json port
has_values='"value":"18081","holders":\[\{.*"under":\[.*"slot":0,"state":"held","value":"18081".*"slot":1,"state":"free","value":"18082"'
like "$out" "$has_values" "which status shows, there too"
run flockctl acquire port:2 -- "$FLOCKCTL" acquire port:all -- "$FLOCKCTL" acquire port -- sh -c 'echo "$FLOCKCTL_VALUE"'
is "$out" 18081 "two levels down as well"
let_go a

# ---- status ----

hold a --label L port
run flockctl status port
like "$out" '^NAME +SLOT +VALUE +STATE +PID ' "status has a column of values"
like "$out" "^port +0 +18080 +held +$a_pid .* L\$" "with who has it"
like "$out" '^port +3 +18083 +free +-' "and those that are free"
run flockctl status db
like "$out" '^NAME +SLOT +STATE +PID ' "but not where there are none"
let_go a

# ---- each is one's alone ----

cat >"$T/alone" <<'END'
mkdir "$T/used.$FLOCKCTL_VALUE" || echo "$FLOCKCTL_VALUE is shared" >>"$T/shared"
echo "$FLOCKCTL_VALUE" >>"$T/got"
rmdir "$T/used.$FLOCKCTL_VALUE"
END
cat >"$T/worker" <<'END'
for i in 1 2 3 4 5 6 7 8 9 10; do
    $FLOCKCTL acquire --values x,y,z three -- sh "$T/alone" || echo failed >>"$T/shared"
done
END
for worker in 1 2 3 4 5 6 7 8; do
    background "worker$worker" sh "$T/worker"
done
for worker in 1 2 3 4 5 6 7 8; do
    reap "worker$worker"
done
is "$(cat "$T/shared" 2>&1 | head -n 3)|$(wc -l <"$T/got")" "cat: $T/shared: No such file or directory|80" \
    "eight processes with a pool of three never share a value"
is "$(sort -u "$T/got" | tr '\n' ' ')" "x y z " "and use all of them"

# ---- spread ----

next() {
    flockctl -q acquire rest -- sh -c 'echo "$FLOCKCTL_VALUE"'
}
flockctl define rest --values a,b,c,d --spread
is "$(next; next; next; next; next; next)" "a
b
c
d
a
b" "spread: the one that was unused longest"
hold held rest
is "$(value_of held)" c "a holder has the third"
is "$(next; next; next; next)" "d
a
b
d" "the others go round without it"
let_go held
is "$(next; next; next; next; next)" "a
b
d
c
a" "and it comes after those that were free when it was let go"
hold held rest
is "$(value_of held)" b "the next one"
kill -KILL "$held_pid"
wait_for "flockctl status rest | grep -q abandoned"
is "$(next; next; next; next; next)" "d
c
a
b
d" "the one of a holder that was killed counts from when that is seen"
run flockctl -q acquire rest:2 -- sh -c 'echo "$FLOCKCTL_VALUES $FLOCKCTL_SLOTS"'
is "$out" "a c 0 2" "two at once: the two that were unused longest, in the order of their slots"
bad 125 'rest has its slots spread, not the lowest first' define rest --values a,b,c,d
run flockctl define rest --values a,b,c,d --spread
is "$status" 0 "again as it is"
bad 125 '--spread is for pools' define other --slots 2 --spread

# ---- the configuration file ----

cat >"$FLOCKCTL_CONFIG" <<'END'
nbd values=/dev/nbd0,/dev/nbd1 # devices
turn values=1-3 spread
plain2 slots=2
END
run flockctl acquire nbd:2 -- sh -c 'echo "$FLOCKCTL_VALUES"'
is "$status|$out" "0|/dev/nbd0 /dev/nbd1" "the first user of a name makes the pool that the file declares"
flockctl acquire turn -- true
run flockctl acquire turn -- sh -c 'echo "$FLOCKCTL_VALUE"'
is "$out" 2 "spread too"
flockctl remove turn nbd
bad 125 'flockctl.conf:1 declares nbd with the value /dev/nbd0 in slot 0, not x' acquire --values x,y nbd -- true
bad 125 'flockctl.conf:1 declares nbd with 2 values, not 3' define nbd --values x,y,z
bad 125 'flockctl.conf:1 declares nbd with 2 values, not 3 slots' acquire --slots 3 nbd -- true
bad 125 'flockctl.conf:1 declares nbd with values, not slots alone' define nbd --slots 2
bad 125 'flockctl.conf:3 declares plain2 with slots alone, not values' define plain2 --values x,y
bad 125 'flockctl.conf:2 declares turn with its slots spread, not the lowest first' define turn --values 1-3
ok "none of these made it" [ ! -e "$FLOCKCTL_DIR/rows/nbd" ]
run flockctl define turn --values 1,2,3 --spread
is "$status|$err" "0|" "what agrees with the file is fine"
run flockctl acquire --values 1-3 nothing -- true
is "$status" 0 "and so is what it doesn't mention"
: >"$FLOCKCTL_CONFIG"

# ---- values that others use ----

occupy=$top_builddir/tests/cli/occupy
[ -x "$occupy" ] || bail_out "tests/cli/occupy is not there: run make check first"

# occupy JOB KIND WHAT...: somebody who knows nothing of the pool has it
occupy() {
    occupy_job=$1
    shift
    rm -f "$T/$occupy_job.ready"
    background "$occupy_job" "$occupy" "$@" "$T/$occupy_job.ready"
    wait_for "[ -e '$T/$occupy_job.ready' ]"
}

# vacate JOB
vacate() {
    eval "kill \"\$${1}_pid\""
    reap "$1"
}

# state_of_value NAME VALUE
state_of_value() {
    flockctl status "$1" | awk -v value="$2" '$3 == value { print $4 }'
}

got() {
    flockctl -q acquire "$@" -- sh -c 'echo "$FLOCKCTL_VALUES"'
}

occupy listener tcp 127.0.0.1 0
occupy other tcp 127.0.0.1 0
busy=$(cat "$T/listener.ready") free=$(cat "$T/other.ready")
vacate other
flockctl define tcp --values "$busy,$free,x" --check tcp-port 2>"$T/.err"
is "$?|$(cat "$T/.err")" \
    "125|flockctl: the value x of tcp can't be checked as a port; give PORT (1 to 65535), ADDRESS:PORT or [ADDRESS]:PORT" \
    "--check tcp-port: each value must be a port"
flockctl define tcp --values "$busy,$free" --check tcp-port
is "$(got tcp)" "$free" "a port on which somebody listens is passed over"
is "$(state_of_value tcp "$busy")" blocked "and status shows it as blocked"
is "$(state_of_value tcp "$free")" free "the other is free"
like "$(flockctl status --json tcp)" '"state":"blocked","value":"'"$busy"'","holders":\[\],"last":null,"blocked":"20' "in JSON too"
run flockctl acquire -n tcp:2 -- true
is "$status" 75 "both there aren't"
like "$err" "tcp is taken; in use by others: $busy" "which says why"
run flockctl acquire -w 20ms tcp:2 -- true
is "$status" 75 "nor after some time"
like "$err" "still taken after 0.*; in use by others: $busy" "which says why, too"
: >"$T/log"
queue w tcp:2
queue x tcp
wait_for "grep -q 'waiting for tcp for 1 s: in use by others: $busy; we are first' '$T/w.err'"
is "$(tickets tcp)|$(cat "$T/log")" "2|" "who needs both waits, and isn't overtaken by one that needs one"
used=$(awk '{ print $14 + $15 }' "/proc/$w_pid/stat")
ok "it sleeps meanwhile (ticks of processor time: $used)" [ "$used" -lt 30 ]
vacate listener
has_it w
is "$(value_of w VALUES)" "$busy $free" "it gets both when the listener has ended"
let_go w
has_it x
log_is "w x" "then comes the other"
is "$(value_of x)" "$busy" "which gets the lower one"
let_go x
is "$(state_of_value tcp "$busy")" free "nothing is blocked any more"
occupy listener tcp ::1 "$busy"
is "$(got tcp)" "$free" "a listener on an address of IPv6 counts"
run flockctl remove -n tcp
is "$status|$err" "0|" "a pool is removed whatever is blocked"
flockctl define host --values "127.0.0.1:$busy,[::1]:$busy" --check tcp-port
is "$(got host)" "127.0.0.1:$busy" "ADDRESS:PORT is about that address alone"
run flockctl acquire -n host:2 -- true
is "$status" 75 "as is [ADDRESS]:PORT"
vacate listener
is "$(got -n host:2)" "127.0.0.1:$busy [::1]:$busy" "who tries once isn't told what was"
occupy listener udp 127.0.0.1 0
busy=$(cat "$T/listener.ready")
flockctl define udp --values "$busy,$free" --check udp-port
is "$(got udp)" "$free" "udp-port"
is "$(state_of_value udp "$busy")" blocked "is shown too"
vacate listener
is "$(state_of_value udp "$busy")|$(got -n udp)" "free|$busy" "until it is over"

# Paths.
: >"$T/file"
occupy opener open "$T/file"
flockctl define path --values "$T/file,$T/not-there" --check path-free
is "$(got path)" "$T/not-there" "path-free: a file that somebody has open is passed over, one that isn't there isn't"
vacate opener
is "$(got -n path)" "$T/file" "until it is closed"
occupy server unix "$T/socket"
flockctl define socket --values "$T/socket,$T/none" --check path-free
is "$(got socket)" "$T/none" "so is a socket on which somebody listens"
vacate server
is "$(got -n socket)" "$T/socket" "but not one that was left behind"
run flockctl acquire path -- sh -c 'exec 5<"$FLOCKCTL_VALUE"; exec "$FLOCKCTL" acquire path -- sh -c "echo \$FLOCKCTL_VALUE"'
is "$out" "$T/file" "what one has oneself is in nobody's way in a nested request"
bad 125 "can't be checked as a path" define other --values dev/null --check path-free

# Commands.
flockctl define cmd --values a,b,c --spread --check '
    ' 2>"$T/.err"
like "$(cat "$T/.err")" 'has more than one line' "a check is one line"
flockctl define cmd --values a,b,c --check \
    'echo "$FLOCKCTL_NAME $FLOCKCTL_SLOT $FLOCKCTL_VALUE" >>"$T/checked"; echo noise; flock -n "$FLOCKCTL_DIR/rows/cmd/latch" true || echo latched >>"$T/latched"; test ! -e "$T/busy.$FLOCKCTL_VALUE"'
: >"$T/busy.a"
run flockctl acquire cmd -- sh -c 'echo "$FLOCKCTL_VALUE"'
is "$status|$out|$err" "0|b|" "a command decides; what it prints isn't shown"
is "$(cat "$T/checked")" "cmd 0 a
cmd 1 b" "it is told which value"
is "$(state_of_value cmd a)" blocked "status shows what it has found"
run flockctl acquire -n cmd:3 -- true
is "$status" 75 "a command has its time, also for one that tries once"
: >"$T/log"
queue w cmd:3
rm "$T/busy.a"
has_it w
is "$(value_of w VALUES)" "a b c" "it is asked again, and again"
let_go w
not_ok "never with the latch locked" [ -e "$T/latched" ]
: >"$T/busy.a"
run flockctl acquire cmd -- "$FLOCKCTL" acquire cmd -- sh -c 'echo "$FLOCKCTL_VALUE"'
is "$out" b "a nested request gets what was checked"
run flockctl acquire cmd:2 -- sh -c 'echo "$FLOCKCTL_VALUES $FLOCKCTL_SLOTS"'
is "$out" "b c 1 2" "several of those that are usable"
hold h cmd
run flockctl acquire -n cmd:2 -- true
like "$status $err" "^75 .*taken by pid $h_pid .*; in use by others: a" "one is held, one is blocked"
let_go h

flockctl define slow --values a,b --check 'test ! -e "$T/slow" || { echo "$$" >"$T/check.pid"; exec sleep 1000; }'
: >"$T/slow"
run flockctl acquire -w 100ms slow -- true
is "$status" 75 "a check doesn't outlast the wait"
like "$err" 'the check of slow was still looking at its value a after' "which says so"
rm -f "$T/check.pid"
background asker "$FLOCKCTL" acquire slow -- true
wait_for "[ -s '$T/check.pid' ]"
kill -KILL "$asker_pid"
reap asker
wait_for "! kill -0 $(cat "$T/check.pid") 2>/dev/null"
pass "nor flockctl, when that is killed"
rm "$T/slow" "$T/check.pid"
run flockctl acquire slow:all -- sh -c 'echo "$FLOCKCTL_VALUES ${FLOCKCTL_ABANDONED-}"'
is "$status|$out" "0|a b " "and what it looked at is free, and not abandoned"
: >"$T/slow"
background asker "$FLOCKCTL" acquire slow -- true
wait_for "[ -s '$T/check.pid' ]"
is "$(flockctl status slow | awk '{ print $2, $4, $5 }' | tail -n 3)" "0 free -
1 free -
x1 waiting $asker_pid" "whose check looks at a value waits, and doesn't hold it"
run flockctl holders slow
is "$status|$out" "1|" "so it isn't one of the holders"
run flockctl evict -y slow
is "$status|$err" "0|flockctl: nobody has slow" "nor is it evicted"
run flockctl acquire -w 1100ms slow -- true
like "$err" "waiting for slow for 1 s: nobody is known to hold it; 1 ahead of us, first in line: pid $asker_pid " \
    "and those behind it are told so"
kill -TERM "$asker_pid"
reap asker
is "$status" 143 "a signal ends the wait for a check"
wait_for "! kill -0 $(cat "$T/check.pid") 2>/dev/null"
pass "and the check"
rm "$T/slow" "$T/busy.a"
nothing_left slow cmd path

flockctl define turns --values x,y --check 'test "$FLOCKCTL_SLOT" -lt 2'
for worker in 1 2 3 4; do
    background "worker$worker" sh -c 'for i in 1 2 3 4; do
            $FLOCKCTL acquire turns -- sh "$T/alone" || echo failed >>"$T/shared"; done'
done
for worker in 1 2 3 4; do
    reap "worker$worker"
done
not_ok "values with a check are never shared" [ -e "$T/shared" ]

flockctl define broken --values a --check 'no-such-command-anywhere'
bad 125 "the check of broken, \"no-such-command-anywhere\", can't be run: sh says 127" acquire broken -- true
bad 125 'is empty; give tcp-port' define other --values a --check ''
bad 125 'has 1024 bytes' define other --values a --check "$(printf '%01024d' 0)"
bad 125 '--check looks at values' define other --slots 2 --check true
bad 125 "can't be shared" acquire --shared broken -- true
bad 125 'cmd has the check .*, not no check' define cmd --values a,b,c
run flockctl acquire --values a,b,c cmd -- true
is "$status" 0 "who only says the values gets the pool with its check"
echo "declared values=a,b spread check=test \$FLOCKCTL_VALUE != a # it is" >"$FLOCKCTL_CONFIG"
is "$(got declared)" b "a check in the configuration file"
is "$(cat "$FLOCKCTL_DIR/rows/declared/check")" 'test $FLOCKCTL_VALUE != a # it is' "goes to the end of the line"
bad 125 'declares declared with the check .*, not no check' define declared --values a,b --spread
: >"$FLOCKCTL_CONFIG"

# ---- what can't be ----

bad 125 'port has the value 18080 in slot 0, not 18090' define port --values 18090-18093
bad 125 'port has 4 values, not 2' define port --values 18080,18081
bad 125 'port has 4 values, not 2' acquire --values 18080,18081 port -- true
bad 125 'port has 4 values, not 3 slots' acquire --slots 3 port -- true
bad 125 "port is a pool of 4 values and can't have slots without any" define port --slots 4
bad 125 "port is a pool of 4 values and can't get another number" resize port 5
bad 125 "port has 4 values, so 5 can't be had" acquire port:5 -- true
flockctl define plain --slots 2
bad 125 'plain has 2 slots without values; .*flockctl remove plain' define plain --values a,b
bad 125 'needs the number of slots.*--values LIST' define other
bad 125 'leave --slots out' define other --slots 2 --values a,b
bad 125 'give one of them' define other --values a --values-from "$T/values"
bad 125 'is empty' define other --values ''
bad 125 'is empty' define other --values a,,b
bad 125 'is empty' define other --values a,
bad 125 'byte 0x20' define other --values 'a b'
bad 125 'byte 0x09' define other --values "a	b"
bad 125 'byte 0xc3' define other --values "$(printf 'gr\303\274n')"
bad 125 'b of other is given twice' define other --values a,b,b
bad 125 '2 of other is given twice' define other --values 1-3,2
bad 125 'runs backwards' define other --values 3-1
bad 125 'more than 4096' define other --values 1-4097
bad 125 'has 256 bytes' define other --values "$(printf '%0256d' 0)"
bad 125 'one name has' acquire --values a,b other another -- true
: >"$T/empty"
bad 125 'empty is empty' define other --values-from "$T/empty"
bad 125 "can't read the values from .*none" define other --values-from "$T/none"
printf 'a\n\nb\n' >"$T/gap"
bad 125 'a value of other is empty' define other --values-from "$T/gap"
printf 'a\r\n' >"$T/windows"
bad 125 'byte 0x0d' define other --values-from "$T/windows"
printf 'a\000b\n' >"$T/nul"
bad 125 'nul:1: there is a NUL byte' define other --values-from "$T/nul"
ok "none of these made it" [ ! -e "$FLOCKCTL_DIR/rows/other" ]
hold a port
bad 125 'can.t get another number' resize -n port 5
let_go a
flockctl remove port
run flockctl acquire --values 1-2 port:all -- sh -c 'echo "$FLOCKCTL_VALUES"'
is "$out" "1 2" "once removed, it can get others"

done_testing
