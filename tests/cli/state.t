#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# flockctl state: what is registered, whose it is, what is refused.
# shellcheck disable=SC2016
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# field ID KEY: of the JSON of state list
field() {
    flockctl state list --json | tr '{' '\n' | sed -n "/\"id\":\"$1\"/s/.*\"$2\":\"\\{0,1\\}\\([^,\"]*\\).*/\\1/p"
}

cd "$T" || exit
mkdir home
HOME=$T/home
export HOME

# ---- add, list, drop ----

sleep 1000 &
owner=$!
run flockctl state add --owner $owner --path scratch --cleanup 'true' -l 'a label' x
is "$status" 0 "add"
like "$out" '^[a-z][a-z0-9]{1,23}$' "prints an id"
id=$out
run flockctl state list
like "$out" "^ID +NAME +OWNER +STATE" "list has a heading"
like "$out" "^$id +x +$owner +alive +it runs .* true; .*/scratch +a label" "and the item: a relative path is below the directory"
run flockctl state list --json y
is "$out" '{"schema":1,"states":[]}' "another name has none"
is "$(field "$id" owner)" "$owner" "JSON: the owner"
is "$(field "$id" alive)" true "JSON: alive"
ok "drop" flockctl state drop "$id"
run flockctl state drop "$id"
is "$status" 125 "a second time it isn't there"
like "$err" "^flockctl: there is no state $id" "which is said"
is "$(flockctl state list --json)" '{"schema":1,"states":[]}' "nothing is left"

# ---- whose ----

bad 125 "whose state is it.*--owner" state add --path scratch
bad 125 "no process 2000000000" state add --owner 2000000000 --path scratch
sleep 0 &
gone=$!
wait $gone
bad 125 "no process $gone" state add --owner $gone --path scratch

# A zombie: its parent never waits.
mkfifo end
sh -c '(read -r line <end) & echo $! >zombie; exec sleep 1000' &
parent=$!
wait_for '[ -s zombie ] && [ "$(cat /proc/$parent/comm)" = sleep ]'
echo >end
wait_for '[ -s zombie ] && [ "$(state_of "$(cat zombie)")" = Z ]'
bad 125 "no process $(cat zombie) any more" state add --owner "$(cat zombie)" --path scratch
kill $parent

run flockctl acquire x y -- sh -c 'echo $PPID; "$FLOCKCTL" state add --path scratch; "$FLOCKCTL" state list --json' 
is "$(echo "$out" | sed -n 's/.*"name":"\([^"]*\)".*"owner":\([0-9]*\).*"alive":\([a-z]*\).*/\1 \2 \3/p')" \
    "x $(echo "$out" | head -1) true" "below acquire the owner is that flockctl, and the name its first"
run flockctl acquire x -- sh -c '"$FLOCKCTL" run -- sh -c "echo \$PPID; \"\$FLOCKCTL\" state add --path scratch; \"\$FLOCKCTL\" state list --json"'
is "$(echo "$out" | sed -n 's/.*"name":\([^,]*\),.*"owner":\([0-9]*\).*/\1 \2/p')" "null $(echo "$out" | head -1)" \
    "below run the flockctl of that, and no name"
is "$(flockctl state list --json)" '{"schema":1,"states":[]}' "both have cleaned up at their end"

variable=$(flockctl acquire x -- sh -c 'echo "$FLOCKCTL_OWNER"')
FLOCKCTL_OWNER=$variable
export FLOCKCTL_OWNER
bad 125 "isn't around this command any more" state add --path scratch
background other "$FLOCKCTL" run -- sh -c 'echo "$FLOCKCTL_OWNER" >other; exec sleep 1000'
wait_for '[ -s other ]'
FLOCKCTL_OWNER=$(cat other)
bad 125 "isn't around this command" state add --path scratch
FLOCKCTL_OWNER=nonsense
bad 125 "FLOCKCTL_OWNER isn't what" state add --path scratch
unset FLOCKCTL_OWNER
kill "$other_pid"
reap other

# ---- what is refused ----

bad 125 "nothing is to be undone" state add --owner $owner
bad 125 "root directory" state add --owner $owner --path /
bad 125 "home directory" state add --owner $owner --path "$HOME"
bad 125 "lock directory" state add --owner $owner --path "$FLOCKCTL_DIR"
bad 125 "nowhere" state add --owner $owner --path /nowhere/at/all
bad 125 "empty" state add --owner $owner --cleanup ''
bad 125 "above 0" state add --owner $owner --cleanup true --cleanup-timeout 0
bad 125 "the name" state add --owner $owner --cleanup true a/b
bad 125 "process id" state add --owner -1 --cleanup true
bad 125 "doesn't take" state add --owner $owner --cleanup true x y
bad 125 "doesn't take --json" state add --json --owner $owner --cleanup true
bad 125 "doesn't take --owner" state list --owner $owner
bad 125 "is not an id" state drop ../../x
bad 125 "state \"give\" isn't known" state give
bad 125 "state needs add, drop or list; it is used so" state
bad 125 "state drop needs the id that flockctl state add has printed" state drop
is "$(flockctl state list --json)" '{"schema":1,"states":[]}' "nothing was registered by these"
if [ "$(id -u)" = 0 ]; then
    mkdir theirs && chown 65534 theirs
    run flockctl state add --owner $owner --path theirs
    is "$status" 125 "what belongs to somebody else is refused"
    like "$err" "^flockctl: .*/theirs" "by its name"
else
    skip "only root can be two users"
    skip "only root can be two users"
fi

# ---- what is damaged ----

id=$(flockctl state add --owner $owner --path scratch x)
item=$FLOCKCTL_DIR/rows/x/state/$id
cp "$item" whole
head -c 200 whole >"$item"
run flockctl state list
is "$status" 125 "an item cut short: exit 125"
like "$out" "^$id +x +- +damaged" "it is listed as damaged"
like "$err" "^flockctl: .*$id is damaged" "and reported"
sed 's/^state=1/state=2/' whole >"$item"
run flockctl state list
like "$err" "^flockctl: .*$id was registered by a newer release" "so is one of a newer release"
ok "it can be dropped" flockctl state drop "$id"

# ---- a full file system ----

if [ "$(id -u)" = 0 ] && mkdir full && mount -t tmpfs -o size=256k flockctl-test full 2>/dev/null; then
    ok "a row on a small file system" flockctl --dir "$T/full/d" define x --slots 1
    : >full/ballast
    dd if=/dev/zero of=full/ballast bs=4096 2>/dev/null
    bad 125 "[Nn]o space left" --dir "$T/full/d" state add --owner $owner --cleanup true x
    is "$(find full/d -name 'f*' -o -name '.tmp.*')" "" "nothing of it is left"
    rm full/ballast
    ok "with room for it, it is registered" flockctl --dir "$T/full/d" state add --owner $owner --cleanup true x
    umount full
else
    for i in 1 2 3 4 5 6; do skip "only root can mount a small file system"; done
fi

# ---- rows that change ----

id=$(flockctl state add --owner $owner --path scratch x)
ok "resize" flockctl resize x 3
is "$(field "$id" name)" x "keeps the row's items"
ok "remove" flockctl remove x
is "$(field "$id" name)" x "keeps them, too"
ok "they can be dropped" flockctl state drop "$id"
kill $owner
wait $owner

done_testing
