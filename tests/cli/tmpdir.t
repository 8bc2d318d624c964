#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# --tmpdir: a private directory that is gone afterwards.
# shellcheck disable=SC2016
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

mkdir "$T/tmp"
TMPDIR=$T/tmp
export TMPDIR

# gone NAME: nothing is left, and nothing registered
gone() {
    is "$(ls -A "$T/tmp")|$(registered)" "|" "$1: nothing is left"
}

# ---- what it is ----

run sh -c 'umask 777; exec "$FLOCKCTL" run --tmpdir -- sh -c '\''stat -c %a "$TMPDIR"; echo "$TMPDIR"; echo "$FLOCKCTL_TMPDIR"; ls -A "$TMPDIR"; cp /bin/sh "$TMPDIR"'\'
is "$status|$err" "0|" "run --tmpdir"
is "$(printf '%s\n' "$out" | sed -n 1p)" 700 "it is ours alone, whatever the umask"
like "$(printf '%s\n' "$out" | sed -n 2p)" "^$T/tmp/flockctl\\.tmp[a-z0-9]{21}$" "TMPDIR is below the TMPDIR that there was"
is "$(printf '%s\n' "$out" | sed 1,2d)" "$(printf '%s\n' "$out" | sed -n 2p)" "so is FLOCKCTL_TMPDIR, and it is empty"
gone "run"
run flockctl acquire --tmpdir x -- sh -c 'echo "$FLOCKCTL_NAME $TMPDIR"'
like "$out" "^x $T/tmp/flockctl" "acquire --tmpdir"
gone "acquire"
run flockctl run --tmpdir -- "$FLOCKCTL" run --tmpdir -- sh -c 'echo "$TMPDIR"'
like "$out" "^$T/tmp/flockctl\\.[a-z0-9]+/flockctl\\.[a-z0-9]+$" "one within another"
gone "nested"
run env -u TMPDIR "$FLOCKCTL" run --tmpdir -- sh -c 'echo "$TMPDIR"; cd "$TMPDIR" && ls ..'
like "$out" '^/tmp/flockctl\.' "without a TMPDIR it is in /tmp"
not_ok "that one is gone, too" [ -e "$(printf '%s\n' "$out" | head -1)" ]

# ---- what is in it ----

mkdir "$T/outside"
echo kept >"$T/outside/precious"
run flockctl run --tmpdir --cleanup 'ls -A "$TMPDIR" >&2' -- sh -c 'cd "$TMPDIR" && mkdir -p a/b/c closed/below && ln -s "$T/outside" link &&
    echo >"new
line" && mkfifo fifo && echo >closed/below/file && chmod 0 closed/below closed && chmod 500 a; exit 3'
is "$status" 3 "the exit status is the command's"
like "$err" '^closed$' "--cleanup comes first, and finds all there"
is "$(cat "$T/outside/precious")" kept "symlinks aren't followed"
gone "modes, symlinks, strange names"

if [ "$(id -u)" = 0 ] && setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null; then
    tool_for_others
    mkdir "$T/nobody"
    chown 65534:65534 "$T/nobody"
    nobody() {
        setpriv --reuid 65534 --regid 65534 --clear-groups env -u XDG_RUNTIME_DIR HOME=/nonexistent TMPDIR="$T/nobody" \
            FLOCKCTL_DIR="$T/nobody/root" "$FLOCKCTL" "$@"
    }
    run nobody run --tmpdir -- sh -c 'mkdir -p "$TMPDIR/closed/below" && chmod 0 "$TMPDIR/closed" "$TMPDIR"'
    is "$status|$err|$(ls -A "$T/nobody")" "0||root" "directories without permission bits, as an ordinary user"

    mkfifo "$T/path" "$T/go"
    chmod 666 "$T/path" "$T/go"
    background job setpriv --reuid 65534 --regid 65534 --clear-groups env -u XDG_RUNTIME_DIR HOME=/nonexistent TMPDIR="$T/nobody" \
        FLOCKCTL_DIR="$T/nobody/root" "$FLOCKCTL" run --tmpdir -- sh -c 'echo "$TMPDIR" >"$T/path"; read -r line <"$T/go"; exit 4'
    read -r path <"$T/path"
    mkdir "$path/of-root"
    chmod 700 "$path/of-root"
    : >"$path/of-root/file"
    echo >"$T/go"
    reap job
    is "$status" 4 "root has left something in it: the exit status is the command's"
    like "$err" '^flockctl: cleaning up .* can.t remove .*of-root.*belongs to user 0.*flockctl state drop' "that is told, with what to do"
    like "$(nobody state list)" "flockctl.tmp" "it stays registered"
    rm -rf "$T/nobody"
else
    skip "needs root and setpriv"
fi

run flockctl run --isolate user,mount --tmpdir -- sh -c 'mkdir "$TMPDIR/m" && mount -t tmpfs none "$TMPDIR/m" && : >"$TMPDIR/m/file" && echo mounted'
if [ "$out" = mounted ]; then
    is "$status|$err" "0|" "what is mounted there in a namespace goes with that"
    gone "mounted in a namespace"
else
    skip "may not mount: $err"
fi

# ---- whatever becomes of the command ----

run flockctl run --tmpdir --timeout 0.3 -- sh -c ': >"$TMPDIR/file"; exec sleep 1000'
is "$status" 124 "its time is over"
gone "its time is over"
run flockctl acquire --tmpdir x -- sh -c ': >"$TMPDIR/file"; kill -KILL $$'
is "$status" 137 "it dies of a signal"
gone "it dies of a signal"
run flockctl run --tmpdir -- no-such-command
is "$status" 127 "it isn't there"
gone "it isn't there"
run flockctl run --tmpdir -- sh -c 'rm -rf "$TMPDIR"'
is "$status|$err" "0|" "it removes it itself"
gone "it removes it itself"
run flockctl run --tmpdir -- sh -c 'rmdir "$TMPDIR" && ln -s "$T/outside" "$TMPDIR"'
is "$status|$err|$(cat "$T/outside/precious")" "0||kept" "it puts a symlink there: that is removed, and nothing else"
gone "a symlink"

# ---- what can't be ----

TMPDIR=$T/nowhere
bad 125 "nowhere, which TMPDIR names: No such file" run --tmpdir -- sh -c ': >"$T/ran"'
bad 125 "nowhere, which TMPDIR names: No such file" acquire --tmpdir x -- sh -c ': >"$T/ran"'
TMPDIR=/proc
bad 125 "/proc" run --tmpdir -- sh -c ': >"$T/ran"'
TMPDIR=$T/tmp
bad 125 '--tmpdir is removed when the command ends.*mktemp -d' run --tmpdir --detach -- sh -c ': >"$T/ran"'
not_ok "none of these has run" [ -e "$T/ran" ]
gone "none of these"

done_testing
