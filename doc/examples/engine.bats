# SPDX-License-Identifier: LGPL-2.1-or-later
# bats: each test has the engine for itself, also under `bats --jobs 8`, and beside another bats.
bats_require_minimum_version 1.5.0

setup() {
    . flockctl.sh
    flockctl_lock -w 10m engine
    mkdir engine.in-use
}

teardown() {
    rmdir engine.in-use
    flockctl_unlock engine
}

@test "the engine works" {
    [ -d engine.in-use ]
}

@test "the engine is ours" {
    flockctl_has engine
}

@test "what a test starts may use the lock too" {
    flockctl acquire engine -- true
}
