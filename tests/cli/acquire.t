#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# flockctl acquire: it runs the command with the locks and exits as the command does.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# ---- the command ----

run flockctl acquire x -- true
is "$status|$out|$err" "0||" "a free lock: the command runs, and flockctl says nothing"
run flockctl acquire x -- sh -c 'echo out; echo err >&2; exit 37'
is "$status|$out|$err" "37|out|err" "stdout, stderr and the exit status are the command's own"
run flockctl acquire x -- printf '<%s>' 'a b' '' '*' -- -n --help
is "$out" "<a b><><*><--><-n><--help>" "arguments arrive untouched, options behind -- too"
is "$(echo hello | flockctl acquire x -- cat)" hello "stdin is the command's"
is "$(cd "$T" && flockctl acquire x -- pwd -P)" "$(cd "$T" && pwd -P)" "so is the working directory"
is "$(umask 027; flockctl acquire x -- sh -c umask)" "$(umask 027; umask)" "and the umask"
run flockctl acquire x -- sh -c 'kill -KILL $$'
is "$status" 137 "died of KILL: 137"
run flockctl acquire x -- sh -c 'kill -USR1 $$'
is "$status" 138 "died of USR1: 138"
run flockctl acquire x -c 'echo "$FLOCKCTL_NAME"; exit 3'
is "$status|$out" "3|x" "-c runs text in a shell"
run flockctl acquire x --shell='echo "$# $*"'
is "$out" "0 " "which has no arguments"

# ---- options ----

run flockctl acquire x -n --label=text -w 5 -- true
is "$status" 0 "options stand behind the name too"
run flockctl acquire --nonb --conf 9 x -- true
is "$status" 0 "unique prefixes do"
run env POSIXLY_CORRECT=1 "$FLOCKCTL" acquire x -n -- true
is "$status" 0 "POSIXLY_CORRECT changes nothing"
hold h x
run flockctl acquire -w forever -E 3 -w 0 -E 4 x -- true
is "$status" 4 "of two the later wins"

# ---- busy ----

run flockctl acquire -n x -- touch "$T/started"
is "$status" 75 "taken and -n: 75"
like "$err" "^flockctl: x is taken by pid $h_pid \\(" "the message names the lock and who has it"
ok "the command hasn't run" [ ! -e "$T/started" ]
run flockctl acquire -q -n x -- true
is "$status|$err" "75|" "-q: 75 without a word"
run flockctl acquire -w 0 x -- true
is "$status" 75 "-w 0 is -n"
run flockctl acquire -n -E 9 x -- true
is "$status" 9 "-E gives another number"
run flockctl acquire -n -E 0 x -- true
is "$status" 0 "even 0"
run flockctl acquire -w 50ms x -- true
is "$status" 75 "-w 50ms: 75"
like "$err" 'x is still taken by pid [0-9]+ .* after 0\.(0[5-9]|[1-9])' "after 50 ms, and says so"
run flockctl acquire -w 0.05 x -- true
like "$status $err" '^75 .* after 0\.(0[5-9]|[1-9])' "-w 0.05 is the same"
run flockctl acquire -w 0.0005m x -- true
like "$status $err" '^75 .* after 0\.(0[3-9]|[1-9])' "-w 0.0005m is 30 ms"
is "$(tickets x)" 0 "who gave up has left the queue"
let_go h
is "$status" 0 "the holder ends"
for time in 1.5 250ms 30s 2m 1h 1d forever 0; do
    run flockctl acquire -w $time x -- true
    is "$status" 0 "a free lock with -w $time"
done

# A waiter with a deadline gets what comes free before it.
hold h x
queue w -w 1h x
let_go h
has_it w
like "$(cat "$T/w.env")" '^FLOCKCTL_WAITED_MS=[0-9]+$' "it knows how long it waited"
let_go w
is "$status" 0 "a waiter gets the lock before its deadline"

# ---- environment ----

