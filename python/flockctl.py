# SPDX-License-Identifier: LGPL-2.1-or-later
"""Locks and semaphores shared by the processes of one user: libflockctl for Python, in one file, through ctypes.

    import flockctl

    with flockctl.acquire("podman"):                      # waits in line; Ctrl-C ends the wait
        subprocess.check_call(["podman", ...])

    with flockctl.acquire("db", timeout=30) as hold:      # flockctl.Taken when the time is up
        print(hold.id, hold.slots())

    with flockctl.acquire("db", flockctl.Want("engine", count=2, slots=4)):   # two names as one hold
        ...

    hold = flockctl.acquire("config", shared=True, timeout=0)                 # tries once
    hold.release()

    flockctl.held("podman")                               # by this process: 0 no, 1 shared, 2 exclusively

What goes wrong is a flockctl.Error, an OSError with its errno and the library's sentence; of it Taken (somebody else has it) and
Deadlock (waiting would never end: this very thread has it, or it would close a circle of others that wait in C or by the tool).
Waits of Python can be interrupted, so a circle with one of these in it isn't found: give a timeout. flockctl.h tells the rest:
threads, fork, exec, nesting. A hold isn't inherited by what subprocess starts, unless inherit() is on, close_fds=False, and
env=hold.environ().

The library is libflockctl.so.0, or what FLOCKCTL_LIBRARY names. Who doesn't want ctypes: doc/examples/join.py takes a slot
by nothing but open and flock. Python 3.7 and later.
"""
import collections
import ctypes
import errno
import math
import os
import select
import time

__all__ = ["acquire", "held", "root", "set_root", "version", "Want", "Hold", "Error", "Taken", "Deadlock", "ALL"]

ALL = 2**32 - 1  # Want.count: every slot of the row
_SHARED = 1
_TAKEN = (errno.EBUSY, errno.ETIMEDOUT, errno.ECANCELED)
_FIRST_MS = 1

Want = collections.namedtuple("Want", "name count slots shared", defaults=(0, 0, False))
Want.__doc__ = """One name: how many slots (0: one; ALL), of how many (0: as the row is), shared or not."""


class Error(OSError):
    """errno, and what to do about it."""


class Taken(Error):
    """Somebody else has it, and the time is up (ETIMEDOUT) or was 0 (EBUSY)."""


class Deadlock(Error):
    """Waiting would never end (EDEADLK)."""


