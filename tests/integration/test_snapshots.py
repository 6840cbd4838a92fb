"""--snapshot-every and --snapshots-only: the totals of a trace without events are those of the full trace of the same program, at the same points."""
import ctypes
import json
import os
import subprocess
import time

from harness import BUILD, MEMLYZE, PYTHONS, SLOW, TESTS, case, clean_env, execute, record, run, same, tool

TWO = [PYTHONS[0], PYTHONS[-1]] if len(PYTHONS) > 1 else PYTHONS

# Waits for a line on stdin between its phases, so that a snapshot from outside lies at the same place in each run.
PHASES = '''
import os, sys
kept, cache = [], {}
def grow(n): kept.append(bytes(200 + n % 30))
def churn(n): return [str(n + i) for i in range(50)]
def turn(n): cache[n % 100] = bytes(500 + n % 7)
def work(turns):
    for n in range(turns):
        grow(n)
        churn(n)
        turn(n)
def pause():
    os.write(1, b'ready\\n')
    os.read(0, 1)
for phase in range(4):
    work(500)
    pause()
kept.append(bytearray(1 << 20))
kept.pop()
'''
NAMES = ['one', 'two', 'three', 'four']
SITE = ('alloc_count', 'alloc_bytes', 'live_count', 'live_bytes', 'temporary_count')


def wait_for_read(pid):
    """os.read makes its result before it waits: until it does, the last allocation may be still to come."""
    for _ in range(1000 * SLOW):
        with open('/proc/%s/syscall' % pid) as file:
            if file.read().split()[:2] == ['0', '0x0']:
                return
        time.sleep(0.01)
    raise AssertionError('the program does not read')


def phases(python, trace, *options):
    with open('program.py', 'w') as file:
        file.write(PHASES)
    recorder = subprocess.Popen(
        [MEMLYZE, 'record', '-f', '-o', trace, '--quiet', '--max-stack-depth', '20', *options, '--', python, '-I', '-B', 'program.py'],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=clean_env(PYTHONHASHSEED=0),
        preexec_fn=lambda: ctypes.CDLL(None).personality(0x0040000))  # the same addresses, the same run
    for name in NAMES:
        said = recorder.stdout.readline()
        if said != 'ready\n':
            raise AssertionError('%r: %s' % (said, recorder.communicate()[1]))
        if name == NAMES[0]:
            pid = subprocess.check_output(['ps', '-o', 'pid=', '--ppid', str(recorder.pid)], universal_newlines=True).split()[0]
        wait_for_read(pid)
        done = execute([MEMLYZE, 'control', '--pid', recorder.pid, '--snapshot', name])
        same('control', (done.returncode, done.stderr), (0, ''))
        recorder.stdin.write('\n')
        recorder.stdin.flush()
    out, err = recorder.communicate(timeout=60 * SLOW)
    same('record', (recorder.returncode, err), (0, ''))


def sites(trace, *options):
    """{site: totals}, whatever the order."""
    answer = tool('top', '-n', '0', *options, trace=trace)
    keys = {}
    for s in answer['sites']:
        name = s['name'] if 'name' in s else tuple((f['function'], f['file'], f['line']) for f in s['stack'])
        keys[name] = tuple(s[key] for key in SITE)
    return keys, answer['total']


def own(keys):
    """Those with a frame of the program. What the interpreter itself keeps differs by a few blocks from run to run before 3.12, whatever is recorded:
    its caches go by addresses."""
    return {k: v for k, v in keys.items() if isinstance(k, str) or any(f[1].endswith('program.py') for f in k)}


def compare(*options, exact=True):
    full, part = sites('full.mlyze', *options), sites('part.mlyze', *options)
    if not exact:
        full, part = (own(full[0]), None), (own(part[0]), None)
    assert len(full[0]) > 1, full
    wrong = ['%r: %r, in full %r' % (k, part[0].get(k), full[0].get(k)) for k in {**full[0], **part[0]} if part[0].get(k) != full[0].get(k)]
    assert not wrong, '%s: %d differ, like %s' % (' '.join(options), len(wrong), wrong[0])
    same('total, %s' % ' '.join(options), part[1], full[1])


