# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
#
# Locks in a script: read this (`. flockctl.sh`) and have
#
#     flockctl_lock [OPTION]... NAME   acquires a slot, waiting in line as `flockctl acquire` does, with its options -n, -w TIME,
#                                      -s, --slots N, -l TEXT, -E N and its exit status (75: taken)
#     flockctl_unlock NAME             releases it
#     flockctl_has NAME                whether this shell has it
#
# as in
#
#     . flockctl.sh
#     flockctl_lock -w 30s podman || exit
#     trap 'flockctl_unlock podman' EXIT
#     podman run --rm alpine true
#
# The lock is a descriptor of the shell's own, the highest of 5 to 9 that is not in use; no process stays around for it. All that
# the script starts inherits it, so it lasts until it is unlocked, or until the shell and all of that have ended. What
# acquires NAME below draws from it (FLOCKCTL_HELD). A script that ends without having unlocked is taken for one that
# has died, and the next holder is told: hence the trap. A subshell shares the lock with the shell and mustn't unlock it.
#
# For POSIX shells (dash, bash and busybox are tested), also with set -eu, and flock(1) of util-linux. FLOCKCTL is the tool,
# where it isn't in the PATH.
#
# How it works: `flockctl acquire --while $$` waits in line, and leaves a process, the keeper, that has the slot. Then, with the
# row's latch locked, so that nobody else can take it, the shell opens the slot, kills the keeper, and locks what it has
# opened. The record of a holder that is killed stays; it is the shell's from then on. Should the shell be killed on the
# way, the keeper ends too, and the kernel closes the rest.

# Variables that `set -a` has exported are not ours: they tell of a shell above.
if [ "${flockctl_shell_-}" != $$ ]; then
    flockctl_shell_=$$
    flockctl_mine_=, # entries as in FLOCKCTL_HELD, each with a comma behind
fi

