# SPDX-License-Identifier: LGPL-2.1-or-later
"""unittest (and pytest, which runs it too): the tests of a module have the engine for themselves.

    PYTHONPATH=/usr/share/flockctl python3 -m unittest test_engine
"""
import os
import unittest

import flockctl


def setUpModule():
    hold = flockctl.acquire("engine", timeout=600)
    unittest.addModuleCleanup(hold.release)
    os.mkdir("engine.in-use")
    unittest.addModuleCleanup(os.rmdir, "engine.in-use")


class Engine(unittest.TestCase):
    def test_is_ours(self):
        self.assertEqual(flockctl.held("engine"), 2)

    def test_works(self):
        self.assertTrue(os.path.isdir("engine.in-use"))

    def test_has_two_numbers(self):
        with flockctl.acquire(flockctl.Want("numbers", count=2, slots=4)) as numbers:
            self.assertEqual(len(numbers.slots()), 2)


if __name__ == "__main__":
    unittest.main()
