"""memlyze export --to parquet: where the files go, what is in them, and that they come into being whole. Without pyarrow: one line, exit status 2."""
import glob
import json
import os
import re
import shutil

from harness import BUILD, MEMLYZE, PYTHON, SLOW, TESTS, Skip, case, clean_env, data_python, execute, record, run, same, tool

PACKAGE = os.path.join(os.path.dirname(TESTS), 'tracer', 'python')
MAKE_TRACE = os.path.join(BUILD, 'tests', 'unit', 'analyzer', 'make_trace')
TABLES = {'traces', 'totals', 'stacks', 'frames'}


def make(scenario, path='trace.mlyze'):
    execute([MAKE_TRACE, scenario, path], check=True)


def export(*arguments, status=0, interpreter=None, **more):
    if interpreter is None:
        interpreter = data_python('pyarrow')
    if SLOW > 1:
        raise Skip('the library is instrumented, the interpreter is not')
    result = execute([MEMLYZE, 'export', '--to', 'parquet', *arguments],
                     env=clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=PACKAGE, MEMLYZE_PYTHON=interpreter, PYTHONDONTWRITEBYTECODE='1', **more))
    same('exit status; ' + result.stderr, result.returncode, status)
    same('standard output', result.stdout, '')
    return result.stderr


def files(directory='lake'):
    """{table: [(date, service, file)]}, and nothing else is there."""
    found = {}
    for path in sorted(os.path.join(p, f) for p, _, names in os.walk(directory) for f in names):
        table, date, service, name = os.path.relpath(path, directory).split(os.sep)
        assert re.fullmatch(r'date=\d{4}-\d\d-\d\d', date) and service.startswith('service=') and re.fullmatch(r'[0-9a-f-]{36}\.parquet', name), path
        found.setdefault(table, []).append((date[5:], service[8:], name))
    return found


def rows(*tables, directory='lake'):
    """The rows of a table, or of each of several, in the order of the files' names."""
    out = execute([data_python('pyarrow'), '-c', '''
import glob, json, sys
import pyarrow.parquet
print(json.dumps([[row for path in sorted(glob.glob(table + "/*/*/*.parquet")) for row in pyarrow.parquet.ParquetFile(path).read().to_pylist()]
                  for table in sys.argv[1:]], default=str))
''', *[os.path.join(directory, table) for table in tables]], check=True).stdout
    found = json.loads(out)
    return found if len(found) > 1 else found[0]


@case
def a_recording():
    with open('my app.py', 'w') as file:
        file.write('kept = []\ndef work():\n    for n in range(1000):\n        kept.append(bytearray(5000))\nwork()\n')
    data_python('pyarrow')
    record([PYTHON, 'my app.py'])
    same('said', export('--release', '7', 'lake', 'trace.mlyze'), '')
    found = files()
    same('tables', set(found), TABLES)
    same('one file each, in the same place', len({tuple(names) for names in found.values()}), 1)
    same('service', found['traces'][0][1], 'my app')
    traces, totals, stacks, frames = rows('traces', 'totals', 'stacks', 'frames')
    trace, = traces
    stats = tool('stats')
    same('figures', [trace[k] for k in ('alloc_bytes', 'live_bytes', 'duration_ns', 'release', 'complete', 'damaged', 'lost', 'sample_rate', 'python_version')],
         [stats['bytes']['allocated'], stats['bytes']['live_at_end'], stats['duration_ns'], '7', True, False, 0, 1.0, stats['python_version']])
    same('name', found['traces'][0][2], trace['trace'] + '.parquet')
    same('date', found['traces'][0][0], trace['start'][:10])
    same('the stacks of totals', {t['stack_id'] for t in totals}, {s['stack_id'] for s in stacks})
    same('each once', len(stacks), len({s['stack_id'] for s in stacks}))
    same('their frames', {f for s in stacks for f in s['frames']}, {f['frame_id'] for f in frames})
    kept, = [t for t in totals if t['function'] == 'work' and t['line'] == 4 and t['domain'] == 'malloc' or t['function'] == 'work' and t['live_bytes'] > 4500000]
    assert kept['live_count'] >= 1000 and kept['file'].endswith('my app.py'), kept
    assert any(re.search(r'<module> \(.*my app\.py:5\);work \(.*my app\.py:4\)$', s['text']) for s in stacks), [s['text'] for s in stacks][:5]
    for site in tool('top', '--group', 'stack', '-n', '5')['sites']:
        text = ';'.join('%s (%s:%d)' % (f['function'], f['file'], f['line']) for f in reversed(site['stack']))
        ids = {s['stack_id'] for s in stacks if s['text'] == text}
        same(text, sum(t['alloc_bytes'] for t in totals if t['stack_id'] in ids and t['domain'] != 'mmap'), site['alloc_bytes'])


@case
def the_same_trace_twice_and_other_traces():
    for scenario in ('service', 'processes', 'sampled'):
        make(scenario, scenario + '.mlyze')
    data_python('pyarrow')
    same('said', export('--service', 'a/b c', '-o', 'lake', 'service.mlyze', 'processes.mlyze', 'sampled.mlyze'), '')
    first, before = files(), rows('traces')
    same('three', {table: len(names) for table, names in first.items()}, dict.fromkeys(TABLES, 3))
    same('service', {service for _, service, _ in first['totals']}, {'a%2Fb c'})
    export('--service', 'a/b c', 'lake', 'service.mlyze')
    same('again', (files(), rows('traces')), (first, before))
    export('--service', 'a/b c', '--rows', 'event', 'lake', 'service.mlyze')
    allocations, stacks = rows('allocations', 'stacks')
    same('rows', len(allocations), tool('stats', trace='service.mlyze')['events']['allocs'])
    same('bytes', sum(a['size'] for a in allocations if a['domain'] != 'mmap' and not a['after_end']), tool('stats', trace='service.mlyze')['bytes']['allocated'])
    assert {a['stack_id'] for a in allocations} <= {s['stack_id'] for s in stacks}


