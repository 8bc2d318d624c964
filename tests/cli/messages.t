#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What people read: who has it and who is first in line, and errors that name the thing, the reason and what to do.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

escape=$(printf '\033')
# Of ASCII, and one of those that UTF-8 and Latin-1 have behind it (a terminal's "control sequence introducer").
control="[[:cntrl:]]|$(printf '\233')"

# ---- the waiting message ----

# Looked at when the rest is done, some ten seconds later.
hold holder long
queue long long

# Four rows wait at once, so that the second until the message passes once.
hold h -l nightly x
queue first x
queue second x

hold odd -l "a${escape}[31mb
c" odd
background odd_waiter "$FLOCKCTL" acquire odd -- echo "${escape}]0;title" "$(printf '\302\233')"
wait_for '[ "$(tickets odd)" = 1 ]'
queue behind_odd odd

hold s stop
queue stopped stop
stop_process "$stopped_pid"
queue behind stop

# Its acquirer is killed; what the command leaves behind keeps it.
background left "$FLOCKCTL" acquire left -- sh -c 'sleep 1000 & echo $! >"$T/heir"; : >"$T/left.held"; wait'
has_it left
kill -9 "$left_pid"
reap left
queue after_left left

# One that has a lock, and waits for another one with it.
hold far far
background wants "$FLOCKCTL" acquire wanted -- "$FLOCKCTL" acquire far -- true
wait_for '[ "$(tickets far)" = 1 ]'
queue after_wanted wanted

# The same, where what it waits for is a part of a hold.
background nests "$FLOCKCTL" acquire outer -- sh -c '
    "$FLOCKCTL" acquire outer -- sh -c ": >\"\$T/nests.held\"; read -r line <\"\$T/nests.go\"" &
    while [ ! -e "$T/nests.held" ]; do sleep 0.01; done
    exec "$FLOCKCTL" acquire inner -- "$FLOCKCTL" acquire outer -- true'
mkfifo "$T/nests.go"
has_it nests
wait_for '[ "$(flockctl status outer | grep -c " waiting ")" = 1 ]'
inner=$(flockctl holders inner)
queue after_inner inner

hold f full
full_pipe pipe
background blocked sh -c 'exec "$FLOCKCTL" acquire full -- sh -c ": >\"\$T/blocked.held\"" 2>"$T/pipe"'
wait_for '[ "$(tickets full)" = 1 ]'
flock_latch full
background quiet "$FLOCKCTL" -q acquire full -- true
wait_for '[ "$(tickets full)" = 2 ]'
flock_latch full
queue after_full full

for job in first second behind behind_odd after_full after_left after_wanted after_inner; do
    wait_for "[ -s '$T/$job.err' ]"
done
message=$(cat "$T/second.err")
is "$(printf '%s\n' "$message" | wc -l)" 1 "after a second of waiting, one line"
like "$message" '^flockctl: waiting for x for 1 s: ' "it says what is waited for and for how long"
like "$message" "held by pid $h_pid \\([^)]*flockctl acquire -l nightly x -- sh -c" "who has it: pid and command line"
like "$message" '\) "nightly" since [0-9][0-9]:[0-9][0-9]:[0-9][0-9];' "the label, and since when"
like "$message" "first in line: pid $first_pid \\(.*flockctl acquire x" "who is first in line"
unlike "$message" stopped "which isn't stopped"
like "$(cat "$T/first.err")" 'we are first in line' "the first in line says so"

message=$(cat "$T/behind_odd.err")
unlike "$message" "$control" "control characters of labels and command lines are escaped"
like "$message" '"a\\x1b\[31mb\\x0ac"' "the label's"
like "$message" 'echo \\x1b\]0;title' "and the command's"

like "$(cat "$T/behind.err")" "first in line: pid $stopped_pid .*\\(stopped\\)" "a first in line that is stopped is said to be"
kill -CONT "$stopped_pid"

heir=$(cat "$T/heir")
like "$(cat "$T/after_left.err")" \
    "held by pid $heir \\(sleep 1000\\) since [0-9:]+, left by pid $left_pid \\(.*flockctl acquire left.*\\), which is gone; we are first" \
    "the acquirer is gone: the child that keeps it is named"
kill "$heir"
has_it after_left
let_go after_left
like "$(cat "$T/after_wanted.err")" \
    "held by pid $wants_pid .*, which waits for far itself: pid [0-9]+ \\(.*flockctl acquire far -- true\\)" \
    "what the holder has started waits itself, for which name"
