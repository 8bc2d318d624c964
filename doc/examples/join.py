#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""join.py NAME COMMAND [ARG]...: runs COMMAND with a slot of NAME, taken by hand. Exits with 75 when none is free, or when
somebody queues. The class is the recipe; see flockctl(7)."""
import fcntl
import os
import subprocess
import sys
import time

FLOCKCTL = os.environ.get("FLOCKCTL", "flockctl")
HEADER, PLACE = 128, 1024  # bytes, in the latch


class Busy(Exception):
    pass


def escape(text, room):
    """As values of records are written: no control characters, cut to what fits."""
    out = ""
    for byte in text.encode(errors="surrogateescape"):
        piece = chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else "\\x%02x" % byte
        if len(out + piece) > room:
            break
        out += piece
    return out


class Slot:
    """with Slot("podman") as slot: ... slot.number ..."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.latch = self._lock_latch()
        try:
            if self._somebody_queues():
                raise Busy(self.name + " has a queue")
            self._take()
        except BaseException:
            os.close(self.latch)
            raise
        fcntl.flock(self.latch, fcntl.LOCK_UN)  # stays open: the record stands in it
        return self

    def __exit__(self, *_):
        os.pwrite(self.latch, b"-", HEADER + self.number * PLACE)  # ended, and not abandoned
        os.close(self.latch)
        fcntl.flock(self.fd, fcntl.LOCK_UN)  # for all copies
        os.write(self.fd, b"r")  # tells those who wait, even while a copy is open
        os.close(self.fd)

    def _lock_latch(self):
        while True:
            path = subprocess.check_output([FLOCKCTL, "path", "--latch", self.name], text=True)[:-1]
            latch = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            fcntl.flock(latch, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(latch), os.stat(path)):
                    self.row = os.path.dirname(path)
                    return latch
            except FileNotFoundError:
                pass
            os.close(latch)  # removed or resized meanwhile

    def _try(self, path):
        """A descriptor that has it locked, or None. The latch is held, so it is open for a moment only."""
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:  # only this means busy
            os.close(fd)
            return None

    def _somebody_queues(self):
        for entry in os.listdir(self.row + "/queue"):
            if not entry.isdigit():
                continue
            try:
                fd = self._try(self.row + "/queue/" + entry)
            except FileNotFoundError:  # has just left
                continue
            if fd is None:
                return True
            os.close(fd)  # left by one that was killed
        return False

    def _take(self):
        for number in range(len(os.listdir(self.row + "/slots"))):
            fd = self._try("%s/slots/%d" % (self.row, number))
            if fd is not None:
                self.fd, self.number = fd, number
                self._write_record()
                return
        raise Busy(self.name + " is taken")

    def _write_record(self):
        place = HEADER + self.number * PLACE
        self.abandoned = os.pread(self.latch, 1, place) == b"+"
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        record = "+\npid=%d\nboot=%s\nsince=%d\n" % (os.getpid(), boot, time.time_ns())
        record += "command=%s\nend\n" % escape(" ".join(sys.argv), 440)
        os.pwrite(self.latch, record.encode(), place)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        with Slot(sys.argv[1]) as slot:
            return subprocess.call(sys.argv[2:], pass_fds=[slot.fd])
    except Busy as busy:
        print("join.py:", busy, file=sys.stderr)
        return 75
    except OSError as error:
        print("join.py:", error, file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
