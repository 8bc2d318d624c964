#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# A short path, so that no command line is cut where it is named.
ln -s "$FLOCKCTL" "$T/flockctl"
FLOCKCTL=$T/flockctl

# ring NAME...: commands of one name each that want the next one's, all at the same time: each holds its name, and asks once all do.
# $RING (a shell command line with $want in it) is how each asks.
ring() {
    rm -rf "$T/ring" && mkdir "$T/ring"
    ring_count=$# ring_first=$1 ring_jobs=''
    while [ $# -gt 0 ]; do
        want=${2-$ring_first} RING=$RING RINGS=$T/ring
        export want RING RINGS
        background "ring_$1" "$FLOCKCTL" acquire "$1" -- sh -c '
            echo >"$RINGS/has_$want"
            while [ ! -e "$RINGS/all" ]; do sleep 0.01; done
            eval "$RING"'
        ring_jobs="$ring_jobs ring_$1"
        shift
    done
    wait_for "[ \$(ls '$T/ring' | grep -c has_) = $ring_count ]"
    : >"$T/ring/all"
    ring_victims=0 ring_done=0 ring_said=''
    for ring_job in $ring_jobs; do
        reap "$ring_job"
        case $status in
        0) ring_done=$((ring_done + 1)) ;;
        *) ring_victims=$((ring_victims + 1)) ring_said="$ring_said$err" ;;
        esac
        case $err in *"a deadlock"*) ring_status=$status ;; esac
    done
}

nothing_published() {
    is "$(tr '\000' ' ' <"$FLOCKCTL_DIR/waiting" | grep -c '^+[0-9][0-9][0-9][0-9]$')" 0 "$1"
}

# ---- who holds nothing ----

hold first alone
queue second alone
let_go first
let_go second
not_ok "who holds nothing while it waits looks for no deadlock" [ -e "$FLOCKCTL_DIR/waiting" ]

# ---- two, three, ten ----

RING='exec "$FLOCKCTL" acquire "$want" -- true'
ring two1 two2
is "$ring_victims $ring_done $ring_status" "1 1 35" "two in a deadlock: one of them exits with 35, the other one goes on"
like "$ring_said" '^flockctl: a deadlock: pid [0-9]+ \(.* acquire two[12] -- true\) holds two[12] from pid [0-9]+ \(.* acquire two[12] -- sh' \
    "both that have to do with it are named, and what they run"
like "$ring_said" 'waits for two[12]; pid [0-9]+ .* holds two[12] .* and waits for two[12]\.' "what each holds and waits for"
is "$(printf '%s\n' "$ring_said" | wc -l)" 1 "in one line"
nothing_published "nothing of it is left"

ring three1 three2 three3
is "$ring_victims $ring_done $ring_status" "1 2 35" "three: one"

RING='printf "all:\n\t@\$(FLOCKCTL) acquire $want -- true\n" >"$RINGS/make_$want"; make -s -f "$RINGS/make_$want"'
ring make1 make2
is "$ring_victims $ring_done" "1 1" "two through make: one recipe fails"
like "$ring_said" 'a deadlock: .*Error 35|Error 35' "with 35"

cat >"$T/all.mk" <<'END'
all: ; @sh -c '$(FLOCKCTL) acquire $(want) -- sh -c true; exit $$?'
END
RING='cp "$T/all.mk" "$RINGS/$want.mk"; sh -c "(sh -c \"make -s -f $RINGS/$want.mk; exit \\\$?\"); exit \$?"'
ring ten0 ten1 ten2 ten3 ten4 ten5 ten6 ten7 ten8 ten9
is "$ring_victims $ring_done" "1 9" "ten, by grandchildren of recipes of make: one fails, the others go on"
is "$(printf '%s' "$ring_said" | grep -o 'and waits for ten[0-9]' | sort -u | wc -l)" 10 "all ten are told of"
nothing_published "and nothing of it is left"

# ---- by way of nested rows ----

flockctl define suite --slots 2
cat >"$T/suite.sh" <<'END'
# One recipe of the suite takes one of its own and wants the lock; the other one has the lock and wants two of its own.
flockctl=$FLOCKCTL
"$flockctl" acquire suite -- sh -c ': >"$T/s1"; while [ ! -e "$T/s2" ]; do sleep 0.01; done
    "$FLOCKCTL" acquire nestlock -- true; echo one $? >>"$T/suite.out"' &
"$flockctl" acquire nestlock -- sh -c ': >"$T/s2"; while [ ! -e "$T/s1" ]; do sleep 0.01; done
    "$FLOCKCTL" acquire suite:2 -- true; echo two $? >>"$T/suite.out"' &
wait
END
run timeout 20 "$FLOCKCTL" acquire suite:all -- sh "$T/suite.sh"
is "$status $(sort -k2n "$T/suite.out" | sed 's/.* //' | tr '\n' ' ')" "0 0 35 " "one by way of a row below a hold is found"
like "$err" 'a deadlock: .*suite \(nested\)' "and said to be one"

# ---- descriptors closed on the way: the hold is known by the ancestor that has it ----

if bash -c 'exec 200>&-' 2>/dev/null; then
    RING='exec bash -c "for fd in {200..210}; do eval \"exec \$fd>&-\"; done; exec \"\$FLOCKCTL\" acquire \$want -- true"'
    ring closed1 closed2
    is "$ring_victims $ring_done $ring_status" "1 1 35" "descriptors that were closed on the way hide no deadlock"
else
    skip "there is no bash to close descriptors with"
fi

# ---- the variables gone, the descriptors still there ----