flockctl_lock() {
    [ $# -gt 0 ] || flockctl_fail_ 125 'usage: flockctl_lock [OPTION]... NAME' || return
    for flockctl_name_; do :; done
    ! flockctl_has "$flockctl_name_" || flockctl_fail_ 35 "this shell has $flockctl_name_ already" || return
    command -v flock >/dev/null || flockctl_fail_ 125 'flock(1) is missing; install util-linux' || return
    flockctl_id_=$("${FLOCKCTL:-flockctl}" acquire --while $$ "$@") || return
    [ -n "$flockctl_id_" ] || return 0 # -E 0
    flockctl_keeper_=$(flockctl_find_keeper_) && flockctl_slot_=$(flockctl_find_slot_) && flockctl_hand_over_ && return
    [ -z "$flockctl_keeper_" ] || kill -TERM "$flockctl_keeper_" 2>/dev/null || :
    flockctl_fail_ 125 "can't take $flockctl_name_ over from the process that has queued for it"
}

flockctl_unlock() {
    flockctl_has "${1-}" || flockctl_fail_ 1 "this shell has no lock ${1-}" || return
    flockctl_entry_=${flockctl_mine_##*",$1@"}
    flockctl_entry_=$1@${flockctl_entry_%%,*}
    flockctl_fd_=${flockctl_entry_##*@}
    flockctl_end_record_
    flock -u "$flockctl_fd_" || return
    # For those who wait, even while a child has it open; see flockctl(7).
    eval "printf r >&$flockctl_fd_; exec $flockctl_fd_>&-"
    flockctl_mine_=${flockctl_mine_%%",$flockctl_entry_,"*},${flockctl_mine_#*",$flockctl_entry_,"}
    flockctl_list_=,$FLOCKCTL_HELD,
    flockctl_list_=${flockctl_list_%%",$flockctl_entry_,"*},${flockctl_list_#*",$flockctl_entry_,"}
    flockctl_list_=${flockctl_list_#,}
    FLOCKCTL_HELD=${flockctl_list_%,}
    [ -n "$FLOCKCTL_HELD" ] || unset FLOCKCTL_HELD
}

flockctl_has() {
    case $flockctl_mine_ in
    *",$1@"*) ;;
    *) return 1 ;;
    esac
}

# ---- what they are made of ----

flockctl_fail_() {
    printf 'flockctl.sh: %s\n' "$2" >&2
    return "$1"
}

# The keeper is the process whose record has our id.
flockctl_find_keeper_() {
    "${FLOCKCTL:-flockctl}" status --json "$flockctl_name_" | tr '{' '\n' |
        sed -n 's/^"pid":\([0-9]*\),.*"id":"'"$flockctl_id_"'".*/\1/p' | grep .
}

# Its slot, as "MODE PATH" with the mode of flock(1). It may have others open, of a hold that this one draws from; the records
# there have another id.
flockctl_find_slot_() {
    grep -sH lock: "/proc/$flockctl_keeper_/fdinfo/"* | while read -r flockctl_line_; do
        flockctl_fd_=${flockctl_line_#*/fdinfo/}
        flockctl_path_=$(readlink "/proc/$flockctl_keeper_/fd/${flockctl_fd_%%:*}")
        case $flockctl_path_ in
        */slots/*) grep -aq "^id=$flockctl_id_\$" "${flockctl_path_%/slots/*}/latch" || continue ;;
        *) continue ;;
        esac
        case $flockctl_line_ in
        *READ*) flockctl_path_="-s $flockctl_path_" ;;
        *) flockctl_path_="-x $flockctl_path_" ;;
        esac
        printf '%s\n' "$flockctl_path_"
    done | grep .
}

# A number that isn't in use, in flockctl_fd_.
flockctl_find_fd_() {
    for flockctl_fd_ in 9 8 7 6 5; do
        [ -e "/proc/self/fd/$flockctl_fd_" ] || return 0
    done
    flockctl_fail_ 125 'of the descriptors 5 to 9 none is free; close one (exec 9>&-)'
}

flockctl_hand_over_() {
    case $flockctl_slot_ in
    *"
"*) flockctl_fail_ 125 "one slot at a time; for several: flockctl acquire --while \$\$" || return ;;
    esac
    flockctl_mode_=${flockctl_slot_%% *}
    flockctl_slot_=${flockctl_slot_#* }
    flockctl_find_fd_ || return
    eval "command exec $flockctl_fd_<\"\${flockctl_slot_%/slots/*}/latch\"" || return
    flockctl_latch_fd_=$flockctl_fd_
    flockctl_status_=0
    flock "$flockctl_latch_fd_" && flockctl_find_fd_ && flockctl_take_ || flockctl_status_=125
    eval "exec $flockctl_latch_fd_<&-"
    return $flockctl_status_
}

# The row can't be removed or resized meanwhile: the keeper, or we, have a slot of it.
flockctl_take_() {
    eval "command exec $flockctl_fd_<>\"\$flockctl_slot_\"" || return
    kill -KILL "$flockctl_keeper_" || :
    if ! flock -w 10 "$flockctl_mode_" "$flockctl_fd_"; then
        eval "exec $flockctl_fd_>&-"
        return 125
    fi
    flockctl_entry_=$flockctl_name_@$flockctl_id_@$flockctl_fd_
    flockctl_mine_=$flockctl_mine_$flockctl_entry_,
    FLOCKCTL_HELD=${FLOCKCTL_HELD:+$FLOCKCTL_HELD,}$flockctl_entry_
    export FLOCKCTL_HELD
}

# The record is ended in its first byte; ~ says that the keeper's ticket may still be there. Without it the next holder would be
# told that its predecessor has died. Those of shared holders are ended by the next exclusive one.
flockctl_end_record_() {
    grep -q 'lock:.*WRITE' "/proc/self/fdinfo/$flockctl_fd_" || return 0
    flockctl_slot_=$(readlink "/proc/self/fd/$flockctl_fd_")
    printf '~' | dd of="${flockctl_slot_%/slots/*}/latch" bs=1 seek=$((128 + 1024 * ${flockctl_slot_##*/})) conv=notrunc \
        2>/dev/null
}
