"""Random programs (tests/programs/stackfuzz.py): every frame of every block, and what became of the block, against what the program knows.

Each program is run untraced, where it writes what it does, and once more traced, where it does the same in silence. The trace is read by the
second reader (mlyze_decode.py). For more than the everyday run: MEMLYZE_FUZZ_SEEDS=100-200 (each interpreter, depth and choice of parts for
each seed), MEMLYZE_FUZZ_FUEL=20000 for longer programs."""
import collections
import itertools
import json
import os
import sys

from harness import PROGRAMS, PYTHON, PYTHONS, TESTS, case, clean_env, execute, record, run, same, tool

sys.path.insert(0, TESTS)
from mlyze_decode import ALLOC, EVENTS, FREE, FREE_OLD, FREE_OLD_TEMP, FREE_TEMP, Trace, decode_events  # noqa: E402

PROGRAM = os.path.join(PROGRAMS, 'stackfuzz.py')
MEM, OBJ = 1, 2
FINALIZE = 19
BASE = 200000
DOMAIN = {'bytes': OBJ, 'str': OBJ, 'list': MEM, 'grown': MEM}


class Blocks:
    """What a trace says of each (process, domain, size): {stack: [made, freed at once, freed, ...]}."""

    def __init__(self):
        with open('trace.mlyze', 'rb') as file:
            self.trace = t = Trace(file.read())
        same('damage', [t.bad, t.cut], [0, False])
        self.made = {}  # process -> (domain, size) -> stack id -> [made, temporary, freed later]
        self.order, of_allocation, finalized = [], {}, set()
        for at, _, _ in t.events:
            chunk = t.chunk(at)
            assert chunk is not None and chunk[0] == EVENTS, 'a damaged chunk'
            (process, *_), classes, events = decode_events(chunk[5])
            if process not in self.made:
                self.made[process] = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, 0, 0]))
                self.order.append(process)
            rows = [self.made[process][domain, size][stack] for stack, size, domain, _ in classes]
            known = of_allocation.setdefault(process, {})
            for op, _, _, what in events:
                if op == FINALIZE:
                    finalized.add(process)
                if what is None or op > FREE_OLD_TEMP or process in finalized:
                    continue
                row = rows[what[0]]
                if op == ALLOC:
                    row[0] += 1
                    assert what[1] not in known, 'an allocation twice'
                    known[what[1]] = row
                else:
                    assert known.pop(what[1], None) is not None, 'a block freed twice'
                    row[1 if op in (FREE_TEMP, FREE_OLD_TEMP) else 2] += 1
        same('processes that ended in order', sorted(finalized), sorted(self.made))

    def stack(self, number):
        truncated, frames = self.trace.stacks[number]
        rows = [self.trace.frames[f] for f in frames]
        return (bool(truncated),) + tuple((self.trace.strings[r[0]], self.trace.strings[r[1]], r[3]) for r in rows)

    def of(self, process, key):
        """{stack in words: [made, temporary, freed later]}"""
        out = {}
        for number, row in self.made[process].get(key, {}).items():
            words = self.stack(number)
            out[words] = [a + b for a, b in zip(out.get(words, (0, 0, 0)), row)]
        return out


def wanted(path, depth, child, at_once=True):
    """{(domain, size): {stack: [made, temporary, freed later, one of the two]}}; not `at_once`: temporary is one of the two."""
    with open(path, encoding='utf-8') as file:
        said = json.load(file)
    out = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, 0, 0, 0]))
    frames = [tuple(f) for f in said['frames']]
    for kind, n, stack, whole, fate in said['stops'][said['forked_at'] if child else 0:]:
        fate = fate if at_once or fate != 'temporary' else 'gone'
        size = n // 8 * 8 if kind == 'list' else n + said['heads'].get(kind, 0)
        truncated = len(stack) > depth or not whole
        row = out[DOMAIN[kind], size][(truncated,) + tuple(frames[i] for i in stack[:depth])]
        row[0] += 1
        for i, name in ((1, 'temporary'), (2, 'freed'), (3, 'gone')):
            row[i] += fate == name
    return out, len(said['stops'])


