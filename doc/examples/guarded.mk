# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Tests that share something that takes two at a time, say a container engine. However many jobs make runs, and however many
# makes run at once, no more than two of these recipes are in it:
#
#     make -f guarded.mk -j8
#
# A job that waits for its turn is still one of make's jobs, so -j should be larger than the number of slots. The engine and
# the tests are stand-ins that write down in guarded.log when they begin and end; put your own in place of the two `define`s.

FLOCKCTL = flockctl
ENGINE = example-engine
TESTS = test-1 test-2 test-3 test-4 test-5 test-6 test-7 test-8

GUARD = $(FLOCKCTL) acquire --slots 2 --label $@ $(ENGINE) --

define build-image
test -e $@ || { sleep 0.1 && echo image >$@.new && echo "built $@" >>guarded.log && mv $@.new $@; }
endef

define run-test
sh -c 'echo "begin $@" >>guarded.log && sleep 0.1 && cat image >/dev/null && echo "end $@" >>guarded.log'
endef

.PHONY: check clean $(TESTS)
check: $(TESTS)
	@echo "$(words $(TESTS)) tests passed"

$(TESTS): image
	@$(GUARD) $(run-test)

# Two makes in this directory would build it at the same time; so one does, and the other finds it there.
image:
	@$(FLOCKCTL) acquire $(ENGINE)-image -c '$(build-image)'

clean:
	rm -f image image.new guarded.log
