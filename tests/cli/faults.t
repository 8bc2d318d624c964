#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Bad input and faults: a clear error, and nothing lost.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

repeat() {
    printf "%$2s" '' | tr ' ' "$1"
}
tab=$(printf '\t') escape=$(printf '\033')

# ---- names ----

for name in '' . .. .hidden / a/b ../x "a${tab}b" "a${escape}[m" "a
b" 'a b' 'a*' 'ä' "$(repeat n 201)"; do
    bad 125 'name' acquire "$name" -- true
    unlike "$err" '[[:cntrl:]]' "  without control characters"
    for verb in "define --slots 1" path remove; do
        run flockctl $verb "$name"
        like "$status $err" '^125 flockctl: .*name' "  $verb refuses it too"
    done
    run flockctl resize "$name" 2
    like "$status $err" '^125 flockctl: .*name' "  so does resize"
done
bad 125 'name "../x" has "/" at position 3; ' acquire ../x -- true
bad 125 'name "a.x1b.m" has ".x1b" at position 2; ' acquire "a${escape}[m" -- true
bad 125 "name .$(repeat n 40).\.\.\. has 201 bytes; at most 200" acquire "$(repeat n 201)" -- true
bad 125 "name .$(repeat n 40).\.\.\. has .\*. at position 60; " acquire "$(repeat n 59)*" -- true
run flockctl acquire "$(repeat n 200)" A-Z_a.z@0+9 -- true
is "$status|$err" "0|" "a name of 200 bytes, and one of all kinds"
is "$(ls "$FLOCKCTL_DIR/rows" | wc -l)" 2 "no bad name has made a row"

# ---- counts, sizes, times, exit codes ----

ok "a row of two" flockctl define two --slots 2
for count in '' 0 -1 +1 1x 1.5 0x2 4097 99999999999999999999 ALL ' 1'; do
    bad 125 "is not a count in .two:.*; .*NAME:COUNT .*1 to 4096, or all" acquire "two:$count" -- true
done
bad 125 'two has 2 slots, so 3 can.t be had; .*flockctl resize two 3' acquire two:3 -- true
bad 125 'the name "two:1" has ":" at position 4; ' acquire two:1:2 -- true
bad 125 'name is empty' acquire :2 -- true
for slots in '' 0 -1 1x 4097 99999999999999999999; do
    bad 125 'is not a number of slots; .*from 1 to 4096' acquire --slots="$slots" x -- true
done
for time in '' -1 +1 1e3 0x10 1. . .s '1 s' s 1w 1S nan inf 1.5.5 99999999999999999999 9223372036854775807d; do
    bad 125 'is not a time for --wait; .*250ms' acquire --wait="$time" x -- true
done
for number in '' -1 256 x 1x; do
    bad 125 'is not an exit status; give a number from 0 to 255' acquire --conflict-exit-code="$number" x -- true
done
bad 125 'two has 2 slots, so it can.t be shared' acquire --shared two -- true
bad 125 'shared and counted' acquire --shared x:2 -- true
bad 125 'shared and counted' acquire --shared two:all -- true
bad 125 'shared with 2 slots' acquire --shared --slots 2 x -- true
bad 125 'define them first: flockctl define' acquire --slots 2 x y -- true
bad 125 'x is asked for twice' acquire x x -- true
bad 125 'x is asked for twice' acquire x y x:1 -- true
hold h two:2
bad 125 '' acquire x two:3 -- true
let_go h
nothing_left two
bad 125 '3 of 2 slots of new can.t be had; ask for fewer' acquire --slots 2 new:3 -- true
ok "which makes no row" [ ! -e "$FLOCKCTL_DIR/rows/new" ]

# ---- COMMAND ----

