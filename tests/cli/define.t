#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# define, resize, remove, path, dir, and the configuration file.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# fine NAME ARGUMENT...: flockctl succeeds without a word
fine() {
    fine_name=$1
    shift
    run flockctl "$@"
    is "$status|$out|$err" "0||" "$fine_name"
}

slots_of() {
    flockctl path "$1" | wc -l
}

# ---- define ----

fine "define a row of two" define podman --slots 2
is "$(slots_of podman)" 2 "it has two slots"
fine "again with the same number" define podman --slots=2
bad 125 'podman has 2 slots, not 3; .*flockctl resize podman 3' define podman --slots 3
bad 125 'podman has 2 slots, not 3' acquire --slots 3 podman -- true
bad 125 'podman has 2 slots, not 3' path --slots 3 podman
is "$(slots_of podman)" 2 "still two"
fine "the largest" define large --slots 4096
is "$(slots_of large)" 4096 "has 4096 slots"
bad 125 '"4097" is not a number of slots.*from 1 to 4096' define other --slots 4097
bad 125 '"0" is not a number of slots' define other --slots 0
bad 125 '"2x" is not a number of slots' define other --slots 2x
bad 125 "isn't defined.*flockctl define other --slots N" acquire other:2 -- true
bad 125 "isn't defined" acquire other:all -- true
ok "none of these made it" [ ! -e "$FLOCKCTL_DIR/rows/other" ]
hold h podman:all
fine "define while it is held" define podman --slots 2
let_go h

# ---- resize ----

fine "resize to four" resize podman 4
is "$(slots_of podman)" 4 "it has four slots"
fine "to the same" resize podman 4
fine "to one" resize podman 1
run flockctl acquire -n --shared --slots 1 podman -- true
is "$status" 0 "a row of one, which can be shared"
bad 125 "other isn't defined.*flockctl define other" resize other 2
bad 125 '"0" is not a number of slots' resize podman 0
bad 125 '"4097" is not a number of slots.*1 to 4096' resize podman 4097
hold h podman
run flockctl resize -n podman 2
is "$status" 75 "held and -n: 75"
like "$err" "^flockctl: podman is taken by pid $h_pid" "by whom"
run flockctl -q resize -w 20ms -E 9 podman 2
is "$status|$err" "9|" "-w, -E and -q"
is "$(slots_of podman)" 1 "still one"
let_go h

# ---- remove ----

fine "remove" remove podman
ok "it is gone" [ ! -e "$FLOCKCTL_DIR/rows/podman" ]
fine "remove of nothing" remove podman never-there
hold h held
run flockctl -q remove -n held large
is "$status" 75 "a name that is held: 75"
ok "it is there" [ -e "$FLOCKCTL_DIR/rows/held" ]
ok "the others are gone" [ ! -e "$FLOCKCTL_DIR/rows/large" ]
let_go h
fine "now it goes" remove held
is "$(ls -A "$FLOCKCTL_DIR/rows")" "" "nothing is left behind"

# ---- path ----

run flockctl path x
is "$status|$out" "0|$FLOCKCTL_DIR/rows/x/slots/0" "path makes a row of one and prints its slot"
ok "which is a FIFO" [ -p "$out" ]
run flockctl path --latch x
is "$status|$out" "0|$FLOCKCTL_DIR/rows/x/latch" "--latch prints the latch"
ok "which is a file" [ -f "$out" ]
run flockctl path three --slots 3
is "$out" "$FLOCKCTL_DIR/rows/three/slots/0
$FLOCKCTL_DIR/rows/three/slots/1
$FLOCKCTL_DIR/rows/three/slots/2" "several slots: one a line"
run flockctl path three 2
is "$out" "$FLOCKCTL_DIR/rows/three/slots/2" "path NAME K: that one"
bad 125 'three has no slot "3\"; it has 0 to 2' path three 3
bad 125 'three has no slot "one\"' path three one
is "$(stat -c %a "$FLOCKCTL_DIR" "$FLOCKCTL_DIR/rows" "$FLOCKCTL_DIR/rows/x" "$FLOCKCTL_DIR/rows/x/slots/0" "$FLOCKCTL_DIR/rows/x/latch" | tr '\n' ' ')" \
    "700 700 700 1600 1600 " "directories are 0700, files 0600 with the sticky bit"
(umask 777 && flockctl acquire masked -- true)
is "$?" 0 "whatever the umask is"
(umask 777 && flockctl --dir "$T/masked" acquire masked -- true)
is "$?" 0 "for a new directory too"
hold h masked
(
    umask 777
    exec "$FLOCKCTL" -q acquire -w 50ms masked -- true
)
is "$?" 75 "and for who queues"
let_go h

# ---- three lines of shell ----

join_in() {
    exec 8<>"$(flockctl path --latch x)" 9<>"$(flockctl path x)"
    flock 8
    flock -n 9 || joined=no
    exec 8>&-
}
if command -v flock >/dev/null; then
    joined=yes
    join_in
    is "$joined" yes "a shell joins in with three lines"
    run flockctl -q acquire -n x -- true
    is "$status" 75 "and excludes flockctl"
    queue w x 9>&- # which would keep what it inherits
    exec 9>&-
    has_it w
    pass "which is woken when it has closed the slot"
    joined=yes
    join_in
    exec 9>&-
    is "$joined" no "flockctl excludes it"
    let_go w
    joined=yes
    join_in
    exec 9>&-
    is "$joined" yes "until it lets go"
    background shell sh -c 'exec 8<>"$("$FLOCKCTL" path --latch x)" 9<>"$("$FLOCKCTL" path x)"
        flock 8; flock -n 9; exec 8>&-; : >"$T/shell.held"; exec sleep 1000'
    has_it shell
    queue w x
    kill -KILL "$shell_pid"
    reap shell
    has_it w
    pass "a shell that is killed has let go too"
    let_go w
