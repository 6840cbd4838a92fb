#!/usr/bin/env python3
"""Nanoseconds for each step of the hot path. Usage: hot_path.py BUILD [--python P] [--rounds 5] [--instructions] [--json FILE]

The same workloads run in a fresh interpreter untraced and under `memlyze record` with settings that differ in one thing only; a step is the difference of two
of them. Settings run in turn, each once a round; a figure is the median over the rounds, with its quartiles.

  workload     what it does                                                   what it isolates
  burst        1000 allocations of 64 bytes from one C call, then 1000 frees  hook, decision, record and free, with a Python stack that stands still
  c library    the same through malloc and free                               the same for the C library's hooks
  unchanged    object() in a loop: the same instruction each time             stack unchanged, in a Python loop
  top changed  object() at 500 instructions in turn                           the innermost frame has moved on
  deep K       two chains of K calls in turn, object() in the last,           K frames left and K others entered between two allocations, and the
               called from 100 instructions in turn                           frame below them moved on

All of them run below 40 Python frames. Bursts are shorter than a ring and followed by a pause (spun, so that the processor keeps its pace), so no wait for the
recorder is in the figures. With the settings
  passed over  --sample-rate 1e-9     the hook, and the decision: one count down
  half         --sample-rate 0.5      every second allocation taken: as half of `all` and half of `passed over`, plus the choice of a place in each window
  depth 0, 1, 10, 25                  every allocation, so many frames

--instructions counts instructions under valgrind's callgrind instead of time (the recorder stays outside): a run with more of one workload less
a run without; these figures are the same from run to run.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

COUNT = 1000
BURSTS = 60
GAP_NS = 1500000
WORKLOADS = ('burst', 'c library', 'unchanged', 'top changed', 'deep 2', 'deep 5', 'deep 10')
LOOPS = WORKLOADS[2:]
NEEDED = {  # what is measured with each setting: what steps() asks for
    'untraced': WORKLOADS, 'passed over': ('burst', 'c library'), 'half': ('burst',), 'depth 0': ('burst',), 'depth 1': ('burst',), 'depth 10': WORKLOADS,
    'depth 25': ('burst', 'unchanged', 'deep 10'),
}
COUNTED = WORKLOADS + ('burst allocations', 'c library allocations')
SETTINGS = {
    'untraced': None,
    'passed over': ['--sample-rate', '1e-9', '--no-track-gc'],
    'half': ['--sample-rate', '0.5', '--no-track-gc'],
    'depth 0': ['--max-stack-depth', '0', '--no-track-gc'],
    'depth 1': ['--max-stack-depth', '1', '--no-track-gc'],
    'depth 10': ['--max-stack-depth', '10', '--no-track-gc'],
    'depth 25': ['--max-stack-depth', '25', '--no-track-gc'],
}
HERE = os.path.dirname(os.path.abspath(__file__))


# ---------------------------------------------------------------- in the measured interpreter

def descend(depth, function):
    return descend(depth - 1, function) if depth else function()


def python_workload(name):
    """A function that makes COUNT objects and frees each at once, as the workload says."""
    scope = {'repeat': __import__('itertools').repeat}
    if name == 'unchanged':
        source = 'def run():\n for _ in repeat(None, %d):\n  object()\n' % COUNT
    elif name == 'top changed':
        source = 'def run():\n for _ in repeat(None, %d):\n' % (COUNT // 500) + '  object()\n' * 500
    else:
        k = int(name.split()[1])
        source = ''.join('def %s%d():\n %s\n' % (c, i, '%s%d()' % (c, i + 1) if i < k else 'object()') for c in 'cd' for i in range(1, k + 1))
        source += 'def run():\n for _ in repeat(None, %d):\n' % (COUNT // 100) + '  c1()\n  d1()\n' * 50
    exec(compile(source, name, 'exec'), scope)
    return scope['run']


def c_functions(library):
    import ctypes
    pairs = ctypes.PyDLL(library)
    address = ctypes.c_void_p
    of = lambda f: ctypes.cast(f, address)  # noqa: E731
    return ctypes, pairs, {'burst': (of(ctypes.pythonapi.PyObject_Malloc), of(ctypes.pythonapi.PyObject_Free)),
                           'c library': (of(ctypes.CDLL(None).malloc), of(ctypes.CDLL(None).free))}


def child_time(library, names):
    """{workload: [ns of an allocation, ns of a free]} or {workload: [ns of a pair]}: the lower quartile of the bursts, which a neighbour on the machine disturbs less than the median."""
    import time
    ctypes, pairs, functions = c_functions(library)
    result = {}

    def usual(times):
        return sorted(times)[len(times) // 4] / COUNT
    for name in names:
        if name in functions:
            alloc, free = (ctypes.c_uint64 * BURSTS)(), (ctypes.c_uint64 * BURSTS)()
            allocate, release = functions[name]
            call = lambda: pairs.mlz_bench_bursts(allocate, release, ctypes.c_size_t(64), COUNT, BURSTS, ctypes.c_uint64(GAP_NS), alloc, free)  # noqa: E731
            if descend(40, call):
                raise SystemExit('hot_path.py: an allocation failed')
            result[name] = [usual(alloc), usual(free)]
            continue
        run, times, clock, gap = python_workload(name), [], time.perf_counter_ns, ctypes.c_uint64(GAP_NS)

        def bursts():
            for _ in range(BURSTS):
                began = clock()
                run()
                times.append(clock() - began)
                pairs.mlz_bench_spin(gap)
        descend(40, bursts)
        result[name] = [usual(times)]
    print(json.dumps(result))


def child_count(library, chosen, size):
    """Every workload runs a little, then the chosen one `size` times COUNT events more (none where it is called nothing): the difference is its own."""
    ctypes, pairs, functions = c_functions(library)
    for name in COUNTED:
        plain = name.replace(' allocations', '')
        times = 2 + (size if name == chosen else 0)
        if plain in functions:
            allocate, release = functions[plain]
            arguments = (allocate, release, ctypes.c_size_t(64), COUNT * times)
            call = pairs.mlz_bench_pairs
            if plain != name:
                call, arguments = pairs.mlz_bench_allocate, (allocate,) + arguments[2:]
            descend(40, lambda: call(*arguments))
            continue
        run = python_workload(name)

        def loop():
            for _ in range(times):
                run()
        descend(40, loop)


# ---------------------------------------------------------------- outside

class Driver:
    def __init__(self, args, directory):
        self.python = args.python
        self.library = os.path.join(args.build, 'benchmarks', 'agent', 'bench_pairs.so')
        self.memlyze = os.path.join(args.build, 'tracer', 'recorder', 'memlyze')
        self.directory = directory
        self.env = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON') and k != 'LD_PRELOAD'}
        self.env.update(PYTHONHASHSEED='0', PYTHONDONTWRITEBYTECODE='1')

    def run(self, setting, command):
        prefix = [] if SETTINGS[setting] is None else [self.memlyze, 'record'] + SETTINGS[setting] + ['-f', '-o', os.path.join(self.directory, 't.mlyze'), '--']
        ran = subprocess.run(prefix + command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=self.env)
        if ran.returncode:
            raise SystemExit('hot_path.py: %s: exit status %d\n%s' % (' '.join(prefix + command), ran.returncode, ran.stderr[-1500:]))
        lost = re.search(r'events_dropped +(\d+)', ran.stderr)
        if lost and int(lost.group(1)):
            raise SystemExit('hot_path.py: %s: records were lost: the figures would be too low' % setting)
        return ran

    def time(self, setting):
        return json.loads(self.run(setting, [self.python, os.path.abspath(__file__), '--child', self.library, ','.join(NEEDED[setting])]).stdout)

    def instructions(self, setting, workload, size):
        out = os.path.join(self.directory, 'callgrind.out')
        command = ['valgrind', '--tool=callgrind', '--callgrind-out-file=' + out, self.python, os.path.abspath(__file__), '--child', self.library, workload, str(size)]
        collected = re.search(r'Collected : (\d+)', self.run(setting, command).stderr)
        if not collected:
            raise SystemExit('hot_path.py: valgrind said nothing that is understood')
        return int(collected.group(1))

    def count(self, setting):
        """Instructions: {workload: ...} as child_time gives ns."""
        size = 20
        nothing = self.instructions(setting, 'nothing', 0)

        def each(workload):
            return (self.instructions(setting, workload, size) - nothing) / (size * COUNT)
        result = {}
        for name in NEEDED[setting]:
            pair = each(name)
            if name + ' allocations' in COUNTED:
                alone = each(name + ' allocations')
                result[name] = [alone, pair - alone]
            else:
                result[name] = [pair]
        return result


def steps(r):
    """One round's figures: [(step, value)] out of {setting: {workload: [values]}}."""
    def burst(setting, phase, workload='burst'):
        return r[setting][workload][phase]

    def loop(setting, workload):
        return r[setting][workload][0] - r['untraced'][workload][0]
    found = [('untraced: an allocation', burst('untraced', 0)), ('untraced: a free', burst('untraced', 1)),
             ('hook and sampling decision, passed over', burst('passed over', 0) - burst('untraced', 0)),
             ('free of a block that was not recorded', burst('passed over', 1) - burst('untraced', 1)),
             ('choosing the place in the next window (rate 0.5)', 2 * (burst('half', 0) - (burst('depth 10', 0) + burst('passed over', 0)) / 2)),
             ('record, stack of 1 frame unchanged: compare, mark, message', burst('depth 1', 0) - burst('passed over', 0)),
             ('9 more frames, unchanged', burst('depth 10', 0) - burst('depth 1', 0)), ('15 more, unchanged', burst('depth 25', 0) - burst('depth 10', 0)),
             ('record without a stack (depth 0)', burst('depth 0', 0) - burst('passed over', 0)),
             ('free of a recorded block, beyond one that was not', burst('depth 10', 1) - burst('passed over', 1)),
             ('in all: an allocation, 10 frames, stack unchanged', burst('depth 10', 0) - burst('untraced', 0)),
             ('in all: a free', burst('depth 10', 1) - burst('untraced', 1)),
             ('C library: hook, passed over', burst('passed over', 0, 'c library') - burst('untraced', 0, 'c library')),
             ('C library: a free, not recorded', burst('passed over', 1, 'c library') - burst('untraced', 1, 'c library')),
             ('C library: in all, 10 frames, stack unchanged', burst('depth 10', 0, 'c library') - burst('untraced', 0, 'c library')),
             ('C library: in all, a free', burst('depth 10', 1, 'c library') - burst('untraced', 1, 'c library')),
             ('in a Python loop: allocation and free, stack unchanged', loop('depth 10', 'unchanged'))]
    for workload in LOOPS[1:]:
        label = 'the innermost frame has moved on' if workload == 'top changed' else '%s frames replaced, 10 kept' % workload.split()[1]
        found.append(('%s: beyond unchanged' % label, loop('depth 10', workload) - loop('depth 10', 'unchanged')))
    found.append(('10 frames replaced, 25 kept: beyond unchanged', loop('depth 25', 'deep 10') - loop('depth 25', 'unchanged')))
    return found


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0]
    q = statistics.quantiles(values, n=4, method='inclusive')
    return q[0], q[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('build', help='the build directory')
    parser.add_argument('--python', help='the interpreter (default $PYTHON, or python3 on PATH)')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--instructions', action='store_true', help='instructions instead of nanoseconds (needs valgrind; takes minutes)')
    parser.add_argument('--json', metavar='FILE', help='write the figures to FILE')
    args = parser.parse_args()
    sys.path.insert(0, os.path.dirname(HERE))
    from harness import machine
    args.python = machine.real_python(args.python)
    args.build = os.path.abspath(args.build)
    unit = 'instructions' if args.instructions else 'ns'
    if args.instructions:
        args.rounds = 1  # they are the same each time
    with tempfile.TemporaryDirectory() as directory:
        driver = Driver(args, directory)
        rounds = []
        for i in range(args.rounds):
            order = list(SETTINGS)[i % len(SETTINGS):] + list(SETTINGS)[:i % len(SETTINGS)]
            rounds.append(steps({setting: driver.count(setting) if args.instructions else driver.time(setting) for setting in order}))
    rows = []
    print('%-60s %8s   quartiles of %d' % (unit + ' for each step', 'median', args.rounds))
    for i, (step, _) in enumerate(rounds[0]):
        values = [r[i][1] for r in rounds]
        low, high = quartiles(values)
        rows.append({'step': step, 'median': statistics.median(values), 'low': low, 'high': high})
        print('%-60s %8.2f   %.2f-%.2f' % (step, statistics.median(values), low, high))
    if args.json:
        with open(args.json, 'w') as file:
            json.dump({'unit': unit, 'rounds': args.rounds, 'steps': rows}, file, indent=1)


if __name__ == '__main__':
    sys.dont_write_bytecode = True
    if len(sys.argv) > 2 and sys.argv[1] == '--child':
        sys.setrecursionlimit(10000)
        if len(sys.argv) == 4:
            child_time(sys.argv[2], sys.argv[3].split(','))
        else:
            child_count(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
