# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh disable=SC2034,SC2154
#
# What the command-line tests share. Read after tap.sh.

# hold JOB [OPTION]... NAME...: a background flockctl whose command holds until `let_go JOB`. Returns when it has the lock.
# What the command has in FLOCKCTL_* is in $T/JOB.env, the command's own pid in $T/JOB.command.
hold() {
    start "$@"
    has_it "$1"
}

# start JOB [OPTION]... NAME...: the same without waiting for the lock. When the lock is had, JOB is a line of $T/log.
start() {
    start_job=$1
    shift
    rm -f "$T/$start_job.go" "$T/$start_job.held"
    mkfifo "$T/$start_job.go"
    background "$start_job" "$FLOCKCTL" acquire "$@" -- sh -c '
        env | grep "^FLOCKCTL_" >"$1/$2.env"
        echo "$$" >"$1/$2.command"
        echo "$2" >>"$1/log"
        : >"$1/$2.held"
        read -r line <"$1/$2.go"' sh "$T" "$start_job"
}

has_it() {
    wait_for "[ -e '$T/$1.held' ]"
}

# let_go JOB: its command ends; leaves $status, $out and $err
let_go() {
    timeout 10 sh -c 'echo >"$1"' sh "$T/$1.go"
    reap "$1"
}

# queue JOB [OPTION]... NAME: start, and wait until it is in the queue, as the last
queue() {
    queue_job=$1
    for queue_row in "$@"; do :; done
    queue_row=${queue_row%:*}
    queue_number=$(last_number "$queue_row")
    start "$@"
    wait_for "[ \$(last_number '$queue_row') -gt $queue_number ]"
    # Between the number and the place in line lies one section of the latch; who holds that after us is in line.
    flock_latch "$queue_row"
}

# The last number that the queue of a name has given out.
last_number() {
    sed -n '2s/^number=0*\([0-9]\)/\1/p; 2q' "$FLOCKCTL_DIR/rows/$1/latch"
}

# How many wait for a name; a holder that had to queue may still have its ticket.
tickets() {
    tickets_admitted=$(sed -n '5s/^admitted=0*\([0-9]\)/\1/p; 5q' "$FLOCKCTL_DIR/rows/$1/latch")
    tickets_count=0
    for tickets_file in "$FLOCKCTL_DIR/rows/$1/queue"/*[0-9]; do
        if [ -e "$tickets_file" ] && [ "${tickets_file##*/}" -gt "$tickets_admitted" ]; then
            tickets_count=$((tickets_count + 1))
        fi
    done
    echo "$tickets_count"
}

# How many records of shared holders a name of one slot has; their places come behind header, slot and waiters.
shared_records() {
    shared_files=$(ls "$FLOCKCTL_DIR/rows/$1/holders" | wc -l)
    shared_places=$(tail -c +$((128 + 1024 + 1024 * 512 + 1)) "$FLOCKCTL_DIR/rows/$1/latch" | tr '\000' '\n' | grep -c '^+$')
    echo $((shared_files + shared_places))
}

# What is registered for cleaning up, an item a line.
registered() {
    flockctl state list | sed 1d
}

# Goes once through the latch of a name.
flock_latch() {
    flock "$FLOCKCTL_DIR/rows/$1/latch" true
}

# The state of a process: R S D T Z.
state_of() {
    sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null
}

stop_process() {
    kill -STOP "$1"
    wait_for "[ \"\$(state_of $1)\" = T ]"
}

# full_pipe NAME: makes a FIFO $T/NAME with no room left, and opens it as descriptor 7, so that it stays so
full_pipe() {
    mkfifo "$T/$1"
    exec 7<>"$T/$1"
    while dd if=/dev/zero of="$T/$1" bs=4096 count=64 oflag=nonblock conv=notrunc 2>/dev/null; do :; done
}

# From here on $FLOCKCTL is one that other users can get to, which the build tree may not be.
tool_for_others() {
    chmod 755 "$T"
    mkdir "$T/tool"
    cp "$FLOCKCTL" "$T/tool/flockctl"
    FLOCKCTL=$T/tool/flockctl
}

# log_is WANTED NAME: the words of $T/log
log_is() {
    is "$(tr '\n' ' ' <"$T/log" | sed 's/ $//')" "$1" "$2"
}

# nothing_left NAME...: nobody queues and nobody holds
nothing_left() {
    for left_name in "$@"; do
        is "$(ls "$FLOCKCTL_DIR/rows/$left_name/queue")" "" "nobody is left in the queue of $left_name"
        ok "$left_name is free" flockctl -q acquire -n "$left_name:all" -- true
    done
}

# bad STATUS PATTERN ARGUMENT...: flockctl fails so, with one line on stderr that matches and nothing on stdout
bad() {
    bad_status=$1 bad_pattern=$2
    shift 2
    run flockctl "$@"
    is "$status" "$bad_status" "exit $bad_status: flockctl $(echo "$*" | cut -c1-60 | tr -d '\000-\037')"
    like "$err" "^flockctl: .*$bad_pattern" "  its message: $(echo "$err" | cut -c1-150 | tr '\n' ' ')"
    is "$(printf '%s\n' "$err" | wc -l)|$out" "1|" "  is one line, on stderr"
}