class _Want(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("count", ctypes.c_uint),
        ("slots", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("reserved0", ctypes.c_uint),
        ("reserved", ctypes.c_uint64 * 2),
    ]


class _Options(ctypes.Structure):
    _fields_ = [
        ("label", ctypes.c_char_p),
        ("command", ctypes.c_char_p),
        ("cancel_fd", ctypes.POINTER(ctypes.c_int)),
        ("waiting", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("reserved", ctypes.c_uint64 * 4),
    ]


def _load():
    library = ctypes.CDLL(os.environ.get("FLOCKCTL_LIBRARY", "libflockctl.so.0"))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    out = ctypes.POINTER(pointer)
    wants = [ctypes.POINTER(_Want), ctypes.c_size_t, ctypes.POINTER(_Options), ctypes.c_int64, out]
    for name, result, arguments in [
        ("flk_version", text, []),
        ("flk_error_detail", text, []),
        ("flk_root_set", number, [text]),
        ("flk_root_get", number, [out]),
        ("flk_acquire_many", number, wants),
        ("flk_request_start", number, wants),
        ("flk_request_fd", number, [pointer]),
        ("flk_request_step", number, [pointer, out]),
        ("flk_request_cancel", None, [pointer]),
        ("flk_hold_release", None, [pointer]),
        ("flk_hold_decline", None, [pointer]),
        ("flk_hold_id", text, [pointer]),
        ("flk_hold_names", ctypes.c_size_t, [pointer]),
        ("flk_hold_name", text, [pointer, ctypes.c_size_t]),
        ("flk_hold_slots", ctypes.c_size_t, [pointer, ctypes.c_size_t, ctypes.POINTER(ctypes.POINTER(ctypes.c_uint))]),
        ("flk_hold_value", text, [pointer, ctypes.c_size_t, ctypes.c_size_t]),
        ("flk_hold_abandoned", number, [pointer]),
        ("flk_hold_waited_ms", ctypes.c_int64, [pointer]),
        ("flk_hold_inherit", number, [pointer, number]),
        ("flk_hold_environ", number, [pointer, ctypes.POINTER(ctypes.POINTER(text))]),
        ("flk_held", number, [text]),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_flk = _load()
_free = ctypes.CDLL(None).free
_free.restype, _free.argtypes = None, [ctypes.c_void_p]


def _check(code):
    if code >= 0:
        return code
    kind = Deadlock if -code == errno.EDEADLK else Taken if -code in _TAKEN else Error
    raise kind(-code, _flk.flk_error_detail().decode(errors="replace"))


class Hold:
    """What was acquired, until release(), the end of a with block, or the end of the object."""

    def __init__(self, raw):
        self._raw = raw

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()

    def __del__(self):
        if self:
            self.release()

    def __bool__(self):
        return self._raw is not None

    def release(self):
        raw, self._raw = self._raw, None
        _flk.flk_hold_release(raw)

    def decline(self):
        """Releases as if it had never been acquired: if the one before died holding, the next is told so too."""
        raw, self._raw = self._raw, None
        _flk.flk_hold_decline(raw)

    @property
    def id(self):
        return _flk.flk_hold_id(self._own()).decode()

    @property
    def names(self):
        return [_flk.flk_hold_name(self._own(), i).decode() for i in range(_flk.flk_hold_names(self._own()))]

    def slots(self, index=0):
        """The numbers of the slots of the name at that position."""
        numbers = ctypes.POINTER(ctypes.c_uint)()
        return numbers[: _flk.flk_hold_slots(self._own(), index, ctypes.byref(numbers))]

    def values(self, index=0):
        """What those slots stand for, in a pool; else None for each."""
        values = [_flk.flk_hold_value(self._own(), index, i) for i in range(len(self.slots(index)))]
        return [value and value.decode() for value in values]

    @property
    def abandoned(self):
        return bool(_flk.flk_hold_abandoned(self._own()))

    @property
    def waited(self):
        """In seconds."""
        return _flk.flk_hold_waited_ms(self._own()) / 1000

    def inherit(self, on=True):
        """What is started from now on has the slots too (with close_fds=False)."""
        _check(_flk.flk_hold_inherit(self._own(), on))

    def environ(self):
        """os.environ for such a child, with FLOCKCTL_*."""
        block = ctypes.POINTER(ctypes.c_char_p)()
        _check(_flk.flk_hold_environ(self._own(), ctypes.byref(block)))
        entries = {}
        for entry in block:
            if entry is None:
                break
            name, _, value = entry.partition(b"=")
            entries[os.fsdecode(name)] = os.fsdecode(value)
        _free(block)
        return entries

    def _own(self):
        if self._raw is None:
            raise ValueError("the hold has been released")
        return self._raw


def acquire(*wants, timeout=None, shared=False, label=None):
    """A Hold of all wants, each a name or a Want. timeout in seconds; None: for ever; 0: tries once. Signals are handled, and
    other threads run, while it waits."""
    specification = (_Want * len(wants))()
    for raw, want in zip(specification, wants):
        want = Want(want, shared=shared) if isinstance(want, str) else want
        raw.name, raw.count, raw.slots = os.fsencode(want.name), want.count, want.slots
        raw.flags = _SHARED if want.shared else 0
    options = _Options(label=os.fsencode(label) if label is not None else None)
    arguments = specification, len(wants), ctypes.byref(options)
    limit_ms = -1 if timeout is None else max(0, math.ceil(timeout * 1000))
    deadline = None if timeout is None else time.monotonic() + timeout

    # Usually that is all. A call that blocks is also the one that finds a thread which waits for itself, and deadlocks.
    raw = ctypes.c_void_p()
    first_ms = limit_ms if 0 <= limit_ms <= _FIRST_MS else _FIRST_MS
    code = _flk.flk_acquire_many(*arguments, first_ms, ctypes.byref(raw))
    if code == -errno.ETIMEDOUT and first_ms != limit_ms:
        left_ms = -1 if deadline is None else max(0, math.ceil((deadline - time.monotonic()) * 1000))
        return _wait(arguments, left_ms)
    _check(code)
    return Hold(raw.value)


def _wait(arguments, limit_ms):
    """Sleeps in Python and not in the library, so that Ctrl-C is noticed."""
    request, raw = ctypes.c_void_p(), ctypes.c_void_p()
    _check(_flk.flk_request_start(*arguments, limit_ms, ctypes.byref(request)))
    try:
        poll = select.poll()
        poll.register(_check(_flk.flk_request_fd(request)), select.POLLIN)
        while True:
            code = _flk.flk_request_step(request, ctypes.byref(raw))
            if code != -errno.EAGAIN:
                break
            poll.poll()
        _check(code)
        return Hold(raw.value)
    finally:
        _flk.flk_request_cancel(request)


def held(name):
    """By this process: 0 no, 1 shared, 2 exclusively. For assertions."""
    return _flk.flk_held(os.fsencode(name))


def root():
    """The lock directory."""
    path = ctypes.c_void_p()
    _check(_flk.flk_root_get(ctypes.byref(path)))
    try:
        return os.fsdecode(ctypes.string_at(path.value))
    finally:
        _free(path)


def set_root(path):
    """Chooses it; None: by the rules of flockctl(1)."""
    _check(_flk.flk_root_set(None if path is None else os.fsencode(path)))


def version():
    return _flk.flk_version().decode()