run flockctl acquire x -- sh -c 'env | grep ^FLOCKCTL_ | grep -v -e _DIR= -e _CONFIG= -e _REQUIRE_ | sort'
like "$out" '^FLOCKCTL_ID=[a-z][a-z0-9]{1,23}$' "FLOCKCTL_ID"
like "$out" '^FLOCKCTL_HELD=x@[a-z][a-z0-9]{1,23}@[2-9][0-9][0-9]$' "FLOCKCTL_HELD"
is "$(printf '%s\n' "$out" | sed 's/^\(FLOCKCTL_ID\)=.*/\1/; s/\(HELD\)=.*/\1/; s/\(OWNER\)=.*/\1/; s/\(WAITED_MS\)=[0-9]*$/\1/')" "FLOCKCTL_HELD
FLOCKCTL_ID
FLOCKCTL_NAME=x
FLOCKCTL_OWNER
FLOCKCTL_SLOT=0
FLOCKCTL_SLOTS=0
FLOCKCTL_SLOTS_1=0
FLOCKCTL_WAITED_MS" "one name: HELD, NAME, OWNER, SLOT, SLOTS, SLOTS_1, WAITED_MS and no ABANDONED"
first=$(flockctl acquire x -c 'echo $FLOCKCTL_ID') second=$(flockctl acquire x -c 'echo $FLOCKCTL_ID')
ok "ids differ" [ "$first" != "$second" ]
ok "define b 3" flockctl define b --slots 3
ok "define a 2" flockctl define a --slots 2
run env FLOCKCTL_ABANDONED=1 FLOCKCTL_SLOTS_7=1 FLOCKCTL_SLOT=9 FLOCKCTL_NAME=other FOO='a
b' "$FLOCKCTL" acquire b:2 x a:all -- sh -c 'echo "$FLOCKCTL_NAME|$FLOCKCTL_SLOT|$FLOCKCTL_SLOTS|$FLOCKCTL_SLOTS_1|$FLOCKCTL_SLOTS_2|$FLOCKCTL_SLOTS_3|${FLOCKCTL_SLOTS_4-none}|${FLOCKCTL_SLOTS_7-none}|${FLOCKCTL_ABANDONED-none}|$FOO"'
is "$out" "b x a|0|0 1|0 1|0|0 1|none|none|none|a
b" "several names: in the order given, SLOTS_n by position; what an outer flockctl set is gone, the rest stays"
run flockctl --dir "$T/other root" acquire -s x -c 'echo "$FLOCKCTL_DIR"; "$FLOCKCTL" -q acquire -n x -- true; echo $?'
is "$out" "$T/other root
35" "--dir: the command's own flockctl finds the same locks"
run flockctl --dir "$T/other root" acquire x -- env -u FLOCKCTL_HELD -u FLOCKCTL_DIR \
    "$FLOCKCTL" --dir "$T/other root" run --tmpdir -c 'echo "$FLOCKCTL_DIR"; "$FLOCKCTL" -q status x; echo $?'
is "$status|$out" "0|$T/other root
1" "--dir of run, too"
run flockctl --dir "$T/other root" acquire x -- env -u FLOCKCTL_DIR \
    "$FLOCKCTL" --dir "$T/other root" run -c 'echo "$FLOCKCTL_DIR"; "$FLOCKCTL" -q status x; echo $?'
is "$status|$out" "0|$T/other root
1" "without anything that needs the directory, as well"
is "$(cd "$T" && FLOCKCTL_DIR='other root' flockctl run -c 'echo "$FLOCKCTL_DIR"')" "$T/other root" "run: a relative FLOCKCTL_DIR becomes absolute"

# ---- counts and sizes ----

