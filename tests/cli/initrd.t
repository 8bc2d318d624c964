#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# doc/examples/initrd.mk: an archive as an initrd is one, from eight makes at once. And what the manual says of makes around
# makes.
# shellcheck disable=SC2016,SC2154
. "$(dirname "$0")/../tap/tap.sh"

for tool in busybox cpio gzip; do
    command -v $tool >/dev/null || skip_all "there is no $tool"
done

# example [ARG]...: a make of its own
example() {
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "${MAKE:-make}" -s -f "$top_srcdir/doc/examples/initrd.mk" "FLOCKCTL=$FLOCKCTL" \
        "BUSYBOX=$T/busybox" "$@"
}

# lines WORD: how many there are in the log
lines() {
    grep -c "^$1" initrd.log
}

cp "$(command -v busybox)" "$T/busybox"
mkdir "$T/make" && cd "$T/make" || bail_out "no directory"

pids=
for i in 1 2 3 4 5 6 7 8; do
    example -j2 "TESTS=user-$i-a user-$i-b" >"$T/make.$i" 2>"$T/errors.$i" &
    pids="$pids $!"
done
failed=
for pid in $pids; do
    wait "$pid" || failed="$failed $?"
done
is "$failed|$(cat "$T"/make.? | sort | uniq -c | sed 's/^ *//')" "|8 2 tests passed" "eight makes at once succeed"
is "$(lines built)" 1 "it was built once"
is "$(lines user)" 16 "and used by the two tests of each"
gzip -dc initrd.img | cpio --quiet --list >"$T/names"
is "$(grep -cx -e init -e bin/busybox -e bin/sh -e proc "$T/names")" 4 "it has what an initrd needs"
is "$(grep -c '^bin/' "$T/names")" "$({ "$T/busybox" --list; echo busybox; } | sort -u | wc -l)" "and all that busybox can be called"
mkdir "$T/unpacked"
gzip -dc initrd.img | (cd "$T/unpacked" && cpio --quiet --extract --make-directories --no-preserve-owner)
ok "what is unpacked is what was packed" cmp "$T/unpacked/bin/busybox" "$T/busybox"
is "$(ls -A | grep -c '^\.flockctl-')" 0 "no private directory is left"

first=$(sha256sum <initrd.img)
run example TESTS=user-1-a
is "$status|$(lines built)|$(lines user)" "0|1|16" "another make has nothing to do"
touch "$T/busybox"
run example TESTS=user-1-a
is "$status|$(lines built)|$(lines user)" "0|1|16" "a newer busybox of the same content: nothing either"
echo >>"$T/busybox"
run example TESTS=user-1-a
is "$status|$(lines built)|$(lines user)" "0|2|17" "another busybox: it is built again, and what depends on it"
is "$(gzip -dc initrd.img | cpio --quiet --to-stdout --extract bin/busybox | cmp - "$T/busybox")" "" "from that one"
flockctl prune -q --max-size 0 . >/dev/null
ok "pruned" [ ! -e initrd.img ]
run example TESTS=user-1-a
is "$status|$(lines built)" "0|3" "it is built again"
cp "$(command -v busybox)" "$T/busybox"
run example TESTS=user-1-a
is "$status|$(lines built)|$(sha256sum <initrd.img)" "0|4|$first" "from the same busybox the same archive"
run example clean TESTS='user-1-a user-1-b'
is "$status|$(ls -A | grep -v passed)" "0|" "clean leaves nothing"

# ---- a make around a make ----

mkdir -p "$T/outer/lib/src" && cd "$T/outer" || bail_out "no directory"
echo one >lib/src/file
cat >Makefile <<'EOS'
lib/.built:
	@"$(FLOCKCTL)" once -o $@ --input lib/src -c '$(MAKE) -C lib && touch "$$FLOCKCTL_OUT"'
.PHONY: lib/.built
EOS
printf 'all: a b c\na b c:\n\t@echo $@ >>log\n' >lib/Makefile
outer() {
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "${MAKE:-make}" -s -j3 "FLOCKCTL=$FLOCKCTL" 2>&1
}
for i in 1 2 3 4; do
    outer >"$T/outer.$i" &
done
wait
is "$(LC_ALL=C sort lib/log | tr '\n' ' ')" "a b c " "of four makes at once one runs the inner make"
is "$(cat "$T"/outer.? | grep -c -i jobserver)" 0 "which has the outer one's job server"
run outer
is "$status|$(wc -l <lib/log)" "0|3" "nothing has changed: it isn't run again"
echo two >>lib/src/file
run outer
is "$status|$(wc -l <lib/log)" "0|6" "something has: it is"
done_testing