def caches_differ():
    """Whether the two runs themselves differ: all was allocated alike, but two blocks at most, of no line of the program, lived longer in one of them.
    The interpreter's method cache keeps a name until another one falls into the same place, and the place goes by the name's address. Once
    in some hundred runs; such a pair is recorded again."""
    full, part = sites('full.mlyze', '--group', 'stack')[0], sites('part.mlyze', '--group', 'stack')[0]
    if any(full.get(k, (0,))[:2] != part.get(k, (0,))[:2] for k in {**full, **part}) or own(full) != own(part):
        return False
    moved = [(abs(full[k][2] - part[k][2]), abs(full[k][3] - part[k][3])) for k in full if full[k] != part[k]]
    return 0 < sum(count for count, _ in moved) <= 2 and sum(size for _, size in moved) <= 256


@case(each=TWO)
def the_same_numbers_as_a_full_trace(python):
    exact = python == PYTHONS[-1][1]
    for _ in range(3):
        phases(python, 'full.mlyze')
        phases(python, 'part.mlyze', '--snapshots-only')
        if not exact or not caches_differ():
            break
    for at in [[], ['--at', 'one'], ['--at', 'four']]:
        for by in ('alloc-bytes', 'live-bytes', 'temporary'):
            compare('--group', 'stack', '--by', by, *at, exact=exact)
    full, part = (tool('top', '-n', '0', '--from', 'one', '--to', 'three', trace=t) for t in ('full.mlyze', 'part.mlyze'))
    same('allocated between two snapshots', part['total'], full['total'])
    same('files', os.path.getsize('part.mlyze') < os.path.getsize('full.mlyze'), True)
    same('raw counts', tool('stats', trace='part.mlyze')['events'], dict(written=4, dropped=0, allocs=0, frees=0, gc=0, marks=0, snapshots=4))
    same('points', [p['name'] for p in tool('stats', trace='part.mlyze')['points']], NAMES)
    if not exact:
        return
    for at in [[], ['--at', 'two']]:
        compare('--group', 'domain', *at)
        compare('--group', 'stack', '--include-mmap', *at)
        full, part = (tool('stats', *at, trace=t) for t in ('full.mlyze', 'part.mlyze'))
        for key in ('allocated', 'freed', 'live_at_end', 'peak'):
            same('%s %s' % (key, at), part['bytes'][key], full['bytes'][key])
        same('blocks %s' % at, part['blocks'], full['blocks'])
        same('domains %s' % at, part['domains'], full['domains'])
    for by in ('live-bytes', 'alloc-bytes'):
        drawn = [execute([MEMLYZE, 'flame', t, '--by', by, '--at', 'two', '--title', 'x']).stdout for t in ('full.mlyze', 'part.mlyze')]
        assert drawn[0].startswith('<?xml') and drawn[0] == drawn[1], 'flame graphs differ (%s)' % by


@case(each=TWO)
def leaks_live_at_the_end_and_grow_between_points(python):
    phases(python, 'full.mlyze')
    phases(python, 'part.mlyze', '--snapshots-only')
    kept = {}
    for trace in ('full.mlyze', 'part.mlyze'):
        answer = tool('leaks', trace=trace)
        kept[trace] = own({tuple((f['function'], f['file'], f['line']) for f in e['stack']): (e['count'], e['bytes']) for e in answer['leaks']})
        grades = {e['function']: e['grade'] for e in answer['leaks'] if e['file'].endswith('program.py')}
        same('grade of grow in %s' % trace, grades.get('grow'), 'growing')
        assert grades.get('turn') != 'growing', grades
    same('what lives at the end', kept['part.mlyze'], kept['full.mlyze'])
    since = {e['function']: e['count'] for e in tool('leaks', '--since', 'two', trace='part.mlyze')['leaks']}
    assert 1000 <= since['grow'] <= 1010, since  # and what the line's own numbers take


API = '''
import memlyze
tracer = memlyze.start('unused.mlyze')
kept = []
for n in range(3):
    kept += [bytes(100 + i) for i in range(50)]
    tracer.snapshot('after %d' % n)
    if n: del kept[:30]
'''


@case(each=TWO)
def at_the_program_s_own_snapshots(python):
    with open('program.py', 'w') as file:
        file.write(API)
    env = clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=os.path.join(os.path.dirname(TESTS), 'tracer', 'python'), PYTHONDONTWRITEBYTECODE='1')
    for trace, options in (('full.mlyze', []), ('part.mlyze', ['--snapshots-only'])):
        record([python, 'program.py'], '--max-stack-depth', '1', *options, trace=trace, env=env)
    for name in ('after 0', 'after 1', 'after 2'):
        full, part = ({k: v for k, v in sites(t, '--group', 'stack', '--at', name)[0].items() if k and k[0][1].endswith('program.py')}
                      for t in ('full.mlyze', 'part.mlyze'))
        assert any(v[2] >= 50 for v in full.values()), full
        same('live at %s' % name, part, full)