RING='exec env -i "$FLOCKCTL" --dir "$FLOCKCTL_DIR" acquire "$want" -- true'
ring bare1 bare2
is "$ring_victims $ring_done $ring_status" "1 1 35" "an environment that was cleared hides no deadlock"

# ---- in another pid namespace, whose /proc nobody sees ----

RING='exec "$FLOCKCTL" acquire "$want" -- true'
if flockctl run --isolate pid -- true 2>/dev/null; then
    rm -f "$T/ns"*
    mkfifo "$T/ns"
    background inside "$FLOCKCTL" acquire --isolate pid ns1 -- sh -c 'read -r line <"$T/ns"; exec "$FLOCKCTL" acquire ns2 -- true'
    background outside "$FLOCKCTL" acquire ns2 -- sh -c 'echo >"$T/ns"; exec "$FLOCKCTL" acquire ns1 -- true'
    reap inside
    ns_status=$status ns_said=$err
    reap outside
    is "$(printf '%s\n' "$status" "$ns_status" | sort -n | tr '\n' ' ')" "0 35 " "one from inside a pid namespace to outside is found"
    like "$ns_said$err" 'a deadlock: pid [0-9]+ .* pid [0-9]+ ' "whoever closes it"
else
    skip "no pid namespace can be made here"
    skip "the same"
fi

# ---- none ----

flockctl define pair --slots 2
flockctl define lone --slots 1
hold free pair
background one "$FLOCKCTL" acquire pair -- sh -c ': >"$T/one"; while [ ! -e "$T/two" ]; do sleep 0.01; done
    exec "$FLOCKCTL" acquire lone -- true'
wait_for '[ -e "$T/one" ]'
background two "$FLOCKCTL" acquire lone -- sh -c ': >"$T/two"; exec "$FLOCKCTL" acquire pair -- true'
wait_for '[ "$(tickets lone)" = 1 ] && [ "$(tickets pair)" = 1 ]'
let_go free
reap one
is "$status" 0 "a row of two with a holder that runs is no deadlock for the one"
reap two
is "$status" 0 "nor for the other one"

# ---- values in use by others, which come free some time, and outputs ----

# close_circle COMMAND: job `one` waits for the name `last`; its holder runs COMMAND, which waits for what one holds
flockctl define last --slots 1
close_circle() {
    export CLOSE="$1"
    background two "$FLOCKCTL" acquire last -- sh -c ': >"$T/two"; while [ ! -e "$T/close" ]; do sleep 0.01; done; eval "$CLOSE"'
    wait_for '[ -e "$T/two" ] && [ "$(tickets last)" = 1 ]'
    : >"$T/close"
}
circle_begins() {
    rm -f "$T/two" "$T/close" "$T/one"
    background one "$@" sh -c ': >"$T/one"; while [ ! -e "$T/two" ]; do sleep 0.01; done
        "$FLOCKCTL" acquire last -- true && { [ ! "${FLOCKCTL_OUT-}" ] || : >"$FLOCKCTL_OUT"; }'
    wait_for '[ -e "$T/one" ]'
}
flockctl define values --values a,b --check 'test ! -e "$T/in-use.$FLOCKCTL_VALUE"'
: >"$T/in-use.b"
circle_begins "$FLOCKCTL" acquire values --
close_circle 'exec "$FLOCKCTL" acquire values -- true'
wait_for '[ "$(flockctl status values | grep -c " waiting ")" = 1 ]'
rm "$T/in-use.b"
reap two
is "$status" 0 "a value in use by others is no deadlock"
reap one
is "$status" 0 "for none of them"
: >"$T/in-use.b"
circle_begins "$FLOCKCTL" acquire values --
close_circle 'exec "$FLOCKCTL" acquire values:2 -- true'
reap two
is "$status" 35 "but it hides none"
like "$err" "a deadlock: .* holds last from .* and waits for values:2; .* holds values from .* waits for last" "  with all of it"
reap one
is "$status" 0 "  and the other one goes on"
rm "$T/in-use.b"
circle_begins "$FLOCKCTL" once -o "$T/output" --
close_circle 'exec "$FLOCKCTL" once -o "$T/output" -- true'
reap two
is "$status" 35 "one by way of an output that is built is found"
like "$err" "a deadlock: .* holds last from .* waits for $T/output; .* holds $T/output from .* waits for last" "  and the output is named"
reap one
is "$status" 0 "  which gets built"
circle_begins "$FLOCKCTL" once --use "$T/output" --
close_circle 'exec "$FLOCKCTL" once --force -o "$T/output" -- true'
reap two
is "$status" 35 "so is one by way of an output that is used"
reap one
is "$status" 0 "  and its user goes on"
nothing_published "nothing of them is left"

RING='exec "$FLOCKCTL" acquire -n "$want" -- true'
ring once1 once2
unlike "$ring_said" "a deadlock" "who tries once isn't in a deadlock"

RING='exec "$FLOCKCTL" acquire -w 50ms "$want" -- true'
ring late1 late2
is "$ring_status" 35 "but who would wait for some time is"

# ---- one that was killed, and what it leaves ----

hold kept kill1
background killed "$FLOCKCTL" acquire kill2 -- sh -c 'exec "$FLOCKCTL" acquire kill1 -- true'
wait_for '[ "$(tickets kill1)" = 1 ]'
kill -9 "$killed_pid"
reap killed
let_go kept
run timeout 20 "$FLOCKCTL" acquire kill1 -- "$FLOCKCTL" acquire -w 10 kill2 -- true
is "$status" 0 "one that was killed while it waited keeps nobody from anything"
done_testing
