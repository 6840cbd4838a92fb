"""What a recording holds: the answer of `memlyze stats --json` as an object."""
from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator, Mapping, Optional


class Stats(Mapping[str, Any]):
    """The keys of `memlyze stats --json` as a mapping and as attributes: `stats["bytes"]["peak"]` is `stats.bytes.peak`.

    Sizes are bytes, times are nanoseconds since the start of the trace. `events_written` and `events_dropped` stand for `stats.events.written` and `.dropped`;
    `complete` is False while the recording goes on. `dict(stats)` and `stats.json()` give the plain data."""

    __slots__ = ("_data", "_read")

    def __init__(self, data: Optional[Dict[str, Any]] = None, read: Optional[Callable[[], Dict[str, Any]]] = None) -> None:
        self._data = data
        self._read = read  # asked once, when something is first looked at

    def _all(self) -> Dict[str, Any]:
        if self._data is None:
            assert self._read is not None
            self._data = self._read()
        return self._data

    def __getitem__(self, key: str) -> Any:
        value = self._all()[key]
        return Stats(value) if isinstance(value, dict) else value

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        try:
            return self[key]
        except KeyError:
            raise AttributeError("the stats have no %r; they have: %s" % (key, ", ".join(self._all()))) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __dir__(self) -> Any:
        return sorted(set(object.__dir__(self)) | set(self._all()))

    def __repr__(self) -> str:
        return "Stats(%r)" % (self._all(),)

    def json(self, **options: Any) -> str:
        """The same as one JSON text; `options` are those of json.dumps."""
        return json.dumps(self._all(), **options)

    def __reduce__(self) -> Any:
        return Stats, (self._all(),)


def answer(text: bytes) -> Dict[str, Any]:
    """The document that `memlyze stats --json` printed, with the two counts that are asked for most beside the others. ValueError: none."""
    data = json.loads(text)
    if not isinstance(data, dict) or not isinstance(data.get("events"), dict):
        raise ValueError("no stats")
    data["events_written"] = data["events"]["written"]
    data["events_dropped"] = data["events"]["dropped"]
    return data