def differences(blocks, process, expected, traced):
    """`traced`: what the interpreter makes for a tracer is made on the lines of the program, and may have a small block's size."""
    for key, stacks in expected.items():
        found = blocks.of(process, key)
        for stack, (made, temporary, freed, gone) in stacks.items():
            got = found.pop(stack, (0, 0, 0))
            if traced and key[1] < BASE and got[0] > made:
                continue
            if got[0] != made or not temporary <= got[1] <= temporary + gone or got[1] + got[2] != temporary + freed + gone:
                yield '%s of %d bytes: made, temporary, freed later: got %r, wanted %r (%d of either kind): %r' % (
                    'obj' if key[0] == OBJ else 'mem', key[1], tuple(got), (made, temporary, freed), gone, stack)
        if key[1] >= BASE:  # a size that nobody else has, but for what an import reads
            for stack, got in found.items():
                if len(stack) > 1 and stack[1][1].startswith('<frozen importlib'):
                    continue
                yield '%s of %d bytes: %d too many: %r' % ('obj' if key[0] == OBJ else 'mem', key[1], got[0], stack)


def recorded(*command, **more):
    """As harness.record; again where the machine was so busy that a thread waited a whole second for room in its ring, and records were lost."""
    for _ in range(3):
        result = record(*command, **more)
        stats = tool('stats', '--process', 'all')
        if not stats['events']['dropped']:
            break
    same('records lost', stats['events']['dropped'], 0)
    assert 'were not seen' not in stats['_stderr'], stats['_stderr']
    return result


def compare(python, seed, depth, parts, fuel, options=(), arguments=(), **variables):
    command = [python, '-s', '-S', '-W', 'ignore', *arguments, PROGRAM]
    truth = execute(command + ['truth', 'truth.json', seed, fuel, parts])
    same('status of the program, untraced: ' + truth.stderr, truth.returncode, 0)
    silent = recorded(command + ['silent', '-', seed, fuel, parts], '--max-stack-depth', depth, *options,
                      env=clean_env(**variables))
    same('what both say', [truth.stderr, silent.stderr], ['', ''])
    blocks = Blocks()
    same('processes', len(blocks.order), 2 if 'fork' in parts else 1)
    count = 0
    for process, child in zip(sorted(blocks.order), (False, True)):
        expected, stops = wanted('truth.json' + ('.child' if child else ''), depth, child, '-X' not in arguments)  # tracemalloc allocates after each block
        count += stops
        wrong = list(differences(blocks, process, expected, 'trace' in parts))
        assert not wrong, '%d of %d wrong in process %d (seed %d, depth %d, %s), such as\n%s' % (
            len(wrong), stops, process, seed, depth, parts, '\n'.join(wrong[:5]))
    assert count > 300, 'only %d blocks' % count


PARTS = ['plain', 'threads', 'trace', 'fork', 'trace,fork', 'subinterpreter', 'threads,fork', 'trace,threads,subinterpreter']
DEPTHS = [1, 3, 10, 40]


def everyday():
    """Each interpreter with each depth; the parts go round."""
    parts = itertools.cycle(PARTS)
    for i, (label, python) in enumerate(PYTHONS):
        for depth in DEPTHS:
            which = next(parts)
            yield '%s, %d frames, %s' % (label, depth, which), python, i + 1, depth, which
        next(parts)


def at_length(text):
    first, _, last = text.partition('-')
    for seed, (label, python), depth in itertools.product(range(int(first), int(last or first) + 1), PYTHONS, DEPTHS):
        which = PARTS[(seed + depth) % len(PARTS)]
        yield 'seed %d, %s, %d frames, %s' % (seed, label, depth, which), python, seed, depth, which


SEEDS = os.environ.get('MEMLYZE_FUZZ_SEEDS')
FUEL = int(os.environ.get('MEMLYZE_FUZZ_FUEL', '800'))


@case(each=at_length(SEEDS) if SEEDS else everyday())
def random_programs(python, seed, depth, parts):
    compare(python, seed, depth, parts, FUEL)


@case(each=[('PYTHONMALLOC=malloc', {'PYTHONMALLOC': 'malloc'}, ()), ('PYTHONMALLOC=debug', {'PYTHONMALLOC': 'debug'}, ()),
            ('-X tracemalloc', {}, ('-X', 'tracemalloc=2'))])
def with_other_allocators(variables, arguments):
    # Not fork with tracemalloc: a thread that is being taken apart may hold its lock, and the child waits for ever.
    compare(PYTHON, 50, 10, 'threads' if arguments else 'threads,fork', FUEL, arguments=arguments, **variables)


run(__name__)
