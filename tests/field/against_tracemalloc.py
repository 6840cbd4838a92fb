#!/usr/bin/env python3
"""What is live at a program's end, by line: Memlyze's answer beside tracemalloc's, in two runs of the same program.

    against_tracemalloc.py --build DIR --python PY PROGRAM [ARGS...]

They differ by nature in blocks from before tracemalloc's start, in objects that the interpreter keeps on free lists (tracemalloc names the last user of such a block, Memlyze the line that allocated it)
and in frames (tracemalloc's line is that of the innermost frame).
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--build", required=True)
    a.add_argument("--python", required=True)
    a.add_argument("-n", type=int, default=12)
    a.add_argument("program", nargs=argparse.REMAINDER)
    o = a.parse_args()
    o.build = os.path.abspath(o.build)
    runner = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs", "run_to_end.py")
    env = dict(os.environ, PYTHONHASHSEED="1", PYTHONDONTWRITEBYTECODE="1")
    with tempfile.TemporaryDirectory() as work:
        out, trace = os.path.join(work, "o"), os.path.join(work, "t")
        argv = [runner, out] + o.program
        subprocess.run([o.python, "-X", "tracemalloc=1"] + argv, check=True, env=env, stdout=subprocess.DEVNULL)
        subprocess.run([os.path.join(o.build, "tracer/recorder/memlyze"), "record", "--quiet", "--no-malloc", "-f", "-o", trace, "--", o.python] + argv, check=True, env=env, stdout=subprocess.DEVNULL)
        theirs = {k: v for k, v in json.load(open(out)).items()}
        j = json.loads(subprocess.check_output([os.path.join(o.build, "analyzer/memlyze-top"), "--json", "--by", "live-bytes", "--at", "end", "-n", "0", trace]))
    ours = {}
    for s in j["sites"]:
        if s["live_count"]:
            e = ours.setdefault("%s:%d" % (s["file"], s["line"] or 0), [0, 0])
            e[0] += s["live_count"]
            e[1] += s["live_bytes"]
    total = lambda d, i: sum(v[i] for v in d.values())  # noqa: E731
    print("tracemalloc %d blocks %d bytes, Memlyze %d blocks %d bytes" % (total(theirs, 0), total(theirs, 1), total(ours, 0), total(ours, 1)))
    exact = sum(1 for k in theirs if theirs[k] == ours.get(k))
    near = sum(theirs[k][1] for k in theirs if k in ours and abs(ours[k][1] - theirs[k][1]) <= 0.1 * theirs[k][1])
    print("lines %d, %d; equal to the byte and block %d; bytes of lines that agree within 10 %%: %.1f %%" % (len(theirs), len(ours), exact, 100.0 * near / max(1, total(theirs, 1))))
    for k in sorted(set(theirs) | set(ours), key=lambda k: -abs(ours.get(k, [0, 0])[1] - theirs.get(k, [0, 0])[1]))[: o.n]:
        print("  %-90s tracemalloc %6d %9d   Memlyze %6d %9d" % (k[-90:], *theirs.get(k, [0, 0]), *ours.get(k, [0, 0])))


if __name__ == "__main__":
    sys.exit(main())
