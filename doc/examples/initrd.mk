# SPDX-License-Identifier: LGPL-2.1-or-later
#
# An initrd that many tests need, built from Debian's busybox-static, cpio and gzip:
#
#     make -f initrd.mk -j4
#
# However many makes run here at once, one of them builds it, and no test ever sees half of it: flockctl once lets the builder
# write to $FLOCKCTL_OUT, a private path, and renames that to initrd.img when it is whole. It is built again when busybox or
# the lines below have changed, by their content, not by their age.
#
# initrd.stamp says that this make, or another one, has asked for that; it is as new as the question. initrd.img is as new as its
# content. So the tests, which depend on initrd.img, run again when there is another initrd and not when it was merely asked for.
# (make looks at the time of initrd.img after its recipe, which is empty.)

FLOCKCTL = flockctl
BUSYBOX := $(shell command -v busybox)
TESTS = test-1 test-2 test-3 test-4

# The shell gets it as $initrd, so that nothing needs quoting twice.
define initrd
tree=$$FLOCKCTL_OUT.tree
mkdir -p "$$tree/bin" "$$tree/dev" "$$tree/proc" "$$tree/sys"
cp '$(BUSYBOX)' "$$tree/bin/busybox"
"$$tree/bin/busybox" --list | grep -vx busybox | while read -r name; do ln -s busybox "$$tree/bin/$$name"; done
printf '%s\n' '#!/bin/sh' 'mount -t proc proc /proc' 'exec sh' >"$$tree/init"
chmod 755 "$$tree/init"
cd "$$tree"
find . -exec touch --no-dereference --date=@0 {} +
find . | LC_ALL=C sort | cpio --quiet --create --format=newc --owner=+0:+0 --reproducible >"$$FLOCKCTL_OUT.cpio"
gzip -9n <"$$FLOCKCTL_OUT.cpio" >"$$FLOCKCTL_OUT"
echo built >>"$$OLDPWD/initrd.log"
endef
export initrd

.PHONY: check clean always
check: $(TESTS:%=%.passed)
	@echo "$(words $(TESTS)) tests passed"

# --use keeps flockctl prune away meanwhile.
%.passed: initrd.img
	@$(FLOCKCTL) once --use initrd.img -- sh -c 'gzip -dc initrd.img | cpio --quiet --list | grep -qx init'
	@echo "$*" >>initrd.log
	@touch $@

initrd.img: initrd.stamp ;

initrd.stamp: $(BUSYBOX) $(lastword $(MAKEFILE_LIST)) $(if $(wildcard initrd.img),,always)
	@$(FLOCKCTL) once -o initrd.img --command-key --input '$(BUSYBOX)' -- sh -ec "$$initrd"
	@touch $@

clean:
	-@$(FLOCKCTL) once --forget initrd.img
	rm -f initrd.stamp initrd.log $(TESTS:%=%.passed)
