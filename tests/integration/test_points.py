"""Points beside the events: what a tool answers from the nearest of them is what it answers when it reads every event. The other answer is had from a copy of
the trace whose TOTALS chunks are damaged, which the tools must say, too."""
import json
import os
import struct
import sys

from harness import MEMLYZE, PYTHON, TESTS, case, clean_env, execute, record, run, same, tool

sys.path.insert(0, TESTS)
from mlyze_decode import FREE_OLD_TEMP, FREE_TEMP, Trace, decode_events, decode_totals  # noqa: E402

END = 2  # the kind of point

PROGRAM = '''
import gc, json, mmap, os, sys, threading, time
kept, old = [], []
def point(): pass
def grow(n): kept.append(bytes(100 + n % 900))
def churn(n): return json.loads(json.dumps({'a': [n] * 20, 'b': str(n) * 9}))
def turn(n):
    old.append(bytearray(2000 + n % 5000))
    old[-1] += b'x' * (n % 3000)
    if len(old) > 200: del old[:150]
def areas(n): mmap.mmap(-1, 8192 * (1 + n % 7)).close()
def work(turns, pause):
    for n in range(turns):
        grow(n); churn(n); turn(n)
        if n % 50 == 0: areas(n)
        if n % 100 == 0: time.sleep(pause); point()
def wave(n):
    big = [bytearray(1 << 16) for _ in range(n)]
    work(300, 0.01)
work(1200, 0.02)
wave(60)
threads = [threading.Thread(target=work, args=(500, 0.02)) for _ in range(2)]
for t in threads: t.start()
for t in threads: t.join()
pid = os.fork()
work(600, 0.02)
wave(20 if pid else 90)
del kept[::2]
if not pid: sys.exit(0)
os.waitpid(pid, 0)
'''


def chunks_of(trace):
    at = struct.unpack_from('<I', trace, 12)[0]
    while at < len(trace):
        kind, _, stored = struct.unpack_from('<HHI', trace, at + 4)
        yield at, kind, stored
        at += 32 + stored


