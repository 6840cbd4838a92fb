"""Traces as tables: `memlyze.open("trace.mlyze").allocations` and its like, through the Arrow C data interface and no package at all.

The work is done by libmemlyze-read.so (analyzer/arrow.h), which hands out columns as it decodes them; here they are put into PyCapsules, as
https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html says.
"""
from __future__ import annotations

import ctypes
import datetime
import errno
import json
import os
import threading
import warnings
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Type, Union

from . import _places
from ._stats import Stats

_VERSION = 1  # MEMLYZE_READ_VERSION
_TABLES = ("allocations", "stacks", "frames", "threads", "processes", "marks", "collections", "totals")  # enum memlyze_table
_OF_EVENTS = ("allocations", "marks", "collections", "totals")


class DamageWarning(UserWarning):
    """A trace is not whole: damaged, cut, its beginning was left out, or records were lost while it was made. What can be read is given."""


# ---- the structs of the Arrow C data interface ----

class _Schema(ctypes.Structure):
    pass


class _Array(ctypes.Structure):
    pass


class _Stream(ctypes.Structure):
    pass


_Schema._fields_ = [("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_void_p), ("flags", ctypes.c_int64),
                    ("n_children", ctypes.c_int64), ("children", ctypes.POINTER(ctypes.POINTER(_Schema))), ("dictionary", ctypes.POINTER(_Schema)),
                    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Schema))), ("private_data", ctypes.c_void_p)]
_Array._fields_ = [("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64), ("n_buffers", ctypes.c_int64),
                   ("n_children", ctypes.c_int64), ("buffers", ctypes.POINTER(ctypes.c_void_p)), ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
                   ("dictionary", ctypes.POINTER(_Array)), ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Array))),
                   ("private_data", ctypes.c_void_p)]
_Stream._fields_ = [("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Schema))),
                    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Array))),
                    ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.POINTER(_Stream))),
                    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Stream))), ("private_data", ctypes.c_void_p)]


# ---- the library ----

class _Library:
    """libmemlyze-read.so. Its functions are called without the GIL, but for the destructors of capsules."""

    def __init__(self) -> None:
        path = _places.reader()
        try:
            c = ctypes.CDLL(path)
        except OSError as error:
            raise OSError(errno.ELIBACC, "memlyze's reader cannot be loaded: %s" % error) from None
        version = c.memlyze_read_version()
        if version != _VERSION:
            raise OSError(errno.ELIBBAD, "the reader %s speaks version %d of its interface, this package %d; install both from one release"
                          % (path, version, _VERSION))
        handle, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
        c.memlyze_read_open.argtypes = (ctypes.POINTER(handle), text, text, size)
        c.memlyze_read_close.argtypes = (handle,)
        c.memlyze_read_json.argtypes = (handle,)
        c.memlyze_read_json.restype = ctypes.c_void_p
        c.memlyze_read_free.argtypes = (ctypes.c_void_p,)
        c.memlyze_read_survey.argtypes = (handle, text, size)
        c.memlyze_read_rows.argtypes = (handle, ctypes.c_int, ctypes.POINTER(ctypes.c_uint64), text, size)
        c.memlyze_read_schema.argtypes = (ctypes.c_int, ctypes.c_void_p)
        c.memlyze_read_stream.argtypes = (handle, ctypes.c_int, ctypes.c_void_p, text, size)
        for made in ("stream", "schema"):
            getattr(c, "memlyze_read_new_" + made).restype = ctypes.c_void_p
            getattr(c, "memlyze_read_drop_" + made).argtypes = (ctypes.c_void_p,)
        c.memlyze_read_python.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        python = ctypes.pythonapi
        c.memlyze_read_python(ctypes.cast(python.PyCapsule_IsValid, ctypes.c_void_p), ctypes.cast(python.PyCapsule_GetPointer, ctypes.c_void_p))
        # A prototype of our own: ctypes.pythonapi's functions are shared with everybody.
        make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(("PyCapsule_New", python))
        self.c = c
        self._make = make
        self._names = [ctypes.c_void_p.in_dll(c, "memlyze_read_name_" + made).value for made in ("stream", "schema")]
        self._free_stream = ctypes.cast(c.memlyze_read_capsule_stream, ctypes.c_void_p)
        self._free_schema = ctypes.cast(c.memlyze_read_capsule_schema, ctypes.c_void_p)

    def capsule_of_stream(self, stream: int) -> object:
        return self._make(stream, self._names[0], self._free_stream)

    def capsule_of_schema(self, schema: int) -> object:
        return self._make(schema, self._names[1], self._free_schema)


