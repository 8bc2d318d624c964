#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# prune removes what was used least recently, never what is in use or being built, nor what once hasn't made; and whatever
# happens meanwhile, nobody finds a part of an output.
# shellcheck disable=SC2016,SC2154
TAP_DEADLINE=$((120 * ${STRESS_SCALE:-1}))
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

mkdir "$T/d" && cd "$T/d" || bail_out "no directory"

# make OUTPUT HOURS: of some 100 KB, used so long ago
make() {
    flockctl once -o "$1" --key key -- sh -c 'head -c 100000 /dev/urandom >"$FLOCKCTL_OUT"' || bail_out "can't build $1"
    touch -d "-$2 hours" "$(dirname "$1")/.$(basename "$1").flockctl"
}

make_all() {
    mkdir -p below
    make third 3
    make first 5
    make below/second 4
    make fourth 2
    echo mine >mine
}

# left NAME...: these outputs are there, and no other
left() {
    left_now=$(find . -type f ! -name '.*' | sed 's,^\./,,' | LC_ALL=C sort | tr '\n' ' ')
    is "${left_now% }" "$1" "$2"
}

# ---- which go ----

make_all
run flockctl prune --max-size 320K .
is "$status|$out|$err" "0|./first|" "too much: the one used least recently goes, and is named"
left "below/second fourth mine third" "the others stay"
run flockctl prune --max-size 320K .
is "$status|$out|$err" "0||" "enough: none goes"
run flockctl prune --max-age 150m .
is "$status|$out" "0|./below/second
./third" "not used for so long: all of those, oldest first"
left "fourth mine" "the others stay"
ok "no record is left of what went" [ ! -e .first.flockctl ]
run flockctl prune --max-size 0 .
is "$status|$out" "0|./fourth" "a size of 0: all"
left mine "what once hasn't made stays"
is "$(find . -name '.*flockctl*'; ls "$FLOCKCTL_DIR/once")" "" "no record, no private directory, no lock is left"

make_all
run flockctl -v prune --max-size 200K --max-age 270m --dry-run .
is "$status|$out" "0|./first
./below/second" "--dry-run: the same, by age and by size"
like "$err" "^flockctl: would remove 2 outputs of [0-9]+K; [0-9]+K are left; 0 kept$" "-v says how much that is"
left "below/second first fourth mine third" "and nothing goes"
flockctl once -o first --key key -- false || bail_out "it isn't current"
run flockctl prune --max-size 320K .
is "$out" "./below/second" "a hit is a use"
echo changed >>third
rm fourth
run flockctl prune --max-size 0 .
left "mine third" "what has been changed since it was built stays"
ok "a record without an output goes" [ ! -e .fourth.flockctl ]
rm third .third.flockctl

mkdir tree.d
flockctl once -o tree --key key -- sh -c 'mkdir "$FLOCKCTL_OUT" && cd "$FLOCKCTL_OUT" && mkdir -p a/b/c && head -c 100000 /dev/zero >a/b/c/d' ||
    bail_out "can't build a tree"
make tree/inside 9
ln -s "$T/d/tree" tree.d/link
run flockctl prune --max-size 0 .
is "$status|$out|$(ls -A tree)" "0||.inside.flockctl
a
inside" "a directory that was added to stays, with what is in it"
rm -r tree .tree.flockctl tree.d/link
flockctl once -o tree --key key -- sh -c 'mkdir -p "$FLOCKCTL_OUT/a/b" && echo >"$FLOCKCTL_OUT/a/b/c"'
run flockctl prune --max-size 0 .
is "$out" "./tree" "a directory goes as a whole"
rmdir tree.d below

# ---- bad input ----

bad 125 'how much is to stay' prune .
bad 125 'prune needs a directory; it is used so' prune --max-size 1
bad 125 'no-such.*No such file' prune --max-size 1 no-such
bad 125 'mine.*Not a directory' prune --max-size 1 mine
bad 125 'not a size for --max-size' prune --max-size 1X .
bad 125 'not a time for --max-age' prune --max-age 1y .

# ---- in use ----

make used 9
make built 8
mkfifo go.used go.built
# The command holds until it can read.
background user "$FLOCKCTL" once --use used -- sh -c 'echo held; read -r line <go.used'
background builder "$FLOCKCTL" once -o built --force --key key -- sh -c 'echo held; read -r line <go.built; cp go.done "$FLOCKCTL_OUT"'
wait_for '[ -s "$T/user.out" ] && [ -s "$T/builder.out" ]'
run flockctl -v prune --max-size 0 --dry-run .
is "$out" "" "what is used or being built stays: --dry-run knows it"
run flockctl -v prune --max-size 0 .
is "$status|$out" "0|" "it does"
like "$err" "^flockctl: ./used is kept: .* $user_pid " "-v names it, and who uses it"
like "$err" "^flockctl: ./built is kept: .* $builder_pid " "or builds it"
left "built mine used" "both are there"
echo done >go.done
timeout 10 sh -c 'echo >go.used; echo >go.built'
reap user
reap builder
run flockctl once --use used -- sh -c '"$FLOCKCTL" prune --max-size 0 . && cat used | wc -c'
is "$status|$out" "0|./built
100000" "below a command that uses it, too"
run flockctl prune --max-size 0 .
is "$out" "./used" "then it goes"

