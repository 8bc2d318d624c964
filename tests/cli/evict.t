#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# evict ends those who hold, whatever they do about it, and nobody else.
# shellcheck disable=SC2016,SC2154
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

pty=$top_builddir/tests/cli/pty

# evict STATUS ARGUMENT...: it exits so
evict() {
    evict_status=$1
    shift
    run flockctl evict "$@"
    is "$status" "$evict_status" "exit $evict_status: flockctl evict $*" || diag "$err"
}

bad 125 'evict needs a name' evict -y
bad 125 'stdin is no terminal; say --yes' evict x </dev/null
bad 125 '"FOO" is not a signal' evict -y --signal FOO x
evict 0 -y x
is "$err" "flockctl: nobody has x" "nobody has it, and that is said"

# ---- who holds, and who waits ----

hold h x
queue w x
evict 0 -y x
like "$err" "^flockctl: pid $h_pid \\(.*flockctl acquire x -- sh.*\\) is sent SIGTERM" "the holder is named"
reap h
is "$status" 143 "and ended by the signal"
has_it w
is "$(flockctl holders x)" "$w_pid" "the one that waited has it then, and isn't ended"
let_go w
is "$status" 0 "it ends by itself"

cat >"$T/stubborn" <<'END'
#!/bin/sh
trap '' TERM
: >"$T/$1.held"
while :; do sleep 1000; done
END
chmod +x "$T/stubborn"
background stubborn "$FLOCKCTL" acquire -k forever x -- "$T/stubborn" stubborn
has_it stubborn
evict 0 -k 200ms -y x
like "$err" "pid $stubborn_pid .* is sent SIGTERM" "one that doesn't end"
like "$err" "pid $stubborn_pid .* is sent SIGKILL" "is killed after the grace"
reap stubborn
is "$status" 137 "it has died of it"
is "$(flockctl holders x)" "" "and nothing has the lock"
rm -f "$T/stubborn.held"
background stubborn "$FLOCKCTL" acquire -k forever x -- "$T/stubborn" stubborn
has_it stubborn
evict 0 -k 0 -y x
reap stubborn
hold h x
evict 0 -y --signal INT x
like "$err" "is sent SIGINT" "another signal"
reap h
is "$status" 130 "which it dies of"
hold h x
stop_process "$h_pid"
evict 0 -y x
reap h
is "$status" 143 "one that is stopped is continued to end"

hold a -s sh
hold b -s sh
flockctl define two --slots 2
hold c two
evict 0 -y sh two
for job in a b c; do
    reap $job
    is "$status" 143 "several names, several holders: $job"
done

# ---- heirs ----

cat >"$T/leave" <<'END'
#!/bin/sh
sleep 1000 &
echo $! >"$T/heir"
: >"$T/$1.held"
wait
END
chmod +x "$T/leave"
background l "$FLOCKCTL" acquire x -- "$T/leave" l
has_it l
kill -9 "$l_pid"
reap l
heir=$(cat "$T/heir")
wait_for '[ "$(flockctl holders x)" = "$heir" ]'
evict 0 -y x
like "$err" "pid $heir \\(sleep 1000\\) is sent SIGTERM" "who keeps it after its acquirer's death is ended"
rm "$T/l.held"
background l "$FLOCKCTL" acquire x -- "$T/leave" l
has_it l
evict 0 -y --signal KILL x
reap l
is "$(flockctl holders x)" "" "what the acquirer leaves behind is ended, too"
unlike "$(state_of "$(cat "$T/heir")")" "[RSD]" "and is gone"

# A program that goes on without the lock has done what it was asked for.
cat >"$T/gives_way" <<'END'
#!/bin/sh
exec 9<>"$1"
flock -n 9 || exit
trap 'exec 9>&-; echo gave way' TERM
: >"$T/gives.held"
while [ ! -e "$T/gives.end" ]; do sleep 0.1 9>&-; done
END
chmod +x "$T/gives_way"
background gives "$T/gives_way" "$(flockctl path x)"
has_it gives
evict 0 -k 1s -y x
unlike "$err" SIGKILL "one that lets go without ending isn't killed"
: >"$T/gives.end"
reap gives
is "$status|$out" "0|gave way" "it has gone on"

# ---- not those ----

run flockctl acquire x -- sh -c '"$FLOCKCTL" evict -y x; echo "status $?"'
is "$status|$out" "0|status 1" "evict never ends what it descends from, and says that it remains"
like "$err" "^flockctl: pid [0-9]+ \\(.*flockctl acquire x.*\\) is left alone: this process descends from it" "why"
run sh -c 'exec 9<>"$1"; flock -n 9; exec "$FLOCKCTL" evict -y x' sh "$(flockctl path x)"
is "$status" 1 "nor itself"
like "$err" "is left alone: it is this process" "which it says"

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    tool_for_others
    mkdir "$T/theirs"
    chown 64321:64321 "$T/theirs"
    as_user() {
        FLOCKCTL_DIR=$T/theirs/root setpriv --reuid 64321 --regid 64321 --clear-groups "$@"
    }
    as_user "$FLOCKCTL" define theirs --slots 1
    background roots sh -c 'exec 9<>"$1"; flock -n 9 || exit; : >"$2"; exec sleep 1000' sh \
        "$T/theirs/root/rows/theirs/slots/0" "$T/roots.held"
    has_it roots
    run as_user "$FLOCKCTL" evict -y theirs
    is "$status" 1 "what another user has remains"
    like "$err" "1 more has the lock that can't be evicted from here" "and that is said"
    kill "$roots_pid"
    reap roots
else
    skip "needs root, and setpriv"
    skip "needs root, and setpriv"
fi

# ---- on a terminal ----

if "$pty" true </dev/null 2>/dev/null; then
    hold h x
    status=0
    "$pty" "$FLOCKCTL" evict x >"$T/.out" 2>&1 <<END || status=$?
expect pid $h_pid
expect end them? [y/N]
send n\n
END
    is "$status|$(flockctl holders x)" "1|$h_pid" "on a terminal it asks first, and a no is a no"
    status=0
    "$pty" "$FLOCKCTL" evict x >"$T/.out" 2>&1 <<END || status=$?
expect end them? [y/N]
send y\n
expect is sent SIGTERM
END
    is "$status" 0 "a yes is a yes"
    reap h
    is "$status" 143 "and it ends"
else
    skip "no pseudo-terminals here"
    skip "no pseudo-terminals here"
    skip "no pseudo-terminals here"
fi
nothing_left x
done_testing
