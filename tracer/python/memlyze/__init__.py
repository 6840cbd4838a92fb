"""Memlyze from within a Python program: tells where its memory went.

    import memlyze

    tracer = memlyze.start("trace.mlyze")
    ...
    tracer.mark("warm")             # a named instant of the trace
    tracer.set_sample_rate(0.1)
    stats = tracer.stop()           # the whole file is on disk
    print(stats.bytes.peak, stats.events_written)

    with memlyze.open("trace.mlyze") as trace:
        table = pyarrow.table(trace.allocations)    # or polars.DataFrame, duckdb, pandas

`start` works in a plain Python, and inside `memlyze record`, whose running recording it steers. The functions `mark`, `snapshot`, `set_sample_rate`, `pause`,
`resume`, `dump` and `stop` of this module are those of the tracer that runs. Sizes are bytes, times are nanoseconds since the start of the trace.

`python -m memlyze TOOL ...` runs the programs (`record`, `stats`, `top`, ...); `memlyze.pytest_plugin` is the plugin of `pytest --memlyze`;
`%load_ext memlyze` gives Jupyter `%%memlyze`.
"""
from ._read import DamageWarning, Table, Trace, open
from ._stats import Stats
from ._tracer import (Point, Tracer, current, dump, is_recording, mark, pause, resume, set_sample_rate, snapshot, start, stop)

__version__ = "0.1.0"
__all__ = ["DamageWarning", "Point", "Stats", "Table", "Trace", "Tracer", "current", "dump", "is_recording", "mark", "open", "pause", "resume", "set_sample_rate", "snapshot", "start", "stop"]


def load_ipython_extension(ipython: object) -> None:
    """`%load_ext memlyze`: registers the magics `%%memlyze` and `%memlyze`."""
    from ._jupyter import register
    register(ipython)