# One prune has looked at all, has removed the first and can't say that the second is in use, since nobody reads that.
make early 9
make used 8
make late 7
background keeper "$FLOCKCTL" once --use used -- sh -c 'echo held; read -r line <go.used'
wait_for '[ -s "$T/keeper.out" ]'
mkfifo "$T/unread"
exec 3<>"$T/unread"
dd if=/dev/zero of="$T/unread" bs=4096 oflag=nonblock 2>/dev/null
touch -d '-8 hours' .used.flockctl
background slow sh -c 'exec "$FLOCKCTL" -v prune --max-size 0 . 2>"$1"' sh "$T/unread"
wait_for '[ ! -e early ]'
run flockctl prune --max-size 0 .
is "$out" "./late" "another one takes the last"
timeout 10 cat <"$T/unread" >/dev/null 3<&- &
reader=$!
exec 3<&-
reap slow
is "$status|$out" "0|./early" "the first one doesn't say that it has"
wait "$reader"
timeout 10 sh -c 'echo >go.used'
reap keeper
rm go.* used .used.flockctl

# ---- all at once ----

# Eight prunes, four builders and four users of the same five directories. A user's command must find what it uses, whole.
mkdir "$T/race" && cd "$T/race" || bail_out "no directory"
rounds=$((${STRESS_SCALE:-1} * 15))
cat >build <<'EOS'
mkdir "$FLOCKCTL_OUT" && cd "$FLOCKCTL_OUT" && for i in 1 2 3 4 5 6 7 8; do echo "$1" >"$i"; done
EOS
cat >check <<'EOS'
[ "$(cat "$1"/[1-8] | tr -d '\n')" = "$1$1$1$1$1$1$1$1" ] || { ls -lR "$1"; exit 99; }
sleep 0.01
[ "$(cat "$1"/[1-8] | tr -d '\n')" = "$1$1$1$1$1$1$1$1" ] || { ls -lR "$1"; exit 98; }
EOS
cat >loop <<'EOS'
i=0
while [ "$i" -lt "$2" ] && [ ! -e enough ]; do
    i=$((i + 1)) output=o$((i % 5)) status=0
    case $1 in
    prune) "$FLOCKCTL" prune --max-size 0 . >>pruned || exit 1 ;;
    build) "$FLOCKCTL" once -o $output --key "$output" -- sh build $output || exit 2 ;;
    use)
        "$FLOCKCTL" once -o $output --key "$output" -- sh build $output || exit 3
        "$FLOCKCTL" once --use $output -- sh check $output 2>>missed || status=$?
        case $status in
        0) echo $output >>used ;;
        125) ;; # it went before it could be used
        *) exit $status ;;
        esac ;;
    esac
done
EOS
# start ROUNDS JOB...
start() {
    start_rounds=$1
    shift
    for job; do
        background "$job" sh loop "${job%?}" "$start_rounds"
    done
}
# end JOB...: adds to $failed
end() {
    for job; do
        reap "$job"
        [ "$status" = 0 ] || failed="$failed $job:$status:$out$err"
    done
}
failed=
start 1000000 prune1 prune2 prune3 prune4 prune5 prune6 prune7 prune8
start "$rounds" build1 build2 build3 build4 use1 use2 use3 use4
end build1 build2 build3 build4 use1 use2 use3 use4
: >enough
end prune1 prune2 prune3 prune4 prune5 prune6 prune7 prune8
is "$failed" "" "$rounds rounds of 8 prunes, 4 builders and 4 users: each finds whole what it uses"
diag "$(wc -l <pruned) pruned, $(wc -l <used) used, $(grep -c "isn't there" missed) gone before they could be used"
ok "some were pruned" [ -s pruned ]
ok "some were used" [ -s used ]
is "$(grep -v "isn't there" missed)" "" "and nothing else has gone wrong"
flockctl prune --max-size 0 . >/dev/null
is "$(find . -name 'o[0-9]*' -o -name '.*flockctl*')" "" "nothing is left when all is pruned"

# ---- killed ----

cat >build.big <<'EOS'
mkdir "$FLOCKCTL_OUT" && cd "$FLOCKCTL_OUT" && for i in $(seq 200); do echo whole >"$i"; done
EOS
torn=0 kills=$((${STRESS_SCALE:-1} * 10)) died=0
for i in $(seq "$kills"); do
    flockctl once -o big --key key -- sh build.big || fail "can't build it again"
    background victim "$FLOCKCTL" prune --max-size 0 .
    wait_for "[ ! -e big ] || [ -n \"\$(ls -d .flockctl-* 2>/dev/null)\" ] || ! kill -0 $victim_pid 2>/dev/null"
    kill -9 "$victim_pid" 2>/dev/null
    reap victim
    [ "$status" = 0 ] || died=$((died + 1))
    [ ! -e big ] || [ "$(cat big/* | grep -c whole)" = 200 ] || torn=$((torn + 1))
done
is "$torn" 0 "prune killed $kills times: never a part of an output"
diag "$died of $kills died in the middle"
flockctl once -o big --key key -- sh build.big
flockctl prune --max-size 0 . >/dev/null
is "$(find . -name '.*flockctl*' | wc -l)" 0 "and what it had moved away is removed by the next builder"
done_testing