printf '#!/bin/sh\necho ran\n' >"$T/not executable"
printf '#!%s/no/interpreter\necho ran\n' "$T" >"$T/no_interpreter"
printf 'echo "ran $0 $*"\n' >"$T/no_first_line"
: >"$T/empty"
chmod +x "$T/no_interpreter" "$T/no_first_line" "$T/empty"
# A directory of PATH that is closed to us would make another error of it.
PATH=/usr/bin:/bin
bad 127 'command "no-such-command" wasn.t found in PATH; ' acquire x -- no-such-command
bad 127 "command .$T/nowhere. wasn.t found; " acquire x -- "$T/nowhere"
bad 127 'command "" wasn.t found' acquire x -- ''
bad 126 "command .$T/not executable. can.t be run: .*chmod" acquire x -- "$T/not executable"
bad 126 "command .$T. can.t be run: " acquire x -- "$T"
bad 127 "$T/no_interpreter. can.t be run: .*the interpreter $T/no/interpreter, which isn.t there; " acquire x -- "$T/no_interpreter"
run env PATH="$T:$PATH" "$FLOCKCTL" acquire x -- no_interpreter
is "$status" 127 "the same through PATH"
like "$err" 'command "no_interpreter" .*interpreter.*; ' "  with the same reason"
run flockctl acquire x -- "$T/no_first_line" a 'b c'
is "$status|$out" "0|ran $T/no_first_line a b c" "a script without #! is run by sh"
run flockctl acquire x -- "$T/empty"
is "$status" 0 "so is an empty one"
run env -u PATH "$FLOCKCTL" acquire x -- true
is "$status" 0 "no PATH: the system's"
run flockctl acquire -n x -- sh -c 'echo "[${FLOCKCTL_ABANDONED-}]"'
is "$out" "[]" "a command that didn't start has freed the lock, and abandoned nothing"

# ---- the lock directory ----

bad_root() {
    bad_pattern=$1 bad_dir=$2
    bad 125 "$bad_pattern" --dir "$bad_dir" acquire x -- true
    run env FLOCKCTL_DIR="$bad_dir" "$FLOCKCTL" define x --slots 1
    [ -z "$bad_dir" ] || is "$status" 125 "  the same through FLOCKCTL_DIR"
}
mkdir -m 700 "$T/real"
ln -s real "$T/link"
: >"$T/file"
mkdir -m 755 "$T/open" "$T/flockctl-open"
mkdir -m 600 "$T/shut"
bad_root "$T/link is a symbolic link.*; choose another directory .--dir or FLOCKCTL_DIR.$" "$T/link"
bad_root "$T/link is a symbolic link" "$T/link/"
bad_root "$T/file is not a directory.*; choose another directory .--dir or FLOCKCTL_DIR.$" "$T/file"
bad_root "$T/open has mode 0755.*; choose another directory .--dir or FLOCKCTL_DIR.$" "$T/open"
bad_root "$T/shut has mode 0600.*; choose another directory .--dir or FLOCKCTL_DIR.$" "$T/shut"
bad_root "$T/flockctl-open has mode 0755.*; choose another.*, or, if it is for locks alone: chmod 700 $T/flockctl-open$" "$T/flockctl-open"
bad_root "$T/no/parent: the directory above it isn.t there; " "$T/no/parent"
bad_root "too long; choose a shorter one" "/$(repeat d 4000)"
bad_root '--dir is empty' ''
is "$(ls -A "$T/real" "$T/open" "$T/shut" 2>/dev/null | grep -v :)" "" "nothing has been made in them"
run env -C "$T/open" "$FLOCKCTL" --dir ../relative -q acquire -s x -- sh -c 'cd / && "$FLOCKCTL" -q acquire -n x -- true'
is "$status" 35 "a relative --dir is the same directory for the command, wherever it goes"
mkdir -m 700 "$T/newer"
echo 999 >"$T/newer/version"
bad_root "$T/newer is written by another release of flockctl .protocol 999, ours is [0-9]+.; " "$T/newer"
mkdir -m 700 "$T/odd"
ln -s "$T/file" "$T/odd/version"
bad_root "$T/odd/version" "$T/odd"
is "$(cat "$T/file")" "" "a symbolic link isn't written through"
mkdir -m 700 "$T/crashed"
: >"$T/crashed/version"
run flockctl --dir "$T/crashed" acquire x -- true
is "$status|$err" "0|" "a version file that its maker couldn't finish is finished"
mkdir -m 700 "$T/rowless"
: >"$T/rowless/rows"
bad_root "$T/rowless/rows" "$T/rowless"

# ---- a limit of file sizes ----

