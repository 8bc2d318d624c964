#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# once --list shows the outputs of a directory, who builds and who uses them; once --forget makes one be built again.
# shellcheck disable=SC2016,SC2154
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

mkdir "$T/d" "$T/d/below" && cd "$T/d" || bail_out "no directory"

# make OUTPUT KEY
make() {
    flockctl once -o "$1" --key "$2" -- sh -c 'head -c 20000 /dev/zero >"$FLOCKCTL_OUT"' || bail_out "can't build $1"
}

# list [DIR]: the columns OUTPUT (without the directory) STATE SIZE PID KEY
list() {
    flockctl once --list "$@" | awk -v here="$T/d/" 'NR > 1 {
        gsub(/ ago/, ""); sub(here, "")
        sub(/^[0-9.]+K$/, "K", $3); print $1, $2, $3, $(NF - 1), $NF }'
}

# A holder in the background, as in helpers.sh, of an output: busy JOB OPTION... ; its command waits in $T/JOB.go.
busy() {
    busy_job=$1
    shift
    mkfifo "$T/$busy_job.go"
    background "$busy_job" "$FLOCKCTL" once "$@" -- sh -c '
        : >"$1.held"
        read -r line <"$1.go"
        [ -z "$FLOCKCTL_OUT" ] || echo made >"$FLOCKCTL_OUT"' sh "$T/$busy_job"
    has_it "$busy_job"
}

run flockctl once --list
is "$status|$out" "0|OUTPUT  STATE  SIZE  BUILT  USED  PID  KEY" "nothing built: the titles"
make one key1
make below/two 'key"2"'
flockctl once -o tree --key key3 -- sh -c 'mkdir "$FLOCKCTL_OUT" && cd "$FLOCKCTL_OUT" && head -c 50000 /dev/zero >a && ln a b' ||
    bail_out "can't build a tree"
make tree/inside key4
touch others
is "$(list | head -n 1)" 'below/two ready K - key"2"' "an output below the directory"
like "$(list)" '^one ready K - key1$' "one in it"
like "$(list)" '^tree (ready|stale) ' "a directory is one output"
unlike "$(list)" 'inside|others' "what is inside of it isn't shown, nor what nobody has built"
like "$(flockctl once --list | grep /one)" ' [0-9.]+K +[0-9]+ s ago +[0-9]+ s ago +- +key1$' "when it was built and used"
is "$(list "$T/d/below" | wc -l)" 1 "of another directory"
is "$(cd below && list)" 'below/two ready K - key"2"' "of the working directory, when none is given"
ln -s d "$T/link"
is "$(list "$T/link/below")" 'below/two ready K - key"2"' "by a link to it"

# ---- sizes ----

rm -r tree .tree.flockctl
flockctl once -o tree --key key3 -- sh -c 'mkdir "$FLOCKCTL_OUT" && cd "$FLOCKCTL_OUT" && head -c 50000 /dev/zero >a && ln a b' ||
    bail_out "can't build a tree"
is "$(flockctl once --list --json | sed 's/.*tree","state":"ready","size":\([0-9]*\).*/\1/')" \
    "$(($(du -sk tree | cut -f 1) * 1024))" "the size is what du says: of two links one counts"

# ---- states ----

echo more >>one
rm below/two
like "$(list)" '^one stale ' "changed since: stale"
like "$(list)" '^below/two missing - ' "removed since: missing"
make one key1
make below/two key2
like "$(list)" '^one ready ' "built again: ready"

busy builder -o new
like "$(list)" "^new building - - $builder_pid$" "being built for the first time: building, by whom"
echo >"$T/builder.go"
reap builder
is "$status" 0 "it is built"
rm new
busy again -o one --key key5
like "$(list)" "^one building K $again_pid key1$" "being built again: building"
echo >"$T/again.go"
reap again
busy user --use one
like "$(list)" "^one used .* $user_pid key5$" "used: by whom"
busy second --use one
like "$(list)" "^one used .* \\+1 key5$" "and how many more"
like "$(flockctl once --list --json)" '"output":"[^"]*/one","state":"used","size":[0-9]+,"built":"[-0-9T:.]*Z","used":"[-0-9T:.]*Z","key":"key5","pids":\[[0-9]+,[0-9]+\]}' \
    "--json has all of it"
like "$(flockctl once --list --json)" '^\{"schema":1,"outputs":\[\{.*\}\]\}$' "as one object"
is "$(cd below && flockctl once --list --json | sed 's/"size":[0-9]*/"size":N/; s/"built".*"key"/"key"/; s/"output":"[^"]*\//"output":"/')" \
    '{"schema":1,"outputs":[{"output":"two","state":"ready","size":N,"key":"key2","pids":[]}]}' "of one that nobody has"

# ---- bad input ----

mkdir "$T/odd"
odd=$(printf '%s/odd/a\033[31m\nb' "$T")
make "$odd" key
unlike "$(flockctl once --list "$T/odd" | cat -v)" '\^' "control characters don't reach a terminal"
is "$(flockctl once --list "$T/odd" | wc -l)" 2 "a name with a newline is one line"
bad 125 'nowhere.*No such file' once --list nowhere
bad 125 'others.*Not a directory' once --list others
long=$(printf 'x%.0s' $(seq 250))
make "$T/odd/$long" long
like "$(flockctl once --list "$T/odd")" ' long$' "a name that is as long as can be"
is "$(flockctl once --list "$T/odd" | wc -l)" 3 "is listed once"

# ---- forget ----

bad 75 'one.* is taken by pid' once --forget one -n
ok "what is used stays" [ -s one ]
echo >"$T/user.go"
reap user
background forget flockctl once --forget one
like "$(list)" '^one used ' "forget waits for those who use it"
echo >"$T/second.go"
reap second
reap forget
is "$status|$out|$err" "0||" "and then goes on"
is "$(ls -A | grep -c one)" 0 "the output is gone, and its record"
run flockctl once -o one --key key5 -- sh -c 'echo anew >"$FLOCKCTL_OUT"'
is "$status:$(cat one)" "0:anew" "so it is built again"
run flockctl once --forget tree
is "$status:$(ls -A | grep -c tree)" "0:0" "a directory is forgotten as well"
bad 125 "list builds and runs nothing; leave --report out" once --list --report "$T/report"
bad 125 "list waits for nothing; leave --nonblock out" once --list -n
bad 125 "list waits for nothing; leave --wait out" once --list -w 3
bad 125 "forget builds and runs nothing; leave --key out" once --forget tree --key k
bad 125 "--json is about --list" once --forget tree --json
run flockctl once --forget nothing
is "$status|$out|$err" "0||" "what isn't there is forgotten already"
bad 125 "others has no record: it was built without a key, or by others; build it anew with --force, or" once --forget others
ok "what once hasn't built stays" [ -e others ]
echo mine >one
run flockctl once --forget one
is "$status:$(cat one):$(ls -A | grep -c '\.one')" "0:mine:0" "of what somebody has put there only the record goes"
like "$err" "^flockctl: .*one isn't what was built any more, so it stays" "it says so"
make one key1
rm one
run flockctl once --forget one
is "$status|$err|$(ls -A | grep -c one)" "0||0" "a record without an output goes"
run flockctl once -o loop --key k -- sh -c '"$FLOCKCTL" once --forget loop; echo $? >"$FLOCKCTL_OUT"'
is "$status:$(cat loop)" "0:35" "forgetting what is being built around it would wait for itself"
is "$(find "$T" -name '.flockctl-*')" "" "no private directory is left"
done_testing
