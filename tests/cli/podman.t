#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The main job on real containers: eight of them through a row of two. They write down themselves when they run.
#
# Who has the slot: flockctl, podman, and conmon, which inherits it from podman and lives as long as the container. So the
# slot stays taken while the container runs, even when flockctl and podman are both killed.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

root=$T/rootfs records=$T/records
mkdir -p "$records" "$root/bin" "$root/dev" "$root/etc" "$root/proc" "$root/run" "$root/sys" "$root/tmp" "$root/records"

# A container that writes "+ N" to the log, waits until another one has begun after it (which shows that two do run at once)
# and, when it is asked to, until $records/go.N is there; then it writes "- N". It gives up in the end, and says so.
cat >"$records/job" <<'END'
n=$1 tries=0
echo "+ $n" >>/records/log
begun=$(/bin/busybox grep '^+' /records/log | /bin/busybox grep -n "^+ $n\$" | /bin/busybox cut -d: -f1) # with us
done_waiting() {
    [ ! -e "/records/ask.$n" ] || [ -e "/records/go.$n" ] || return 1
    [ "$begun" = 8 ] || [ "$(/bin/busybox grep -c '^+' /records/log)" -gt "$begun" ]
}
until done_waiting; do
    tries=$((tries + 1))
    [ $tries -lt 1000 ] || { echo "gave up $n" >>/records/log; break; }
    /bin/busybox usleep 20000
done
echo "- $n" >>/records/log
END

cannot() {
    [ -z "${FLOCKCTL_REQUIRE_PODMAN-}" ] || bail_out "FLOCKCTL_REQUIRE_PODMAN is set, but $*"
    skip_all "$*"
}
command -v podman >/dev/null || cannot "podman isn't installed"
busybox=$(command -v busybox) || cannot "busybox isn't installed"
cp "$busybox" "$root/bin/busybox"
cat >"$T/run" <<'END'
#!/bin/sh
exec podman --cgroup-manager=cgroupfs --runtime runc run --rm --network=none --ulimit nofile=1024:1024 \
    --ulimit nproc=1024:1024 --label "flockctl-test=$T" --name "${FLOCKCTL_ID:-trial$$}" --volume "$T/records:/records" \
    --rootfs "$T/rootfs" /bin/busybox "$@"
END
chmod +x "$T/run"
timeout 60 "$T/run" true </dev/null >"$T/trial" 2>&1 || {
    diag "$(cat "$T/trial")"
    cannot "podman can't run a container of busybox here"
}

start_eight() {
    : >"$records/log"
    for n in 1 2 3 4 5 6 7 8; do
        background "c$n" "$FLOCKCTL" -q acquire --slots 2 "$1" -- "$T/run" sh /records/job "$n"
    done
}
most_at_once() {
    awk '/^\+/ { if (++now > most) most = now } /^-/ { now-- } END { print most + 0 }' "$records/log"
}
all_ran() {
    is "$(sort "$records/log" | tr '\n' ' ')" "+ 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 - 1 - 2 - 3 - 4 - 5 - 6 - 7 - 8 " "all eight have begun and ended"
    [ "$(most_at_once)" = 2 ] || diag "$(tr '\n' ' ' <"$records/log")"
    is "$(most_at_once)" 2 "two ran at once, never three: their own records"
}
# kill_running N [also]: once the container's own record says that it runs, kills its flockctl, and its podman also; then
# tells the container. In the background, since nobody knows who is first. conmon, a child of flockctl by then, stays.
kill_running() {
    until grep -q "^+ $1\$" "$records/log"; do sleep 0.01; done
    until podman ps --no-trunc --filter "label=flockctl-test=$T" --filter status=running --format '{{.Command}}' | grep -q "job $1\$"; do
        sleep 0.05 # podman writes that down a little later; killed before that, conmon may end too
    done
    eval "kill_pid=\$c${1}_pid"
    kill -KILL "$kill_pid" ${2:+$(pgrep -x -P "$kill_pid" podman)}
    touch "$records/go.$1"
}

# ---- eight containers, two at a time ----

start_eight podman
failed=0
for n in 1 2 3 4 5 6 7 8; do
    reap "c$n"
    [ "$status" = 0 ] || { failed=$((failed + 1)) && diag "container $n: $status $err"; }
done
is "$failed" 0 "eight containers through a row of two"
all_ran
nothing_left podman

# ---- kill -9 in the middle ----

# Of number 3 flockctl is killed, of number 6 flockctl and podman. Both containers run on until they are told.
touch "$records/ask.3" "$records/ask.6"
start_eight again
kill_running 3 &
kill_running 6 also &
reap c3
is "$status" 137 "the flockctl of a running container is killed"
reap c6
is "$status" 137 "of another one flockctl and podman"
failed=0
for n in 1 2 4 5 7 8; do
    reap "c$n"
    [ "$status" = 0 ] || { failed=$((failed + 1)) && diag "container $n: $status $err"; }
done
is "$failed" 0 "the rest finishes"
run flockctl -q acquire -w 60 again:all -- true
is "$status" 0 "and the row is free in the end"
all_ran
nothing_left again

# ---- orphaned ----

# flockctl is killed, and podman with it; the container goes on, and keeps the slot. Whoever wants that next removes it.
background orphan "$FLOCKCTL" -q acquire --tmpdir --cleanup 'podman rm -f -t 0 "$FLOCKCTL_ID"' engine -- \
    sh -c 'echo "$FLOCKCTL_ID" >"$T/orphan.id"; echo "$TMPDIR" >"$T/orphan.dir"; exec "$T/run" sh -c "echo up >>/records/orphan; exec /bin/busybox sleep 1000"'
wait_for '[ -s "$records/orphan" ]'
id=$(cat "$T/orphan.id")
wait_for '[ "$(podman inspect -f "{{.State.Status}}" "$id")" = running ]' # podman writes that down a little later
kill -KILL "$orphan_pid"
reap orphan
is "$status" 137 "the flockctl of a container is killed"
ok "the container goes on" [ "$(podman inspect -f '{{.State.Status}}' "$id")" = running ]
run flockctl acquire -w 100 engine -- podman container exists "$id"
is "$status" 1 "the next acquirer doesn't find it any more"
like "$err" "cleaned up what pid $orphan_pid has left: podman rm" "it has removed it before it had the lock"
not_ok "and the directory that it had" [ -e "$(cat "$T/orphan.dir")" ]
is "$(registered)" "" "nothing is left to be cleaned up"

left=$(podman ps -aq --filter "label=flockctl-test=$T")
[ -z "$left" ] || podman rm -f $left >/dev/null 2>&1
done_testing
