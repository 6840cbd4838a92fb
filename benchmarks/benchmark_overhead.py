#!/usr/bin/env python3
"""What tracing costs, by hand: a table of times, alone and under the recorder.

    python benchmarks/benchmark_overhead.py                                    # note the times
    memlyze record python benchmarks/benchmark_overhead.py                     # compare times
    overhead = (with_tracing - without_tracing) / without_tracing * 100

It can do the noting and the calculation, too:

    python benchmarks/benchmark_overhead.py --save before.json
    memlyze record python benchmarks/benchmark_overhead.py --against before.json
    python benchmarks/benchmark_overhead.py --compare                          # both, in turn, three times each, with options of record behind --:
    python benchmarks/benchmark_overhead.py --compare -- --sample-rate 0.1

Plain Python, 3.8 and later; about eight seconds a run. Each workload prints the least of its repetitions, in wall time, and what it computed, which must be the same. For figures to
quote use `make bench`, which runs untraced and traced in turn, for longer, on more programs.
"""
import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

REPEAT = 3


def small_objects():
    """Many small objects that die at once."""
    total = 0
    for i in range(2000000):
        total += len([i, (i, str(i))])
    return total


def trees(depth=13):
    """Binary trees of tuples: allocation and nothing else."""
    def make(d):
        return (make(d - 1), make(d - 1)) if d else (None, None)

    def count(tree):
        return 1 + (count(tree[0]) + count(tree[1]) if tree[0] else 0)
    return sum(count(make(depth)) for _ in range(140))


def strings():
    """Text split, changed and joined."""
    text = ' '.join('word%d' % (n * 7919 % 1000) for n in range(20000))
    return sum(len('-'.join([w.upper() + str(n) for w in text.split()])) for n in range(90))


def documents():
    """JSON, there and back."""
    text = json.dumps({'rows': [{'id': i, 'name': 'name %d' % i, 'tags': ['a', 'b'], 'value': i * 1.25} for i in range(2000)]})
    return sum(len(json.dumps(json.loads(text))) for _ in range(90))


def recursion():
    """Deep call stacks with allocations at every level."""
    def down(n):
        return [n, down(n - 1)] if n else [0]

    def depth(chain):
        n = 0
        while len(chain) == 2:
            n, chain = n + 1, chain[1]
        return n
    return sum(depth(down(400)) for _ in range(4000))


def garbage():
    """Reference cycles that only the collector frees."""
    class Node:
        pass
    total = 0
    for i in range(1000000):
        a, b = Node(), Node()
        a.other, b.other = b, a
        total += i & 1
    return total


def threads():
    """Four threads under the GIL."""
    sums = [0] * 4

    def work(me):
        for n in range(250000):
            sums[me] += len('%d,%d' % (n, me)) + len([n] * 3)
    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(sums)


def arithmetic():
    """Numbers: next to no allocation, so next to no overhead."""
    a, b = 1, 1
    for _ in itertools.repeat(None, 8000000):
        a, b = b, (a + b) & 0xff
    return a


WORKLOADS = (small_objects, trees, strings, documents, recursion, garbage, threads, arithmetic)


def measure():
    """{name: [seconds, what it computed]}"""
    found = {}
    for workload in WORKLOADS:
        times = []
        for _ in range(REPEAT):
            began = time.perf_counter()
            result = workload()
            times.append(time.perf_counter() - began)
        found[workload.__name__] = [min(times), result]
    return found


def overhead(with_tracing, without_tracing):
    return (with_tracing - without_tracing) / without_tracing * 100


def show(found, before=None):
    print('%-16s %10s %12s' % ('workload', 'time', 'checked') + ('   %10s %10s' % ('before', 'overhead') if before else ''))
    for name, (seconds, result) in found.items():
        line = '%-16s %8.3f s %12s' % (name, seconds, result)
        if before:
            if before[name][1] != result:
                raise SystemExit('%s: computed %s before and %s now' % (name, before[name][1], result))
            line += '   %8.3f s %+8.1f %%' % (before[name][0], overhead(seconds, before[name][0]))
        print(line)
    total = sum(seconds for seconds, _ in found.values())
    line = '%-16s %8.3f s %12s' % ('all', total, '')
    if before:
        earlier = sum(seconds for seconds, _ in before.values())
        line += '   %8.3f s %+8.1f %%' % (earlier, overhead(total, earlier))
    print(line)


def compare(memlyze, arguments, pairs):
    """Untraced and traced in turn."""
    program = shutil.which(memlyze)
    if not program:
        raise SystemExit('benchmark_overhead.py: %s is not there: name the program with --memlyze' % memlyze)
    runs = ([], [])
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, 'times.json')
        plain = [sys.executable, os.path.abspath(__file__), '--save', out]
        traced = [program, 'record', '--quiet'] + arguments + ['-f', '-o', os.path.join(directory, 'trace.mlyze'), '--'] + plain
        for i in range(pairs):
            for command, into in ((plain, runs[0]), (traced, runs[1])):
                if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                    raise SystemExit('benchmark_overhead.py: %s failed' % ' '.join(command))
                with open(out) as file:
                    into.append(json.load(file))
            print('%d of %d' % (i + 1, pairs), file=sys.stderr, flush=True)
    print('%-16s %12s %12s %10s' % ('workload', 'without', 'with', 'overhead'))
    ratios = []
    for name in runs[0][0]:
        without, with_tracing = (statistics.median(run[name][0] for run in side) for side in runs)
        if len({str(run[name][1]) for side in runs for run in side}) > 1:
            raise SystemExit('%s: computed different things with and without tracing' % name)
        ratios.append(statistics.median(t[name][0] / u[name][0] for u, t in zip(*runs)))
        print('%-16s %10.3f s %10.3f s %+8.1f %%' % (name, without, with_tracing, (ratios[-1] - 1) * 100))
    product = 1.0
    for ratio in ratios:
        product *= ratio
    print('%-16s %12s %12s %+8.1f %%' % ('geometric mean', '', '', (product ** (1 / len(ratios)) - 1) * 100))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--save', metavar='FILE', help='write the times to FILE')
    parser.add_argument('--against', metavar='FILE', help='compare with the times in FILE')
    parser.add_argument('--compare', action='store_true', help='run alone and under memlyze record in turn; options of record may follow after --')
    parser.add_argument('--memlyze', default='memlyze', help='the program to compare with (default: the one on PATH)')
    parser.add_argument('--pairs', type=int, default=3, help='with --compare: how often (default 3)')
    parser.add_argument('record', nargs='*', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compare:
        compare(args.memlyze, args.record, args.pairs)
        return
    before = None
    if args.against:
        with open(args.against) as file:
            before = json.load(file)
    found = measure()
    show(found, before)
    if args.save:
        with open(args.save, 'w') as file:
            json.dump(found, file)


if __name__ == '__main__':
    main()