_library: Optional[_Library] = None
_loading = threading.Lock()


def _load() -> _Library:
    global _library
    with _loading:
        if _library is None:
            _library = _Library()
        return _library


def _fail(path: str, number: int, text: ctypes.Array[ctypes.c_char]) -> None:
    said = text.value.decode(errors="replace") or os.strerror(number)
    if number == errno.ENOMEM:
        raise MemoryError("%s: %s" % (path, said))
    if number == errno.EINVAL:
        raise ValueError("%s: %s" % (path, said))
    raise OSError(number, said, path)


class _Handle:
    """What memlyze_read_open gave, closed when nobody refers to it any more."""

    def __init__(self, path: str) -> None:
        self.library, self.path = _load(), path
        self.value: Optional[int] = None
        given, text = ctypes.c_void_p(), ctypes.create_string_buffer(512)
        code = self.library.c.memlyze_read_open(ctypes.byref(given), os.fsencode(path), text, len(text))
        if code != 0:
            _fail(path, code, text)
        self.value = given.value

    def __del__(self) -> None:
        if getattr(self, "value", None) is not None:
            self.library.c.memlyze_read_close(self.value)

    def json(self) -> Dict[str, Any]:
        given = self.library.c.memlyze_read_json(self.value)
        if not given:
            raise MemoryError("%s: out of memory" % self.path)
        try:
            found = json.loads(ctypes.string_at(given).decode())
        finally:
            self.library.c.memlyze_read_free(given)
        assert isinstance(found, dict)
        return found

    def survey(self) -> None:
        text = ctypes.create_string_buffer(512)
        code = self.library.c.memlyze_read_survey(self.value, text, len(text))
        if code != 0:
            _fail(self.path, code, text)

    def rows(self, table: int) -> int:
        rows, text = ctypes.c_uint64(), ctypes.create_string_buffer(512)
        code = self.library.c.memlyze_read_rows(self.value, table, ctypes.byref(rows), text, len(text))
        if code != 0:
            _fail(self.path, code, text)
        return rows.value

    def stream(self, table: int) -> int:
        """The address of a new ArrowArrayStream; the caller's."""
        stream, text = self.library.c.memlyze_read_new_stream(), ctypes.create_string_buffer(512)
        if not stream:
            raise MemoryError("%s: out of memory" % self.path)
        code = self.library.c.memlyze_read_stream(self.value, table, stream, text, len(text))
        if code != 0:
            self.library.c.memlyze_read_drop_stream(stream)
            _fail(self.path, code, text)
        return int(stream)


# ---- tables ----

