"""What a recording holds: the answer of `memlyze stats --json` as an object."""
from __future__ import annotations

import json
from typing import Any, Callable, Dict


def _wrapped(value: Any) -> Any:
    if isinstance(value, dict):
        return Stats(value)
    return [_wrapped(one) for one in value] if isinstance(value, list) else value


class Stats(Dict[str, Any]):
    """The keys of `memlyze stats --json` as a dict and as attributes, all the way down: `stats["bytes"]["peak"]` is `stats.bytes.peak`,
    `stats["threads"][0]["name"]` is `stats.threads[0].name`.

    Sizes are bytes, times are nanoseconds since the start of the trace. `events_written` and `events_dropped` stand for `stats.events.written` and `.dropped`;
    `complete` is False while the recording goes on. `json.dumps(stats)` and `stats.json()` give the plain data."""

    def __init__(self, data: Dict[str, Any]) -> None:
        super().__init__((key, _wrapped(value)) for key, value in data.items())

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        try:
            return self[key]
        except KeyError:
            raise AttributeError("the stats have no %r; they have: %s" % (key, ", ".join(self))) from None

    def __dir__(self) -> Any:
        return sorted(set(object.__dir__(self)) | set(self))

    def __repr__(self) -> str:
        return "Stats(%s)" % dict.__repr__(self)

    def json(self, **options: Any) -> str:
        """The same as one JSON text; `options` are those of json.dumps."""
        return json.dumps(self, **options)

    def __reduce__(self) -> Any:
        return Stats, (dict(self),)


class LaterStats(Stats):
    """Stats that are asked for, once, when something of them is first looked at: asking runs a program."""

    def __init__(self, read: Callable[[], Dict[str, Any]]) -> None:
        dict.__init__(self, complete=False)  # not empty: json.dumps looks at that before it asks for the items
        object.__setattr__(self, "_read", read)

    def _fill(self) -> None:
        read = self.__dict__.pop("_read", None)
        if read is not None:
            data = Stats(read())
            dict.clear(self)
            dict.update(self, data)


def _filled(name: str) -> Any:
    plain = getattr(Stats, name)

    def method(self: LaterStats, *arguments: Any, **named: Any) -> Any:
        self._fill()
        return plain(self, *arguments, **named)
    method.__name__, method.__doc__ = name, plain.__doc__
    return method


for _name in ("__contains__", "__dir__", "__eq__", "__getitem__", "__iter__", "__len__", "__ne__", "__reduce__", "__repr__", "__reversed__", "copy", "get",
              "items", "keys", "values"):
    setattr(LaterStats, _name, _filled(_name))


def answer(text: bytes) -> Dict[str, Any]:
    """The document that `memlyze stats --json` printed, with the two counts that are asked for most beside the others. ValueError: none."""
    data = json.loads(text)
    if not isinstance(data, dict) or not isinstance(data.get("events"), dict):
        raise ValueError("no stats")
    data["events_written"] = data["events"]["written"]
    data["events_dropped"] = data["events"]["dropped"]
    return data