fi

# ---- dir ----

run flockctl -q dir
is "$status|$out" "0|$FLOCKCTL_DIR" "dir: the directory"
run flockctl dir
is "$(printf '%s\n' "$out" | head -n 1)" "$FLOCKCTL_DIR" "and then"
like "$out" '^chosen: FLOCKCTL_DIR' "why"
is "$(printf '%s\n' "$out" | grep -c -e XDG_RUNTIME_DIR -e '/run/user/')" 2 "and the other candidates"
run flockctl --dir "$T/d" dir
like "$out" "^chosen: --dir " "--dir goes before FLOCKCTL_DIR"
unlike "$out" flk_ "without a name of C"
is "$(cd "$T" && flockctl --dir d -q dir)" "$T/d" "a relative one is made absolute"
is "$(flockctl --dir "$T/d//" -q dir)" "$T/d" "slashes at its end don't matter"
mkdir -m 700 "$T/runtime"
run env -u FLOCKCTL_DIR XDG_RUNTIME_DIR="$T/runtime" "$FLOCKCTL" -q dir
is "$out" "$T/runtime/flockctl" "without both: XDG_RUNTIME_DIR/flockctl"
run env FLOCKCTL_DIR= XDG_RUNTIME_DIR="$T/runtime" TMPDIR=/nonexistent "$FLOCKCTL" -q dir
is "$out" "$T/runtime/flockctl" "an empty FLOCKCTL_DIR is none, TMPDIR is ignored"

# ---- the configuration file ----

cat >"$FLOCKCTL_CONFIG" <<'END'
# what the tests share
podman slots=2

	nbd   slots=16 # devices
END
run flockctl acquire podman -- true
is "$(slots_of podman)|$(slots_of nbd)" "2|16" "the first user of a name makes the row that the file declares"
flockctl remove podman
run flockctl acquire podman:2 -- sh -c 'echo $FLOCKCTL_SLOTS'
is "$out" "0 1" "a count does too"
bad 125 "flockctl.conf:2 declares podman with 2 slots, not 3" define podman --slots 3
bad 125 "flockctl.conf:2 declares podman with 2 slots, not 3; correct the file" resize podman 3
flockctl remove podman
bad 125 "flockctl.conf:2 declares podman with 2 slots, not 3" acquire --slots 3 podman -- true
bad 125 "flockctl.conf:2 declares podman with 2 slots, not 3" define podman --slots 3
bad 125 "flockctl.conf:2 declares podman with 2 slots, not 3" path --slots 3 podman
ok "none of these made it" [ ! -e "$FLOCKCTL_DIR/rows/podman" ]
fine "the number of the file" define podman --slots 2
echo 'podman slots=5' >"$FLOCKCTL_CONFIG"
bad 125 "flockctl.conf:1 declares podman with 5 slots, not 2" define podman --slots 2
bad 125 "podman has 2 slots, not 5" define podman --slots 5
run flockctl acquire -n podman:all -- sh -c 'echo $FLOCKCTL_SLOTS'
is "$out" "0 1" "acquire reads it only for a row that isn't there"
fine "resize to what the file says" resize podman 5

for line in 'new slots=0' 'new slots=4097' 'new slots=two' 'new slots=2 3' 'new 2' 'new' '../x slots=1'; do
    printf '#\n%s\n' "$line" >"$FLOCKCTL_CONFIG"
    bad 125 "$FLOCKCTL_CONFIG:2: " acquire new -- true
done
run env FLOCKCTL_CONFIG="$T/none" "$FLOCKCTL" acquire new -- true
like "$status $err" "^125 flockctl: the configuration file $T/none isn't there; .*FLOCKCTL_CONFIG" "a file that is named must be there"
run env FLOCKCTL_CONFIG="$T/none" "$FLOCKCTL" acquire podman -- true
is "$status" 0 "for rows that are there it isn't read"

# Search order. The name differs each time, so that each makes a row of its own.
mkdir -p "$T/home/.config" "$T/tree/.git" "$T/tree/sub/deep" "$T/plain/sub"
export HOME="$T/home"
declared() {
    (cd "$2" && env -u FLOCKCTL_CONFIG "$FLOCKCTL" path "$1") | wc -l
}
for n in 1 2 3 4 5 6; do echo "s$n slots=2"; done >"$HOME/.config/flockctl.conf"
is "$(declared s1 "$T/tree/sub/deep")" 2 "~/.config/flockctl.conf"
for n in 2 3; do echo "s$n slots=3"; done >"$T/tree/.flockctl.conf"
is "$(declared s2 "$T/tree/sub/deep")" 3 "before it, .flockctl.conf at the root of the work tree"
echo "s3 slots=4" >"$T/tree/sub/.flockctl.conf"
is "$(declared s3 "$T/tree/sub/deep")" 4 "before that, one nearer to the working directory"
for n in 4 5 6; do echo "s$n slots=5"; done >"$T/.flockctl.conf"
is "$(declared s4 "$T/tree")" 1 "above the root of the work tree none is read"
rm "$T/tree/.flockctl.conf" "$T/tree/sub/.flockctl.conf"
is "$(declared s5 "$T/tree")" 2 "even when there is none in it"
is "$(declared s6 "$T")" 5 "outside of a work tree: that of the working directory"
is "$(declared s7 "$T/plain/sub")" 1 "and none above"
echo "s8 slots=6" >"$FLOCKCTL_CONFIG"
is "$(cd "$T" && slots_of s8)" 6 "first of all FLOCKCTL_CONFIG"

done_testing
