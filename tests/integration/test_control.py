"""memlyze control: the rate, marks and snapshots of a running session, from outside."""
import collections
import os
import signal
import struct
import subprocess
import time

from harness import BUILD, MEMLYZE, PYTHON, SLOW, Skip, case, clean_env, execute, run, same, tool

# Allocates at known lines, a known number of times, for a second or more; `threads` do it at once. Says when it begins, and waits for a line on stdin first.
STEADY = '''
import sys, threading
UNIT = b'x'
kept = []
def small(n): return UNIT * (100 + n % 50)
def large(n): return UNIT * 3000
def seldom(n): kept.append(UNIT * 700)
def work(turns):
    for n in range(turns):
        small(n)
        small(n)
        if n % 7 == 0: large(n)
        if n % 100 == 0: seldom(n)
threads, turns = int(sys.argv[1]), int(sys.argv[2])
others = [threading.Thread(target=work, args=(turns,)) for _ in range(threads - 1)]
print('ready', flush=True)
sys.stdin.readline()
for t in others: t.start()
work(turns)
for t in others: t.join()
print('worked', flush=True)
sys.stdin.readline()
'''
SITES = ('small', 'large', 'seldom')


class Session:
    """A recorder with a program that runs beneath it."""

    def __init__(self, program, *arguments, options=(), trace='trace.mlyze', env=None):
        with open('program.py', 'w') as file:
            file.write(program)
        self.recorder = subprocess.Popen(
            [MEMLYZE, 'record', '-f', '-o', trace, '--quiet', *options, '--', PYTHON, '-I', 'program.py', *[str(a) for a in arguments]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=env or clean_env(PYTHONHASHSEED=0))
        self.expect('ready')
        self.pid = int(subprocess.check_output(['ps', '-o', 'pid=', '--ppid', str(self.recorder.pid)]).split()[0])

    def expect(self, line):
        got = self.recorder.stdout.readline().strip()
        if got != line:
            raise AssertionError('the program says %r instead of %r: %s' % (got, line, self.recorder.stderr.read() if not got else ''))

    def go(self):
        self.recorder.stdin.write('\n')
        self.recorder.stdin.flush()

    def end(self):
        out, err = self.recorder.communicate('\n', timeout=60 * SLOW)
        same('exit status of record', self.recorder.returncode, 0)
        same('stderr of record', err, '')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.recorder.poll() is None:
            for pid in (self.pid, self.recorder.pid):
                try:
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.recorder.wait()
        for stream in (self.recorder.stdin, self.recorder.stdout, self.recorder.stderr):
            try:
                stream.close()
            except BrokenPipeError:
                pass


def control(pid, *options, status=0, **more):
    result = execute([MEMLYZE, 'control', '--pid', pid, *options], **more)
    same('exit status of control %s' % ' '.join(map(str, options)), (result.returncode, result.stderr if status == 0 else ''), (status, ''))
    if status:
        same('lines on stderr (%s)' % result.stderr, len(result.stderr.strip().splitlines()), 1)
        assert result.stderr.startswith('memlyze-control: '), result.stderr
    return result.stderr if status else result.stdout


def sites(trace, *options):
    answer = tool('top', '-n', '0', '--group', 'function', *options, trace=trace)
    return {s['function']: s for s in answer['sites'] if (s['file'] or '').endswith('program.py')}


def leaks(*options):
    counts = collections.Counter()
    for leak in tool('leaks', *options)['leaks']:
        if (leak['file'] or '').endswith('program.py'):
            counts[leak['function']] += leak['count']
    return counts


def truth(threads, turns):
    """What is allocated at the three lines: the full trace of the same program."""
    with Session(STEADY, threads, turns, trace='full.mlyze') as session:
        session.go()
        session.expect('worked')
        session.end()
    return sites('full.mlyze'), tool('stats', trace='full.mlyze')


def check_estimates(full, got):
    for name in SITES:
        for measure in ('alloc_count', 'alloc_bytes', 'live_count', 'live_bytes'):
            # 95 of 100 lie within one error; these are few, and must not fail once in twenty runs.
            off, error = got[name][measure] - full[name][measure], got[name][measure + '_error']
            assert abs(off) <= 2 * error + 1, '%s of %s: %d +- %d, is %d' % (measure, name, got[name][measure], error, full[name][measure])


@case(each=[('1 thread', 1, 1600000), ('4 threads', 4, 400000)])
def the_rate_changes_while_a_program_runs(threads, turns):
    full, stats = truth(threads, turns)
    rates = ['0.1', '0.01', '0.5', '1', '0.3', '0.1', '1.0', '0.01', '0.1']
    with Session(STEADY, threads, turns) as session:
        session.go()
        for n, rate in enumerate(rates):
            control((session.pid, session.recorder.pid)[n % 2], '--sample-rate', rate)
            time.sleep(0.02 * (n % 4))
        session.expect('worked')
        session.end()
    got = tool('stats')
    same('estimated', got.get('estimated'), True)
    same('sample_rate', got['sample_rate'], 1.0)
    same('rate_changes', [c['sample_rate'] for c in got['rate_changes']], [float(r) for r in rates])
    times = [c['time_ns'] for c in got['rate_changes']]
    assert times == sorted(times) and 0 < times[0] and times[-1] < got['duration_ns'], times
    # Threads that meet at a lock may allocate one block more or less.
    seen, wanted = got['counters']['allocations_seen'], stats['counters']['allocations_seen']
    assert abs(seen - wanted) <= 50 * (threads - 1), 'allocations_seen: %d, wanted %d' % (seen, wanted)
    assert got['counters']['allocations_traced'] < wanted
    check_estimates(full, sites('trace.mlyze'))
    for key in ('allocated', 'live_at_end'):
        assert abs(got['bytes'][key] - stats['bytes'][key]) <= 2 * got['bytes'][key + '_error'] + 1, (key, got['bytes'], stats['bytes'])
    text = execute([MEMLYZE, 'stats', 'trace.mlyze']).stdout
    assert '+-' in text and ' on 0.01' in ' '.join(text.split()), text


@case(each=[(r, r, w) for r, w in (('0.1', 10), ('0.01', 100), ('0.3', 1 / 0.3), ('0.125', 8), ('0.3333333333333333', 3), ('1', 1))])
def a_weight_is_exactly_one_by_the_rate_as_typed(rate, weight):
    with Session(STEADY, 1, 3000, options=('--sample-rate', '0.07')) as session:
        control(session.pid, '--sample-rate', rate)
        session.go()
        session.expect('worked')
        session.end()
    dump = execute([os.path.join(BUILD, 'tests', 'golden', 'dump'), 'trace.mlyze']).stdout
    weights = {struct.unpack('>d', bytes.fromhex(line.split()[-1]))[0] for line in dump.splitlines() if line.startswith('class')}
    assert weights <= {1 / 0.07, weight, 1.0} and {1 / 0.07, weight} <= weights, 'weights %r, wanted %r' % (weights, weight)


@case(each=[(rate, rate) for rate in ('0.0001', '0.1', '0.5')])
def a_thread_obeys_at_its_next_allocation(rate):
    program = '''
import sys
UNIT = b'x'
read, write = sys.stdin.readline, sys.stdout.write
def first(): UNIT * 100
def second(): UNIT * 200
def third(): UNIT * 300
print('ready', flush=True)
read()
for n in range(1000): first()
print('first', flush=True)
read()
for n in range(1000): second()
print('second', flush=True)
read()
for n in range(1000): third()
print('third', flush=True)
read()
'''
    with Session(program, options=('--sample-rate', rate)) as session:
        session.go()
        session.expect('first')
        control(session.pid, '--sample-rate', '1')
        session.go()
        session.expect('second')
        control(session.pid, '--sample-rate', rate)
        session.go()
        session.expect('third')
        session.end()
    got = sites('trace.mlyze')
    same('at rate 1, exactly', (got['second']['alloc_count'], got['second']['alloc_bytes']), (1000, 1000 * 233))
    for name in ('first', 'third'):
        if name in got:
            assert abs(got[name]['alloc_count'] - 1000) <= 1.6 * got[name]['alloc_count_error'], (name, got[name])


@case
def a_mark_and_a_snapshot_from_outside():
    program = '''
import sys
UNIT = b'x'
kept = [None] * 400
def before(n): kept[n] = UNIT * 1000
def after(n): kept[n] = UNIT * 2000
for n in range(300): before(n)
print('ready', flush=True)
sys.stdin.readline()
for n in range(50): after(300 + n)
print('worked', flush=True)
sys.stdin.readline()
for n in range(7): after(350 + n)
print('again', flush=True)
sys.stdin.readline()
'''
    with Session(program) as session:
        said = control(session.pid, '--mark', 'warm f\u00fcr immer')
        assert said.startswith("mark 'warm f\u00fcr immer' at "), said
        session.go()
        session.expect('worked')
        control(session.recorder.pid, '--snapshot', 'top', '--mark', 'both')
        live = sites('trace.mlyze@top')  # in the file as soon as control returns
        same('live at the snapshot, of a running recording', (live['before']['live_count'], live['after']['live_count']), (300, 50))
        session.go()
        session.expect('again')
        session.end()
    at = sites('trace.mlyze', '--at', 'warm f\u00fcr immer')
    same('live at the mark', (at['before']['live_count'], 'after' in at), (300, False))
    since = leaks('--since', 'warm f\u00fcr immer')
    same('leaks since the mark', (since['after'], since['before']), (57, 0))
    same('leaks since the second', leaks('--since', 'both')['after'], 7)
    stats = tool('stats')
    same('marks and snapshots', (stats['events']['marks'], stats['events']['snapshots']), (2, 1))
    same('no change of the rate', (stats['rate_changes'], stats.get('estimated')), ([], None))
    unknown = execute([MEMLYZE, 'top', '--at', 'nothing', 'trace.mlyze'])
    assert unknown.returncode == 2 and 'warm f\u00fcr immer, both, top' in unknown.stderr, unknown.stderr


@case
def pause_and_resume_and_depth():
    program = '''
import sys
UNIT = b'x'
kept = [None] * 60
def inner(n): kept[n] = UNIT * 1000
def outer(n): inner(n)
def phase(first):
    for n in range(first, first + 20): outer(n)
    print('phase', flush=True)
    sys.stdin.readline()
print('ready', flush=True)
sys.stdin.readline()
phase(0)
phase(20); kept[:] = [None] * 60
phase(40)
'''
    with Session(program) as session:
        session.go()
        session.expect('phase')
        control(session.pid, '--pause')
        session.go()
        session.expect('phase')
        control(session.pid, '--resume', '--max-stack-depth', '1')
        session.go()
        session.expect('phase')
        session.end()
    stacks = {tuple(f['function'] for f in s['stack']): s for s in tool('top', '-n', '0', '--group', 'stack')['sites']
              if s['function'] == 'inner' and s['file'].endswith('program.py')}
    same('stacks', {k: v['alloc_count'] for k, v in stacks.items()}, {('inner', 'outer', 'phase', '<module>'): 20, ('inner',): 20})
    same('freed while paused', [v['live_count'] for k, v in stacks.items() if len(k) > 1], [0])
    same('changes', [(c['paused'], c['max_stack_depth']) for c in tool('stats')['rate_changes']], [(True, 10), (False, 1)])


@case
def two_dozen_at_once():
    with Session(STEADY, 1, 300000) as session:
        session.go()
        running = [subprocess.Popen([MEMLYZE, 'control', '--pid', str(session.pid), '--mark', 'm%d' % n, '--sample-rate', str((n % 9 + 1) / 10)],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True) for n in range(24)]
        for n, p in enumerate(running):
            out, err = p.communicate(timeout=60 * SLOW)
            same('status and stderr of control %d' % n, (p.returncode, err), (0, ''))
        session.expect('worked')
        session.end()
    same('marks', tool('stats')['events']['marks'], 24)
    for n in range(24):
        tool('top', '--at', 'm%d' % n)


@case
def one_that_is_killed_holds_up_no_other():
    with Session(STEADY, 1, 1000) as session:
        os.kill(session.recorder.pid, signal.SIGSTOP)
        first = subprocess.Popen([MEMLYZE, 'control', '--pid', str(session.pid), '--sample-rate', '0.5', '--mark', 'never'],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        first.kill()
        first.wait()
        second = subprocess.Popen([MEMLYZE, 'control', '--pid', str(session.pid), '--sample-rate', '0.25'], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, universal_newlines=True)
        time.sleep(0.3)
        os.kill(session.recorder.pid, signal.SIGCONT)
        same('the second', (second.communicate(timeout=60 * SLOW)[1], second.returncode), ('', 0))
        session.go()
        session.expect('worked')
        session.end()
    same('changes', [c['sample_rate'] for c in tool('stats')['rate_changes']], [0.25])
    same('marks', tool('stats')['events']['marks'], 0)


@case
def a_recorder_that_is_stopped_or_dead():
    with Session(STEADY, 1, 1000) as session:
        os.kill(session.recorder.pid, signal.SIGSTOP)
        began = time.monotonic()
        said = control(session.pid, '--sample-rate', '0.5', '--mark', 'never', status=2)
        assert 'does not answer' in said and str(session.recorder.pid) in said and time.monotonic() - began < 20 * SLOW, said
        os.kill(session.recorder.pid, signal.SIGCONT)
        control(session.pid, '--mark', 'later')
        os.kill(session.recorder.pid, signal.SIGKILL)
        session.recorder.wait()
        said = control(session.pid, '--sample-rate', '0.5', status=2)
        assert 'recorder has ended' in said, said
        said = control(session.recorder.pid, '--sample-rate', '0.5', status=2)
        assert 'no process' in said, said
    same('marks in what was written', execute([MEMLYZE, 'top', '--at', 'never', 'trace.mlyze']).returncode, 2)
    tool('top', '--at', 'later')
    same('nothing was changed', tool('stats')['rate_changes'], [])


@case
def processes_that_are_not_traced():
    assert 'is not traced' in control(os.getpid(), '--sample-rate', '0.5', status=2)
    gone = subprocess.Popen(['true'])
    gone.wait()
    assert 'no process' in control(gone.pid, '--sample-rate', '0.5', status=2)
    if os.geteuid() != 0:
        raise Skip('another user is needed, and only root can be one')
    command = [PYTHON, '-c', 'import os, sys, time; os.setgid(65534); os.setuid(65534); print("ready", flush=True); time.sleep(60)']
    other = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        assert 'another user' in control(other.pid, '--sample-rate', '0.5', status=2)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


@case
def another_user_s_session_is_not_touched():
    if os.geteuid() != 0:
        raise Skip('another user is needed, and only root can be one')
    with Session(STEADY, 1, 1000) as session:
        result = subprocess.run([MEMLYZE, 'control', '--pid', str(session.pid), '--sample-rate', '0.5'], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                universal_newlines=True, preexec_fn=lambda: (os.setgid(65534), os.setuid(65534)))
        if result.returncode in (126, 127) or 'ermission' in result.stderr:
            raise Skip('the build tree is closed to other users')
        same('status', result.returncode, 2)
        assert 'another user' in result.stderr, result.stderr
        session.go()
        session.expect('worked')
        session.end()
    same('nothing was changed', tool('stats')['rate_changes'], [])


@case
def below_another_tmpdir():
    os.mkdir('elsewhere', 0o700)
    with Session(STEADY, 1, 1000, env=clean_env(PYTHONHASHSEED=0, TMPDIR=os.path.abspath('elsewhere'))) as session:
        control(session.pid, '--mark', 'by the program')
        control(session.recorder.pid, '--mark', 'by the recorder')
        session.go()
        session.expect('worked')
        session.end()
    same('marks', tool('stats')['events']['marks'], 2)


@case
def any_process_of_the_session_will_do():
    program = '''
import os, subprocess, sys, time
print('ready', flush=True)
sys.stdin.readline()
child = subprocess.Popen([sys.executable, '-I', '-c', 'import sys; print("child", flush=True); sys.stdin.readline(); [bytes(n) for n in range(2000)]'],
                         stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.readline()
child.communicate(b'\\n')
print('worked', flush=True)
sys.stdin.readline()
'''
    with Session(program) as session:
        session.go()
        lines = sorted(session.recorder.stdout.readline().strip() for _ in range(2))
        child = int(lines[0])
        control(child, '--mark', 'the child\'s', '--sample-rate', '0.5')
        session.go()
        session.expect('worked')
        session.end()
    stats = tool('stats')
    same('changes', [c['sample_rate'] for c in stats['rate_changes']], [0.5])
    assert [p for p in stats['processes'] if p['pid'] == child], stats['processes']
    same('its allocations', [s['alloc_count'] > 1500 for s in tool('top', '--process', child, '-n', '1', '--from', 'the child\'s', '--by', 'alloc-count')['sites'][:1]], [True])


@case(each=[(' '.join(repr(o) for o in options) or 'nothing', options) for options in (
    (), ('--sample-rate', '0'), ('--sample-rate', '1.5'), ('--sample-rate', '-1'), ('--sample-rate', 'nan'), ('--sample-rate', 'x'), ('--sample-rate', ''), ('--sample-rate',),
    ('--mark', ''), ('--mark', 'a\nb'), ('--mark', 'a\x1b[1m'), ('--mark', 'x' * 256), ('--mark', b'\xff\xfe'), ('--mark', '\u0085'), ('--snapshot', '\x7f'),
    ('--max-stack-depth', '1025'), ('--max-stack-depth', '-1'), ('--unknown',), ('word',), ('--pause=1',))])
def wrong_usage(options):
    result = subprocess.run([MEMLYZE, 'control', '--pid', str(os.getpid()), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env())
    same('exit status', result.returncode, 2)
    same('lines on stderr: %r' % result.stderr, len(result.stderr.decode().strip().splitlines()), 1)
    assert b'\x1b' not in result.stderr and result.stdout == b'', result


@case(each=[(repr(pid), pid) for pid in ('0', '-5', 'x', '', '99999999999', '1.5')])
def wrong_pid(pid):
    same('status', execute([MEMLYZE, 'control', '--pid', pid, '--sample-rate', '0.5']).returncode, 2)


@case
def no_pid():
    result = execute([MEMLYZE, 'control', '--sample-rate', '0.5'])
    same('status', (result.returncode, 'which session' in result.stderr), (2, True))


@case
def small_rings_refuse_deep_stacks():
    with Session(STEADY, 1, 1000, options=('--max-events', '1')) as session:
        said = control(session.pid, '--max-stack-depth', '1024', '--mark', 'none of it', status=2)
        assert 'too small' in said, said
        control(session.pid, '--max-stack-depth', '500')
        session.go()
        session.expect('worked')
        session.end()
    same('marks', tool('stats')['events']['marks'], 0)


@case
def the_longest_name():
    name = '\u00fc' * 127 + 'x'
    with Session(STEADY, 1, 1000) as session:
        control(session.pid, '--mark', name)
        session.go()
        session.expect('worked')
        session.end()
    tool('top', '--at', name)


run(__name__)
