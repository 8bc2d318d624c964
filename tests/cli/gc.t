#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# flockctl gc: takes away what nobody will use again, and nothing else.
# shellcheck disable=SC2016
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

rows() {
    find "$FLOCKCTL_DIR/rows" -mindepth 1 -maxdepth 1 -printf '%f\n' | LC_ALL=C sort | tr '\n' ' ' | sed 's/ $//'
}

# age NAME...: nobody has used it for 40 days
age() {
    for age_name in "$@"; do
        touch -d '40 days ago' "$FLOCKCTL_DIR/rows/$age_name/latch"
    done
}

# ---- rows ----

flockctl acquire old -- true
flockctl acquire new -- true
flockctl define several --slots 2
flockctl define pool --values 1-3
flockctl acquire -l "to clean up" registered -- true
item=$(flockctl state add --owner $$ --cleanup true registered)
hold held held
hold died died
kill -KILL "$died_pid" "$(cat "$T/died.command")"
wait "$died_pid" 2>/dev/null
age old several pool registered held died
run flockctl gc --dry-run
is "$status|$err" "0|" "gc --dry-run"
like "$out" '^would remove old: unused since [0-9]' "says what would go"
is "$(printf '%s\n' "$out" | wc -l)" 1 "and nothing else"
is "$(rows)" "died held new old pool registered several" "all is there still"
run flockctl gc
is "$status|$out|$err" "0||" "gc, silently"
is "$(rows)" "died held new pool registered several" \
    "what was unused for 40 days goes; what is new, held, abandoned, defined, or has something to clean up stays"
let_go held
is "$status" 0 "the holder hasn't noticed"
run flockctl acquire died -- sh -c 'echo "$FLOCKCTL_ABANDONED"'
is "$out" 1 "the next one is told of the death"
flockctl state drop "$item"
age registered

run flockctl gc --max-age forever
is "$status|$(rows)" "0|died held new pool registered several" "--max-age forever: no row is too old"
run flockctl gc --max-age 1h
is "$status|$(rows)" "0|died held new pool several" "--max-age 1h: what has nothing to clean up any more goes"
run flockctl gc -v --max-age 0
is "$(printf '%s\n' "$out" | grep -c '^removed .*: unused since')" 3 "--max-age 0, -v: all that is plain goes, and is named"
is "$(rows)" "pool several" "what was defined stays"
is "$(flockctl acquire pool -- sh -c 'echo "$FLOCKCTL_VALUE"')|$(flockctl path several | wc -l)" "1|2" "as it was"

# ---- what was left by killed processes ----

mkdir -p "$FLOCKCTL_DIR/rows/.tmp.dead/slots" "$FLOCKCTL_DIR/rows/.tmp.alive"
mkfifo "$T/flocked"
background maker flock -n "$FLOCKCTL_DIR/rows/.tmp.alive" sh -c ': >"$T/has_it"; read -r line <"$T/flocked"'
wait_for '[ -e "$T/has_it" ]'
run flockctl gc --dry-run
is "$status|$out" "0|would remove .tmp.dead: left half-made by a process that was killed" "a half-made row is found"
run flockctl gc
is "$(rows)" ".tmp.alive pool several" "it goes; that of a living maker stays"
timeout 10 sh -c 'echo >"$T/flocked"'
reap maker
run flockctl gc
is "$(rows)" "pool several" "until that has ended"

mkdir "$FLOCKCTL_DIR/state"
item=$(flockctl state add --owner $$ --cleanup true pool)
: >"$FLOCKCTL_DIR/state/.tmp.fdead00" && : >"$FLOCKCTL_DIR/rows/pool/state/.tmp.fdead00" && : >"$FLOCKCTL_DIR/rows/pool/state/.tmp.falive00"
rm "$T/has_it"
background maker flock -n "$FLOCKCTL_DIR/rows/pool/state/.tmp.falive00" sh -c ': >"$T/has_it"; read -r line <"$T/flocked"'
wait_for '[ -e "$T/has_it" ]'
run flockctl gc --dry-run
is "$status|$out" "0|would remove .tmp.fdead00: left half-made by a process that was killed
would remove .tmp.fdead00: left half-made by a process that was killed" "half-made items are found, with a name and without"
run flockctl gc
is "$(ls -A "$FLOCKCTL_DIR/state" "$FLOCKCTL_DIR/rows/pool/state")" "$FLOCKCTL_DIR/rows/pool/state:
.tmp.falive00
$item

