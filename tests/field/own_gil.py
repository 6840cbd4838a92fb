#!/usr/bin/env python3
"""Interpreters with a GIL each beside start() and stop(), again and again, and the same without Memlyze: how often does a process die?

    own_gil.py --build BUILD --python PATH/TO/bin/python3 [--runs 20] [--seconds 0.7] [--one-cpu] [--low]

CPython 3.12 and later. Each run is a process of its own (tests/programs/own_gil.py), since what a first start() meets is met once in a process. Odd seeds keep their interpreters until the
end. What a process said on stderr before it died is printed (-X faulthandler). Exit status: 0 no recorded process died, 1 some did.
"""
import argparse
import os
import subprocess
import sys
import tempfile

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--build", required=True)
    a.add_argument("--python", required=True)
    a.add_argument("--runs", type=int, default=20)
    a.add_argument("--seconds", default="0.7")
    a.add_argument("--one-cpu", action="store_true", help="all threads on one processor, so that they are put aside for longer")
    a.add_argument("--low", action="store_true", help="at rates up to 1/32, each other process with its first recording before its interpreters")
    o = a.parse_args()
    env = dict(os.environ, MEMLYZE_HOME=os.path.abspath(o.build), PYTHONPATH=os.path.join(os.path.dirname(TESTS), "tracer", "python"), PYTHONDONTWRITEBYTECODE="1")
    program = os.path.join(TESTS, "programs", "own_gil.py")
    died = {"plain": 0, "recorded": 0}
    recordings = interpreters = 0
    with tempfile.TemporaryDirectory() as work:
        for seed in range(1, o.runs + 1):
            for way in died:
                command = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if o.one_cpu else []
                command += [o.python, "-X", "faulthandler", program, o.seconds, str(seed)] + ["plain"] * (way == "plain") + ["stay"] * (seed % 2)
                command += ["low"] + ["still"] * (seed // 2 % 2) if o.low else []
                p = subprocess.run(command, cwd=work, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=300)
                if p.returncode:
                    died[way] += 1
                    print("seed %d, %s: status %d\n%s" % (seed, way, p.returncode, p.stderr[:3000]), flush=True)
                    continue
                words = p.stdout.split()
                recordings += int(words[0])
                interpreters += int(words[2])
    print("%d runs each: %d died without Memlyze, %d recorded; %d recordings, %d interpreters" % (o.runs, died["plain"], died["recorded"], recordings, interpreters))
    return 1 if died["recorded"] else 0


if __name__ == "__main__":
    sys.exit(main())
