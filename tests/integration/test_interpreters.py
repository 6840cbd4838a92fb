"""Several interpreters in a process, an interpreter that is traced by tracemalloc as well, a free-threaded one: the known blocks are exact.

Free-threaded interpreters are named by MEMLYZE_TEST_PYTHONS. What needs packages is in tests/field/extensions.py."""
import collections
import json
import os
import sys

from harness import FREE_THREADED, PROGRAMS, PYTHONS, TESTS, case, lines_of, record, run, same, sites_of, tool

sys.path.insert(0, TESTS)
from mlyze_decode import ALLOC, EVENTS, FREE_OLD_TEMP, Trace, decode_events  # noqa: E402

ENDS = PYTHONS[:1] + PYTHONS[1:][-1:]  # the oldest and the newest
FINALIZE = 19
MEM, OBJ = 1, 2


def events():
    """(class (stack, size, domain), is it an allocation) of each event with a block before the end of its process."""
    with open('trace.mlyze', 'rb') as file:
        t = Trace(file.read())
    same('damage', [t.bad, t.cut], [0, False])
    ended = set()
    for at, _, _ in t.events:
        (process, *_), classes, rows = decode_events(t.chunk(at)[5])
        for op, _, _, what in rows:
            if op == FINALIZE:
                ended.add(process)
            if process not in ended and op <= FREE_OLD_TEMP and what is not None:
                yield t, classes[what[0]], op == ALLOC


def losses():
    counters = tool('stats')['counters']
    return {k: counters[k] for k in ('free_foreign', 'free_inferred', 'events_dropped', 'nested', 'rings_broken')}


NONE_LOST = {'free_foreign': 0, 'free_inferred': 0, 'events_dropped': 0, 'nested': 0, 'rings_broken': 0}


@case(each=[(label + how, python, rate) for label, python in PYTHONS for how, rate in (('', '1'), (', rate 0.2', '0.2'))
            if rate == '1' or (label, python) in ENDS])
def sub_interpreters(python, rate):
    program = os.path.join(PROGRAMS, 'interpreters.py')
    said = json.loads(record([python, program], '--sample-rate', rate).stdout)
    lines = lines_of(program)
    sites = sites_of(tool('top', '-n', '0'), program)
    inner, outer = sites[lines['inner']], sites[lines['outer']]
    n = said['interpreters']
    same('functions', [inner['function'], outer['function']], ['keep', 'run'])
    if rate != '1':
        assert 0.4 < inner['alloc_count'] / (100 * n) < 2.5, inner
        return
    same('blocks of the others', [inner['alloc_count'], inner['alloc_bytes'], inner['live_count']], [100 * n, 100 * n * 7033, 50 * said['alive']])
    same('blocks of the main one', [outer['alloc_count'], outer['alloc_bytes'], outer['live_count']], [50 * n, 50 * n * 9033, 0])
    same('losses', losses(), NONE_LOST)


@case(each=ENDS)
def exact_beside_tracemalloc(python):
    """What tracemalloc keeps for itself is allocated on the same lines, in other domains."""
    program = os.path.join(PROGRAMS, 'exact.py')
    said = json.loads(record([python, '-X', 'tracemalloc=3', program], '--max-stack-depth', '1').stdout)['known']
    found = collections.defaultdict(lambda: [0, 0, 0, 0])
    for t, (stack, size, domain, *_), allocation in events():
        frames = t.stacks[stack][1]
        if domain in (MEM, OBJ) and frames:
            frame = t.frames[frames[0]]
            row, sign = found[os.path.basename(t.strings[frame[1]]), frame[3]], 1 if allocation else -1
            row[2] += sign
            row[3] += sign * size
            if allocation:
                row[0] += 1
                row[1] += size
    lines = lines_of(program)
    wrong = ['%s: got %r, wanted %r' % (name, found['exact.py', lines[name]], wanted[:4]) for name, wanted in sorted(said.items())
             if name != 'executed' and found['exact.py', lines[name]] != wanted[:4]]
    assert not wrong, '\n'.join(wrong)


@case(each=ENDS)
def blocks_allocated_with_the_gil_released(python):
    program = os.path.join(PROGRAMS, 'released.py')
    said, lines = json.loads(record([python, program]).stdout), lines_of(program)
    chains = {'released': [('one', lines['released']), ('work', lines['called'])], 'first': [('<module>', lines['first'])]}
    found = {name: [0, 0, 0, 0] for name in said}
    for t, (stack, size, *_), allocation in events():
        frames = [(t.strings[t.frames[f][0]], t.frames[f][3]) for f in t.stacks[stack][1]]
        for name, chain in chains.items():
            if size >= 70000 and frames[:len(chain)] == chain:
                sign = 1 if allocation else -1
                found[name] = [a + b for a, b in zip(found[name], (allocation, allocation * size, sign, sign * size))]
    same('blocks', found, said)


@case(each=FREE_THREADED)
def free_threaded(python):
    """No stacks, and that is said; but every block and every free."""
    program = os.path.join(PROGRAMS, 'free_threads.py')
    result = record([python, program], quiet=False)
    said = {int(size): row for size, row in json.loads(result.stdout).items()}
    assert 'traced without Python stacks' in result.stderr, result.stderr
    found = {size: [0, 0] for size in said}
    for _, (_, size, domain, *_), allocation in events():
        if domain == OBJ and size in found:
            found[size][0] += allocation
            found[size][1] += 1 if allocation else -1
    same('blocks', found, said)
    same('losses', losses(), NONE_LOST)
    answer = tool('top', '-n', '0')
    same('sites', {s['function'] for s in answer['sites']}, {'(no stack)'})


run(__name__)