@case
def what_is_not_known_is_said():
    phases(PYTHONS[-1][1], 'part.mlyze', '--snapshots-only')
    for words in (['gc'], ['top', '--by', 'peak-bytes'], ['top', '--group', 'thread'], ['top', '--at', 'peak'], ['flame', '--by', 'peak-bytes'],
                  ['stats', '--at', 'peak'], ['top', '--at', '1us'], ['top', '--at', 'no such name']):
        result = execute([MEMLYZE, words[0], 'part.mlyze', *words[1:]])
        same('status of %s' % ' '.join(words), (result.returncode, result.stdout), (2, ''))
        same('lines of %s: %s' % (' '.join(words), result.stderr), len(result.stderr.splitlines()), 1)
    result = execute([MEMLYZE, 'top', 'part.mlyze', '--at', '90%'])
    assert result.returncode == 0 and 'last one before' in result.stderr, result.stderr
    answer = tool('stats', trace='part.mlyze')
    same('not known', (answer['sizes'], answer['lifetimes']), (None, None))


@case
def estimates_of_a_sampled_trace():
    phases(PYTHONS[-1][1], 'full.mlyze', '--sample-rate', '0.2')
    phases(PYTHONS[-1][1], 'part.mlyze', '--sample-rate', '0.2', '--snapshots-only')
    for at in ([], ['--at', 'two']):
        compare('--group', 'stack', *at, exact=False)
        errors = []
        for trace in ('full.mlyze', 'part.mlyze'):
            answer = tool('top', '-n', '0', '--group', 'stack', *at, trace=trace)
            assert answer['estimated'] is True
            errors.append({tuple((f['function'], f['file'], f['line']) for f in s['stack']): (s['alloc_count_error'], s['live_count_error'])
                           for s in answer['sites']})
        same('errors of counts', errors[1], errors[0])
        full, part = (tool('stats', *at, trace=t)['bytes'] for t in ('full.mlyze', 'part.mlyze'))
        assert abs(full['live_at_end_error'] - part['live_at_end_error']) <= 0.01 * full['live_at_end_error'] + 300, (full, part)


