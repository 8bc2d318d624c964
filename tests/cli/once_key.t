#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# flockctl once with a key: what makes an output one that isn't current any more, and what doesn't.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

mkdir "$T/d"
cd "$T/d" || exit 1
umask 022

# build [OPTION]...: an output x whose content is the number of the build
build() {
    run flockctl once -o x "$@" -- sh -c 'echo x >>../count; wc -l <../count >"$FLOCKCTL_OUT"'
}

# builds NAME [OPTION]..., hits NAME [OPTION]...: it is built anew, or it isn't
builds() {
    builds_name=$1 builds_before=$(cat x 2>/dev/null)
    shift
    build "$@"
    is "$status|$err|$([ "$(cat x)" != "$builds_before" ] && echo new)" "0||new" "$builds_name: it is built"
}

hits() {
    hits_name=$1 hits_before=$(cat x)
    shift
    build "$@"
    is "$status|$err|$(cat x)" "0||$hits_before" "$hits_name: it is current"
}

# ---- what counts ----

echo one >in
builds "with an input" --input in
hits "the same" --input in
hits "another spelling" --input ./in
touch in
hits "only touched" --input in
echo two >in
builds "another content" --input in
chmod 700 in
builds "another mode" --input in
cp -p in "$T/copy"
mv "$T/copy" in
hits "an equal file in its place" --input in
mkdir tree
echo 1 >tree/a
nl=$(printf 'new\nline')
echo 2 >"tree/$nl"
builds "a directory, too" --input in --input tree
hits "the same" --input in --input tree
mv "tree/$nl" "tree/new"
builds "a file in it with another name" --input in --input tree
builds "the same in another order" --input tree --input in
unset FLOCKCTL_TEST
builds "a variable that isn't set" --env FLOCKCTL_TEST
export FLOCKCTL_TEST=
builds "an empty one" --env FLOCKCTL_TEST
hits "the same" --env FLOCKCTL_TEST
export FLOCKCTL_TEST=1
builds "one with a value" --env FLOCKCTL_TEST
builds "the command" --command-key
hits "the same" --command-key
ok "another command" flockctl once -o x --command-key -- sh -c 'echo other >"$FLOCKCTL_OUT"'
is "$(cat x)" other "makes another output"
ok "a command as text" flockctl once -o x --command-key -c 'echo text >"$FLOCKCTL_OUT"'
is "$(cat x)" text "is one, too"
builds "a text beside an input" --input in --key 1
hits "the same" --key 1 --input in
builds "another text" --key 2 --input in

# ---- {key} ----

run flockctl once -o 'l-{key}.raw' --print --input in -- sh -c 'echo said; cat in >"$FLOCKCTL_OUT"'
first=$out
like "$out" '^l-[0-9a-f]{64}\.raw$' "--print: {key} in the name of the output becomes one"
is "$status|$err|$(cat "$out")" "0|said|two" "what the command prints goes to stderr"
run flockctl once -o 'l-{key}.raw' --print --input in -- false
is "$status|$out|$err" "0|$first|" "the path is printed of one that is there, too"
echo three >in
run flockctl once -o 'l-{key}.raw' --print --input in -- cp in l-none.raw
is "$status|$out" "125|" "nothing is printed when none is made"
run flockctl once -o 'l-{key}.raw' --print --input in -- sh -c 'cat in >"$FLOCKCTL_OUT"'
is "$(cat "$out" "$first")" "$(printf 'three\ntwo')" "another key is another file"
run flockctl once -o 'l-{key}.raw' --print --input . --input in -- sh -c 'echo >"$FLOCKCTL_OUT"'
own=$out
run flockctl once -o 'l-{key}.raw' --print --input . --input in -- false
is "$out" "$own" "none of them is an input of its own"
run flockctl once -o 'l-{key}.d/' --print --key 1 -- sh -c 'mkdir "$FLOCKCTL_OUT"'
run flockctl once -o "$out" -- false
like "$status|$out|$(ls -d l-*.d)" '^0\|\|l-[0-9a-f]{64}\.d$' "a slash at the end doesn't count there either"
rm -rf l-*

# ---- at the same time ----

i=0 wrong=0
while [ $i -lt 30 ]; do
    i=$((i + 1))
    printf %02d $i >in
    flockctl once -o x --input in -- sh -c 'cat in >"$FLOCKCTL_OUT"' || wrong=$((wrong + 1))
    [ "$(cat x)" = "$(cat in)" ] || wrong=$((wrong + 1))
