#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What dead owners left is cleaned up, once, before the lock goes on; what lives is left alone.
# shellcheck disable=SC2016,SC2154
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

cd "$T" || exit

# A process that ends when told: leaves $owner
start_owner() {
    sleep 1000 &
    owner=$!
}

end_owner() {
    kill -KILL "$owner"
    wait "$owner" 2>/dev/null
}

# left OPTION...: an item whose owner has died
left() {
    start_owner
    id=$(flockctl state add --owner "$owner" "$@")
    end_owner
}

nothing_registered() {
    is "$(flockctl state list --json)" '{"schema":1,"states":[]}' "nothing is registered any more$1"
}

# ---- by hand ----

mkdir -p tree/a/b && : >tree/a/b/c && ln -s "$T/kept" tree/root && : >file && ln -s "$T/kept" link && mkdir kept && : >kept/file
left --path tree --path file --path link --path never --cleanup 'echo "$FLOCKCTL_STATE_ID $FLOCKCTL_STATE_LABEL $FLOCKCTL_STATE_ATTEMPT $PWD $FOO" >said; cat' -l lab x
run flockctl reap --dry-run
is "$out" "$id	$(printf '%s' 'echo "$FLOCKCTL_STATE_ID $FLOCKCTL_STATE_LABEL $FLOCKCTL_STATE_ATTEMPT $PWD $FOO" >said; cat'); $T/tree; $T/file; $T/link; $T/never" "--dry-run says what would be done"
ok "and does nothing" [ -e tree/root ]
run flockctl -v reap
is "$status" 0 "reap"
like "$err" "cleaned up $id, which pid $owner left \\(no process has its pid any more\\)" "-v says what, and what proves it"
is "$(cat said)" "$id lab 1 $T " "the command ran, with id, label and attempt, in its directory"
is "$(ls -d tree file link 2>/dev/null)" "" "the paths are gone"
ok "what a symlink leads to isn't" [ -e kept/file ]
nothing_registered
is "$(ls "$FLOCKCTL_DIR/rows/x")" "holders
latch
queue
slots" "nor is anything left of it in the row"

FOO=first flockctl acquire y -- sh -c '"$FLOCKCTL" state add --owner $PPID --cleanup "echo \$FOO \$FLOCKCTL_NAME \${FLOCKCTL_DEADLINE-none} >said" >/dev/null; kill -KILL $PPID; sleep 1000'
FOO=second flockctl reap
is "$(cat said)" "first y none" "it has the environment that was recorded, and no deadline of then"

start_owner
flockctl state add --owner $owner --path kept x >/dev/null
run flockctl -v reap --json x
like "$out" '"state":"alive","reason":"it runs".*"result":"alive"}\],"cleaned":0}$' "JSON: one whose owner lives is left alone"
end_owner
run flockctl reap --json x
like "$out" '"state":"dead".*"result":"cleaned"}\],"cleaned":1}$' "JSON: one whose owner has died is cleaned"
bad 125 "position 2" reap ./x

# ---- before the lock goes on ----

hold h x
flockctl state add --owner "$h_pid" --cleanup 'echo cleaned >>log' x >/dev/null
queue w x
kill -KILL "$h_pid"
reap h
has_it w
is "$(tail -2 log)" "cleaned
w" "the next in line has the lock after the cleanup"
let_go w
like "$err" "cleaned up what pid $h_pid has left: echo cleaned" "and is told of it"

left --cleanup 'echo other >>log' other
hold w x
is "$(tail -1 log)" w "an acquisition cleans up for its own names only"
let_go w
flockctl reap

left --cleanup "'$FLOCKCTL' acquire --nonblock x -- sh -c 'echo inside >>log'" x
: >log
run flockctl acquire x -- sh -c 'echo after >>log'
log_is "inside after" "a cleanup that acquires the very lock passes as nested"
left --cleanup "'$FLOCKCTL' acquire --nonblock x -- sh -c 'echo inside >>log'" x
: >log
run flockctl reap x
log_is "inside" "so it does by hand"

# A row of two: whoever lives keeps what is his.
flockctl define two --slots 2
hold h two
flockctl state add --owner "$h_pid" --cleanup 'echo wrong >>log' two >/dev/null
left --cleanup 'echo dead >>log' two
: >log
run flockctl acquire two -- sh -c 'echo after >>log'
log_is "dead after" "with another holder: only what the dead left"
let_go h
nothing_registered ", and it has cleaned up at its end"

