"""`pytest --memlyze`: what each test allocates, limits on it, a baseline.

    @pytest.mark.limit_memory("24 MB")        # the highest sum of the blocks that the test made and that stood at one instant
    @pytest.mark.limit_leaks("1 MB")          # blocks of the test that stand when it has returned, after a collection
    @pytest.mark.limit_allocations(1000)      # blocks that the test made

Each test has a recording of its own, from the call of the test function to its return, on all threads of the process: fixtures, pytest and this plugin are
not in it. A full collection before it empties the interpreter's free lists, so that a count does not depend on what ran before. What the first call of some
code leaves behind for good (imports, caches) does: `warmup=1` in a mark calls the test function once unrecorded first.

pip registers the plugin; after `make install` it is `-p memlyze.pytest_plugin`. Without `--memlyze` the marks do nothing.
"""
from __future__ import annotations

import functools
import gc
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import Any, Callable, Dict, Generator, List, NamedTuple, Optional, Set, Tuple

import pytest

import memlyze
from memlyze import _places, _units

_LIMITS = ("limit_memory", "limit_leaks", "limit_allocations")
_SCHEMA = "memlyze.pytest-baseline/1"
_SLACK = 1024  # bytes that a baseline may be missed by, whatever the tolerance
_INTERPRETER = "%s-%d.%d" % ((sys.implementation.name,) + sys.version_info[:2])


class Figures(NamedTuple):
    """What one test did; sizes in bytes."""
    peak: int
    allocated: int
    allocations: int
    leaked: int


class Limit(NamedTuple):
    mark: str       # its name
    figure: str     # of Figures
    most: int
    by: str         # of `memlyze top`


_KINDS = {"limit_memory": ("peak", "peak-bytes"), "limit_leaks": ("leaked", "live-bytes"), "limit_allocations": ("allocations", "alloc-count")}


# ---- options and marks ----

def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("memlyze", "memory of each test, as recorded by memlyze")
    group.addoption("--memlyze", action="store_true", help="record each test, apply the limits of its marks, print the hungriest tests")
    group.addoption("--memlyze-most", metavar="N", type=int, default=10, help="tests in the table of the hungriest (default 10; 0: all)")
    group.addoption("--memlyze-baseline", metavar="FILE", help="fail a test whose peak, leaks or allocations grew beyond those in FILE")
    group.addoption("--memlyze-update-baseline", action="store_true", help="write the figures of the tests that passed into the baseline instead of comparing")
    group.addoption("--memlyze-tolerance", metavar="PART", default="5%", help="what a test may grow by against the baseline (default 5%%; 0 is exact)")
    group.addoption("--memlyze-traces", metavar="DIR", help="keep the trace of each test as DIR/TEST.mlyze")
    group.addoption("--memlyze-warmup", metavar="N", type=int, default=0,
                    help="call each test function N times unrecorded first, so that its figures do not depend on which tests ran before in this process (default 0)")
    group.addoption("--memlyze-depth", metavar="N", type=int, default=10, help="frames kept of each stack (default 10)")


def _wanted(config: Any) -> bool:
    option = config.option
    return bool(option.memlyze or option.memlyze_baseline or option.memlyze_traces or option.memlyze_update_baseline)


def pytest_configure(config: Any) -> None:
    config.addinivalue_line("markers", "limit_memory(size, warmup=0): fail if more than this, like '24 MB', of the test's own blocks stood at one instant (--memlyze)")
    config.addinivalue_line("markers", "limit_leaks(size, warmup=0): fail if more than this, like '1 MB', of the test's own blocks outlives it (--memlyze)")
    config.addinivalue_line("markers", "limit_allocations(count, warmup=0): fail if the test makes more blocks than this (--memlyze)")
    config.addinivalue_line("markers", "no_memlyze: do not record this test (it uses memlyze itself, say)")
    if _wanted(config):
        config.pluginmanager.register(Plugin(config), "memlyze-recorder")