done
is "$wrong" 0 "changes of equal size, one right after the other, are all seen"

change='cat in >"$FLOCKCTL_OUT"; echo changed >in'
echo old >in
run flockctl once -o x --input in -- sh -c "$change"
is "$status|$(cat x)" "0|old" "an input that changes while the command runs: what it made is there"
like "$err" '^flockctl: the input in has changed since sh began, so .*/x is published but not current; the next run builds' "$err"
run flockctl once -o x --input in -- sh -c 'cat in >"$FLOCKCTL_OUT"'
is "$status|$(cat x)|$err" "0|changed|" "the next run builds it"
echo old >in
run flockctl once -o 'l-{key}' --input in -- sh -c "$change"
is "$status|$(ls)" "125|$(printf 'in\ntree\nx')" "it isn't published under the name of another key"
like "$err" "so .*/l-[0-9a-f]* isn't published; run it again" "$err"
echo old >in
run flockctl once -o x --input in -- sh -c 'rm in; echo >"$FLOCKCTL_OUT"'
is "$status|$([ -e .x.flockctl ] || echo none)" "0|none" "an input that is deleted meanwhile"
like "$err" "can't read the input in: .*" "is named"

echo 1 >in
mkfifo "$T/go"
background first "$FLOCKCTL" once -o x --input in -- sh -c ': >"$1.runs"; read -r line <"$1"; cat in >"$FLOCKCTL_OUT"' sh "$T/go"
wait_for "[ -e '$T/go.runs' ]"
background second "$FLOCKCTL" once -v -o x --input in -- sh -c 'cat in >"$FLOCKCTL_OUT"; echo second >>"$T/log"'
wait_for "ls '$FLOCKCTL_DIR'/once/*/queue/* >/dev/null 2>&1"
echo 2 >in
timeout 10 sh -c 'echo >"$1"' sh "$T/go"
reap first
reap second
is "$status|$(cat x)|$(cat "$T/log")" "0|2|second" "an input that changes while the lock is waited for: the new one is built"
like "$err" "the input in has changed, so there is another key" "which -v tells"
run flockctl once -o x --input in -- false
is "$status" 0 "and is current then"

# ---- what is ours ----

mkdir -m 700 locks
FLOCKCTL_DIR=$T/d/locks
builds "an output in its own input" --input .
hits "the same" --input .
run flockctl once -o y --input . -- sh -c 'touch "$FLOCKCTL_OUT"'
builds "another output there is an input" --input .
hits "the same" --input .
touch .y.flockctl .y.flockctl-inputs
hits "but not what is kept of it" --input .
FLOCKCTL_DIR=$T/root

# ---- bad ones ----

bad 125 "can't read the input nowhere/x: No such file or directory; make it first" once -o x --input nowhere/x -- true
bad 125 "the input ./x is the output itself" once -o x --input ./x -- true
bad 125 "neither a file nor a directory" once -o x --input /dev/null -- true
bad 125 "isn't the name of a variable" once -o x --env A=b -- true
bad 125 "key} in its name but no key" once -o 'x{key}' -- true
bad 125 "elsewhere than once in its last part" once -o '{key}/x' --key 1 -- true
bad 125 "--key is empty" once -o x --key "" -- true
bad 125 "--input is about building" once --use x --input in -- true
if [ "$(id -u)" = 0 ]; then
    mkdir -m 755 "$T/other"
    mkdir -m 700 "$T/other/locks"
    echo 1 >"$T/other/in"
    echo 1 >"$T/other/secret"
    chmod 600 "$T/other/secret"
    chown 65534 "$T/other" "$T/other/locks" "$T/other/in"
    tool_for_others
    as_other() {
        run env FLOCKCTL_DIR="$T/other/locks" setpriv --reuid 65534 --clear-groups "$FLOCKCTL" once "$@"
    }
    cd "$T/other" || exit 1
    as_other -o out --input secret -- true
    like "$status|$err" "^125\|flockctl: can't read the input secret: Permission denied; give this user access to it" \
        "one that can't be read: $err"
    as_other -o out --input in -- sh -c 'echo >"$FLOCKCTL_OUT"'
    is "$status" 0 "(one that can)"
    chown 0 .
    as_other -o out --input in -- false
    is "$status|$err" "0|" "where nothing can be written a hit is one all the same"
    cd "$T/d" || exit 1
else
    skip "only root can be another user"
    skip "only root can be another user"
    skip "only root can be another user"
fi

done_testing