hold h b:2
is "$(sed -n 's/^FLOCKCTL_SLOTS=//p' "$T/h.env")" "0 1" "b:2 has two slots"
run flockctl -q acquire -n b:2 -- true
is "$status" 75 "two of three are taken: no two are left"
run flockctl acquire -n b -- sh -c 'echo $FLOCKCTL_SLOT'
is "$status|$out" "0|2" "one is"
run flockctl -q acquire -n b:all -- true
is "$status" 75 "not all"
run flockctl acquire -n --slots 3 b:1 -- true
is "$status" 0 "--slots with the row's own number is fine"
let_go h
run flockctl acquire -n b:all -- sh -c 'echo $FLOCKCTL_SLOTS'
is "$out" "0 1 2" "all: every slot"
run flockctl acquire --slots 4 new:3 -- sh -c 'echo $FLOCKCTL_SLOTS'
is "$status|$out" "0|0 1 2" "the first user makes a row of --slots"
run flockctl acquire -n new:all -- sh -c 'echo $FLOCKCTL_SLOTS'
is "$out" "0 1 2 3" "which stays"

# ---- several names ----

hold h x
run flockctl -q acquire -n a x -- true
is "$status" 75 "one of two names is taken: busy"
run flockctl -q acquire -n a:all -- true
is "$status" 0 "and the other one isn't kept"
let_go h
loop() {
    for i in 1 2 3 4 5 6 7 8 9 10; do
        "$FLOCKCTL" acquire -w 60 "$@" -c 'read -r n <"$T/count"; echo $((n + 1)) >"$T/count"' || exit
    done
}
echo 0 >"$T/count"
for i in 1 2 3; do
    loop x y z &
    loop z y x &
done
wait
is "$(cat "$T/count")" 60 "names in opposite order: no deadlock, and a plain counter loses nothing"

# ---- exclusion ----

# `acquire ... -- inside`: begin and end of each in one log
cat >"$T/inside" <<'END'
#!/bin/sh
echo + >>"$T/log"
[ -z "${FLOCKCTL_ABANDONED-}" ] || echo "$$" >>"$T/abandoned"
echo - >>"$T/log"
END
chmod +x "$T/inside"
most_at_once() {
    awk '/\+/ { if (++now > most) most = now } /-/ { now-- } END { print most + 0, NR }' "$T/log"
}
storm() {
    : >"$T/log"
    for i in 1 2 3 4 5 6 7 8; do
        (for j in 1 2 3 4 5; do "$FLOCKCTL" acquire "$@" -- "$T/inside"; done) &
    done
    wait
}
storm x
is "$(most_at_once)" "1 80" "forty commands, eight at a time, on a lock: one at once"
storm --slots 2 two
like "$(most_at_once)" '^[12] 80$' "on a row of two: never three at once"
storm --slots 3 three:2
is "$(most_at_once)" "1 80" "on a row of three, two each: one at once"
ok "nobody was told that a predecessor had died" [ ! -e "$T/abandoned" ]
hold h1 two
hold h2 two
is "$(sed -n 's/^FLOCKCTL_SLOT=//p' "$T/h1.env" "$T/h2.env" | tr '\n' ' ')" "0 1 " "and two do run at once, each with its own slot"
run flockctl -q acquire -n two -- true
is "$status" 75 "the third is refused"
let_go h1
run flockctl acquire -n two -- true
is "$status" 0 "until one has ended"
let_go h2

# ---- shared ----

hold r1 --shared x
hold r2 -s x
pass "two shared holders at once"
is "$(shared_records x)" 2 "with a record each"
run flockctl -q acquire -n x -- true
is "$status" 75 "which keep an exclusive one out"
let_go r1
run flockctl -q acquire -n x -- true
is "$status" 75 "down to the last"
let_go r2
hold h x
run flockctl -q acquire -n -s x -- true
is "$status" 75 "an exclusive holder keeps shared ones out"
let_go h
is "$(shared_records x)" 0 "shared holders leave no records"

# ---- stragglers ----