@case
def services_have_names():
    cases = {'python3 /srv/app/run.py --x': 'run', 'python3 -m http.server 80': 'http.server', 'python3 -X dev -O tool.py': 'tool', 'python -c pass': 'python',
             '/usr/bin/gunicorn app:app': 'gunicorn', 'python3.11': 'python3.11', '': 'unknown', './serve.py': 'serve'}
    code = 'import json, sys\nfrom memlyze._parquet import service_of\nprint(json.dumps([service_of(c.split()) for c in json.loads(sys.argv[1])]))'
    out = execute([PYTHON, '-c', code, json.dumps(list(cases))], env=clean_env(PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE='1'), check=True).stdout
    same('services', dict(zip(cases, json.loads(out))), cases)


@case
def nothing_half_written():
    make('service')
    data_python('pyarrow')
    os.mkdir('lake')
    os.mkdir('lake/stacks')
    if os.getuid() == 0:
        # Root writes anywhere: a file is where a folder must be.
        os.rmdir('lake/stacks')
        open('lake/stacks', 'w').close()
    else:
        os.chmod('lake/stacks', 0o500)
    said = export('lake', 'trace.mlyze', status=2)
    assert said.startswith('memlyze-export: lake/stacks') and said.count('\n') == 1, said
    assert not os.path.exists('lake/traces') and not glob.glob('lake/**/*.tmp', recursive=True) and not glob.glob('lake/**/.*.tmp', recursive=True)
    if os.getuid() == 0:
        os.unlink('lake/stacks')
    shutil.rmtree('lake')
    with open('text', 'w') as file:
        file.write('no trace')
    said = export('lake', 'text', 'nowhere', 'trace.mlyze', status=2).splitlines()
    same('two lines', [line.split(': ')[:2] for line in said], [['memlyze-export', 'text'], ['memlyze-export', 'nowhere']])
    same('the other one', set(files()), TABLES)


@case
def damaged_and_totals_only():
    make('service')
    data = open('trace.mlyze', 'rb').read()
    with open('cut.mlyze', 'wb') as file:
        file.write(data[:len(data) * 2 // 3])
    data_python('pyarrow')
    said = export('lake', 'cut.mlyze')
    assert said.startswith('memlyze-export: cut.mlyze: ') and 'cut' in said and said.count('\n') == 1, said
    trace, = rows('traces')
    same('flags', (trace['complete'], trace['alloc_bytes'] > 0), (False, True))
    with open('app.py', 'w') as file:
        file.write('kept = [bytearray(9000) for n in range(500)]\n')
    record([PYTHON, 'app.py'], '--snapshots-only', trace='totals.mlyze')
    same('said', export('totals', 'totals.mlyze'), '')
    same('live', rows('traces', directory='totals')[0]['live_bytes'], tool('stats', trace='totals.mlyze')['bytes']['live_at_end'])
    said = export('--rows', 'event', 'totals', 'totals.mlyze', status=2)
    assert 'has totals only' in said and said.count('\n') == 1, said


@case
def without_pyarrow():
    make('marks')
    os.mkdir('shadow')
    with open('shadow/pyarrow.py', 'w') as file:
        file.write('raise ImportError("not here")\n')
    environment = clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=os.path.abspath('shadow') + ':' + PACKAGE, MEMLYZE_PYTHON=PYTHON, PYTHONDONTWRITEBYTECODE='1')
    for wrong, word in ((environment, 'pip install pyarrow'), (dict(environment, MEMLYZE_PYTHON='/nowhere/python'), '/nowhere/python cannot be run'),
                        (dict(environment, PYTHONPATH=os.path.abspath('shadow')), 'has no memlyze')):
        result = execute([MEMLYZE, 'export', '--to', 'parquet', 'lake', 'trace.mlyze'], env=wrong)
        same('exit status', result.returncode, 2)
        assert word in result.stderr and result.stderr.startswith('memlyze-export: ') and result.stderr.count('\n') == 1, result.stderr
        assert not os.path.exists('lake')


@case
def wrong_usage():
    make('marks')
    for arguments, word in ((['trace.mlyze'], 'name a directory and a trace'), (['lake', 'trace.mlyze', '--at', '1ms'], '--at'), (['lake', 'trace.mlyze', '--by', 'alloc-count'], '--by'),
                            (['lake', 'trace.mlyze', '--include-mmap'], '--include-mmap'), (['-o', 'lake'], 'no trace given')):
        result = execute([MEMLYZE, 'export', '--to', 'parquet', *arguments])
        assert result.returncode == 2 and word in result.stderr and result.stderr.count('\n') == 1, (arguments, result.stderr)
    result = execute([MEMLYZE, 'export', '--to', 'csv', '--service', 'x', 'trace.mlyze'])
    assert result.returncode == 2 and '--service' in result.stderr, result.stderr


run(__name__)
