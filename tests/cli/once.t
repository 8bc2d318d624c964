#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# flockctl once: one build for all that ask, its failure theirs too, and an output that is whole or as it was.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

mkdir "$T/d"
cd "$T/d" || exit 1

# builder JOB [OPTION]... OUTPUT-OPTIONS: in the background, one whose command says that it runs and waits for `finish JOB [LINE]`,
# a shell command; without one it makes a file.
builder() {
    builder_job=$1
    shift
    rm -f "$T/$builder_job.go" "$T/$builder_job.runs"
    mkfifo "$T/$builder_job.go"
    background "$builder_job" "$FLOCKCTL" once "$@" -- sh -c '
        echo "$1" >>"$T/log"
        echo "$$" >"$T/$1.command"
        : >"$T/$1.runs"
        read -r line <"$T/$1.go"
        eval "${line:-echo \"\$1\" >\"\$FLOCKCTL_OUT\"}"' sh "$builder_job"
}

runs() {
    wait_for "[ -e '$T/$1.runs' ]"
}

finish() {
    timeout 20 sh -c 'echo "$2" >"$1"' sh "$T/$1.go" "$2"
    reap "$1"
}

# How many wait for a lock of an output; there is one at a time here that anybody waits for.
waiting() {
    waiting_count=0
    for waiting_file in "$FLOCKCTL_DIR"/once/*/queue/*; do
        case $waiting_file in
        *\** | *.who) ;;
        *) waiting_count=$((waiting_count + 1)) ;;
        esac
    done
    echo "$waiting_count"
}

is_waiting() {
    wait_for "[ \$(waiting) -ge $1 ]"
}

# What else is there than what was published
left() {
    find . -name '.flockctl-*'
}

# ---- one build ----

run flockctl once -o x -- sh -c 'echo built >"$FLOCKCTL_OUT"; echo "$FLOCKCTL_OUT"; readlink /proc/self/fd/0'
is "$status|$(cat x)" "0|built" "an output is built"
like "$out" "^$T/d/\.flockctl-[a-z][a-z0-9]*/x
/dev/null\$" "at a private path beside it, with nothing to read"
is "$(ls -A)" "x" "nothing else is left there"
run flockctl once -o x -- sh -c 'echo "not again" >"$T/again"'
is "$status|$out|$err" "0||" "it is there: that's all"
not_ok "and nothing is run" [ -e "$T/again" ]
ok "none is looked at" env FLOCKCTL_DIR=/proc/none "$FLOCKCTL" once -o x -- false
run flockctl once -o tree -- sh -c 'mkdir "$FLOCKCTL_OUT" && echo 1 >"$FLOCKCTL_OUT/a"'
is "$status|$(cat tree/a)" "0|1" "a directory can be built"
run flockctl once -o tree --force -- sh -c 'mkdir "$FLOCKCTL_OUT" && echo 2 >"$FLOCKCTL_OUT/b"'
is "$status|$(ls -A tree)" "0|b" "--force replaces it, whole"
run flockctl once --force -o tree -- sh -c 'echo file >"$FLOCKCTL_OUT"'
is "$status|$(cat tree)" "0|file" "even by a file"
nl=$(printf 'a\nb')
run flockctl once -o "$nl" -- sh -c 'echo nl >"$FLOCKCTL_OUT"'
is "$status|$(cat "$nl")" "0|nl" "a newline in its name is one byte of it"
rm -rf tree "$nl" x

builder b -o x
runs b
ln -s . same
for i in 1 2 3 4 5; do
    background "w$i" "$FLOCKCTL" once -o same/x -- sh -c 'echo again >>"$T/log"'
done
is_waiting 5
finish b
is "$status" 0 "one builds"
for i in 1 2 3 4 5; do
    reap "w$i"
    [ "$status|$out|$err" = "0||" ] || fail "waiter $i: $status $out $err"
done
log_is "b" "five wait for it, by another spelling, and have it"
rm -f x same "$T/log"

# ---- current ----

run flockctl once -o x --key 1 -- sh -c 'echo 1 >"$FLOCKCTL_OUT"'
run flockctl once -o x --key 1 -- false
is "$status|$(cat x)" "0|1" "built for a key it is current for that"
run flockctl once -o x --key 2 -- sh -c 'echo 2 >"$FLOCKCTL_OUT"'
is "$status|$(cat x)" "0|2" "for another one it is built again"
echo changed >>x
run flockctl once -o x --key 2 -- sh -c 'echo 3 >"$FLOCKCTL_OUT"'
is "$status|$(cat x)" "0|3" "changed by hand it isn't current either"
run flockctl once -o x --max-age 1h -- false
is "$status" 0 "it is younger than an hour"
touch -d '2 hours ago' x
run flockctl once -o x --max-age 1h -- sh -c 'echo 4 >"$FLOCKCTL_OUT"'
is "$status|$(cat x)" "0|4" "of an older one a new one is made"
touch -d '2 hours ago' x
echo kept >"$T/target"
ln -sf "$T/target" link
ok "a link to something is something" flockctl once -o link -- false
ln -sf nowhere link
run flockctl once -o link -- sh -c 'echo 5 >"$FLOCKCTL_OUT"'
is "$status|$(cat link)|$(readlink link)" "0|5|" "one to nothing is replaced"
is "$(cat "$T/target")" "kept" "and never followed"
rm -f x .x.flockctl link
run flockctl once -o x/ -- sh -c 'echo 1 >"$FLOCKCTL_OUT"'
run flockctl once -o x/ -- false
is "$status|$err" "0|" "a slash at the end doesn't count, even of a file"
rm -f x

run flockctl once -o x --max-age 1h -- sh -c 'echo 1 >"$FLOCKCTL_OUT"'
sed -i 's/^built=1/built=2/' .x.flockctl
run flockctl once -o x --max-age 1h -- sh -c 'echo 2 >"$FLOCKCTL_OUT"'
is "$status|$(cat x)" "0|2" "what was built in the future, before the clock was set back, has no age"
rm -f x .x.flockctl

# What was built since they asked is young enough for all of them, whenever they come to look.
builder b -o x --max-age 1ms
runs b
for i in 1 2 3 4 5; do
    background "w$i" "$FLOCKCTL" once -o x --max-age 1ms -- sh -c 'echo again >>"$T/log"; echo "$$" >"$FLOCKCTL_OUT"'
done
is_waiting 5
rm -f "$T/log"
finish b
for i in 1 2 3 4 5; do
    reap "w$i"
done
not_ok "who has waited for a build doesn't find it too old" [ -e "$T/log" ]
rm -f x .x.flockctl

# ---- failures ----

builder b -o x
runs b
background w1 "$FLOCKCTL" once -o x -- sh -c 'echo again >>"$T/log"'
background w2 "$FLOCKCTL" once -o x --retry -- sh -c 'echo w2 >"$FLOCKCTL_OUT"'
is_waiting 2
finish b 'echo half >"$FLOCKCTL_OUT"; seq 5000 >&2; exit 3'
is "$status" 3 "a builder that fails exits with its command's status"
reap w1
is "$status" 3 "who has waited for it exits with the same"
like "$err" "^flockctl: the build of $T/d/x by pid $b_pid .* has failed" "and says whose failure it is"
is "$(printf '%s\n' "$err" | sed 1d | wc -c)" 4096 "with the last 4096 bytes of its stderr"
is "$(printf '%s\n' "$err" | tail -n 1)" 5000 "to the end"
reap w2
is "$status|$(cat x)" "0|w2" "--retry: who wants to tries itself"
log_is "b" "nobody else has run it again"
rm -f x
run flockctl once -o x -- sh -c 'echo later >"$FLOCKCTL_OUT"'
is "$status|$(cat x)" "0|later" "who comes later tries anew"
rm -f x "$T/log"
run flockctl once -o x -- true
is "$status" 125 "a command that makes nothing is an error"
like "$err" '^flockctl: true has succeeded, but made nothing at \$FLOCKCTL_OUT' "which says so"
run flockctl once -o x -- "$T/isn't there"
is "$status" 127 "a command that isn't there is 127"
run flockctl once -o x -- sh -c 'ln -s y "$FLOCKCTL_OUT"'
is "$status" 125 "a link isn't taken"
like "$err" "neither a file nor a directory" "$err"
run flockctl once -o x --timeout 100ms -- sh -c 'echo half >"$FLOCKCTL_OUT"; sleep 1000'
is "$status" 124 "--timeout ends the command"
is "$(ls -A)" "" "nothing of all that is left"

# What was started in the background is over before anything is published.
run flockctl once -o x -- sh -c '(sleep 1000; echo late >>"$FLOCKCTL_OUT") & echo built >"$FLOCKCTL_OUT"'
is "$status|$(cat x)" "0|built" "what a builder leaves running is ended before"
like "$err" "has outlived the command and is sent SIGTERM\$" "and named, without a remedy that once hasn't"
rm -f x

# ---- waiting ----

builder b -o x --label mine
runs b
bad 75 "$T/d/x is taken by pid $b_pid" once -n -o x -- true
bad 75 "$T/d/x is still taken by pid $b_pid" once -w 50ms -o x -- true
run flockctl once -E 9 -n -o x -- true
is "$status" 9 "-E gives another status"
background w "$FLOCKCTL" once -o x -- true
is_waiting 1
wait_for "grep -q 'waiting for' '$T/w.err'"
kill -TERM "$w_pid"
reap w
is "$status" 143 "who waits can be ended"
like "$err" "^flockctl: waiting for $T/d/x for 1 s: held by pid $b_pid .*\"mine\"" "and has said what it waits for"
finish b
is "$(cat x)" b "the builder doesn't mind"
rm -f x

# ---- kills ----

builder b -o x --key k
runs b
background w "$FLOCKCTL" once -o x --key k -- sh -c 'echo second >"$FLOCKCTL_OUT"'
is_waiting 1
kill -KILL "$b_pid"
reap b
reap w
is "$status|$(cat x)" "0|second" "a builder is killed, and who waited builds"
# What the killed one had started may keep them a moment longer: then they are the next builder's to remove.
wait_for '[ "$(left)" = "" ] || { flockctl once --force -o next -- sh -c ": >\"\$FLOCKCTL_OUT\""; rm -f next; false; }'
is "$(left)" "" "the remains are removed"
rm -f x .x.flockctl

# Interrupted isn't failed: who waits builds.
builder b -o x
runs b
background w "$FLOCKCTL" once -o x -- sh -c 'echo second >"$FLOCKCTL_OUT"'
is_waiting 1
kill -TERM "$b_pid"
reap b
is "$status" 143 "a builder that somebody ends dies of that"
reap w
is "$status|$(cat x)|$(left)" "0|second|" "who waited builds"
rm -f x

builder b -o x
runs b
background w "$FLOCKCTL" once -o x -- sh -c 'echo second >"$FLOCKCTL_OUT"'
is_waiting 1
finish b :
reap w
like "$status $err" "^125 flockctl: the build of $T/d/x by pid .*, which was waited for, has failed: nothing was made at [^:]*\$" \
    "who waited for a command that made nothing is told so, and not that it has printed that"

# A deadline is that of one process, whatever the others have.
builder b -o x --deadline 3s
runs b
background w "$FLOCKCTL" once -o x -- sh -c 'echo second >"$FLOCKCTL_OUT"'
is_waiting 1
reap b
is "$status" 124 "a builder's own deadline comes"
reap w
is "$status|$(cat x)|$(left)" "0|second|" "who waited has another one, and builds"
rm -f x

# Nor is it the build's fault when one can't start it.
echo 1 >x
rm -f "$T/u.go" "$T/u.held"
mkfifo "$T/u.go"
background u "$FLOCKCTL" once --use x -- sh -c ': >"$T/u.held"; read -r line <"$T/u.go"'
has_it u
background b "$FLOCKCTL" once --force -o x --stdout nowhere/log -- true
is_waiting 1
background w "$FLOCKCTL" once --force -o x -- sh -c 'echo second >"$FLOCKCTL_OUT"'
is_waiting 2
let_go u
reap b
is "$status" 125 "a builder can't start its command"
reap w
is "$status|$(cat x)" "0|second" "who waited for that one can, and builds"
rm -f x

# A directory that can't be read to its end hasn't been brought to disk.
if strace -o "$T/calls" true 2>/dev/null; then
    said=
    for when in 1 2 3 4 5 6 7 8 9 10; do
        run env ASAN_OPTIONS=detect_leaks=0 strace -o "$T/calls" -e inject=getdents64:error=EIO:when=$when "$FLOCKCTL" once --force -o tree -- \
            sh -c 'mkdir "$FLOCKCTL_OUT" && echo 1 >"$FLOCKCTL_OUT/f"'
        said="$said$status $err
"
    done
    like "$said" "125 flockctl: can't bring to disk what was made for $T/d/tree: Input/output error" \
        "an output whose files can't be listed isn't published"
    rm -rf tree .flockctl-*
else
    skip "strace isn't there, or mustn't trace"
fi

# ---- names like ours, directories that mustn't be written to ----

mkdir .flockctl-notes
echo precious >.flockctl-notes/file
run flockctl once -o x -- sh -c 'echo x >"$FLOCKCTL_OUT"'
is "$status|$(cat .flockctl-notes/file)" "0|precious" "a directory whose name only begins as ours do is the user's"
rm -rf .flockctl-notes x
if [ "$(id -u)" = 0 ]; then
    as_other="setpriv --reuid 65534 --clear-groups"
    tool_for_others
    mkdir -m 700 "$T/other" && mkdir theirs && chown 65534 "$T/other" theirs
else
    as_other=
    mkdir -m 700 "$T/other" && mkdir theirs
fi
read_only() {
    # shellcheck disable=SC2086 # words
    run env FLOCKCTL_DIR="$T/other" $as_other "$FLOCKCTL" "$@"
}
for key in 1 2; do
    read_only once -o theirs/tree --key $key -- sh -c \
        "mkdir \"\$FLOCKCTL_OUT\" && echo $key >\"\$FLOCKCTL_OUT/f\" && chmod 555 \"\$FLOCKCTL_OUT\""
    is "$status|$err|$(cat theirs/tree/f)|$(stat -c %a theirs/tree)|$(ls -A theirs)" \
        "0||$key|555|.tree.flockctl
tree" "a tree without permission to write is published as it is, the ${key}. time"
done
read_only once --forget theirs/tree
is "$status|$err|$(ls -A theirs)" "0||" "and forgotten"
rm -rf theirs

# ---- outputs that need others ----

run flockctl once -o a -- sh -c '"$FLOCKCTL" once -o b -- sh -c "echo b >\"\$FLOCKCTL_OUT\"" && cat b >"$FLOCKCTL_OUT"'
is "$status|$(cat a)" "0|b" "a builder may need another output"
rm -f a b
run flockctl once -o a -- "$FLOCKCTL" once -o b -- "$FLOCKCTL" once -o a -- true
is "$status" 35 "which must not need the first one"
like "$err" "builds $T/d/a, which can't be had before" "it is told why"
is "$(ls -A)" "" "nothing is built"
builder a -o a
builder b -o b
runs a
runs b
echo '"$FLOCKCTL" once -o b -- true && echo a >"$FLOCKCTL_OUT"' >"$T/need.b"
echo '"$FLOCKCTL" once -o a -- true && echo b >"$FLOCKCTL_OUT"' >"$T/need.a"
timeout 20 sh -c 'cat "$2" >"$1"' sh "$T/a.go" "$T/need.b"
is_waiting 1
background w "$FLOCKCTL" once -o a -- true
wait_for "grep -q 'waiting for' '$T/w.err'"
like "$(cat "$T/w.err")" "held by pid $a_pid .*, which waits for $T/d/b itself: pid" "who waits is told what the builder waits for"
kill -KILL "$w_pid"
reap w
timeout 20 sh -c 'cat "$2" >"$1"' sh "$T/b.go" "$T/need.a"
reap b
is "$status" 35 "two that need each other: one is refused"
like "$err" "a deadlock: .*holds $T/d/b.* waits for $T/d/a" "both are named by their paths"
reap a
is "$status" 35 "who waited for that one gets its failure"
rm -f a b

# ---- use ----

echo 1 >x
hold_use() {
    rm -f "$T/$1.go" "$T/$1.held"
    mkfifo "$T/$1.go"
    background "$1" "$FLOCKCTL" once --use x -- sh -c ': >"$T/$1.held"; read -r line <"$T/$1.go"' sh "$1"
    has_it "$1"
}
hold_use u
ok "an output in use can be used by others" flockctl once -n --use x -- true
ok "and found ready" flockctl once -n -o x -- false
bad 75 "$T/d/x is taken by pid $u_pid" once -n --force -o x -- true
background f "$FLOCKCTL" once --force -o x -- sh -c 'echo 2 >"$FLOCKCTL_OUT"'
is_waiting 1
let_go u
is "$status" 0 "when it isn't used any more"
reap f
is "$status|$(cat x)" "0|2" "it can be replaced"
run flockctl once --use x -- sh -c '"$FLOCKCTL" once --use x -- "$FLOCKCTL" once -o x -- false && "$FLOCKCTL" once --force -o x -- true'
is "$status" 35 "its user can use it again, but not replace it"
bad 125 "isn't there, so it can't be used" once --use nothing -- true

# ---- bad lines ----

bad 125 "once needs to know what to build" once -- true
bad 125 "can't both be given" once -o x --use x -- true
bad 125 "published when all have ended; leave --detach out" once -o x --detach -- true
bad 125 "without its lock; leave --detach out" once --use x --detach -- true
unlike "$(flockctl help once)" "--detach" "and isn't offered"
bad 125 'the output . is called "."; give it by its name' once -o . -- true
bad 125 "isn't the name of an output" once -o / -- true
bad 125 "--json is about --list" once -o x --json -- true
bad 125 "once needs \"--\"" once -o x true
bad 125 "there is no command" once -o x --
bad 125 "takes|doesn't take" once -o x y -- true
bad 125 "isn't the name of an output" once --force -o / -- true
bad 125 "give it by its name" once --force -o .. -- true
bad 125 "make it first" once -o nowhere/y -- true
bad 125 "no age" once -o x --max-age 0 -- true
bad 125 "leave it out" once --use x --key k -- true

done_testing
