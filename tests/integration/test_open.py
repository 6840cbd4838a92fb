"""memlyze.open: traces as tables. Every interpreter reads them without a package, row by row, and gets what the programs say; pyarrow, polars, pandas and DuckDB
take them as they are, where they are installed (MEMLYZE_DATA_PYTHON, or what .ci/setup ci makes)."""
import collections
import csv
import json
import os
import shutil

from harness import BUILD, PYTHON, PYTHONS, SLOW, TESTS, Skip, case, clean_env, data_python, execute, record, run, same, tool

ROOT = os.path.dirname(TESTS)
PACKAGE = os.path.join(ROOT, 'tracer', 'python')
MAKE_TRACE = os.path.join(BUILD, 'tests', 'unit', 'analyzer', 'make_trace')
TABLES = ('allocations', 'totals', 'stacks', 'frames', 'threads', 'processes', 'marks', 'collections')


def make(scenario, *events, path='trace.mlyze'):
    execute([MAKE_TRACE, scenario, path] + list(events), check=True)


def python(text, *arguments, interpreter=PYTHON, status=0):
    """What a program that reads traces printed; stderr beside it."""
    if SLOW > 1:
        raise Skip('the library is instrumented, the interpreter is not; the unit tests read the same streams')
    with open('program.py', 'w', encoding='utf-8') as file:
        file.write('import json, sys, warnings\nimport memlyze\n' + text)
    result = execute([interpreter, 'program.py', *arguments], env=clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE='1'))
    same('exit status; %s%s' % (result.stdout[-3000:], result.stderr[-3000:]), result.returncode, status)
    return result


def rows_of(*tables, trace='trace.mlyze', interpreter=PYTHON):
    out = python('with memlyze.open(sys.argv[1]) as t:\n    print(json.dumps([list(getattr(t, name)) for name in sys.argv[2:]]))\n', trace, *tables,
                 interpreter=interpreter)
    return json.loads(out.stdout)


# ---- what the rows say ----

@case(each=PYTHONS)
def a_recording_read_back(interpreter):
    with open('app.py', 'w') as file:
        file.write('import gc\nkept = []\ndef work():\n    for n in range(1000):\n        kept.append(bytearray(5000))\nwork()\n'
                   'for n in range(1000):\n    bytearray(7000)\ngc.collect()\n')
    record([interpreter, 'app.py'])
    allocations, totals, stacks, frames, processes, collections_ = rows_of('allocations', 'totals', 'stacks', 'frames', 'processes', 'collections',
                                                                          interpreter=interpreter)
    python_ran = {p['process'] for p in processes if p['python_version']}
    mine = [a for a in allocations if a['process'] in python_ran]
    heap = [a for a in mine if a['domain'] != 'mmap' and not a['after_end']]
    stats = tool('stats')['bytes']
    same('allocated', sum(a['size'] for a in heap), stats['allocated'])
    same('live at the end', sum(a['size'] for a in heap if a['live_at_end']), stats['live_at_end'])
    rows = [t for t in totals if t['process'] in python_ran and t['domain'] != 'mmap']
    for column, wanted in (('alloc_bytes', 'allocated'), ('live_bytes', 'live_at_end'), ('peak_bytes', 'peak')):
        same(column, sum(t[column] for t in rows), stats[wanted])
    at = {s['stack']: s for s in stacks}
    kept = [a for a in mine if at[a['stack']]['function'] == 'work' and 5000 < a['size'] < 5100]  # not the list's own growth
    same('kept', (len(kept), {a['live_at_end'] for a in kept}, {at[a['stack']]['line'] for a in kept}), (1000, {True}, {5}))
    gone = [a for a in mine if at[a['stack']]['line'] == 8 and 7000 < a['size'] < 7100]
    same('gone', (len(gone), {a['live_at_end'] for a in gone}), (1000, {False}))
    assert all(a['lifetime'] is not None and 0 <= a['lifetime'] < 60e9 for a in gone)
    place = {f['frame']: f for f in frames}
    inner = at[kept[0]['stack']]
    same('its frames', [(place[f]['function'], place[f]['line']) for f in inner['frames']], [('work', 5), ('<module>', 6)])
    same('a hash for each content', len({f['frame_id'] for f in frames}), len({(f['function'], f['module'], f['file'], f['line'], f['language']) for f in frames}))
    assert any(c['generation'] == 2 and c['duration'] > 0 for c in collections_), collections_