# A nested one.
left --cleanup 'echo nested >>log' x
: >log
run flockctl acquire --on-abandoned true x -- sh -c 'echo outer >>log; "$FLOCKCTL" acquire x -- sh -c "echo inner >>log"'
log_is "nested outer inner" "before the outer one"
: >log
run flockctl acquire x -- sh -c 'sleep 1000 & "$FLOCKCTL" state add --owner $! --cleanup "echo nested >>log" x >/dev/null; kill -KILL $!; wait; "$FLOCKCTL" acquire x -- sh -c "echo inner >>log"' 
log_is "nested inner" "or before the nested one"

# ---- the command ends, and so does what it has registered ----

run flockctl acquire x -- sh -c '"$FLOCKCTL" state add --cleanup "sleep 0.1; echo own >>log" >/dev/null; : >log; exit 3'
is "$status" 3 "the command's status stays"
log_is own "what was registered below acquire is cleaned up at its end"
run flockctl run -- sh -c '"$FLOCKCTL" state add --cleanup "echo own >>log" >/dev/null; : >log'
log_is own "below run, too"
flockctl run -- sh -c '"$FLOCKCTL" state add --cleanup "echo other >>log" z >/dev/null; : >log'
log_is "" "but not what belongs to another name"
run flockctl acquire z -- sh -c 'echo after >>log'
log_is "other after" "that is for who acquires it"
nothing_registered
: >log

# ---- what fails ----

mkdir later
left --cleanup 'echo $FLOCKCTL_STATE_ATTEMPT >>log; [ -e mended ]' --path later x
run flockctl reap
is "$status" 125 "a cleanup that fails: exit 125"
like "$err" "^flockctl: cleaning up $id, .* has failed 1 time: .*exit status 1" "it says which, and why"
like "$(flockctl state list)" "^$id +x +$owner +failing +1 of 1 attempts failed" "it is listed as failing"
ok "its paths stay" [ -d later ]
run flockctl reap
like "$err" "failed 2 times" "by hand it is tried again at once"
retry=$(flockctl state list --json | sed -n 's/.*"retry":"\([^"]*\)".*/\1/p')
ok "by itself after a pause ($retry)" [ "$(date -d "$retry" +%s%3N)" -gt "$(($(date +%s%3N) - 1000))" ]
sed -i "s/^retry=.*/retry=$(($(date +%s) + 1000))000000000/" "$FLOCKCTL_DIR/rows/x/state/$id"
run flockctl acquire x -- true
is "$status" 0 "it doesn't hold the lock up"
log_is "1 2" "and isn't tried before its time"
sed -i "s/^retry=.*/retry=00000000000000000001/" "$FLOCKCTL_DIR/rows/x/state/$id"
: >mended
run flockctl acquire x -- true
log_is "1 2 3" "when it is time it is tried again"
ok "and succeeds, paths and all" [ ! -d later ]
nothing_registered

left --cleanup 'sleep 1000 & echo $! >child; sleep 1000' --cleanup-timeout 0.2 x
run flockctl reap
like "$err" "wasn't done in 0.200 s" "one that hangs is ended"
ok "with its tree" sh -c '! kill -0 "$(cat child)" 2>/dev/null'
ok "and given up by hand" flockctl state drop "$id"

# Nobody reads what it says.
full_pipe full
left --cleanup "false # $(printf '%09000d' 0)" x
background r sh -c 'exec "$FLOCKCTL" reap --json x >"$T/full"'
wait_for 'flockctl state list | grep -q "^$id .* failing "'
pass "one that has failed isn't kept from others while the reaper tells of it"
kill -KILL "$r_pid"
reap r
exec 7>&-
flockctl state drop "$id"

if [ "$(id -u)" = 0 ]; then
    mkdir theirs
    left --path theirs x
    chown 65534 theirs
    run flockctl reap
    like "$err" "/theirs" "what has become another user's isn't removed"
    ok "it is there" [ -d theirs ]
    flockctl state drop "$id"
else
    skip "only root can give files away"
    skip "only root can give files away"
fi
mkdir dir dir/in other && : >other/in
left --path dir/in x
mv dir was && ln -s other dir
run flockctl reap
like "$err" "symlink" "a directory that has become a symlink isn't followed"
ok "what it leads to stays" [ -e other/in ]
flockctl state drop "$id"

