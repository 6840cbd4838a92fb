"""Jupyter and IPython: `%load_ext memlyze`, then `%%memlyze` on top of a cell shows its flame graph and its hungriest lines.

The graph is drawn by `memlyze flame` and stands in a frame of its own: its styles and its script, for zooming and searching, meet nothing else of the page."""
from __future__ import annotations

import ast
import gc
import html
import json
import linecache
import os
import re
import subprocess
import tempfile
import threading
from types import CodeType
from typing import Any, Dict, List, Optional, Tuple

import memlyze
from memlyze import _places, _units

_BY = {"alloc-bytes": "alloc_bytes", "alloc-count": "alloc_count", "live-bytes": "live_bytes", "peak-bytes": "peak_bytes", "temporary": "temporary_count"}
_KERNEL = ("IPython", "ipykernel", "jupyter_client", "zmq", "tornado")
_COLUMNS = (("peak", "peak_bytes", True), ("allocated", "alloc_bytes", True), ("allocations", "alloc_count", False), ("not freed", "live_bytes", True))


class Result:
    """What a cell did: `stats` as of `tracer.stop()`, `sites` as of `memlyze top --json`, `svg` the flame graph, `trace` the file, if it was kept."""

    def __init__(self, stats: memlyze.Stats, sites: List[Dict[str, Any]], svg: str, trace: Optional[str]) -> None:
        self.stats = stats
        self.sites = sites
        self.svg = svg
        self.trace = trace

    def _summary(self) -> str:
        stats = self.stats
        return "peak %s, allocated %s in %d allocations, not freed %s; %s" % (
            _units.readable(stats.bytes.peak), _units.readable(stats.bytes.allocated), stats.blocks.allocated, _units.readable(stats.bytes.live_at_end),
            "trace in %s" % self.trace if self.trace else "%.3g s" % (stats.duration_ns / 1e9))

    def _rows(self) -> List[Tuple[List[str], str, str]]:
        rows = []
        for site in self.sites:
            numbers = [_units.readable(site[key]) if size else "%d" % site[key] for _, key, size in _COLUMNS]
            place = "%s, %s:%d" % (site["function"], _short(site["file"]), site["line"]) if site["file"] else site["function"]
            rows.append((numbers, place, linecache.getline(site["file"], site["line"]).strip() if site["file"] else ""))
        return rows

    def __repr__(self) -> str:
        lines = ["memlyze: " + self._summary(), "%12s %12s %12s %12s  line" % tuple(name for name, _, _ in _COLUMNS)]
        lines += ["%12s %12s %12s %12s  %s  %s" % (*numbers, place, source) for numbers, place, source in self._rows()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        number = "<td style='text-align:right;white-space:nowrap'>%s</td>"
        left = "<td style='text-align:left'>%s</td>"
        head = "".join("<th style='text-align:right'>%s</th>" % name for name, _, _ in _COLUMNS) + "<th style='text-align:left' colspan=2>line</th>"
        body = "".join("<tr>%s%s%s</tr>" % ("".join(number % n for n in numbers), left % html.escape(place), left % ("<code>%s</code>" % html.escape(source)))
                       for numbers, place, source in self._rows())
        graph = ""
        if self.svg:
            page = "<!doctype html><meta charset=utf-8><style>body{margin:0}body>svg{max-width:100%%;height:auto}</style>%s" % self.svg[self.svg.index("<svg"):]
            graph = "<iframe sandbox='allow-scripts' style='width:100%%;height:%dpx;border:0' srcdoc=\"%s\"></iframe>" % (_height(self.svg), html.escape(page))
        return "<div>memlyze: %s</div>%s<table><thead><tr>%s</tr></thead><tbody>%s</tbody></table>" % (html.escape(self._summary()), graph, head, body)


def _short(file: str) -> str:
    """The path without what says nothing in a notebook: the temporary directory of the kernel, the folders of the library."""
    return "this cell" if "ipykernel_" in file or "<ipython-input" in file else file if len(file) < 40 else "..." + os.sep + os.path.join(*file.split(os.sep)[-2:])


def _height(svg: str) -> int:
    """Of the drawing, at its own width or less."""
    try:
        return int(float(svg.split('height="', 1)[1].split('"', 1)[0])) + 8
    except (IndexError, ValueError):
        return 600


def _ask(tool: str, *arguments: str) -> str:
    done = subprocess.run([_places.program(tool), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise OSError(done.stderr.decode(errors="replace").strip())
    return done.stdout.decode()


def _compiled(shell: Any, cell: str, magic: bool) -> Tuple[CodeType, Optional[CodeType]]:
    """The cell, and its last expression, whose value it shows: what run_cell makes of it, before anything is recorded. SyntaxError."""
    source = shell.transform_cell(cell)
    if magic:
        source = "\n" + source  # lines as the notebook counts them
    name = shell.compile.cache(source, shell.execution_count)
    tree = shell.compile.ast_parse(source, filename=name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not cell.rstrip().endswith(";"):
        last = shell.compile(ast.Expression(tree.body.pop().value), name, "eval")
    return shell.compile(tree, name, "exec"), last  # with the __future__ of earlier cells


def _threads_of_the_kernel() -> List[int]:
    """Those that write the history, carry messages and beat: at any time, and for no cell in particular."""
    ours = []
    for thread in threading.enumerate():
        target = getattr(thread, "_target", None)
        modules = (type(thread).__module__, getattr(target, "__module__", None) or "")
        tid = getattr(thread, "native_id", None)
        if tid is not None and thread is not threading.current_thread() and any(name.split(".")[0] in _KERNEL for name in modules):
            ours.append(tid)
    return ours


def _run(shell: Any, code: CodeType, last: Optional[CodeType], trace: str, settings: Dict[str, Any]) -> Tuple[Any, Optional[BaseException], memlyze.Stats]:
    value, error = None, None
    space = shell.user_ns
    gc.collect()
    tracer = memlyze.start(trace, overwrite=True, _leave_out=_threads_of_the_kernel(), **settings)
    tracer._whose = "%%memlyze records this cell; use stop(), or leave out one of both"
    try:
        exec(code, space)
        if last is not None:
            value = eval(last, space)
    except BaseException as failed:
        error = failed
    return value, error, tracer.stop()


def register(shell: Any) -> None:
    """Registers the magics with an IPython shell."""
    from IPython.core import magic_arguments
    from IPython.display import display

    @magic_arguments.magic_arguments(name="memlyze")
    @magic_arguments.argument("-o", "--output", metavar="FILE", help="keep the trace as FILE; the graph goes beside it as FILE.svg")
    @magic_arguments.argument("--by", choices=sorted(_BY), default="peak-bytes", help="what the graph shows and the table is sorted by (default peak-bytes)")
    @magic_arguments.argument("-n", "--number", type=int, default=10, help="lines in the table (default 10)")
    @magic_arguments.argument("--sample-rate", type=float, default=None, help="part of all allocations that is traced (default 1.0)")
    @magic_arguments.argument("--max-stack-depth", type=int, default=30, help="frames kept of each stack (default 30)")
    @magic_arguments.argument("--no-flame", action="store_true", help="the table only")
    @magic_arguments.argument("--name", help="keep the result in this variable: .stats, .sites, .svg, .trace")
    @magic_arguments.argument("statement", nargs="...", help="in a line: the statement to run")
    def memlyze_magic(line: str, cell: Optional[str] = None) -> None:
        """Records the memory of a cell (or of a statement), and shows who took it: a flame graph, and a table of lines."""
        arguments = magic_arguments.parse_argstring(memlyze_magic, line)
        source = " ".join(arguments.statement) if cell is None else cell
        if not source.strip():
            raise ValueError("%%memlyze: nothing to run; put it on top of a cell, or in front of a statement")
        settings = {"max_stack_depth": arguments.max_stack_depth, "sample_rate": arguments.sample_rate}
        try:
            code, last = _compiled(shell, source, cell is not None)
        except SyntaxError:
            shell.showsyntaxerror()
            return
        with tempfile.TemporaryDirectory(prefix="memlyze-") as temporary:
            trace = os.path.abspath(arguments.output) if arguments.output else os.path.join(temporary, "cell.mlyze")
            value, error, stats = _run(shell, code, last, trace, settings)
            process = ("--process", str(os.getpid()), "--by", arguments.by)
            # The frames of IPython below the cell say nothing of it.
            inside = ("--root", " " + re.escape(code.co_filename) + ":")
            svg = "" if arguments.no_flame else _ask("flame", *process, *inside, "--title", "this cell: " + arguments.by, trace)
            sites = json.loads(_ask("top", "--json", *process, trace))["sites"]
        if error is not None:
            shell.showtraceback((type(error), error, error.__traceback__))
        elif value is not None:
            shell.displayhook(value)
        key = _BY[arguments.by]
        result = Result(stats, [site for site in sites if site[key]][:arguments.number], svg, trace if arguments.output else None)
        if arguments.output and svg:
            with open(trace + ".svg", "w", encoding="utf-8") as file:
                file.write(svg)
        if arguments.name:
            shell.user_ns[arguments.name] = result
        display(result)

    shell.register_magic_function(memlyze_magic, "line_cell", "memlyze")