@case(each=[(name, name) for name in ('service', 'processes', 'sampled', 'lost', 'marks', 'children', 'histories')])
def every_column_of_every_allocation(scenario):
    """Against `export --to csv --rows event`, which pairs a block's two lines by its number."""
    make(scenario, '20000')
    execute([os.path.join(BUILD, 'analyzer', 'memlyze-export'), '--to', 'csv', '--rows', 'event', '--process', 'all', '--include-mmap', '-o', 'events.csv', 'trace.mlyze'],
            check=True)
    wanted, freed, temporary = {}, {}, collections.Counter()
    with open('events.csv', encoding='utf-8', newline='') as file:
        for row in csv.DictReader(file):
            key = int(row['process']), int(row['allocation'])
            if row['event'] == 'alloc':
                wanted[key] = (int(row['time_ns']), int(row['size']), float(row['weight']), row['domain'], int(row['thread']), row['function'], int(row['line'] or 0))
            else:
                freed[key] = int(row['time_ns'])
                temporary[key] = int(row['temporary'])
    allocations, stacks, threads = rows_of('allocations', 'stacks', 'threads')
    tids, at = {t['thread']: t['tid'] for t in threads}, {s['stack']: s for s in stacks}
    same('each once', len(allocations), len({(a['process'], a['address_order']) for a in allocations}))
    seen = 0
    for a in allocations:
        key = a['process'], a['address_order']
        if a['after_end']:
            assert key not in wanted
            continue
        seen += 1
        s = at[a['stack']]
        got = (a['time'], a['size'], a['weight'], a['domain'], tids.get(a['thread'], 0), s['function'] if s['depth'] else wanted[key][5], s['line'])
        same(key, got, wanted[key])
        same(key, s['stack_id'], a['stack_id'])
        same(key, a['live_at_end'], key not in freed)
        if key in freed:
            same(key, (a['lifetime'], a['temporary']), (freed[key] - a['time'], bool(temporary[key])))
    same('none is missing', seen, len(wanted))
    tids_only = {t['stack_id'] for t in rows_of('totals')[0]}
    assert tids_only <= {s['stack_id'] for s in stacks}


@case
def ids_are_the_same_in_every_run():
    make('service')
    first = rows_of('stacks', 'frames')
    os.rename('trace.mlyze', 'first.mlyze')
    make('service')
    same('ids', rows_of('stacks', 'frames'), first)
    make('version1')
    old = {s['function']: s for s in rows_of('stacks')[0] if s['depth'] == 2}
    make('version2')
    new = {s['function']: s for s in rows_of('stacks')[0] if s['depth'] == 2}
    assert old['serve']['stack_id'] != new['serve']['stack_id'] and old['serve']['calls_id'] == new['serve']['calls_id'], (old, new)
    # docs/fleet.md says what goes in: the empty stack is a byte 0.
    same('the empty stack', [s['stack_id'] for s in first[0] if s['stack'] == 0], [-1642502924627794072])


@case
def marks_and_names():
    make('marks')
    marks, = rows_of('marks')
    same('marks', sorted((m['time'], m['name'], m['kind'], m['process']) for m in marks),
         [(1000000, 'warm', 'mark', 1), (2000000, 'warm', 'mark', 2), (3000000, 'warm', 'mark', 1), (4000000, 'warm', 'mark', 2), (5000000, 'last', 'snapshot', 1)])
    out = json.loads(python('''
with memlyze.open("trace.mlyze") as t:
    print(json.dumps([[getattr(t, n).columns for n in %r], len(t.allocations), len(t.marks), len(t.stacks), bool(t.collections), len(t.collections), t.command, t.host,
                      t.complete, t.settings.sample_rate, t.summary["complete"], t.damage.chunks, repr(t.marks)]))
''' % (TABLES,)).stdout)
    assert all(out[0]) and out[0][0][:7] == ['time', 'address_order', 'size', 'stack', 'thread', 'process', 'lifetime'], out
    same('sizes', out[1:6], [12, 5, 4, True, 0])
    same('what else', out[8:12], [True, 1.0, True, 0])


# ---- what is not there, what is not whole ----

@case
def totals_only():
    with open('app.py', 'w') as file:
        file.write('kept = [bytearray(9000) for n in range(500)]\n')
    record([PYTHON, 'app.py'], '--snapshots-only')
    out = python('''
t = memlyze.open("trace.mlyze")
try:
    t.allocations
except ValueError as error:
    print(error)
print(json.dumps([list(t.totals), list(t.stacks)]))
''').stdout.splitlines()
    assert 'has totals only' in out[0] and '.totals' in out[0], out[0]
    totals, stacks = json.loads(out[1])
    line = {s['stack']: s['line'] for s in stacks if s['file'].endswith('app.py')}
    kept = [t for t in totals if line.get(t['stack']) == 1 and t['live_bytes'] > 4500000]
    assert kept and all(t['peak_bytes'] is None for t in totals), totals[:3]
    stats = tool('stats')['bytes']
    processes = {p['process'] for p in rows_of('processes')[0] if p['python_version']}
    same('live', sum(t['live_bytes'] for t in totals if t['domain'] != 'mmap' and t['process'] in processes), stats['live_at_end'])


