"""A trace's share of a data set of many traces, as Parquet files: `Trace.to_parquet` and `memlyze export --to parquet` (docs/fleet.md has the columns).

Each trace has one file in each table, DIR/TABLE/date=YYYY-MM-DD/service=NAME/UUID.parquet, which comes into being whole or not at all. Its row in `traces` is
written last, so whatever starts from there finds the rest.
"""
from __future__ import annotations

import datetime
import json
import os
import sys
import urllib.parse
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set

from ._read import Trace

_SUMS = ("alloc_count", "alloc_bytes", "free_count", "free_bytes", "live_count", "live_bytes", "temporary_count", "temporary_bytes", "peak_count", "peak_bytes")


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet is written by pyarrow, which %s does not have (%s); pip install pyarrow, or name another Python in MEMLYZE_PYTHON"
                          % (sys.executable, error)) from None
    if int(pyarrow.__version__.split(".")[0]) < 14:
        raise ImportError("pyarrow 14 or later is needed, %s has %s; pip install -U pyarrow" % (sys.executable, pyarrow.__version__))
    return pyarrow


def service_of(command: Sequence[str]) -> str:
    """What a command line runs: the module or the script of an interpreter, else the program, without folders and ".py"."""
    words = list(command)
    name = os.path.basename(words[0]) if words else ""
    if name.startswith(("python", "pypy")):
        rest = iter(words[1:])
        for word in rest:
            if word == "-m":
                return next(rest, "") or name
            if word in ("-W", "-X", "-Q"):
                next(rest, "")
            elif word == "-c":
                break
            elif not word.startswith("-"):
                name = os.path.basename(word)
                break
    return name[:-3] if name.endswith(".py") and len(name) > 3 else name or "unknown"


def _counted(trace: Trace) -> Set[int]:
    """The processes that the programs report on, too: those that ran Python, or all where none did."""
    rows = list(trace.processes)
    python = {row["process"] for row in rows if row["python_version"]}
    return python or {row["process"] for row in rows}


class _Files:
    """The places of one trace, and how a file gets there."""

    def __init__(self, pa: Any, directory: str, trace: Trace, service: str) -> None:
        if not trace.uuid:
            raise ValueError("%s: its header is damaged, so it has no name in a data set; memlyze verify --repair makes a whole file of it" % trace.path)
        began = trace.start or datetime.datetime.fromtimestamp(os.stat(trace.path).st_mtime, datetime.timezone.utc)
        self._pa = pa
        self._where = os.path.join("date=" + began.strftime("%Y-%m-%d"), "service=" + urllib.parse.quote(service, safe=" "))
        self._directory, self._name = directory, trace.uuid + ".parquet"
        self.written: List[str] = []

    def write(self, table: str, schema: Any, batches: Iterator[Any]) -> None:
        folder = os.path.join(self._directory, table, self._where)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, self._name)
        unfinished = os.path.join(folder, ".%s.%d.tmp" % (self._name, os.getpid()))
        try:
            with open(unfinished, "wb") as file:
                with self._pa.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
                    for batch in batches:
                        writer.write_table(batch)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            if os.path.exists(unfinished):
                os.unlink(unfinished)
            raise
        self.written.append(path)


def _plain(pa: Any, table: Any) -> Any:
    """Types that every engine reads alike: no dictionaries, no unsigned integers."""
    kinds = {pa.uint32(): pa.int64()}
    fields = [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else kinds.get(f.type, f.type)) for f in table.schema]
    return table.cast(pa.schema(fields))


def _totals(pa: Any, trace: Trace, stacks: Any) -> Any:
    counted = pa.array(sorted(_counted(trace)), pa.uint32())
    rows = pa.table(trace.totals)
    rows = _plain(pa, rows.filter(pa.compute.is_in(rows["process"], value_set=counted)))
    rows = rows.group_by(["stack_id", "domain"]).aggregate([(name, "sum") for name in _SUMS])
    rows = rows.rename_columns([name[:-4] if name.endswith("_sum") else name for name in rows.column_names])
    rows = rows.select(["stack_id", "domain"] + list(_SUMS))
    sites = stacks.select(["stack_id", "calls_id", "function", "file", "line", "module", "language"])
    return rows.join(sites, "stack_id", join_type="left outer")


def _once(pa: Any, table: Any, key: str) -> Any:
    """The first row of each key: two stacks of a trace may read the same."""
    first: Dict[int, int] = {}
    for i, value in enumerate(table[key].to_pylist()):
        first.setdefault(value, i)
    return table.take(pa.array(list(first.values()), pa.int64()))


def _texts(stacks: Any, frames: Any) -> List[str]:
    """Each stack as one line, the outermost frame first."""
    names = ["%s (%s:%d)" % (f["function"], f["file"], f["line"]) if f["file"] else f["function"]
             for f in frames.select(["function", "file", "line"]).to_pylist()]
    return [";".join(names[i] for i in reversed(ids)) for ids in stacks["frames"].to_pylist()]


def _stack_tables(pa: Any, trace: Trace) -> Any:
    """(stacks with the ids of their frames as hashes and a text, frames): all of the trace."""
    stacks, frames = pa.table(trace.stacks), pa.table(trace.frames)
    ids = frames["frame_id"].to_pylist()
    hashes = [[ids[i] for i in found] for found in stacks["frames"].to_pylist()]
    stacks = stacks.append_column("text", pa.array(_texts(stacks, frames), pa.string()))
    stacks = stacks.set_column(stacks.schema.get_field_index("frames"), "frames", pa.array(hashes, pa.list_(pa.int64())))
    return _once(pa, _plain(pa, stacks.drop_columns(["stack"])), "stack_id"), _once(pa, _plain(pa, frames.drop_columns(["frame"])), "frame_id")


