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