$FLOCKCTL_DIR/state:" "they go; that of a living maker stays, and so does one that is whole"
timeout 10 sh -c 'echo >"$T/flocked"'
reap maker
run flockctl gc -v
is "$out" "removed .tmp.falive00: left half-made by a process that was killed" "until that has ended"
flockctl state drop "$item"

hold h db
queue w1 db
queue w2 db
queue w3 db
kill -KILL "$w2_pid" "$w3_pid" # nobody who lives watches these
wait "$w2_pid" "$w3_pid" 2>/dev/null
run flockctl gc --dry-run
is "$out" "would remove 2 tickets in the queue of db: dead" "dead tickets are found"
run flockctl gc -v
is "$out" "removed 2 tickets in the queue of db: dead" "they go"
is "$(find "$FLOCKCTL_DIR/rows/db/queue" -type p | wc -l)" 1 "the living one stays"
let_go h
has_it w1
let_go w1
is "$status" 0 "and is served"

# Who waits while it holds something publishes that.
hold first one
background nested flockctl acquire three -- "$FLOCKCTL" acquire one -- true
wait_for 'grep -aqs "^+0" "$FLOCKCTL_DIR/waiting"'
run flockctl gc --dry-run
is "$out" "" "the record of one that waits isn't touched"
kill -KILL "$nested_pid"
wait "$nested_pid" 2>/dev/null
wait_for '[ "$(tickets one)" = 1 ] && flockctl gc --dry-run >"$T/gc.out" && grep -q "record of waiters" "$T/gc.out"'
like "$(cat "$T/gc.out")" "^would remove 1 record of waiters: dead" "when it was killed it is found"
run flockctl gc -v
like "$out" "^removed 1 record of waiters: dead" "and goes"
not_ok "for good" grep -aq "^+0" "$FLOCKCTL_DIR/waiting"
let_go first

hold outer many --slots 2
FLOCKCTL_HELD="$(sed -n 's/^FLOCKCTL_HELD=//p' "$T/outer.env")"
flockctl remove one three
mkdir -p "$FLOCKCTL_DIR/rows/many/under"
cp -a "$FLOCKCTL_DIR/rows/several" "$FLOCKCTL_DIR/rows/many/under/f0left"
unset FLOCKCTL_HELD
age many/under/f0left
run flockctl gc -v
is "$out" "removed a row below a hold of many: unused since $(date -d '40 days ago' +%Y-%m-%d) $(echo "$out" | grep -o '[0-9:]*$')" \
    "a row below a hold that has ended goes"
is "$(ls "$FLOCKCTL_DIR/rows/many/under")" "" "for good"
let_go outer

# ---- what is wrong ----

flockctl acquire broken -- true
flockctl acquire whole -- true
echo >"$FLOCKCTL_DIR/rows/broken/latch"
: >"$FLOCKCTL_DIR/rows/a file"
run flockctl gc --max-age 0
is "$status" 125 "a damaged row: exit 125"
like "$err" '^flockctl: the row broken is damaged' "it is named"
not_ok "the others are seen to" [ -e "$FLOCKCTL_DIR/rows/whole" ]
ok "it stays" [ -e "$FLOCKCTL_DIR/rows/broken" ]
rm -rf "$FLOCKCTL_DIR/rows/broken" "$FLOCKCTL_DIR/rows/a file"
bad 125 'doesn.t take "db"' gc db
bad 125 '"soon" is not a time for --max-age' gc --max-age soon
run flockctl --dir "$T/fresh" gc
is "$status|$out|$err" "0||" "in a lock directory without anything"

done_testing