err=$( (ulimit -f 0; exec "$FLOCKCTL" --dir "$T/small" acquire x -- true) 2>&1) || status=$?
like "$status $err" '^125 flockctl: .*File too large' "ulimit -f 0: an error, not a death by SIGXFSZ"
err=$( (ulimit -f 0; exec "$FLOCKCTL" run -- sh -c ': >"$T/size"; exec head -c 1000 /dev/zero >"$T/size"') 2>&1)
is $? 153 "  but the command's death, as without us"

# ---- descriptors ----

ok "a row of eight" flockctl define eight --slots 8
ok "and one of 4096" flockctl define all --slots 4096
err=$( (ulimit -n 100; exec "$FLOCKCTL" acquire all:all -- true) 2>&1) || status=$?
is "$status" 125 "more slots than descriptors: 125"
like "$err" '^flockctl: can.t open slot [0-9]+ of all: .*ulimit -n' "  which says what to raise"
err=$( (ulimit -n 100; exec "$FLOCKCTL" acquire all:20 -- true) 2>&1)
is "$?|$err" "0|" "some of such a row can be had"
hold h x
for limit in 3 4 5 6 7 8 9 10 11 12 14 16 20; do
    for arguments in "free" "eight:all" "free eight:5" "-w 20ms x"; do
        status=0
        err=$( (ulimit -n $limit 2>/dev/null; exec "$FLOCKCTL" acquire $arguments -- true) 2>&1 >/dev/null) || status=$?
        case "$arguments|$status|$err" in
        '-w '*'|75|flockctl: x is still taken by '*) ;;
        '-w '*'|0|'*) fail "ulimit -n $limit, $arguments: it got a lock that is taken" ;;
        *'|0|') ;;
        *'|125|flockctl: '*'oo many open files'*'ulimit -n'*) ;;
        *'|127|'*'oading shared libraries'*) ;; # a build with shared libraries doesn't come so far
        *) fail "ulimit -n $limit, $arguments: $status $err" ;;
        esac
    done
done
pass "with any limit of descriptors: acquired, or an error that says how to raise it"
let_go h
run flockctl acquire -n eight:all free x -- sh -c 'echo "[${FLOCKCTL_ABANDONED-}]"'
is "$status|$out" "0|[]" "all is free afterwards"
is "$( (ulimit -n 8; flockctl acquire free -- echo ran) 2>&1)" ran "8 descriptors are enough for a free lock"

# ---- half-made rows ----

rows=$FLOCKCTL_DIR/rows
mkdir -p "$rows/.tmp.dead/slots" "$rows/.tmp.dead/queue"
: >"$rows/.tmp.dead/latch"
mkfifo "$rows/.tmp.dead/slots/0"
mkdir -m 700 "$rows/.tmp.living"
background maker flock -F "$rows/.tmp.living" sh -c ': >"$T/maker.held"; exec sleep 1000'
has_it maker
run flockctl acquire made -- true
is "$status|$err" "0|" "a row is made beside one that is half-made"
ok "what a dead process left half-made is gone" [ ! -e "$rows/.tmp.dead" ]
ok "what a living one makes is left alone" [ -e "$rows/.tmp.living" ]
kill "$maker_pid"
reap maker
for i in $(seq 40); do
    "$FLOCKCTL" define "cut$i" --slots 50 2>/dev/null &
    pid=$!
    spin=$((i * 60))
    while [ $spin -gt 0 ]; do spin=$((spin - 1)); done
    kill -KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    run flockctl acquire -n --slots 50 "cut$i:all" -- true
    [ "$status" = 0 ] || fail "define killed, moment $i: $err"
done
pass "define killed at 40 moments: the row is whole or isn't there"
is "$(ls -A "$rows" | grep -c '^.tmp')" 0 "and nothing half-made stays"

# ---- damaged rows ----