straggle() {
    run flockctl acquire "$@" x -- sh -c 'sleep 1000 & echo $! >"$T/straggler"'
    read -r straggler <"$T/straggler"
}
straggle
is "$status" 0 "a command that leaves a process behind ends"
like "$err" "^flockctl: pid $straggler \\(sleep 1000\\) .*--detach" "which is named"
not_ok "and ended" kill -0 "$straggler"
run flockctl -q acquire -n x -- true
is "$status" 0 "so the lock is free"
straggle --detach
run flockctl -q acquire -n x -- true
is "$status" 0 "--detach: it doesn't keep the lock"
ok "and is left alone" kill -0 "$straggler"
kill -9 "$straggler"
run flockctl acquire --detach x -- sh -c 'ls -l /proc/$$/fd 2>/dev/null | grep -c rows/x/slots'
is "$out" 0 "--detach: the command has no slot's descriptor"
hold h --detach x
run flockctl -q acquire -n x -- true
is "$status" 75 "--detach: flockctl has it while the command runs"
let_go h

# ---- descriptors ----

run sh -c 'ls /proc/$$/fd'
ours=$out
run flockctl acquire b:2 -- sh -c 'ls /proc/$$/fd'
like "$(printf '%s\n' "$out" | grep -vxF "$ours" | tr '\n' ' ')" '^2[0-9][0-9] 2[0-9][0-9] $' "the command has what it had without flockctl, and the slots from 200 on"
run flockctl acquire x -- sh -c 'for fd in /proc/$$/fd/2??; do grep ^flags: /proc/$$/fdinfo/${fd##*/}; done'
like "$out" '^flags:.*4...$' "the slots' descriptors are non-blocking"
is "$( (ulimit -Sn 64; flockctl acquire x -- sh -c 'ulimit -Sn; ls -l /proc/$$/fd | grep -c " 2.. -> .*slots/0$"') | tr '\n' ' ')" "64 1 " \
    "a soft limit below 200: raised for flockctl, restored for the command, the slot still from 200 on"
is "$( (ulimit -n 64; flockctl acquire x -- sh -c 'ulimit -n; ls -l /proc/$$/fd | grep -c slots/0') | tr '\n' ' ')" "64 1 " \
    "a hard limit below 200: the slot has a lower number"
cat >"$T/uses_low_numbers" <<'END'
#!/bin/sh
exec 3>/dev/null 4>/dev/null 5>/dev/null 6>/dev/null 7>/dev/null 8>/dev/null 9>/dev/null
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
: >"$T/low.held"
read -r line <"$T/low.go"
END
chmod +x "$T/uses_low_numbers"
mkfifo "$T/low.go"
background low "$FLOCKCTL" acquire x -- sh -c '"$T/uses_low_numbers" & wait'
has_it low
kill -9 "$low_pid"
reap low
run flockctl -q acquire -n x -- true
is "$status" 75 "a script that uses descriptors 3 to 9 keeps the lock all the same, without flockctl too"
echo >"$T/low.go"
run flockctl -q acquire -w 10 x -- true
is "$status" 0 "until it ends"

# ---- closed standard files ----

run sh -c '"$FLOCKCTL" acquire x -- sh -c "ls -l /proc/\$\$/fd | sed \"s/.* \([0-9]* -> .*\)/\1/\" >\"$T/fds\"; exit 5" <&- >&- 2>&-'
is "$status" 5 "stdin, stdout and stderr closed: the command runs"
like "$(cat "$T/fds")" '^2[0-9][0-9] -> .*rows/x/slots/0' "its slot isn't one of those"
not_ok "nor below" grep -q '^[0-2] -> .*rows' "$T/fds"
run sh -c '"$FLOCKCTL" acquire x -- cat <&-'
is "$status" 0 "stdin closed: the command reads nothing"
hold h x
run sh -c '"$FLOCKCTL" acquire -n x -- true 2>&-'
is "$status" 75 "stderr closed: busy is 75"
not_ok "and no file of the lock directory has got the message" grep -rq 'x is taken' "$FLOCKCTL_DIR/rows/x/latch" "$FLOCKCTL_DIR/version"
let_go h

nothing_left x y z a b two three new
done_testing