class Table:
    """A table of a trace. Whatever takes Arrow data takes it as it is: `pyarrow.table(t)`, `polars.DataFrame(t)`, `duckdb.sql("from t")`,
    `pandas.DataFrame.from_arrow(t)` or `pyarrow.table(t).to_pandas()`. Its rows come batch by batch while they are read, so a reader that does not keep them
    needs little memory; each reading begins at the first row. Without any package, iterating gives a dictionary for each row.
    """

    __slots__ = ("name", "_trace", "_number")

    def __init__(self, trace: "Trace", name: str) -> None:
        self.name = name
        self._trace = trace
        self._number = _TABLES.index(name)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A PyCapsule with an ArrowArrayStream. `requested_schema` is not obeyed, as the interface allows: the caller casts."""
        handle = self._trace._ready(self.name)
        stream = handle.stream(self._number)
        try:
            return handle.library.capsule_of_stream(stream)
        except BaseException:
            handle.library.c.memlyze_read_drop_stream(stream)
            raise

    def __arrow_c_schema__(self) -> object:
        """A PyCapsule with an ArrowSchema: names and types of the columns."""
        library = _load()
        schema = library.c.memlyze_read_new_schema()
        if not schema or library.c.memlyze_read_schema(self._number, schema) != 0:
            library.c.memlyze_read_drop_schema(schema)
            raise MemoryError("out of memory")
        try:
            return library.capsule_of_schema(schema)
        except BaseException:
            library.c.memlyze_read_drop_schema(schema)
            raise

    @property
    def columns(self) -> List[str]:
        """The names of the columns."""
        library, schema = _load(), _Schema()
        if library.c.memlyze_read_schema(self._number, ctypes.byref(schema)) != 0:
            raise MemoryError("out of memory")
        try:
            return [schema.children[i].contents.name.decode() for i in range(schema.n_children)]
        finally:
            schema.release(ctypes.byref(schema))

    def __len__(self) -> int:
        if self.name == "totals":
            return sum(1 for _ in self)
        return self._trace._ready(self.name).rows(self._number)

    def __bool__(self) -> bool:
        return True  # a table is there, with however many rows; and no walk over all events to find that out

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        handle = self._trace._ready(self.name)
        byref = ctypes.byref  # one that was left half way is closed when the interpreter ends: the module's names are gone by then
        address = handle.stream(self._number)
        stream = _Stream.from_address(address)
        try:
            schema = _Schema()
            self._check(handle, stream, stream.get_schema(byref(stream), byref(schema)))
            try:
                while True:
                    batch = _Array()
                    self._check(handle, stream, stream.get_next(byref(stream), byref(batch)))
                    if not batch.release:
                        return
                    try:
                        names = [schema.children[i].contents.name.decode() for i in range(schema.n_children)]
                        columns = [_values(schema.children[i].contents, batch.children[i].contents) for i in range(schema.n_children)]
                    finally:
                        batch.release(byref(batch))
                    for row in zip(*columns):
                        yield dict(zip(names, row))
            finally:
                schema.release(byref(schema))
        finally:
            handle.library.c.memlyze_read_drop_stream(address)

    def _check(self, handle: _Handle, stream: Any, code: int) -> None:
        if code != 0:
            said = stream.get_last_error(ctypes.byref(stream)) or b""
            _fail(handle.path, code, ctypes.create_string_buffer(said))

    def __repr__(self) -> str:
        return "<memlyze %s of %s: %s>" % (self.name, self._trace.path, ", ".join(self.columns))


def _numbers(kind: Any, address: Optional[int], n: int) -> List[Any]:
    return (kind * n).from_address(address)[:] if n and address else []


def _bits(address: int, n: int) -> List[bool]:
    held = ctypes.string_at(address, (n + 7) // 8)
    return [bool(held[i >> 3] >> (i & 7) & 1) for i in range(n)]


_NUMBERS = {b"l": ctypes.c_int64, b"I": ctypes.c_uint32, b"g": ctypes.c_double, b"c": ctypes.c_int8}


def _values(schema: _Schema, array: _Array) -> List[Any]:
    """The values of a column of the kinds that the library makes."""
    n = array.length
    values: List[Any]
    if schema.format == b"b":
        values = list(_bits(array.buffers[1], n)) if n else []
    elif schema.format == b"u":
        ends = _numbers(ctypes.c_int32, array.buffers[1], n + 1)
        text = ctypes.string_at(array.buffers[2], ends[-1]) if n else b""
        values = [text[ends[i]:ends[i + 1]].decode() for i in range(n)]
    elif schema.format == b"+l":
        ends = _numbers(ctypes.c_int32, array.buffers[1], n + 1)
        items = _values(schema.children[0].contents, array.children[0].contents)
        values = [items[ends[i]:ends[i + 1]] for i in range(n)]
    else:
        values = _numbers(_NUMBERS[schema.format], array.buffers[1], n)
    if schema.dictionary:
        names = _values(schema.dictionary.contents, array.dictionary.contents)
        values = [names[v] for v in values]
    if array.null_count:
        values = [v if there else None for v, there in zip(values, _bits(array.buffers[0], n))]
    return values


# ---- traces ----

class Trace:
    """A trace that was opened for reading. Times are nanoseconds since its start, sizes bytes.

    `settings`, `summary` and `meta` are what the recorder wrote down of itself, as mappings whose keys are attributes, too; `uuid` names the file's content,
    `start` is the time of day at which it began, `host` where. `complete` is False where records may be missing at the end,
    `left_out` True where the recorder kept the newest part only.
    """

    def __init__(self, path: Union[str, "os.PathLike[str]"]) -> None:
        self.path: str = os.fspath(path)
        self._handle: Optional[_Handle] = _Handle(self.path)
        self._warned = ""
        self._warning = threading.Lock()
        self._known = known = self._handle.json()
        self.uuid: Optional[str] = known["uuid"]
        self.totals_only: bool = known["totals_only"]
        self.left_out: bool = known["left_out"]
        self.complete: bool = known["complete"]
        self.meta = Stats(known["meta"])
        self.summary = Stats(known["summary"])
        settings = known["meta"].get("settings")
        self.settings = Stats(settings if isinstance(settings, dict) else {})
        self._warn(4)

    # The tables: see docs/python.md for their columns.

    @property
    def allocations(self) -> Table:
        """A row for each allocation, in the order of the file: that of time within a process."""
        if self.totals_only:
            raise ValueError("%s: has totals only (it was recorded with snapshots_only): single allocations are not in it; take .totals" % self.path)
        return Table(self, "allocations")

    @property
    def totals(self) -> Table:
        """A row for each stack, domain and process that allocated, as of the end of the process."""
        return Table(self, "totals")

    @property
    def stacks(self) -> Table:
        return Table(self, "stacks")

    @property
    def frames(self) -> Table:
        return Table(self, "frames")

    @property
    def threads(self) -> Table:
        return Table(self, "threads")

    @property
    def processes(self) -> Table:
        return Table(self, "processes")

    @property
    def marks(self) -> Table:
        """Marks and snapshots."""
        return Table(self, "marks")

    @property
    def collections(self) -> Table:
        """Garbage collections."""
        return Table(self, "collections")

    @property
    def start(self) -> Optional[datetime.datetime]:
        """When the recording began (UTC, to the microsecond), None if the trace does not say."""
        ns = self._known["meta"].get("start")
        if not isinstance(ns, int):
            return None
        return datetime.datetime.fromtimestamp(ns // 10**9, datetime.timezone.utc).replace(microsecond=ns % 10**9 // 1000)

    @property
    def host(self) -> str:
        return str(self._known["meta"].get("host", ""))

    @property
    def command(self) -> List[str]:
        command = self._known["meta"].get("command")
        return [str(word) for word in command] if isinstance(command, list) else []

    @property
    def damage(self) -> Stats:
        """What is known of it so far: `cut` (the recorder did not finish), `chunks`, `bytes` and `events` that cannot be read, and records that were `lost` when it was made. All of it once a table of
        events (allocations, totals, marks, collections) was read."""
        return Stats(self._open().json()["damage"])

    def to_parquet(self, directory: Union[str, "os.PathLike[str]"], service: Optional[str] = None, release: Optional[str] = None,
                   allocations: bool = False) -> List[str]:
        """Writes this trace's share of a data set that other hosts write to, too (docs/fleet.md), as `memlyze export --to parquet` does. Needs pyarrow
        (ImportError). The files that were written."""
        from ._parquet import write
        return write(self, os.fspath(directory), service, release, allocations)

    def close(self) -> None:
        """What was taken from it and is still being read goes on being readable."""
        self._handle = None

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        return "<memlyze trace %s%s>" % (self.path, ", closed" if self._handle is None else "")

    def _open(self) -> _Handle:
        handle = self._handle
        if handle is None:
            raise ValueError("%s: was closed" % self.path)
        return handle

    def _ready(self, table: str) -> _Handle:
        handle = self._open()
        if table in _OF_EVENTS:
            handle.survey()
            self._warn(4)
        return handle

    def _warn(self, level: int) -> None:
        known = self._open().json()
        damage, said = known["damage"], []
        if damage["chunks"] or damage["bytes"]:
            said.append("damaged: %d chunks, %d bytes%s cannot be read" % (
                damage["chunks"], damage["bytes"], ", some %d events" % damage["events"] if damage["events"] else ""))
        if damage["cut"]:
            said.append("cut: its recorder did not finish, or still runs")
        if damage["lost"]:
            said.append("%d records were lost when it was made" % damage["lost"])
        if known["left_out"]:
            said.append("the beginning was left out (record --max-size or --flight-recorder): totals are those of the whole run, single events those since then")
        text = "; ".join(said)
        with self._warning:
            new, self._warned = text != self._warned, text
        if new and text:
            warnings.warn("%s: %s" % (self.path, text), DamageWarning, stacklevel=level)


def open(path: Union[str, "os.PathLike[str]"]) -> Trace:
    """Opens a trace to read it: `with memlyze.open("trace.mlyze") as trace: table = pyarrow.table(trace.allocations)`.

    OSError: it cannot be read (FileNotFoundError and so on). ValueError: it is no trace, or one of a newer format. A damaged one is opened, with a DamageWarning.
    """
    return Trace(path)