# damage NAME COMMAND...: makes a row of three, damages it, sees the error, and does what that says
damage() {
    damage_name=$1
    shift
    rm -rf "$rows/hurt"
    flockctl define hurt --slots 3
    (cd "$rows/hurt" && "$@")
    run flockctl acquire -n hurt:all -- touch "$T/ran_hurt"
    is "$status|$(printf '%s\n' "$err" | wc -l)" "125|1" "$damage_name: 125, one line"
    like "$err" "^flockctl: the row hurt is damaged: .*; .*rm -r $rows/hurt\$" "  $(echo "$err" | cut -c1-90)"
    rm -rf "$T/target.d" && rm -r "$rows/hurt"
    run flockctl acquire -n --slots 3 hurt:all -- true
    is "$status" 0 "  the remedy helps"
}
swap() { rm -rf "$1" && shift && "$@"; }
mkfifo -m 600 "$T/fifo"
damage "a file where a slot should be" swap slots/1 touch slots/1
damage "a directory" swap slots/1 mkdir slots/1
damage "a symbolic link to a FIFO" swap slots/1 ln -s "$T/fifo" slots/1
damage "a slot is missing" rm slots/1
damage "no slots" rm -r slots
damage "no latch" rm latch
damage "an empty latch" sh -c ': >latch'
damage "a short latch" truncate -s 100 latch
damage "a latch of garbage" sh -c 'tr "[:print:]" "x" <latch >l && cat l >latch'
damage "a latch that says 0 slots" sed -i '1s/.*/slots=0000000000/' latch
damage "a directory for a latch" swap latch mkdir latch
damage "a FIFO for a latch" swap latch mkfifo latch
damage "a symbolic link for a latch" swap latch ln -s "$T/file" latch
damage "a file instead of the row" sh -c 'rm -r "$1" && : >"$1"' sh "$rows/hurt"
damage "a symbolic link instead of the row" sh -c 'rm -r "$1" && ln -s "$2" "$1"' sh "$rows/hurt" "$T/real"
ok "no command has run" [ ! -e "$T/ran_hurt" ]
is "$(cat "$T/file")" "" "and nothing was written through a link"
run flockctl --dir "$T/real" -q dir
rm -rf "$rows/hurt"
flockctl define hurt --slots 1
rm "$rows/hurt/slots/0" && : >"$rows/hurt/slots/0"
run flockctl acquire hurt -- true
is "$status" 125 "a file as the only slot"
rm -rf "$rows/hurt"

# A queue that isn't one.
flockctl define hurt --slots 1
hold h hurt
rm -r "$rows/hurt/queue"
run flockctl acquire -w 1 hurt -- true
is "$status" 125 "no directory for the queue: 125"
like "$err" "^flockctl: can't queue for hurt: " "and says so"
let_go h
rm -r "$rows/hurt"

# ---- environment ----

run env -i FLOCKCTL_DIR="$FLOCKCTL_DIR" "$FLOCKCTL" acquire x -- true
is "$status|$err" "0|" "no environment but FLOCKCTL_DIR"
run env HOME=/nonexistent XDG_RUNTIME_DIR=/nonexistent TMPDIR=/nonexistent "$FLOCKCTL" acquire x -- true
is "$status|$err" "0|" "HOME, XDG_RUNTIME_DIR and TMPDIR that aren't there"

# ---- as another user ----

PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" = 0 ] && setpriv --reuid=64123 --regid=64123 --clear-groups true 2>/dev/null; then
    user=64123
    tool_for_others
    mkdir "$T/user"
    chown $user "$T/user"
    as_user() {
        setpriv --reuid=$user --regid=$user --clear-groups env -u FLOCKCTL_CONFIG FLOCKCTL_DIR="$T/user/root" "$@"
    }
    last_resort=/tmp/flockctl-$user
    rm -rf "$last_resort"
    run as_user "$FLOCKCTL" acquire x -- true
    is "$status|$err" "0|" "another user, a directory of his own"
    mkdir -m 700 "$T/foreign"
    chown 65534 "$T/foreign"
    bad_root "$T/foreign belongs to uid 65534, not to us .uid 0.; choose" "$T/foreign"
    run as_user "$FLOCKCTL" --dir "$T/real" acquire x -- true
    like "$status $err" "^125 flockctl: .*$T/real.*; .*(access|choose)" "root's directory isn't his"
    mkdir -m 755 "$T/not_his"
    run as_user "$FLOCKCTL" --dir "$T/not_his/sub" acquire x -- true
    like "$status $err" "^125 flockctl: can't make the lock directory $T/not_his/sub: Permission denied; " "he can't make one there"
    flockctl --dir "$T/theirs" define x --slots 1
    chown $user "$T/theirs" "$T/theirs/rows" "$T/theirs/version" "$T/theirs/rows/x" "$T/theirs/rows/x/slots" "$T/theirs/rows/x/latch"
    run as_user "$FLOCKCTL" --dir "$T/theirs" acquire x -- true
    like "$status $err" "^125 flockctl: .*slot" "a slot of another user: $err"
    chmod 000 "$T/user/root/rows"
    run as_user "$FLOCKCTL" acquire y -- true
    like "$status $err" "^125 flockctl: .*$T/user/root/rows: Permission denied; " "rows are closed to us"
    chmod 700 "$T/user/root/rows"

    # No directory is named.
    nowhere() {
        as_user env -u FLOCKCTL_DIR -u HOME -u TMPDIR -u XDG_RUNTIME_DIR "$@"
    }
    run nowhere "$FLOCKCTL" acquire x -- true
    is "$status" 0 "HOME, XDG_RUNTIME_DIR and TMPDIR unset"
    like "$err" "^flockctl: the lock directory is $last_resort, since .*; set FLOCKCTL_DIR" "the last resort is said once"
    run nowhere "$FLOCKCTL" acquire x -- true
    is "$status|$err" "0|" "and not again"
    mkdir -m 700 "$T/roots_runtime" "$T/his_runtime"
    chown $user "$T/his_runtime"
    run nowhere XDG_RUNTIME_DIR="$T/roots_runtime" "$FLOCKCTL" acquire x -- true
    is "$status" 0 "an XDG_RUNTIME_DIR of another user, as under sudo -E, is passed over"
    like "$err" "^flockctl: XDG_RUNTIME_DIR is passed over, .*belongs to uid 0, .*$last_resort" "with a warning"
    run nowhere XDG_RUNTIME_DIR=relative "$FLOCKCTL" acquire x -- true
    like "$status $err" "^0 flockctl: XDG_RUNTIME_DIR is passed over, relative isn't an absolute path" "a relative one too"
    run nowhere XDG_RUNTIME_DIR="$T/his_runtime" "$FLOCKCTL" -q dir
    is "$out" "$T/his_runtime/flockctl" "his own is used"
    mkfifo "$T/cron.go"
    chmod 644 "$T/cron.go"
    background cron setpriv --reuid=$user --regid=$user --clear-groups env -u FLOCKCTL_DIR -u XDG_RUNTIME_DIR "$FLOCKCTL" acquire job -- \
        sh -c 'read -r line <"$T/cron.go"'
    wait_for '! nowhere "$FLOCKCTL" -q acquire -n job -- true'
    run nowhere XDG_RUNTIME_DIR="$T/his_runtime" "$FLOCKCTL" acquire job -- true
    like "$status $err" "^125 flockctl: two lock directories are in use: $T/his_runtime/flockctl .* job is held in $last_resort; .*FLOCKCTL_DIR" \
        "a holder in another candidate: an error that names both"
    run nowhere XDG_RUNTIME_DIR="$T/his_runtime" FLOCKCTL_DIR="$last_resort" "$FLOCKCTL" -q acquire -n job -- true
    is "$status" 75 "whose remedy helps"
    echo >"$T/cron.go"
    reap cron
    run nowhere XDG_RUNTIME_DIR="$T/his_runtime" "$FLOCKCTL" acquire job -- true
    is "$status" 0 "no holder, no error"
    rm -rf "$last_resort"
else
    skip "another user's files: needs root and setpriv"
fi

# ---- file systems ----

if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
    mkdir -m 700 "$T/mount"
    cat >"$T/read_only" <<'END'
mount --bind "$T/mount" "$T/mount" && mount -o remount,bind,ro "$T/mount" || exit 99
exec "$FLOCKCTL" --dir "$1" acquire x -- true
END
    run unshare -m sh "$T/read_only" "$T/mount/root"
    like "$status $err" "^125 flockctl: can't make the lock directory $T/mount/root: Read-only file system; choose" "a read-only file system: no directory can be made"
    run unshare -m sh "$T/read_only" "$T/mount"
    like "$status $err" "^125 flockctl: can't open $T/mount/version: Read-only file system; choose" "nor used"
    flockctl --dir "$T/mount" define x --slots 1
    run unshare -m sh "$T/read_only" "$T/mount"
    like "$status $err" "^125 flockctl: .*$T/mount.*Read-only file system; choose" "even when it has been used before"

    cat >"$T/full" <<'END'