def damage(trace, to, kind=12):
    data = bytearray(open(trace, 'rb').read())
    n = 0
    for at, k, stored in list(chunks_of(data)):
        if k == kind:
            data[at + 32 + stored // 2] ^= 0x55
            n += 1
    open(to, 'wb').write(data)
    return n


def trace_of(python, every, *options):
    """`every`: events from one frame to the next; there is one at the end of a group at most."""
    with open('program.py', 'w') as file:
        file.write(PROGRAM)
    record([python, '-I', '-B', 'program.py'], *options, env=clean_env(MEMLYZE_FRAME_EVENTS=every))
    n = damage('trace.mlyze', 'damaged.mlyze')
    assert n >= 6, 'only %d points' % n


def ask(trace, name, *arguments):
    result = execute([MEMLYZE, name, trace] + list(arguments))
    assert result.returncode == 0, '%s %s: %s' % (name, arguments, result.stderr)
    return result


def settle(answer):
    """Sums of fractions come out as they are summed up; sites that are as large as each other may change places by it."""
    answer['sites'].sort(key=lambda site: (json.dumps({k: v for k, v in site.items() if not isinstance(v, int)}), site.get('line', 0), site['alloc_count']))
    return [{k: v for k, v in site.items() if isinstance(v, int)} for site in answer['sites']]


def near(a, b):
    return len(a) == len(b) and all(x.keys() == y.keys() and all(abs(x[k] - y[k]) <= 1 for k in x) for x, y in zip(a, b))


def compare(exact, name, *arguments):
    got, wanted = ask('trace.mlyze', name, *arguments), ask('damaged.mlyze', name, *arguments)
    a, b = got.stdout, wanted.stdout
    if '--json' in arguments or 'json' in arguments:
        a, b = json.loads(a), json.loads(b)
        b.pop('damage', None)
        a.pop('complete', None)
        b.pop('complete', None)
        if not exact and name == 'top':
            assert near(settle(a), settle(b)), 'memlyze top %s' % ' '.join(arguments)
            return wanted.stderr
        a, b = json.dumps(a, indent=1), json.dumps(b, indent=1)
    else:
        b = b.replace('damaged.mlyze', 'trace.mlyze')
    if a != b:
        pairs = [x for x in zip(b.splitlines(), a.splitlines()) if x[0] != x[1]]
        raise AssertionError('memlyze %s %s: (by the events, with points): %r' % (name, ' '.join(arguments), pairs[:5]))
    assert 'damaged' not in got.stderr, got.stderr
    return wanted.stderr


def questions():
    # The recorder leaves out those that it is too late for.
    names = [mark['name'] for mark in tool('stats')['marks']]
    times = ['1%', '73.5%', '99.9%', '0.3s', names[len(names) // 3], 'peak']
    for at in times:
        yield ('top', '--json', '--at', at, '--by', 'live-bytes', '--group', 'stack')
    for by in ('alloc-bytes', 'peak-bytes', 'temporary'):
        yield ('top', '--json', '--by', by)
    for group in ('domain', 'process', 'thread'):
        yield ('top', '--json', '--group', group, '--at', '60%', '--include-mmap')
    yield ('top', '--json', '--from', '30%', '--to', '70%')
    yield ('top', '--json', '--from', '98%')
    yield ('flame', '--by', 'live-bytes', '--at', '40%')
    yield ('flame', '--by', 'peak-bytes')
    yield ('export', '--to', 'collapsed', '--at', '80%')
    yield ('export', '--to', 'json')
    yield ('leaks', '--json', '--since', '50%')
    yield ('stats', '--json')


@case(each=[('every allocation', 20000, ()), ('sampled', 2000, ('--sample-rate', '0.1')), ('at an odd rate', 2000, ('--sample-rate', '0.3'))])
def points_answer_as_the_events_do(every, options):
    trace_of(PYTHON, every, '--snapshot-every', '20ms', *options)
    said = ''
    exact = '0.3' not in options
    for process in ('all', str(tool('stats')['pid'])):
        for question in questions() if exact and process != 'all' else [q for q in questions() if q[0] == 'top' and 'domain' not in q][::2]:
            said += compare(exact, question[0], *question[1:], '--process', process)
    assert 'damaged' in said, 'nothing was said of the damaged points'


def sums(events):
    """{(stack, domain, weight): [nine integers]} of (process's) events, and the most that was live."""
    rows, live, peak = {}, 0, 0
    for op, (stack, size, domain, weight) in events:
        row = rows.setdefault((stack, domain, weight), [0] * 9)
        square = size * size if weight != struct.unpack('<Q', struct.pack('<d', 1))[0] else 0
        if op == 0:
            row[0] += 1
            row[1] += size
            row[6] = max(row[6], size)
            row[7] += square
        else:
            temporary = op in (FREE_TEMP, FREE_OLD_TEMP)
            row[2] += 1
            row[3] += size
            row[4] += temporary
            row[5] += size * temporary
            row[8] += square
        if domain != 4:
            live += (size if op == 0 else -size) * struct.unpack('<d', struct.pack('<Q', weight))[0]
            peak = max(peak, live)
    return rows, peak


@case(each=[('every allocation', ()), ('sampled', ('--sample-rate', '0.25'))])
def points_are_the_sums_of_the_events(options):
    with open('program.py', 'w') as file:
        file.write("""
import os, time
kept = []
def work():
    for n in range(700):
        kept.append(bytes(100 + n % 900))
        [str(n + i) for i in range(5)]
        if n % 100 == 0: time.sleep(0.02)
    del kept[::3]
work()
if os.fork() == 0: work()
else: os.wait()
""")
    record([PYTHON, '-I', '-S', '-B', 'program.py'], '--snapshot-every', '20ms', *options, env=clean_env(MEMLYZE_FRAME_EVENTS='1'))
    with open('trace.mlyze', 'rb') as file:
        trace = Trace(file.read())
    events = {}
    for at, size, _ in trace.events:
        head, classes, block = decode_events(trace.payload(trace.chunk(at)))
        events.setdefault(head[0], []).extend((op, classes[what[0]]) if op < 5 else None for op, _, _, what in block)
    seen, most = set(), {}
    for head, rows in decode_totals(trace):
        process, point, count = head[0], head[3], head[6]
        wanted, peak = sums(e for e in events[process][:count] if e)
        got = {(stack, domain, weight): values for stack, domain, weight, values in rows.values() if any(values)}
        same('rows of process %d after %d events' % (process, count), got, wanted)
        most[process] = max(most.get(process, 0), head[8])
        same('peak until then', most[process], int(peak + 0.999))
        same('allocations', head[7], sum(row[0] for row in wanted.values()))
        seen.add((process, point))
    assert len(trace.totals) >= 10 and {process for process, point in seen if point == END} == set(events), (len(trace.totals), seen)


run(__name__)
