"""run_to_end.py OUT PROGRAM ARGS...: runs PROGRAM; where tracemalloc is on, writes what it holds live afterwards, by line, to OUT; ends at once."""
import gc
import json
import os
import runpy
import sys
import tracemalloc

out, program = sys.argv[1:3]
sys.argv = sys.argv[2:]
sys.path[0] = os.path.dirname(os.path.abspath(program))
try:
    runpy.run_path(program, run_name="__main__")
except SystemExit:
    pass
gc.collect()
if tracemalloc.is_tracing():
    lines = {}
    for t in tracemalloc.take_snapshot().traces:
        f = t.traceback[0]
        entry = lines.setdefault("%s:%d" % (f.filename, f.lineno), [0, 0])
        entry[0] += 1
        entry[1] += t.size
    with open(out, "w") as file:
        json.dump(lines, file)
sys.stdout.flush()
os._exit(0)
