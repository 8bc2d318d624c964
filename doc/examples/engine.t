#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A test script that writes TAP and needs the engine for itself, for `prove -j8`: the lock is the script's own.
. flockctl.sh
echo 1..3
flockctl_lock -w 10m engine || { echo "Bail out! no engine" && exit 1; }
trap 'flockctl_unlock engine' EXIT

if mkdir engine.in-use; then echo "ok 1 - it starts"; else echo "not ok 1 - it starts"; fi
if [ -d engine.in-use ]; then echo "ok 2 - it works"; else echo "not ok 2 - it works"; fi
if rmdir engine.in-use; then echo "ok 3 - it stops"; else echo "not ok 3 - it stops"; fi
