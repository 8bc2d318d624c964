#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A test that uses the engine, a thing that one at a time may use: here a directory, which only one can make. It knows nothing
# of locks: `flockctl acquire engine -- ./engine.sh`.
set -e
mkdir engine.in-use
echo "test ${1-} has the engine"
rmdir engine.in-use
