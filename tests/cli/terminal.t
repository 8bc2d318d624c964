#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# On a terminal flockctl is as good as not there: Ctrl-C, Ctrl-Z, fg and loops do what they do with the command alone.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

pty=$top_builddir/tests/cli/pty
[ -x "$pty" ] || bail_out "$pty is not there: run make check first"
bash -c : 2>/dev/null || skip_all "no bash here"
"$pty" true </dev/null 2>/dev/null || skip_all "no pseudo-terminals here"

# on_terminal NAME [COMMAND]...: an interactive bash on a terminal takes the steps from stdin, then exit 0; what was printed is in $out.
on_terminal() {
    terminal_name=$1
    shift
    [ $# -gt 0 ] || set -- bash --norc --noprofile --noediting -i
    status=0
    { cat && printf '%s\n' 'send exit 0\n'; } |
        PS1='READY ' HISTFILE=/dev/null "$pty" "$@" >"$T/.out" 2>"$T/.err" || status=$?
    out=$(tr -d '\r' <"$T/.out") err=$(cat "$T/.err")
    is "$status" 0 "$terminal_name" || diag "$err"
}

# Counts what it gets, until it reads a line.
cat >"$T/count" <<'END'
#!/bin/sh
int=0 quit=0
trap 'int=$((int + 1)); echo "INT $int"' INT
trap 'quit=$((quit + 1)); echo "QUIT $quit"' QUIT
trap 'echo "USR1"' USR1
echo "count's pid is $$" >"$T/pids"
echo "flockctl's pid is $PPID" >>"$T/pids"
echo "started with ${1-nothing}"
until read -r line; do :; done
echo "in all INT $int QUIT $quit, $line"
exit ${1-0}
END
# Does what is said to the flockctl around $T/count; the state of both.
cat >"$T/flockctl_gets" <<'END'
#!/bin/sh
kill -"$1" "$(sed -n "s/flockctl's pid is //p" "$T/pids")"
END
# The states of both; one that has ended, whether the shell has seen that or not, has none.
cat >"$T/both_are" <<'END'
#!/bin/sh
for i in $(seq 1000); do
    states=$(for pid in $(sed 's/.*pid is //' "$T/pids"); do sed 's/.*) \(.\).*/\1/' "/proc/$pid/stat" 2>/dev/null; done | tr -d 'Z\n')
    [ "$states" != "$1" ] || exit 0
    sleep 0.01
done
echo "the states are $states, not $1" >&2
exit 1
END
# Waits for the state of a $T/count in a pid namespace, whose own pid says nothing out here. Until it has stopped, it may
# read what is typed for the shell.
cat >"$T/inside_is" <<'END'
#!/bin/sh
for i in $(seq 1000); do
    for directory in $(grep -lz "^$T/count\$" /proc/[0-9]*/cmdline 2>/dev/null); do
        [ "$(tr '\0' ' ' <"$directory" 2>/dev/null | cut -d' ' -f1)" = /bin/sh ] || continue
        [ "$(sed 's/.*) \(.\).*/\1/' "${directory%/cmdline}/stat" 2>/dev/null)" != "$1" ] || exit 0
    done
    sleep 0.01
done
echo "the command in the namespace isn't in state $1" >&2
exit 1
END
# Waits until so many queue for x.
cat >"$T/queued" <<'END'
#!/bin/sh
for i in $(seq 1000); do
    set -- "$1" "$FLOCKCTL_DIR/rows/x/queue"/*[0-9]
    [ -e "$2" ] || set -- "$1"
    [ $(($# - 1)) != "$1" ] || exit 0
    sleep 0.01
done
echo "$(($# - 1)) queue, not $1" >&2
exit 1
END
chmod +x "$T/count" "$T/flockctl_gets" "$T/both_are" "$T/inside_is" "$T/queued"

# ---- Ctrl-C, Ctrl-\ ----

# What a process sends afterwards is forwarded after whatever flockctl had got before.
for verb in "run" "acquire x" "run --pgrp" "run --timeout 1h --output $T/copy"; do
    on_terminal "$verb: Ctrl-C and Ctrl-\\ reach a command that goes on" <<END
expect READY
send "\$FLOCKCTL" $verb -- "\$T/count" 40; echo "it was \$?"\n
expect started with 40
send \003
expect INT 1
run "\$T/flockctl_gets" USR1
expect USR1
send \034
expect QUIT 1
run "\$T/flockctl_gets" USR1
expect USR1
send the line\n
expect it was 40
expect READY
END
    like "$out" "^in all INT 1 QUIT 1, the line$" "  each exactly once"
done
is "$(grep -c '^in all INT 1 QUIT 1, the line$' "$T/copy")" 1 "  and the copy of the output has it"

on_terminal "Ctrl-C ends a loop of the shell, as if flockctl weren't there" <<'END'
expect READY
send for i in 1 2 3; do "$FLOCKCTL" run -- sh -c 'echo started; exec sleep 1000'; echo "after $i"; done\n
expect started
send \003
expect READY
END
unlike "$out" "after" "  nothing of the loop comes after it"

on_terminal "with a lock, too" <<'END'
expect READY
send for i in 1 2 3; do "$FLOCKCTL" acquire x -- sh -c 'echo started; exec sleep 1000'; echo "after $i"; done\n
expect started
send \003
expect READY
END
unlike "$out" "after" "  nothing of the loop comes after it"
nothing_left x

# ---- Ctrl-Z, fg, bg ----

for verb in "run" "acquire x" "run --pgrp"; do
    on_terminal "$verb: Ctrl-Z stops, fg continues" <<END
expect READY
send "\$FLOCKCTL" $verb -- "\$T/count" 41; echo "it was \$?"\n
expect started with 41
send \032
expect Stopped
expect READY
run "\$T/both_are" TT
send fg; echo "at last \$?"\n
run "\$T/both_are" SS
send \032
expect Stopped
expect READY
run "\$T/both_are" TT
send fg; echo "at last \$?"\n
run "\$T/both_are" SS
send another line\n
expect in all INT 0 QUIT 0, another line
expect at last 41
expect READY
END
done

on_terminal "a command that reads in the background is stopped, and flockctl with it" <<'END'
expect READY
send "$FLOCKCTL" run -- "$T/count" 42 &\n
expect started with 42
run "$T/both_are" TT
send fg; echo "at last $?"\n
run "$T/both_are" SS
send in front\n
expect in all INT 0 QUIT 0, in front
expect at last 42
END

mkfifo "$T/go"
on_terminal "bg: the command goes on behind the shell" <<'END'
expect READY
send "$FLOCKCTL" run -- sh -c 'echo started; read -r line <"$T/go"; echo "went on"'\n
expect started
send \032
expect Stopped
expect READY
send bg\n
expect READY
run echo >"$T/go"
expect went on
END

on_terminal "TERM from the shell ends a stopped command, and flockctl with it" <<'END'
expect READY
send "$FLOCKCTL" run -- "$T/count"\n
expect started
send \032
expect Stopped
expect READY
send kill %1; until wait %1; code=$?; [ $code != 148 ]; do :; done; echo "it was $code"\n
expect it was 143
run "$T/both_are" ""
END

if flockctl run --isolate pid -- true 2>/dev/null; then
    on_terminal "with a pid namespace Ctrl-C, Ctrl-Z and fg are the same" <<'END'
expect READY
send "$FLOCKCTL" run --isolate pid -- "$T/count" 44; echo "it was $?"\n
expect started with 44
send \003
expect INT 1
send \032
expect Stopped
expect READY
run "$T/inside_is" T
send fg; echo "at last $?"\n
expect run --isolate pid
run "$T/inside_is" S
send a line\n
expect in all INT 1 QUIT 0, a line
expect at last 44
END
    on_terminal "with a pid namespace Ctrl-C ends a loop, too" <<'END'
expect READY
send for i in 1 2 3; do "$FLOCKCTL" run --isolate pid -- sh -c 'echo started; exec sleep 1000'; echo "after $i"; done\n
expect started
send \003
expect READY
END
    unlike "$out" "after" "  nothing of the loop comes after it"
else
    skip "no pid namespaces here"
    skip "no pid namespaces here"
    skip "no pid namespaces here"
fi

# ---- while it waits ----

hold h x
on_terminal "Ctrl-Z while it waits gives the place in the queue up, and fg queues again" <<'END'
expect READY
send "$FLOCKCTL" acquire x -- echo has it; echo "it was $?"\n
run "$T/queued" 1
send \032
expect Stopped
expect READY
run "$T/queued" 0
send fg\n
run "$T/queued" 1
run echo >"$T/h.go"
expect has it
expect READY
END
reap h

hold h x
on_terminal "others don't wait for one that is stopped" <<'END'
expect READY
send "$FLOCKCTL" acquire x -- echo has it; echo "it was $?"\n
run "$T/queued" 1
send \032
expect Stopped
expect READY
run "$T/queued" 0
send "$FLOCKCTL" acquire x -- echo the other one &\n
run "$T/queued" 1
run echo >"$T/h.go"
expect the other one
send fg %1\n
expect has it
expect READY
END
reap h

hold h x
on_terminal "Ctrl-C while it waits ends a loop" <<'END'
expect READY
send for i in 1 2 3; do "$FLOCKCTL" acquire x -- echo has it; echo "after $i"; done\n
run "$T/queued" 1
send \003
expect READY
run "$T/queued" 0
END
unlike "$out" "after" "  nothing of the loop comes after it"
let_go h
nothing_left x

# ---- without a shell ----

status=0
"$pty" "$FLOCKCTL" run -- "$T/count" 43 >"$T/.out" 2>"$T/.err" <<'END' || status=$?
expect started with 43
hang up
END
is "$status" 129 "a terminal that goes away: the command has its hang-up, and flockctl dies of it too"

done_testing
