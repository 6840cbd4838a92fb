"""start() and what it returns."""
from __future__ import annotations

import functools
import math
import os
import sys
import threading
import time
import warnings
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from . import _places, _units
from ._agent import CHILD, NONE, RECORD, STARTED, Agent, Info, load, preloaded
from ._stats import LaterStats, Stats, answer

Path = Union[str, "os.PathLike[str]"]
Patterns = Union[str, Sequence[str], None]
_MAGIC = b"MLYZE\r\n\x1a"
_lock = threading.RLock()
_current: Optional["Tracer"] = None
_numbers: Dict[str, int] = {}


def _renew_lock() -> None:
    """In a child by fork the thread that held it is gone."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


class Point(NamedTuple):
    """A named instant of the trace, which the tools take as a TIME: `--at NAME`, `--from NAME`, `trace.mlyze@NAME`."""
    name: str
    time_ns: int


def _point(name: str, time_ns: int) -> Point:
    return tuple.__new__(Point, (name, time_ns))  # a named tuple's own constructor is a function of another module (see _agent)


# ---- the values that a caller gives ----

def _rate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("sample_rate must be a number above 0 and at most 1, not %s" % type(value).__name__)
    if not 0 < value <= 1:
        raise ValueError("sample_rate %r must be above 0 and at most 1" % value)
    return float(value)


def _whole(value: Any, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("%s must be a whole number from %d to %d, not %s" % (what, low, high, type(value).__name__))
    if not low <= value <= high:
        raise ValueError("%s %d must be from %d to %d" % (what, value, low, high))
    return value


def _switch(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError("%s must be True or False, not %s" % (what, type(value).__name__))
    return value


def _patterns(value: Patterns, what: str) -> List[str]:
    if value is None:
        return []
    try:
        patterns = [value] if isinstance(value, str) else list(value)
    except TypeError:
        raise TypeError("%s must be a pattern like 'myapp.*' or a list of them, not %s" % (what, type(value).__name__)) from None
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError("%s must be patterns like 'myapp.*', not %s" % (what, type(pattern).__name__))
        if not pattern:
            raise ValueError("%s has an empty pattern; '*' matches everything" % what)
    return patterns


def _duration(value: Any, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError("%s must be a number of seconds or a text like '5m', not %s" % (what, type(value).__name__))
    return value if isinstance(value, str) else "%.9fs" % value


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError("the name of a %s must be a str, not %s" % (what, type(value).__name__))
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError("the name of a %s, %a, is not Unicode text" % (what, value)) from None
    if not 1 <= size <= 255:
        raise ValueError("the name of a %s must be 1 to 255 bytes in UTF-8, not %d" % (what, size))
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        raise ValueError("the name of a %s, %a, has a control character" % (what, value))
    return value


def _file(path: Path) -> str:
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError("path must be a str or a path of str, not %s" % type(path).__name__)
    if not name or "\0" in name:
        raise ValueError("path %r is no name of a file" % name)
    return name


def _writable(path: str) -> None:
    """The usual exceptions of open(path, "w"), before a recorder is started that could only say it in words."""
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        raise IsADirectoryError(21, "the trace cannot be written: this is a directory", path)
    if not os.path.isdir(directory):
        raise FileNotFoundError(2, "the trace cannot be written: there is no such directory", directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(13, "the trace cannot be written: no permission in this directory", directory)


# ---- the file of a recording that goes on ----

def _file_of(recorder: int) -> Optional[str]:
    """The trace that a recorder writes: the one among its descriptors that begins like a trace."""
    directory = "/proc/%d/fd" % recorder
    try:
        numbers = sorted(os.listdir(directory), key=int)
    except OSError:
        return None
    for number in numbers:
        link = directory + "/" + number
        try:
            name = os.readlink(link)
            if name[:1] != "/" or os.stat(link).st_mode & 0o170000 != 0o100000:  # a regular file
                continue
            file = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
            begin = os.read(file, len(_MAGIC))
            os.close(file)
        except OSError:
            continue
        if begin == _MAGIC:
            head, mark, digits = name.rpartition(".recording-")
            return head if mark and digits.isdigit() else name  # what it is called until the recorder has put it in its place
    return None


def _read_stats(path: str) -> Dict[str, Any]:
    """`memlyze stats --json` of a file. A child like any other: inside `memlyze record` it is one of the processes of the trace."""
    try:
        import subprocess
        tool = _places.program("stats")
    except (ImportError, OSError) as error:  # another root since the start, say
        raise OSError("%s: the trace was written, but memlyze-stats cannot be run to sum it up: %s" % (path, error)) from None
    done = subprocess.run([tool, "--json", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return _answer(done.stdout, path, done.stderr.decode(errors="replace").strip())


def _answer(text: bytes, path: str, said: str = "") -> Dict[str, Any]:
    if text and not text.startswith(b"{"):  # the recorder's own line
        raise OSError(text.decode(errors="replace").strip())
    try:
        return answer(text)
    except (ValueError, KeyError):
        raise OSError("%s: the recorder or memlyze-stats ended without an answer%s" % (path, ": " + said if said else "")) from None


def _identity(descriptor: int) -> Optional[Tuple[int, int]]:
    """What a descriptor stands for: a program may have closed ours (all of them, as daemons do), and the number may be another file by now."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _wait_for(recorder: int) -> None:
    """Until that process, no child of this one, has ended."""
    while True:
        try:
            with open("/proc/%d/stat" % recorder, "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                    return
        except OSError:
            return
        time.sleep(0.005)


def _read_to_end(descriptor: int) -> bytes:
    parts: List[bytes] = []
    while True:
        part = os.read(descriptor, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)


# ---- the tracer ----

class Tracer:
    """A recording, steered from within the program. Made by `start`; any thread may call its methods.

    `path`: the trace's file. `mode`: 'started' by this program, 'record' inside of `memlyze record`, or 'child' in a child by fork of a program that started it.
    `running`: False once it was stopped. As a context manager it stops at the end of the block."""

    def __init__(self, agent: Agent, path: str, answers: int = -1, restore: Optional[Info] = None) -> None:
        self.path = path
        self.running = True
        self._agent = agent
        self._answers = answers
        self._answers_are = _identity(answers) if answers >= 0 else None
        self._restore = restore  # inside memlyze record: the settings to leave behind
        self._whose = "call stop() first"  # what to do about it, to whoever starts another one
        self._owner = os.getpid()

    @property
    def mode(self) -> str:
        if self._restore is not None:
            return "record"
        return "started" if self._owner == os.getpid() else "child"

    def __repr__(self) -> str:
        return "<memlyze.Tracer %s %r, %s>" % (self.mode, self.path, "running" if self.running else "stopped")

    def __enter__(self) -> "Tracer":
        self._must_run()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.running:
            self.stop()

    def _must_run(self) -> None:
        if not self.running:
            raise RuntimeError("this tracer was stopped; memlyze.start() makes another one")

    def mark(self, name: str) -> Point:
        """Names this instant in the trace: `memlyze top --from NAME`. What the calling thread did before lies before it.

        ValueError: no name (empty, over 255 bytes, control characters). RuntimeError: stopped. OSError: the recorder is gone."""
        self._must_run()
        name = _name(name, "mark")
        return _point(name, self._agent.request(mark=name))

    def snapshot(self, name: Optional[str] = None) -> Point:
        """A point at which the heap can be looked at or compared (`memlyze top trace.mlyze@NAME`), all of it on disk when this returns.

        Without a name it is `snapshot-1`, `snapshot-2`, ... Errors as of `mark`."""
        self._must_run()
        return _snapshot(self._agent, name)

    def set_sample_rate(self, rate: float) -> None:
        """From now on traces this part of all allocations, 0 < rate <= 1; obeyed by every thread and process of the session.

        ValueError, TypeError: no such rate. RuntimeError: stopped. OSError: the recorder is gone."""
        self._must_run()
        self._agent.request(sample_rate=_rate(rate))

    def pause(self) -> None:
        """Records no more allocations, but still the frees of recorded blocks, until `resume`."""
        self._must_run()
        self._agent.request(paused=1)

    def resume(self) -> None:
        """Records allocations again, after `pause`."""
        self._must_run()
        self._agent.request(paused=0)

    def dump(self, path: Optional[Path] = None) -> str:
        """Writes what a flight recorder holds (`start(flight_recorder=...)`) into `path`, by default its own file, and goes on recording. Returns the file's name.

        It has the last seconds, as events, and everything that lives. ValueError, TypeError: no name of a file. RuntimeError: stopped, or no flight recorder.
        OSError: it cannot be written, or the recorder is gone."""
        self._must_run()
        return _dump(self._agent, path) or self.path

    def stop(self) -> Stats:
        """Ends the recording and returns its stats; the whole file is on disk.

        Inside `memlyze record` the recording goes on: this sets a snapshot `stop`, gives back the settings that `start` found, and returns the stats as
        they are when first looked at (`complete` is False). In a child by fork it ends the recording of the child only.
        RuntimeError: stopped before. OSError: the recorder is gone (what it wrote until then can be read from `path`)."""
        global _current
        with _lock:
            self._must_run()
            self.running = False
            if _current is self:
                _current = None
            if self._restore is not None:
                found = self._restore
                self._agent.request(snapshot="stop", sample_rate=found.sample_rate, max_stack_depth=found.max_stack_depth, paused=int(found.paused))
                return self._stats_so_far()
            answers, self._answers = self._answers, -1
            ours = self._answers_are is not None and _identity(answers) == self._answers_are
            recorder = 0 if ours else self._agent.info().recorder_pid
            try:
                self._agent.stop()
                if self._owner != os.getpid():
                    return self._stats_so_far()
                if ours:
                    return Stats(_answer(_read_to_end(answers), self.path))
            finally:
                if ours:
                    os.close(answers)
            _wait_for(recorder)
            return Stats(_read_stats(self.path))

    def _stats_so_far(self) -> Stats:
        return LaterStats(lambda: _read_stats(self.path))


def _snapshot(agent: Agent, name: Optional[str]) -> Point:
    if name is None:
        with _lock:
            _numbers["snapshot"] = _numbers.get("snapshot", 0) + 1
            name = "snapshot-%d" % _numbers["snapshot"]
    name = _name(name, "snapshot")
    return _point(name, agent.request(snapshot=name))


def _dump(agent: Agent, path: Optional[Path]) -> str:
    if path is None:
        agent.dump(None)
        return ""
    file = _file(path)
    if file[:1] != "/":  # the recorder may be in another directory. os.path is not asked: see _agent
        file = os.getcwd() + "/" + file
    agent.dump(file)
    return file


# ---- the functions of the module ----

def start(path: Path = "trace.mlyze", sample_rate: Optional[float] = None, max_stack_depth: Optional[int] = None, track_gc: Optional[bool] = None,
          max_events: Optional[int] = None, include_patterns: Patterns = None, exclude_patterns: Patterns = None,
          sample_over: Union[int, str, None] = None, native: bool = False, snapshots_only: bool = False, *, on_full: Optional[str] = None,
          max_size: Union[int, str, None] = None, flight_recorder: Union[float, str, None] = None, overwrite: bool = False, _leave_out: Sequence[int] = ()) -> Tracer:
    """Starts to record the memory of this program into `path` and returns the tracer. Nothing is recorded before.

    path               the file; one that exists is kept as `path.old`, unless `overwrite`
    sample_rate        part of all allocations that is traced, 0 < rate <= 1 (default 1.0)
    max_stack_depth    frames kept of each stack, innermost first, 0 to 1024 (default 10)
    track_gc           record garbage collections (default True)
    max_events         events that each thread's ring has room for, rounded up to a power of two (default 10000); 16 bytes for each
    include_patterns   only stacks with a frame whose `module` or `module.qualified_name` matches one of these, like `myapp.*`
    exclude_patterns   no stacks whose innermost Python frame matches one of these; exclude wins
    sample_over        trace every allocation of at least this size, whatever the rate: bytes, or text like '64 KiB' (default: off)
    native             native frames too, in one stack with the Python frames
    snapshots_only     keep totals per stack at each snapshot instead of events
    max_size           keep the newest part only: the file never takes more of the disk, bytes or text like '64 MiB'; totals stay those of the whole run
    flight_recorder    keep the last seconds, or text like '5m', in memory, and write the file at the end, or when `dump()` or `memlyze control --dump` asks for it
    on_full            when a ring is full: 'block' waits for the recorder (default), 'drop' counts the loss and goes on

    Inside `memlyze record` it steers the recording that runs: the file stays the one of `memlyze record` (`tracer.path`), sample_rate and max_stack_depth are
    applied if they are given, a mark `start` is set. A RuntimeWarning names other settings that were given, which a running recording cannot change.

    TypeError, ValueError: a value that is none. OSError: the file cannot be written, or the recorder is missing or failed. RuntimeError: started already.
    NotImplementedError: native frames on a machine other than x86-64."""
    global _current
    file = _file(path)
    over = None if sample_over is None else _units.size(sample_over, "sample_over")
    if over == 0:
        raise ValueError("sample_over must be above 0")
    if on_full not in (None, "block", "drop"):
        raise ValueError("on_full %r must be 'block' or 'drop'" % (on_full,))
    options: List[str] = []
    rate = None if sample_rate is None else _rate(sample_rate)
    depth = None if max_stack_depth is None else _whole(max_stack_depth, "max_stack_depth", 0, 1024)
    if rate is not None:
        options += ["--sample-rate", repr(rate)]
    if depth is not None:
        options += ["--max-stack-depth", str(depth)]
    fixed: Dict[str, List[str]] = {}
    if track_gc is not None:
        fixed["track_gc"] = ["--track-gc" if _switch(track_gc, "track_gc") else "--no-track-gc"]
    if max_events is not None:
        fixed["max_events"] = ["--max-events", str(_whole(max_events, "max_events", 1, 1 << 26))]
    for what, option, patterns in (("include_patterns", "--include", include_patterns), ("exclude_patterns", "--exclude", exclude_patterns)):
        words = [word for pattern in _patterns(patterns, what) for word in (option, pattern)]
        if words:
            fixed[what] = words
    if over is not None:
        fixed["sample_over"] = ["--sample-over", str(over)]
    if _switch(native, "native"):
        fixed["native"] = ["--native"]
    if _switch(snapshots_only, "snapshots_only"):
        fixed["snapshots_only"] = ["--snapshots-only"]
    if max_size is not None:
        fixed["max_size"] = ["--max-size", str(_units.size(max_size, "max_size"))]
    if flight_recorder is not None:
        fixed["flight_recorder"] = ["--flight-recorder", _duration(flight_recorder, "flight_recorder")]
    if on_full is not None:
        fixed["on_full"] = ["--on-full", on_full]
    if _switch(overwrite, "overwrite"):
        options.append("-f")
    for thread in _leave_out:  # not for users: threads that carry a test runner's or a notebook's own messages
        options += ["--leave-out", str(thread)]

    with _lock:
        if _current is not None and _current.running:
            raise RuntimeError("memlyze is recording into %s since start(); %s" % (_current.path, _current._whose))
        agent = load()
        info = agent.info()
        if info.mode == RECORD:
            _current = _steer(agent, info, rate, depth, track_gc, over, fixed)
            return _current
        if info.mode != NONE:
            raise RuntimeError("memlyze records this process already, for the start() of %s" % ("its parent" if info.mode == CHILD else "another interpreter"))
        file = os.path.abspath(file)
        _writable(file)
        _first_calls(agent)
        arguments = [_places.program("record"), "--serve", "-o", file] + options + [word for words in fixed.values() for word in words]
        try:
            answers = agent.start(arguments)
        except (OSError, ValueError) as error:
            if native and "x86-64" in str(error):
                raise NotImplementedError(str(error)) from None
            raise
        _current = Tracer(agent, file, answers)
        return _current


def _first_calls(agent: Agent) -> None:
    """Before CPython 3.11 the first call of a function makes a frame that is kept for the next one, on the line of the caller: made here, before
    anything is recorded."""
    if sys.version_info >= (3, 11):
        return
    tracer = Tracer(agent, "")
    tracer.running = False
    named = (tracer.mark, tracer.snapshot, mark, snapshot)
    calls = [tracer.stop, tracer.pause, tracer.resume, tracer.dump, tracer.__enter__, stop, pause, resume, dump, is_recording, current]
    calls += [functools.partial(call, "x") for call in named] + [functools.partial(call, 1) for call in (tracer.set_sample_rate, set_sample_rate)]
    for call in calls:
        try:
            call()
        except RuntimeError:
            pass
    tracer.__exit__()


def _steer(agent: Agent, info: Info, rate: Optional[float], depth: Optional[int], track_gc: Optional[bool], over: Optional[int],
           fixed: Dict[str, List[str]]) -> Tracer:
    as_it_is = [name for name, same in (("track_gc", track_gc == info.track_gc), ("sample_over", over == info.sample_over)) if same]
    ignored = [name for name in fixed if name not in as_it_is]
    if ignored:
        warnings.warn("inside `memlyze record` these stay as they were given there: " + ", ".join(ignored), RuntimeWarning, stacklevel=3)
    tracer = Tracer(agent, _file_of(info.recorder_pid) or "", restore=info)
    agent.request(mark="start", sample_rate=math.nan if rate is None else rate, max_stack_depth=-1 if depth is None else depth)
    return tracer


def current() -> Optional[Tracer]:
    """The tracer that runs, or None."""
    return _current


def is_recording() -> bool:
    """Whether this process is being recorded: by `start`, or by `memlyze record`."""
    if _current is not None and _current.running:
        return True
    return preloaded() and load().info().mode in (RECORD, STARTED, CHILD)


def _steered(what: str) -> Agent:
    """The agent, when there is something to steer: after start(), or inside `memlyze record` without it."""
    if _current is not None:
        _current._must_run()
        return _current._agent
    if preloaded():
        agent = load()
        if agent.info().mode != NONE:
            return agent
    raise RuntimeError("%s(): nothing is being recorded; call memlyze.start() first, or run under `memlyze record`" % what)


def mark(name: str) -> Point:
    """`Tracer.mark` of the recording that runs; inside `memlyze record` without a start(), too."""
    name = _name(name, "mark")
    return _point(name, _steered("mark").request(mark=name))


def snapshot(name: Optional[str] = None) -> Point:
    """`Tracer.snapshot` of the recording that runs; inside `memlyze record` without a start(), too."""
    return _snapshot(_steered("snapshot"), name)


def set_sample_rate(rate: float) -> None:
    """`Tracer.set_sample_rate` of the recording that runs; inside `memlyze record` without a start(), too."""
    checked = _rate(rate)
    _steered("set_sample_rate").request(sample_rate=checked)


def pause() -> None:
    """`Tracer.pause` of the recording that runs; inside `memlyze record` without a start(), too."""
    _steered("pause").request(paused=1)


def resume() -> None:
    """`Tracer.resume` of the recording that runs; inside `memlyze record` without a start(), too."""
    _steered("resume").request(paused=0)


def dump(path: Optional[Path] = None) -> str:
    """`Tracer.dump` of the recording that runs; inside `memlyze record --flight-recorder T` without a start(), too."""
    agent = _steered("dump")
    return _dump(agent, path) or (_current.path if _current is not None else _file_of(agent.info().recorder_pid) or "")


def stop() -> Stats:
    """`Tracer.stop` of the tracer that runs. RuntimeError if there is none."""
    tracer = _current
    if tracer is None:
        raise RuntimeError("stop(): nothing was started; call memlyze.start() first")
    return tracer.stop()