mount -t tmpfs -o "$1,mode=700" tmpfs "$T/mount" || exit 99
flockctl() { "$FLOCKCTL" --dir "$T/mount/root" "$@"; }
flockctl define old --slots 3
mkdir "$T/mount/many"
case $1 in
size=*) dd if=/dev/zero of="$T/mount/many/bytes" bs=4k ;;
*) n=0; while touch "$T/mount/many/$n"; do n=$((n + 1)); done ;;
esac 2>/dev/null
flockctl acquire old:all -- echo all
flockctl acquire --label "$(printf '%0150d' 1)" old -- echo one
flockctl acquire new -- echo new
echo "new $?"
ls -A "$T/mount/root/rows"
rm -f "$T/full.go" "$T/full.held" "$T/full.waited"
mkfifo "$T/full.go"
flockctl acquire old:3 -- sh -c ': >"$T/full.held"; read -r line <"$T/full.go"' &
until [ -e "$T/full.held" ]; do :; done
for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
    flockctl -q acquire -w 0.01 old -- true
    echo "queued $?"
done | sort -u
(flockctl acquire -w 20 old -- echo waited; echo "waited $?"; : >"$T/full.waited") &
until [ -e "$T/full.waited" ] || [ -n "$(ls "$T/mount/root/rows/old/queue")" ]; do :; done
echo >"$T/full.go"
wait
"$FLOCKCTL" --dir "$T/mount/second" acquire x -- true
echo "second $?"
ls "$T/mount/root/rows/old/queue"
rm -r "$T/mount/many"
flockctl acquire new old:all -- echo both
"$FLOCKCTL" --dir "$T/mount/second" acquire x -- echo second
END
    run unshare -m sh "$T/full" size=256k
    is "$out" "all
one
new 125
old
queued 75
waited
waited 0
second 125
both
second" "a full file system: what is there works, what is new fails and leaves nothing, and all works when there is room"
    like "$err" "^flockctl: can't make the row new .*: No space left on device; free some space" "the error of a new row"
    like "$err" "^flockctl: can't .*$T/mount/second.*: No space left on device; free some space" "of a new directory"
    run unshare -m sh "$T/full" nr_inodes=40
    is "$out" "all
one
new 125
old
queued 125
waited 125
second 125
both
second" "a file system without inodes: the same, but nobody can queue"
    like "$err" "^flockctl: can't make the row new .*: No space left on device; free some space" "the error of a new row"
    like "$err" "^flockctl: can't queue for old: No space left on device; free some space" "of one that would queue"
    like "$err" "^flockctl: can't .*$T/mount/second.*: No space left on device; free some space" "of a new directory"

    # A sanitizer's runtime can't start properly without /proc either.
    if grep -q __asan_init "$FLOCKCTL"; then
        skip "no /proc: not with AddressSanitizer"
    else
        run unshare -m sh -c 'mount -t tmpfs tmpfs /proc && exec "$FLOCKCTL" acquire x -- true'
        like "$status $err" "^125 flockctl: /proc isn't mounted .*mount it" "no /proc"
        run unshare -m sh -c 'mount -t tmpfs tmpfs /proc && exec "$FLOCKCTL" -q dir'
        is "$status|$out" "0|$FLOCKCTL_DIR" "which dir doesn't need"
    fi
else
    skip "read-only and full file systems: needs root and unshare"
fi

nothing_left x two

# ---- a limit of file sizes ----

run sh -c 'ulimit -f 20; exec "$FLOCKCTL" acquire -s limited -- echo shared'
is "$status|$out" "0|shared" "a limit of file sizes that the latch's file exceeds: shared holders write files"
hold limited limited
run sh -c 'ulimit -f 20; exec "$FLOCKCTL" -q acquire -w 0.01 limited -- true'
is "$status" 75 "  and waiters too"
let_go limited
nothing_left limited
done_testing