kill "$wants_pid"
reap wants
has_it after_wanted
let_go after_wanted
like "$(cat "$T/after_inner.err")" \
    "held by pid $inner .*, which waits for outer itself: pid [0-9]+ \\(.*flockctl acquire outer -- true\\)" \
    "what is drawn from a hold, too"
echo >"$T/nests.go"
has_it after_inner
let_go after_inner
reap nests
let_go far

# The waiter that came later has sent its message, so the one before it has been at that point too.
let_go f
reap blocked
ok "a waiter whose stderr is a full pipe has got the lock" [ -e "$T/blocked.held" ]
is "$status" 0 "and ended"
reap quiet
is "$status|$err" "0|" "-q: no message"
has_it after_full
let_go after_full
exec 7>&-

# A message into a pipe that nobody reads any more costs the message, not the lock.
for job in h first second odd; do has_it $job; let_go $job; done
reap odd_waiter
has_it behind_odd
let_go behind_odd
let_go s
# The one that was stopped has its place still, or on a slow machine was passed over.
wait_for '[ -e "$T/stopped.held" ] || [ -e "$T/behind.held" ]'
if [ -e "$T/stopped.held" ]; then
    in_turn="stopped behind"
else
    in_turn="behind stopped"
fi
for job in $in_turn; do has_it $job; let_go $job; done
hold h x
mkfifo "$T/gone"
exec 7<>"$T/gone"
background unheard sh -c 'exec "$FLOCKCTL" acquire x -- true 2>"$T/gone" 7>&-'
wait_for '[ "$(tickets x)" = 1 ]'
exec 7>&-
queue heard x
wait_for "[ -s '$T/heard.err' ]"
let_go h
reap unheard
is "$status" 0 "a waiter whose stderr is a broken pipe gets the lock too"
has_it heard
let_go heard

# ---- busy ----

hold h -l "l${escape}[0m" x
run flockctl acquire -n x -- true
is "$status|$(printf '%s\n' "$err" | wc -l)" "75|1" "busy: one line"
unlike "$err" "$control" "without control characters"
like "$err" "^flockctl: x is taken by pid $h_pid \\(.*flockctl acquire" "with the name, the pid and the command line"
run flockctl -q acquire -n x -- true
is "$err" "" "-q: nothing"
run flockctl -v acquire y -- true
like "$err" '^flockctl: .*id [a-z][a-z0-9]+$' "-v says what was acquired"
let_go h

# ---- verbs ----

bad 125 'there is no verb "aquire"; did you mean acquire' aquire x -- true
bad 125 'there is no verb "pat"; did you mean path' pat x
bad 125 'there is no verb "podman"; did you mean: flockctl acquire podman -- ' podman -- run
bad 125 'there is no verb "frobnicate"; all of them: flockctl help' frobnicate
bad 125 'flockctl acquire NAME -- COMMAND' -q
bad 125 'no verb "acquir"; did you mean acquire' help acquir
bad 125 'no verb "foo"; all of them: flockctl help' help foo
bad 125 'no verb "a.x1b"' "a$escape"
bad 125 'supervise is for programs that use libflockctl' supervise
bad 125 'supervise is for programs that use libflockctl' supervise 1
bad 125 'no verb "supervis"; all of them' supervis
unlike "$(flockctl help)" supervise "help doesn't list it"
for verb in acquire define resize remove path dir status holders evict help version; do
    run flockctl help $verb
    is "$status|$err" "0|" "help $verb"
    like "$out" "^flockctl $verb" "  begins with how it is used"
    [ $verb = help ] || [ "$verb" = version ] || is "$(flockctl $verb --help)" "$out" "  $verb --help is the same"
    is "$(flockctl help | grep -c "^  $verb ")" 1 "  and help lists it"
done
like "$(flockctl help acquire)" '^Exit status: .* 69 .* 75 .* 124 ' "help acquire has the exit statuses"
like "$(flockctl help run)" '^Exit status: .* 124 ' "help run too"
is "$(flockctl --help)" "$(flockctl help)" "--help is help"
is "$(flockctl --version)" "$(flockctl version)" "--version is version"
like "$(flockctl --version)" '^flockctl [0-9]+\.[0-9]+\.[0-9]+' "which is three numbers"
run flockctl acquire x -- "$FLOCKCTL" --version
is "$status" 0 "an option behind -- is the command's"

# ---- options and operands ----