@case
def marks_are_no_points():
    with open('program.py', 'w') as file:
        file.write('import sys\nprint("x", flush=True)\nsys.stdin.readline()\n')
    recorder = subprocess.Popen([MEMLYZE, 'record', '-f', '-o', 'part.mlyze', '--quiet', '--snapshots-only', '--', PYTHONS[-1][1], 'program.py'],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
    recorder.stdout.readline()
    execute([MEMLYZE, 'control', '--pid', recorder.pid, '--mark', 'warm'])
    recorder.communicate('\n')
    result = execute([MEMLYZE, 'top', 'part.mlyze', '--at', 'warm'])
    same('status', result.returncode, 2)
    assert "'warm' is a mark" in result.stderr, result.stderr


FORKS = '''
import os
kept = [bytes(100 + i % 9) for i in range(3000)]
def child(n):
    own = [bytes(300) for i in range(n)]
    kept.clear()
    return own
for n in (100, 200):
    pid = os.fork()
    if pid == 0:
        mine = child(n)
        os._exit(0)
    os.waitpid(pid, 0)
more = [bytes(50) for i in range(70)]
'''


@case(each=TWO)
def each_process_has_its_own(python):
    with open('program.py', 'w') as file:
        file.write(FORKS)
    for trace, options in (('full.mlyze', []), ('part.mlyze', ['--snapshots-only'])):
        record([python, '-I', '-B', 'program.py'], *options, trace=trace, env=clean_env(PYTHONHASHSEED=0),
               preexec_fn=lambda: ctypes.CDLL(None).personality(0x0040000))
    full, part = (tool('stats', trace=t) for t in ('full.mlyze', 'part.mlyze'))
    # The program's own 3,000 in each child, and a few of the interpreter's caches, which differ from one run of 3.8 to the next.
    inherited = part['blocks']['foreign_frees'], full['blocks']['foreign_frees']
    assert min(inherited) >= 6000 and abs(inherited[0] - inherited[1]) <= 8, 'inherited: %d and %d' % inherited
    for number in range(3):
        answers = []
        for trace, stats in (('full.mlyze', full), ('part.mlyze', part)):
            answer = tool('top', '-n', '0', '--process', stats['processes'][number]['pid'], trace=trace)
            answers.append({(s['function'], s['line']): [s[k] for k in SITE] for s in answer['sites'] if (s['file'] or '').endswith('program.py')})
        assert answers[0] or number, answers
        same('process %d' % number, answers[1], answers[0])
    assert part['blocks']['foreign_frees'] > 3000
    # The recorder's own count while it ran: a process that has ended counts until that is seen.
    assert full['bytes']['peak'] * 0.99 < part['bytes']['peak'] < full['bytes']['peak'] * 1.1, (part['bytes'], full['bytes'])


SLEEPY = '''
import time
end = time.monotonic() + 1.15
while time.monotonic() < end:
    x = [str(i) for i in range(1000)]
    time.sleep(0.01)
time.sleep(0.4)
'''


@case(each=[('with events', []), ('totals only', ['--snapshots-only'])])
def a_point_every_so_often(options):
    record([PYTHONS[-1][1], '-c', SLEEPY], '--snapshot-every', '200ms', *options)
    answer = tool('stats')
    assert 6 <= answer['events']['snapshots'] <= 9, answer['events']
    same('settings', answer['settings']['snapshot_every_ns'], 200000000)
    for number in (1, 3, 6):
        assert tool('top', '--at', 'snapshot-%d' % number)['total']['count'] > 0
    names = execute([MEMLYZE, 'top', 'trace.mlyze', '--at', 'none']).stderr
    assert 'snapshot-1, snapshot-2' in names, names
    if options:
        for point in answer['points']:
            wanted = int(point['name'].rpartition('-')[2]) * 200000000
            assert wanted <= point['time_ns'] <= wanted + 150000000 * SLOW, point


@case
def a_wrong_interval():
    for given in ('', '0s', '5', '1ms', '-1s', 'often', '1e30h'):
        result = execute([MEMLYZE, 'record', '--snapshot-every', given, 'true'])
        same('status of %r' % given, (result.returncode, len(result.stderr.splitlines())), (2, 1))
        assert '--snapshot-every' in result.stderr, result.stderr


BUSY = '''
import sys, time
end = time.monotonic() + float(sys.argv[1])
kept = []
n = 0
while time.monotonic() < end:
    for i in range(2000):
        x = [i] * 20
        n += 1
    kept.append(bytes(100))
print(n)
'''


@case
def kilobytes_and_no_growth_with_the_events():
    """The file and the recorder's memory do not depend on how many events there are."""
    seconds, peaks, sizes, counts = (1, 4), [], [], []
    for s in seconds:
        recorder = subprocess.Popen([MEMLYZE, 'record', '-f', '-o', 'trace.mlyze', '--quiet', '--snapshots-only', '--snapshot-every', '200ms', '--',
                                     PYTHONS[-1][1], '-c', BUSY, str(s)], stdout=subprocess.PIPE, universal_newlines=True)
        peak = 0
        while recorder.poll() is None:
            try:
                with open('/proc/%d/status' % recorder.pid) as status:
                    peak = max([peak] + [int(line.split()[1]) for line in status if line.startswith('RssAnon:')])
            except (FileNotFoundError, ProcessLookupError):
                break
            time.sleep(0.02)
        recorder.communicate()
        peaks.append(peak)
        sizes.append(os.path.getsize('trace.mlyze'))
        counts.append(tool('stats')['counters']['allocations_traced'])
    assert counts[1] > 1.5 * counts[0], counts
    assert sizes[1] < 120000, sizes
    assert peaks[1] < peaks[0] + 4000, 'the recorder grew from %d to %d KiB' % tuple(peaks)


@case
def a_killed_recorder_leaves_the_points_so_far():
    recorder = subprocess.Popen([MEMLYZE, 'record', '-f', '-o', 'trace.mlyze', '--quiet', '--snapshots-only', '--snapshot-every', '100ms', '--',
                                 PYTHONS[-1][1], '-c', SLEEPY])
    time.sleep(0.9)
    recorder.kill()
    recorder.wait()
    names = [p['name'] for p in tool('stats')['points']]
    assert names[:3] == ['snapshot-%d' % i for i in range(1, 4)] or len(names) > 3, names
    assert tool('top', '--by', 'live-bytes')['total']['count'] > 0


run(__name__)
