# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A suite that needs an engine for itself, and tests that need a slot of it each:
#
#     make -f nested.mk          the suite: waits for the whole engine, resets it, runs the tests two at a time
#     make -f nested.mk -j8 tests   the tests alone, beside whoever else uses the engine
#
# The recipes of the tests are the same: below the suite they draw from what that one holds. However many jobs make runs, no more
# than two of them are in the engine, and nobody else is between the reset and the end of a suite. The engine and the tests are
# stand-ins that write down in nested.log what they do; put your own in place of the two `define`s.

FLOCKCTL = flockctl
ENGINE = example-engine
TESTS = test-1 test-2 test-3 test-4 test-5 test-6 test-7 test-8
SELF := $(lastword $(MAKEFILE_LIST))

define reset-engine
echo reset >>nested.log
endef

define run-test
sh -c 'echo "begin $@ in slot $$FLOCKCTL_SLOT" >>nested.log && sleep 0.1 && echo "end $@" >>nested.log'
endef

.PHONY: suite tests clean $(TESTS)
suite:
	@+$(FLOCKCTL) acquire --slots 2 --label $@ $(ENGINE):all -c '$(reset-engine) && $(MAKE) -f $(SELF) -j8 tests && echo passed >>nested.log'

tests: $(TESTS)
	@echo "$(words $(TESTS)) tests passed"

$(TESTS):
	@$(FLOCKCTL) acquire --slots 2 --label $@ $(ENGINE) -- $(run-test)

clean:
	rm -f nested.log