def _trace_row(pa: Any, trace: Trace, totals: Any, release: Optional[str]) -> Any:
    heap = totals.filter(pa.compute.not_equal(totals["domain"], "mmap"))
    summary, meta, settings = dict(trace._known["summary"]), trace._known["meta"], dict(trace.settings)
    python = sorted({row["python_version"] for row in trace.processes if row["python_version"]})

    def total(name: str) -> int:
        return pa.compute.sum(heap[name]).as_py() or 0

    def number(source: Dict[str, Any], key: str) -> Optional[int]:
        return source[key] if isinstance(source.get(key), int) else None
    rate = settings.get("sample_rate")
    damage = trace.damage
    columns = [
        ("trace", pa.string(), trace.uuid), ("host", pa.string(), trace.host), ("release", pa.string(), release),
        ("start", pa.timestamp("us", "UTC"), trace.start), ("duration_ns", pa.int64(), number(summary, "duration_ns")),
        ("command", pa.string(), " ".join(trace.command)), ("pid", pa.int64(), number(meta, "pid")),
        ("python_version", pa.string(), ", ".join(python) or None),
        ("sample_rate", pa.float64(), float(rate) if isinstance(rate, (int, float)) else None),
        ("alloc_count", pa.int64(), total("alloc_count")), ("alloc_bytes", pa.int64(), total("alloc_bytes")),
        ("live_count", pa.int64(), total("live_count")), ("live_bytes", pa.int64(), total("live_bytes")),
        ("peak_bytes", pa.int64(), number(summary, "peak_bytes")), ("peak_ns", pa.int64(), number(summary, "peak_ns")),
        ("complete", pa.bool_(), trace.complete), ("damaged", pa.bool_(), bool(damage.chunks or damage.bytes)), ("lost", pa.int64(), damage.lost),
        ("settings", pa.string(), json.dumps(settings, sort_keys=True)), ("summary", pa.string(), json.dumps(summary, sort_keys=True)),
    ]
    schema = pa.schema([pa.field(name, kind) for name, kind, _ in columns])
    return pa.table([pa.array([value], kind) for _, kind, value in columns], schema=schema)


def _allocations(pa: Any, trace: Trace) -> Any:
    """(schema, batches): in as little memory as the stream itself."""
    counted = pa.array(sorted(_counted(trace)), pa.uint32())
    name = pa.array([trace.uuid], pa.string())

    def shape(batch: Any) -> Any:
        table = pa.Table.from_batches([batch])
        table = _plain(pa, table.filter(pa.compute.is_in(table["process"], value_set=counted)).drop_columns(["stack"]))
        return table.add_column(0, "trace", pa.chunked_array([name.take(pa.array([0] * table.num_rows, pa.int32()))], pa.string()))
    reader = pa.RecordBatchReader.from_stream(trace.allocations)
    empty = pa.RecordBatch.from_arrays([pa.array([], f.type) for f in reader.schema], schema=reader.schema)
    return shape(empty).schema, (shape(batch) for batch in reader)


def write(trace: Trace, directory: str, service: Optional[str], release: Optional[str], allocations: bool) -> List[str]:
    pa = _pyarrow()
    import pyarrow.compute  # noqa: F401  as pa.compute
    if service is not None and not service:
        raise ValueError("the service has no name")
    if allocations and trace.totals_only:
        raise ValueError("%s: has totals only (it was recorded with snapshots_only): no rows of single allocations" % trace.path)
    files = _Files(pa, directory, trace, service or service_of(trace.command))
    stacks, frames = _stack_tables(pa, trace)
    totals = _totals(pa, trace, stacks)
    totals = totals.add_column(0, "trace", pa.array([trace.uuid] * totals.num_rows, pa.string()))
    row = _trace_row(pa, trace, totals, release)
    if not allocations:  # stacks that a row names, and their frames
        stacks = stacks.filter(pa.compute.is_in(stacks["stack_id"], value_set=totals["stack_id"].combine_chunks()))
        used = pa.compute.unique(pa.compute.list_flatten(stacks["frames"]))
        frames = frames.filter(pa.compute.is_in(frames["frame_id"], value_set=used))
    files.write("frames", frames.schema, iter([frames]))
    files.write("stacks", stacks.schema, iter([stacks]))
    if allocations:
        files.write("allocations", *_allocations(pa, trace))
    files.write("totals", totals.schema, iter([totals]))
    files.write("traces", row.schema, iter([row]))
    return files.written


def main(arguments: List[str]) -> int:
    """`memlyze export --to parquet`, which has checked the command line: DIR SERVICE RELEASE ROWS TRACE..., where "" is what was not given."""
    import warnings
    directory, service, release, rows, *paths = arguments
    warnings.showwarning = lambda message, *rest, **more: print("memlyze-export: %s" % message, file=sys.stderr)
    status = 0
    try:
        _pyarrow()
        for path in paths:
            try:
                with Trace(path) as trace:
                    write(trace, directory, service or None, release or None, rows == "event")
            except OSError as error:  # the others may be fine
                where = error.filename if error.filename is not None else directory
                print("memlyze-export: %s: %s" % (where, error.strerror or error), file=sys.stderr)
                status = 2
            except (ValueError, MemoryError) as error:
                print("memlyze-export: %s" % error, file=sys.stderr)
                status = 2
    except ImportError as error:
        print("memlyze-export: %s" % error, file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 128 + 2
    return status