bad 125 '--frobnicate isn.t an option of flockctl acquire.*--help' acquire --frobnicate x -- true
bad 125 '-z isn.t an option of flockctl acquire.*--help' acquire -z x -- true
bad 125 '--frobnicate isn.t an option of flockctl.*--help' --frobnicate acquire x -- true
bad 125 '--sh is short for several options: --shared, --shell; say which$' acquire --sh x -- true
bad 125 '--nonblock takes no value; leave "=3" out$' acquire --nonblock=3 x -- true
bad 125 '-z isn.t an option of flockctl acquire; ' acquire x y -nz -- true
bad 125 '-w needs a value' acquire x -nw -- true
bad 125 '"" is not a time for --wait' acquire -w '' x -- true
bad 125 '"" is not a count in "x:"; ' acquire x: -- true
bad 125 '--dir is empty; give it the path' --dir= run -- true
bad 125 '--dir is empty; give it the path' run --dir '' -- true
bad 125 '-w needs a value' acquire x -w -- true
bad 125 '--label needs a value' acquire x --label -- true
bad 125 'isn.t an option of flockctl define' define x --slots 1 --nonblock
bad 125 'isn.t an option of flockctl dir' dir -n
bad 125 'acquire needs "--".*flockctl acquire x -- true$' acquire x true
bad 125 'acquire needs "--".*flockctl acquire x -- COMMAND$' acquire x
bad 125 'acquire needs "--".*flockctl acquire NAME -- COMMAND$' acquire
bad 125 'no command behind "--".*flockctl acquire x -- COMMAND' acquire x --
bad 125 'acquire needs a name; it is used so: flockctl acquire .OPTION.... NAME.:COUNT.... -- COMMAND .ARG....$' acquire -- true

# ---- a line without its "--": as it was meant, for a shell ----

# meant LINE ARGUMENT...
meant() {
    meant_line=$1
    shift
    run flockctl "$@"
    is "$status|$err" "125|flockctl: ${meant_verb:-acquire} needs \"--\" before the command; for example: flockctl $meant_line" "meant: $meant_line"
}
meant "acquire -n db -- echo hi" acquire -n db echo hi
meant "acquire db -w 1 -- make -j8 all" acquire db -w 1 make -j8 all
meant "acquire db -- make -w soon" acquire db make -w soon
meant "--dir 'a b' acquire -l 'it'\\''s' x -- 'echo;' ''" --dir 'a b' acquire -l "it's" x 'echo;' ''
meant "acquire NAME -- COMMAND" acquire
meant "acquire -w 3 x -- COMMAND" acquire -w 3 x
meant_verb=run
meant "run --timeout 1s -- make check -j8" run --timeout 1s make check -j8
meant "run -k 1 -- make --frobnicate=2" run -k 1 make --frobnicate=2
bad 125 '-j isn.t an option of flockctl run' run -j8 make
bad 125 'no command behind "--"; for example: flockctl acquire -n NAME -- COMMAND$' acquire -n --
run flockctl acquire x y -n -c 'echo "$FLOCKCTL_NAME"'
is "$status|$out" "0|x y" "with -c it isn't missing"
bad 125 'no verb "acq"; did you mean acquire' acq db -- true
bad 125 'no verb "re"; did you mean: flockctl acquire re' re -- true
bad 125 'version doesn.t take "x"' version x
bad 125 '-c and "-- COMMAND" can.t both' acquire x -c true -- true
bad 125 'runs no command' define x --slots 1 -- true
bad 125 'define needs the number of slots: flockctl define x --slots N' define x
bad 125 "define doesn't take .y." define x y --slots 1
bad 125 'resize needs more operands.*NAME N' resize x
bad 125 'path needs a name' path
bad 125 "dir doesn't take .x." dir x
bad 125 'two:0.*NAME:COUNT.*all' acquire two:0 -- true
run flockctl acquire x "$(printf 'echo\033')"
unlike "$err" "$control" "what was typed is escaped too"

# ---- a stdout that can't be written to ----

if [ -w /dev/full ]; then
    run sh -c '"$FLOCKCTL" dir >/dev/full'
    is "$status" 125 "dir: stdout is full: 125"
    like "$err" "^flockctl: can't write to stdout: " "and says so"
fi

# ---- the second message ----

wait_for '[ "$(wc -l <"$T/long.err")" -ge 2 ]'
like "$(sed -n 2p "$T/long.err")" "^flockctl: waiting for long for 1[0-9] s: held by pid $holder_pid " "after ten seconds it is said again"
let_go holder
let_go long
is "$(printf '%s\n' "$err" | wc -l)" 2 "and then not before a minute has passed"

nothing_left x odd stop full long
done_testing