# ---- the reaper is killed ----

mkfifo go
left --cleanup 'echo $FLOCKCTL_STATE_ATTEMPT >>log; [ $FLOCKCTL_STATE_ATTEMPT -gt 1 ] || { : >begun; read -r line <go; }' x
: >log
background r "$FLOCKCTL" reap
wait_for '[ -e begun ]'
like "$(flockctl state list)" "^$id +x +$owner +cleaning" "while it is cleaned up, it is listed so"
run flockctl -v reap
like "$err" "$id of pid $owner is left: it is being cleaned up" "another reaper leaves it alone"
kill -KILL "$r_pid"
reap r
run flockctl acquire x -- sh -c 'echo after >>log'
log_is "1 2 after" "a reaper is killed: the next acquirer waits until its command has ended, and runs it again as attempt 2"
nothing_registered

# Its row is exchanged while it is cleaned up: items move along. As from another cleanup, since a resize waits for what is cleaned up.
mkfifo go2
rm -f begun
hold h moved
left --cleanup 'echo cleaned >>log; : >begun; read -r line <go2' moved
: >log
background r "$FLOCKCTL" reap moved
wait_for '[ -e begun ]'
let_go h
run env FLOCKCTL_STATE_ID=another "$FLOCKCTL" resize moved 3
is "$status" 0 "resize, while one is cleaned up"
timeout 10 sh -c 'echo >go2'
reap r
is "$status" 0 "the reaper goes on"
nothing_registered " of a row that was exchanged"
run flockctl acquire moved -- sh -c 'echo after >>log'
log_is "cleaned after" "it is cleaned up once"

# ---- damaged ----

start_owner
for change in 's/^boot=.*/boot=/' 's/^boot=.*/boot=0123/' '/^boot=/d' 's/^pid=.*/pid=x/'; do
    id=$(flockctl state add --owner "$owner" --cleanup 'echo acted >>log' x)
    sed -i "$change" "$FLOCKCTL_DIR/rows/x/state/$id"
    : >log
    run flockctl reap x
    is "$status" 125 "an owner that can't be told ($change): reap says so"
    log_is "" "and doesn't act"
    flockctl state drop "$id"
done
end_owner

# ---- signals ----

rm -f begun
left --cleanup ': >begun; [ $FLOCKCTL_STATE_ATTEMPT -gt 1 ] || sleep 1000' x
background a "$FLOCKCTL" acquire x -- sh -c ': >started'
wait_for '[ -e begun ]'
kill -TERM "$a_pid"
reap a
is "$status" 143 "a signal while it cleans up: flockctl dies of it"
ok "the command isn't started" [ ! -e started ]
like "$(flockctl state list)" "^$id +x +$owner +dead" "the item stays"
run flockctl acquire x -- true
is "$status" 0 "and the lock is free"
nothing_registered ": the next one has cleaned up"

# ---- damage ----

mkdir -p stays
left --path stays x
item=$FLOCKCTL_DIR/rows/x/state/$id
cp "$item" whole
head -c 300 whole >"$item"
run flockctl reap
is "$status" 125 "an item cut short: exit 125"
like "$err" "$id is damaged" "it is reported"
run flockctl acquire x -- true
is "$status" 0 "an acquisition goes on"
like "$err" "$id is damaged" "and reports it"
sed 's/^state=1/state=7/' whole >"$item"
run flockctl reap
like "$err" "newer release" "so is one of a newer release"
ok "nothing is done for it" [ -d stays ]
flockctl state drop "$id"

# ---- a hundred reapers ----

: >log
for i in 1 2 3 4 5 6 7 8 9 10; do
    left --cleanup "echo $i >>log; sleep 0.02" x
done
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    flockctl reap &
done
wait
flockctl reap
is "$(sort -n log | tr '\n' ' ')" "1 2 3 4 5 6 7 8 9 10 " "twenty reapers: each is cleaned up once"

# ---- while waiting ----

left --cleanup 'echo rest >>log' away
: >log
hold h x
rm -f "$FLOCKCTL_DIR/reaped"
queue w x
wait_for 'grep -q rest log'
pass "who waits for another name cleans up"
let_go h
let_go w
ok "which is noted" [ -e "$FLOCKCTL_DIR/reaped" ]

done_testing
