# SPDX-License-Identifier: LGPL-2.1-or-later
"""What python/flockctl.py promises; run by tests/cli/bridges.t, with FLOCKCTL, FLOCKCTL_DIR and FLOCKCTL_LIBRARY set."""
import errno
import os
import signal
import subprocess
import threading
import time
import unittest

import flockctl

TOOL = os.environ["FLOCKCTL"]


def others(name, *options, **arguments):
    """The exit status of another process that tries."""
    command = [TOOL, "-q", "acquire", "-n", *options, name, "--", "true"]
    return subprocess.call(command, **arguments)


def in_thread(call):
    result = []

    def run():
        try:
            result.append(call())
        except Exception as exception:
            result.append(exception)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return result[0]


class Holds(unittest.TestCase):
    def test_with(self):
        with flockctl.acquire("a") as hold:
            self.assertEqual((hold.names, hold.slots(), hold.abandoned), (["a"], [0], False))
            self.assertRegex(hold.id, "^[a-z][a-z0-9]+$")
            self.assertGreaterEqual(hold.waited, 0)
            self.assertEqual(flockctl.held("a"), 2)
            self.assertEqual(others("a"), 75)
        self.assertEqual((flockctl.held("a"), others("a")), (0, 0))
        self.assertRaises(ValueError, lambda: hold.id)

    def test_an_exception_releases(self):
        with self.assertRaises(ZeroDivisionError), flockctl.acquire("a"):
            1 / 0
        self.assertEqual(others("a"), 0)

    def test_the_end_of_the_object_releases(self):
        hold = flockctl.acquire("a")
        del hold
        self.assertEqual(others("a"), 0)

    def test_several(self):
        with flockctl.acquire("a", flockctl.Want("three", count=2, slots=3), label="mine") as hold:
            self.assertEqual((hold.names, hold.slots(1)), (["a", "three"], [0, 1]))
            with flockctl.acquire(flockctl.Want("three")) as rest:
                self.assertEqual(rest.slots(), [2])

    def test_values(self):
        subprocess.check_call([TOOL, "define", "pool", "--values", "20001,20002"])
        with flockctl.acquire(flockctl.Want("pool", count=2), "a") as hold:
            self.assertEqual((hold.values(), hold.values(1)), (["20001", "20002"], [None]))

    def test_shared(self):
        with flockctl.acquire("a", shared=True, timeout=0):
            self.assertEqual((flockctl.held("a"), others("a", "--shared"), others("a")), (1, 0, 75))

    def test_environ(self):
        with flockctl.acquire("a") as hold:
            hold.inherit()
            self.assertEqual(others("a", env=hold.environ(), close_fds=False), 0)
            hold.inherit(False)


class Failures(unittest.TestCase):
    def test_taken(self):
        with flockctl.acquire("b"):
            for timeout, number in (0, errno.EBUSY), (0.0005, errno.ETIMEDOUT), (0.02, errno.ETIMEDOUT):
                failure = in_thread(lambda: flockctl.acquire("b", timeout=timeout))
                self.assertIsInstance(failure, flockctl.Taken)
                self.assertEqual(failure.errno, number)
                self.assertIn("taken by pid %d" % os.getpid(), str(failure))

    def test_waiting_for_itself(self):
        with flockctl.acquire("b"), self.assertRaises(flockctl.Deadlock):
            flockctl.acquire("b")

    def test_a_bad_name(self):
        with self.assertRaisesRegex(flockctl.Error, "no/name") as caught:
            flockctl.acquire("no/name")
        self.assertEqual(caught.exception.errno, errno.EINVAL)


class Waits(unittest.TestCase):
    def setUp(self):
        self.release = threading.Event()
        held = threading.Event()

        def hold():
            with flockctl.acquire("c"):
                held.set()
                self.release.wait(20)

        self.holder = threading.Thread(target=hold)
        self.holder.start()
        held.wait(20)

    def tearDown(self):
        self.release.set()
        self.holder.join()

    def wait_for_a_waiter(self):
        queue = flockctl.root() + "/rows/c/queue"
        while not os.listdir(queue):
            time.sleep(0.001)

    def test_is_served(self):
        def let_go():
            self.wait_for_a_waiter()
            self.release.set()

        helper = threading.Thread(target=let_go)
        helper.start()
        with flockctl.acquire("c", timeout=20):
            self.assertEqual(others("c"), 75)
        helper.join()

    def test_ctrl_c_ends_the_wait(self):
        def interrupt():
            self.wait_for_a_waiter()
            while not waited.is_set():  # the first may come too early
                os.kill(os.getpid(), signal.SIGINT)
                waited.wait(0.05)

        waited = threading.Event()
        helper = threading.Thread(target=interrupt)
        try:
            helper.start()
            flockctl.acquire("c", timeout=20)
        except KeyboardInterrupt as exception:
            caught = exception
        waited.set()
        helper.join()
        self.assertIsInstance(caught, KeyboardInterrupt)
        self.assertEqual(os.listdir(flockctl.root() + "/rows/c/queue"), [])


if __name__ == "__main__":
    unittest.main()
