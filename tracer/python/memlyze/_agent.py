"""The agent's C interface (tracer/agent/api.h) through ctypes, and its errors as exceptions.

What this package allocates while a recording runs is not in the trace: the recorder leaves out the stacks whose innermost frame is of one of its modules
(tracer/recorder/filter.c). So nothing here or in _tracer calls a Python function of another module then."""
from __future__ import annotations

import ctypes
import errno
import math
import os
import sys
from typing import List, NamedTuple, Optional

from . import _places

API_VERSION = 1
NONE, RECORD, STARTED, CHILD = range(4)  # enum memlyze_mode
_E_STATE, _E_VALUE = -1, -2
_NAMES = sys.getfilesystemencoding()
_Text = ctypes.c_char * 2048  # made in place: ctypes.create_string_buffer has a Python frame of its own, which would be recorded


class _InfoStruct(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint32), ("mode", ctypes.c_uint32), ("recorder_pid", ctypes.c_uint32), ("max_stack_depth", ctypes.c_uint32),
                ("sample_rate", ctypes.c_double), ("sample_over", ctypes.c_uint64), ("track_gc", ctypes.c_uint32), ("paused", ctypes.c_uint32),
                ("session", ctypes.c_char * 256)]


class Info(NamedTuple):
    """What this process is part of, as of now."""
    mode: int
    recorder_pid: int
    max_stack_depth: int
    sample_rate: float
    sample_over: int
    track_gc: bool
    paused: bool
    session: str


def _raise(code: int, text: ctypes.Array[ctypes.c_char]) -> None:
    said = text.value.decode(errors="replace") or "the agent gave no reason (error %d)" % code
    if code == _E_STATE:
        raise RuntimeError(said)
    if code == _E_VALUE:
        raise ValueError(said)
    raise OSError(said)


class Agent:
    """The library of this process: the preloaded one inside `memlyze record`, else the installed one, which does nothing before `start`."""

    def __init__(self) -> None:
        path: Optional[str] = None
        if not hasattr(ctypes.PyDLL(None), "memlyze_api_version"):
            path = _places.agent()
        try:
            self._held = ctypes.PyDLL(path)   # called with the GIL
            self._free = ctypes.CDLL(path)    # called without it: waits for the recorder
        except OSError as error:
            raise OSError(errno.ELIBACC, "memlyze's agent cannot be loaded: %s" % error) from None
        if not hasattr(self._held, "memlyze_api_version"):
            raise OSError(errno.ELIBBAD, "%s has no interface for Python; install the agent and this package from one release" % path)
        version = self._held.memlyze_api_version()
        if version != API_VERSION:
            raise OSError(errno.ELIBBAD, "the agent %s speaks version %d of its interface, this package %d; install both from one release"
                          % (path or "of this session", version, API_VERSION))
        number = ctypes.POINTER(ctypes.c_int)
        self._held.memlyze_info.argtypes = (ctypes.POINTER(_InfoStruct),)
        self._held.memlyze_start.argtypes = (ctypes.POINTER(ctypes.c_char_p), number, ctypes.c_char_p, ctypes.c_size_t)
        self._held.memlyze_stop.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
        self._free.memlyze_request.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_double, ctypes.c_int, ctypes.c_int,
                                               ctypes.POINTER(ctypes.c_uint64), ctypes.c_char_p, ctypes.c_size_t)
        self._free.memlyze_dump.argtypes = (ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint64), ctypes.c_char_p, ctypes.c_size_t)

    def info(self) -> Info:
        raw = _InfoStruct(bytes=ctypes.sizeof(_InfoStruct))
        if self._held.memlyze_info(ctypes.byref(raw)) != 0:
            return tuple.__new__(Info, (NONE, 0, 0, 0.0, 0, False, False, ""))
        return tuple.__new__(Info, (raw.mode, raw.recorder_pid, raw.max_stack_depth, raw.sample_rate, raw.sample_over, bool(raw.track_gc), bool(raw.paused),
                                    raw.session.decode(_NAMES, "surrogateescape")))

    def start(self, arguments: List[str]) -> int:
        """The descriptor from which the stats can be read after stop."""
        words = (ctypes.c_char_p * (len(arguments) + 1))(*[os.fsencode(word) for word in arguments], None)
        answers, text = ctypes.c_int(-1), _Text()
        code = self._held.memlyze_start(words, ctypes.byref(answers), text, len(text))
        if code != 0:
            _raise(code, text)
        return answers.value

    def stop(self) -> None:
        text = _Text()
        code = self._held.memlyze_stop(text, len(text))
        if code != 0:
            _raise(code, text)

    def request(self, mark: Optional[str] = None, snapshot: Optional[str] = None, sample_rate: float = math.nan, max_stack_depth: int = -1,
                paused: int = -1) -> int:
        """The time of the trace at which the recorder obeyed, in nanoseconds."""
        ns, text = ctypes.c_uint64(), _Text()
        code = self._free.memlyze_request(None if mark is None else mark.encode(), None if snapshot is None else snapshot.encode(), sample_rate,
                                          max_stack_depth, paused, ctypes.byref(ns), text, len(text))
        if code != 0:
            _raise(code, text)
        return ns.value

    def dump(self, path: Optional[str]) -> int:
        """As `request`, for what the flight recorder holds; None: into its own file."""
        ns, text = ctypes.c_uint64(), _Text()
        code = self._free.memlyze_dump(None if path is None else path.encode(_NAMES, "surrogateescape"), ctypes.byref(ns), text, len(text))
        if code != 0:
            _raise(code, text)
        return ns.value


_loaded: Optional[Agent] = None


def load() -> Agent:
    """The agent of this process, loaded once. OSError if it is missing or cannot be loaded."""
    global _loaded
    if _loaded is None:
        _loaded = Agent()
    return _loaded


def _load_early() -> None:
    """Inside a recording ctypes' own work at loading belongs to the import of this package, and not to whoever calls it first."""
    try:
        if preloaded():
            load()
    except OSError:
        pass  # said by whoever needs it


def preloaded() -> bool:
    """Whether `memlyze record` (or a start() of an ancestor) put its agent into this process; loads nothing."""
    return _loaded is not None or hasattr(ctypes.PyDLL(None), "memlyze_api_version")


_load_early()