@case
def the_beginning_left_out():
    with open('app.py', 'w') as file:
        file.write('import random\nearly = [bytearray(9000) for n in range(300)]\nring = [None] * 4096\n'
                   'for n in range(700000):\n    ring[random.randrange(4096)] = bytearray(random.randrange(2000))\nlast = [bytearray(7000) for n in range(200)]\n')
    record([PYTHON, 'app.py'], '--max-size', '1 MiB')
    out = python('''
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    t = memlyze.open("trace.mlyze")
print(json.dumps([t.left_out, [str(w.message) for w in said], list(t.totals), list(t.stacks), [p["process"] for p in t.processes if p["python_version"]], len(t.allocations)]))
''').stdout
    left_out, said, totals, stacks, processes, n = json.loads(out)
    assert left_out and len(said) == 1 and 'beginning was left out' in said[0] and 0 < n < 1400000, (said, n)
    line = {s['stack']: (s['line'] if s['file'].endswith('app.py') else 0) for s in stacks}
    heap = [t for t in totals if t['domain'] != 'mmap' and t['process'] in processes]
    # Each bytearray is an object and a buffer of its size and one byte: what a whole recording has, too.
    of = collections.Counter()
    for t in heap:
        of[line[t['stack']], 'allocated'] += t['alloc_count']
        of[line[t['stack']], 'live'] += t['live_count']
        of[line[t['stack']], 'bytes'] += t['live_bytes']
    assert of[2, 'live'] >= 600 and of[6, 'live'] >= 400 and 1390000 <= of[5, 'allocated'] < 2200000 and 4096 < of[5, 'live'] < 2 * 4096 + 500, of
    assert 300 * 9000 <= of[2, 'bytes'] < 300 * 9200 and 200 * 7000 <= of[6, 'bytes'] < 200 * 7200, of


READ_ALL = '''
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as said:
    t = memlyze.open(sys.argv[1])
    n = {name: sum(1 for _ in getattr(t, name)) for name in ("allocations", "totals", "stacks", "frames", "threads", "processes", "marks", "collections")}
print(json.dumps([n, t.complete, dict(t.damage), [str(w.message) for w in said], [w.category.__name__ for w in said]]))
'''