def _limits_of(item: Any) -> Tuple[List[Limit], int, str]:
    """The limits on a test, the nearest mark of each kind; the calls to warm up; what is wrong with a mark that makes no sense, or ''."""
    limits: List[Limit] = []
    warmup = 0
    for name in _LIMITS:
        mark = item.get_closest_marker(name)
        if mark is None:
            continue
        known = set(mark.kwargs) <= {"warmup"}
        if len(mark.args) != 1 or not known:
            return limits, warmup, "the mark %s takes one limit, and warmup=N" % name
        value, calls = mark.args[0], mark.kwargs.get("warmup", 0)
        if isinstance(calls, bool) or not isinstance(calls, int) or calls < 0:
            return limits, warmup, "the mark %s: warmup must be a number of calls, not %r" % (name, calls)
        try:
            if name == "limit_allocations" and not isinstance(value, int):
                raise TypeError("the limit must be a number of allocations, not %r" % (value,))
            most = _units.size(value, "the limit")
        except (TypeError, ValueError) as error:
            return limits, warmup, "the mark %s: %s" % (name, error)
        limits.append(Limit(name, _KINDS[name][0], most, _KINDS[name][1]))
        warmup = max(warmup, calls)
    return limits, warmup, ""


# ---- asking the tools ----

def _ask(tool: str, trace: str, *options: str) -> Dict[str, Any]:
    done = subprocess.run([_places.program(tool), "--json", *options, trace], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise OSError(done.stderr.decode(errors="replace").strip())
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def _figures(stats: Any, trace: str) -> Figures:
    """Of this process."""
    if len(stats.processes) > 1:
        stats = memlyze.Stats(_ask("stats", trace, "--process", str(os.getpid())))
    return Figures(stats.bytes.peak, stats.bytes.allocated, stats.blocks.allocated, stats.bytes.live_at_end)


_FIELDS = {"peak-bytes": "peak_bytes", "live-bytes": "live_bytes", "alloc-count": "alloc_count"}


def _top_lines(trace: str, by: str) -> List[str]:
    lines = []
    for site in _ask("top", trace, "--by", by, "--number", "5", "--process", str(os.getpid()))["sites"][:5]:
        value = site[_FIELDS[by]]
        if not value:
            break
        amount = "%d allocations" % value if by == "alloc-count" else _units.readable(value)
        place = "%s:%d" % (site["file"], site["line"]) if site["file"] else "no Python frame"
        lines.append("  %12s  %s (%s)" % (amount, site["function"], place))
    return lines


def _said(figure: str, value: int) -> str:
    return "%d" % value if figure == "allocations" else "%s (%d bytes)" % (_units.readable(value), value)


_SUBJECT = {"peak": "its blocks took %s at their peak", "leaked": "%s of its blocks outlived it", "allocations": "it made %s allocations", "allocated": "it allocated %s"}


# ---- one test ----

class Measured:
    """The call of one test function under a recording of its own. `foreign`: threads that only carry pytest's own messages (xdist)."""

    def __init__(self, trace: str, depth: int, warmup: int, collect: bool, foreign: Set[int]) -> None:
        self.trace = trace
        self.depth = depth
        self.foreign = foreign
        self.warmup = warmup
        self.collect = collect  # garbage that the test left is no leak
        self.stats: Optional[memlyze.Stats] = None

    def __call__(self, function: Callable[..., Any], arguments: Tuple[Any, ...], named: Dict[str, Any]) -> Any:
        for _ in range(self.warmup):
            function(*arguments, **named)
        gc.collect()
        tracer = memlyze.start(self.trace, max_stack_depth=self.depth, overwrite=True, _leave_out=sorted(self.foreign))
        tracer._whose = "pytest --memlyze records this test; one that uses memlyze itself needs @pytest.mark.no_memlyze"
        try:
            result = function(*arguments, **named)
        except BaseException:
            if tracer.running:
                self.stats = tracer.stop()
            raise
        if not tracer.running:
            pytest.fail("memlyze: the test stopped the recording that pytest --memlyze made of it; one that uses memlyze itself needs @pytest.mark.no_memlyze",
                        pytrace=False)
        if self.collect:
            gc.collect()
        self.stats = tracer.stop()
        return result


def _wraps_function(item: Any) -> bool:
    """Whether the call of item.obj is the test; else (coroutines, doctests, other plugins' items) all of its runtest is measured."""
    function = getattr(item, "obj", None)
    return callable(function) and isinstance(item, pytest.Function) and not inspect.iscoroutinefunction(function) and not inspect.isasyncgenfunction(function)


class Plugin:
    def __init__(self, config: Any) -> None:
        option = config.option
        self.config = config
        self.worker = hasattr(config, "workerinput")
        if memlyze.is_recording():
            raise pytest.UsageError("--memlyze: this process is being recorded already; run pytest without `memlyze record` around it")
        try:
            self.tolerance = _units.share(option.memlyze_tolerance, "--memlyze-tolerance")
            _places.program("record")
        except (ValueError, OSError) as error:
            raise pytest.UsageError(getattr(error, "strerror", None) or str(error)) from None
        if option.memlyze_update_baseline and not option.memlyze_baseline:
            raise pytest.UsageError("--memlyze-update-baseline needs --memlyze-baseline FILE")
        self.baseline = self._read_baseline()
        self.temporary = tempfile.mkdtemp(prefix="memlyze-pytest-")
        self.traces = os.path.abspath(option.memlyze_traces) if option.memlyze_traces else None
        if self.traces:
            try:
                os.makedirs(self.traces, exist_ok=True)
            except OSError as error:
                raise pytest.UsageError("--memlyze-traces %s: cannot be made: %s" % (option.memlyze_traces, error.strerror)) from None
        # In a worker of xdist these carry its messages, at any time (threading does not know them).
        self.foreign: Set[int] = {int(tid) for tid in os.listdir("/proc/self/task")} - {threading.main_thread().native_id or 0} if self.worker else set()
        self.seen: Dict[str, Tuple[Figures, str]] = {}

    # -- baseline --

    def _read_baseline(self) -> Dict[str, Dict[str, Dict[str, int]]]:
        path = self.config.option.memlyze_baseline
        if not path:
            return {}
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            if data.get("schema") != _SCHEMA:
                raise ValueError("its schema is not %s" % _SCHEMA)
            interpreters = data["interpreters"]
            assert isinstance(interpreters, dict)
            return interpreters
        except FileNotFoundError:
            if self.config.option.memlyze_update_baseline:
                return {}
            raise pytest.UsageError("%s: no such baseline; make one with --memlyze-update-baseline" % path) from None
        except (OSError, ValueError, KeyError, AttributeError, AssertionError) as error:
            raise pytest.UsageError("%s: cannot be read as a baseline: %s; make a new one with --memlyze-update-baseline" % (path, error)) from None

    def _write_baseline(self) -> None:
        path = self.config.option.memlyze_baseline
        tests = self.baseline.setdefault(_INTERPRETER, {})
        for nodeid, (figures, outcome) in self.seen.items():
            if outcome == "passed":
                tests[nodeid] = {"peak": figures.peak, "leaked": figures.leaked, "allocations": figures.allocations}
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"schema": _SCHEMA, "interpreters": self.baseline}, file, indent=1, sort_keys=True)
            file.write("\n")
        os.replace(path + ".new", path)

    def _grown(self, nodeid: str, figures: Figures) -> List[Tuple[str, str]]:
        """(what is wrong, the figure) against the baseline."""
        if self.config.option.memlyze_update_baseline:
            return []
        before = self.baseline.get(_INTERPRETER, {}).get(nodeid)
        wrong = []
        for figure in ("peak", "leaked", "allocations") if before else ():
            assert before is not None
            was, now = int(before[figure]), getattr(figures, figure)
            most = int(was * (1 + self.tolerance)) + (0 if figure == "allocations" else _SLACK)
            if now > most:
                wrong.append(("memlyze: " + _SUBJECT[figure] % _said(figure, now) + ", the baseline has " + _said(figure, was), figure))
        return wrong

    # -- pytest's hooks --

    def _trace_of(self, item: Any) -> str:
        if not self.traces:
            return os.path.join(self.temporary, "test.mlyze")
        return os.path.join(self.traces, re.sub(r"[^\w.\[\]=,+-]+", "-", item.nodeid.replace(".py::", "-").replace("::", "."))[-200:] + ".mlyze")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: Any) -> Generator[None, Any, None]:
        if item.get_closest_marker("no_memlyze"):
            yield
            return
        limits, warmup, wrong_mark = _limits_of(item)
        option = self.config.option
        measured = Measured(self._trace_of(item), option.memlyze_depth, max(warmup, option.memlyze_warmup), any(limit.figure == "leaked" for limit in limits),
                            self.foreign)
        name = "obj" if _wraps_function(item) else "runtest"
        original = getattr(item, name)

        @functools.wraps(original)
        def call(*arguments: Any, **named: Any) -> Any:
            if wrong_mark:
                pytest.fail("memlyze: " + wrong_mark, pytrace=False)
            return measured(original, arguments, named)

        setattr(item, name, call)
        try:
            outcome = yield
        finally:
            if name == "obj":
                item.obj = original
            else:
                del item.runtest
        if measured.stats is None:  # skipped or failed before it was called
            return
        wrong = self._judge(item, measured, limits)
        if not self.traces:
            os.unlink(measured.trace)
        if wrong and outcome.excinfo is None:
            _fail(outcome, pytest.fail.Exception("\n".join(wrong), pytrace=False))

    def _judge(self, item: Any, measured: Measured, limits: List[Limit]) -> List[str]:
        figures = _figures(measured.stats, measured.trace)
        item._memlyze_figures = figures
        wrong = [("memlyze: %s, %s allows %s" % (_SUBJECT[limit.figure] % _said(limit.figure, getattr(figures, limit.figure)), limit.mark,
                                                  _said(limit.figure, limit.most)), limit.figure)
                 for limit in limits if getattr(figures, limit.figure) > limit.most]
        wrong += self._grown(item.nodeid, figures)
        lines = []
        by = {figure: order for figure, order in _KINDS.values()}
        for what, figure in wrong:
            lines += [what, "the lines that made the most of it:"] + _top_lines(measured.trace, by[figure])
        if wrong and self.traces:
            lines.append("the trace is %s" % measured.trace)
        return lines

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Generator[None, Any, None]:
        outcome = yield
        figures = getattr(item, "_memlyze_figures", None)
        if call.when == "call" and figures is not None:
            outcome.get_result().memlyze = list(figures)  # plain: xdist carries it to the controller

    def pytest_runtest_logreport(self, report: Any) -> None:
        figures = getattr(report, "memlyze", None)
        if report.when == "call" and figures:
            self.seen[report.nodeid] = (Figures(*figures), report.outcome)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)
        if self.config.option.memlyze_update_baseline and not self.worker:
            self._write_baseline()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        write = terminalreporter.write_line
        terminalreporter.section("memlyze: the hungriest tests")
        most = self.config.option.memlyze_most
        rows = sorted(self.seen.items(), key=lambda row: (-row[1][0].peak, row[0]))
        if not rows:
            write("no test was recorded")
            return
        write("%12s %12s %12s %12s  %s" % ("peak", "allocated", "allocations", "not freed", "test"))
        for nodeid, (figures, _) in rows[:most or len(rows)]:
            write("%12s %12s %12d %12s  %s" % (_units.readable(figures.peak), _units.readable(figures.allocated), figures.allocations,
                                              _units.readable(figures.leaked), nodeid))
        option = self.config.option
        if option.memlyze_update_baseline:
            write("baseline: %s has the figures of %d tests" % (option.memlyze_baseline, len(self.baseline.get(_INTERPRETER, {}))))
        elif option.memlyze_baseline:
            known = self.baseline.get(_INTERPRETER, {})
            new = sum(nodeid not in known for nodeid in self.seen)
            if new:
                write("baseline: %s has no figures of %d of these tests for %s; add them with --memlyze-update-baseline" % (option.memlyze_baseline, new, _INTERPRETER))


def _fail(outcome: Any, error: BaseException) -> None:
    """Makes a hook's outcome this failure."""
    if hasattr(outcome, "force_exception"):  # pluggy 1.1
        outcome.force_exception(error)
    else:
        outcome._excinfo = (type(error), error, None)