@case
def damage_is_said():
    make('service')
    whole = json.loads(python(READ_ALL, 'trace.mlyze').stdout)
    same('a whole one', whole[1:], [True, {'cut': False, 'chunks': 0, 'bytes': 0, 'events': 0, 'lost': 0}, [], []])
    data = open('trace.mlyze', 'rb').read()
    with open('cut.mlyze', 'wb') as file:
        file.write(data[:len(data) * 2 // 3])
    n, complete, damage, said, kinds = json.loads(python(READ_ALL, 'cut.mlyze').stdout)
    assert not complete and damage['cut'] and 0 < n['allocations'] < whole[0]['allocations'], (n, damage)
    assert len(said) == 1 and 'cut' in said[0] and kinds == ['DamageWarning'], said
    # A flipped byte in a chunk of events: nobody knows before it is read.
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0x10
    with open('flipped.mlyze', 'wb') as file:
        file.write(flipped)
    n, complete, damage, said, kinds = json.loads(python(READ_ALL, 'flipped.mlyze').stdout)
    assert n['allocations'] < whole[0]['allocations'] and damage['chunks'] == 1 and damage['events'] > 0, (n, damage)
    assert len(said) == 1 and 'damaged: 1 chunks' in said[0], said
    make('lost')
    said = json.loads(python(READ_ALL, 'trace.mlyze').stdout)[3]
    same('losses', said, ['trace.mlyze: 10 records were lost when it was made'])


@case
def errors():
    make('marks')
    os.mkdir('folder')
    with open('text', 'w') as file:
        file.write('hello, hello, hello')
    with open('closed', 'w'):
        pass
    out = python('''
import os
def said(f):
    try:
        f()
    except Exception as error:
        print(type(error).__name__, "|", error)
said(lambda: memlyze.open("nowhere.mlyze"))
said(lambda: memlyze.open("folder"))
said(lambda: memlyze.open("text"))
said(lambda: memlyze.open("closed"))
said(lambda: memlyze.open(7))
t = memlyze.open("trace.mlyze")
rows = iter(t.allocations)
next(rows)
t.close()
t.close()
said(lambda: t.allocations.__arrow_c_stream__())
print(sum(1 for _ in rows), repr(t))
t = memlyze.open("trace.mlyze")
table = t.allocations
os.truncate("trace.mlyze", 700)
said(lambda: [len(table), list(table)])
''').stdout.splitlines()
    for line, words in zip(out, ('FileNotFoundError | ', 'ValueError | folder: is a directory', 'ValueError | text: not a .mlyze file', 'ValueError | closed: the file is empty',
                                 'TypeError | ', 'ValueError | trace.mlyze: was closed', '11 <memlyze trace trace.mlyze, closed>')):
        assert line.startswith(words), (line, words)
    assert len(out) == 7 or out[7].split()[0] in ('OSError', 'ValueError'), out[7:]


# ---- everybody else ----

CONSUMERS = '''
import gc, threading
import duckdb, pandas, polars, pyarrow
t = memlyze.open(sys.argv[1])
for name in ("allocations", "totals", "stacks", "frames", "threads", "processes", "marks", "collections"):
    rows = table = getattr(t, name)
    plain = list(table)
    arrow = pyarrow.table(table)
    arrow.validate(full=True)
    assert pyarrow.schema(table) == arrow.schema, name
    assert arrow.to_pylist() == plain, name
    frame = polars.DataFrame(table)
    assert frame.to_dicts() == plain, name
    assert len(arrow.to_pandas()) == len(plain) and (not hasattr(pandas.DataFrame, "from_arrow") or len(pandas.DataFrame.from_arrow(table)) == len(plain))
    assert duckdb.sql("SELECT count(*) FROM rows").fetchall()[0][0] == len(plain), name
    if name == "allocations":
        got = duckdb.sql("SELECT domain, count(*), sum(size), sum(lifetime) FROM rows GROUP BY domain ORDER BY domain").fetchall()
        want = {}
        for row in plain:
            n, size, life = want.get(row["domain"], (0, 0, None))
            want[row["domain"]] = (n + 1, size + row["size"], life if row["lifetime"] is None else (life or 0) + row["lifetime"])
        assert got == [(k,) + want[k] for k in sorted(want)], (got, want)
    # A consumer that takes one batch and leaves, and one that takes nothing.
    reader = pyarrow.RecordBatchReader.from_stream(table)
    if plain:
        batch = reader.read_next_batch()
    del reader
    table.__arrow_c_stream__()
    table.__arrow_c_schema__()
# Columns outlive the trace and each other.
column = pyarrow.table(t.stacks)["frames"].chunk(0)
sizes = []
threads = [threading.Thread(target=lambda: sizes.append(pyarrow.table(t.allocations).num_rows)) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert sizes == [len(t.allocations)] * 4, sizes
late = pyarrow.RecordBatchReader.from_stream(t.allocations)
t.close()
del t
gc.collect()
assert sum(b.num_rows for b in late) == sizes[0]
assert column.to_pylist()[1]
print("fine")
'''


@case(each=[(name, name) for name in ('sampled', 'lost', 'children')])
def pyarrow_polars_pandas_duckdb(scenario):
    interpreter = data_python('pyarrow', 'polars', 'pandas', 'duckdb')
    make(scenario)
    same('consumers', python(CONSUMERS, 'trace.mlyze', interpreter=interpreter).stdout, 'fine\n')


@case
def memory_does_not_grow_with_events():
    used = []
    for events in (400000, 4000000):
        make('bulk', str(events))
        out = python('''
t = memlyze.open("trace.mlyze")
capsule = t.allocations  # read batch by batch through the C interface, without making Python objects of the rows
handle = t._ready("allocations")
address = handle.stream(0)
from memlyze import _read
import ctypes
stream, n = _read._Stream.from_address(address), 0
while True:
    batch = _read._Array()
    assert stream.get_next(ctypes.byref(stream), ctypes.byref(batch)) == 0
    if not batch.release:
        break
    n += batch.length
    batch.release(ctypes.byref(batch))
handle.library.c.memlyze_read_drop_stream(address)
print(n, [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
''').stdout.split()
        assert int(out[0]) > events / 3, out
        used.append(int(out[1]))
    assert used[1] - used[0] < 60000, 'KB: %r' % used  # 48 MB at most for frees ahead


@case
def installed():
    """The library is found beside the agent, wherever that was put."""
    if SLOW > 1:
        raise Skip('installs the plain build')
    execute(['meson', 'install', '-C', BUILD, '--no-rebuild', '--quiet', '--destdir', os.path.abspath('root')], check=True)
    package = [os.path.dirname(p) for p, _, files in os.walk('root') if '_read.py' in files and os.path.basename(p) == 'memlyze']
    same('packages', len(package), 1)
    os.rename('root', 'moved')
    make('marks')
    with open('use.py', 'w') as file:
        file.write('import memlyze\nprint(len(memlyze.open("trace.mlyze").allocations))\n')
    result = execute([PYTHON, 'use.py'], env=clean_env(PYTHONPATH=os.path.abspath(package[0].replace('root', 'moved', 1))))
    same(result.stderr, result.stdout, '12\n')
    shutil.rmtree('moved')


run(__name__)
