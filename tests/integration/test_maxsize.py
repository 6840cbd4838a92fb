"""record --max-size and --flight-recorder: the newest part is kept, and the totals and leaks are those of the whole run."""
import os
import signal
import subprocess
import time

from harness import BUILD, MEMLYZE, PYTHON, SLOW, case, clean_env, every_tool_reads, execute, record, run, same, tool

LIMIT = 1 << 20

# Blocks whose number is known, of lines that are marked: before the part that is kept, all along, and freed only at the end.
PROGRAM = '''
import os, random, sys, time
early, late, held = [], [], []
def leak_early(n):
    for i in range(n): early.append(bytearray(1000))
def leak_late(): late.append(bytearray(3000))
def hold(n):
    for i in range(n): held.append(bytearray(500))
def noise(r, n):
    kept = []
    for i in range(n):
        kept.append(bytes(r.randrange(20, 2000)))
        if len(kept) > 50: del kept[r.randrange(50)]
def work(turns):
    r = random.Random(7)
    for turn in range(turns):
        noise(r, 2000)
        leak_late()
leak_early(4000)
hold(3000)
if 'fork' in sys.argv and os.fork() == 0:
    leak_early(1000)
    work(int(sys.argv[1]) // 4)
    os._exit(0)
work(int(sys.argv[1]))
if 'fork' in sys.argv: os.wait()
del held[::3]
if 'wait' in sys.argv:
    print('ready', flush=True)
    time.sleep(600)
'''
TURNS = 300


def program():
    with open('program.py', 'w') as file:
        file.write(PROGRAM)
    return [PYTHON, '-I', '-B', 'program.py']


def sites(answer, key):
    return {s['function']: s for s in answer[key] if s['file'] and s['file'].endswith('program.py')}


def check_known(turns, early=4000, held=3000):
    top = sites(tool('top', '--group', 'function'), 'sites')
    # A bytearray is an object and a buffer.
    same('early', (top['leak_early']['alloc_count'] >= 2 * early, top['leak_early']['live_bytes'] >= 1000 * early), (True, True))
    live = {name: top[function]['live_count'] for name, function in (('early', 'leak_early'), ('late', 'leak_late'), ('held', 'hold'))}
    assert 2 * early <= live['early'] <= 2 * early + 3, live
    assert 2 * turns <= live['late'] <= 2 * turns + 3, live
    assert 2 * (held - (held + 2) // 3) <= live['held'] <= 2 * (held - (held + 2) // 3) + 3, live
    leaks = tool('leaks')
    kept = sites(leaks, 'leaks')
    same('leaked early', kept['leak_early']['count'], live['early'])
    assert kept['leak_early']['before_begin_count'] > 2 * early - 4
    return top


@case
def totals_and_leaks_are_of_the_whole_run():
    record(program() + [str(TURNS)], '--max-size', '1MiB')
    assert os.path.getsize('trace.mlyze') <= LIMIT
    stats = tool('stats')
    left_out = stats['left_out']
    assert left_out['events'] > 100000 and 0 < left_out['until_ns'] < stats['duration_ns'], left_out
    assert 'left out' in stats['_stderr']
    assert stats['sizes'] and all(row['live_bytes'] is None and row['live_count'] is None for row in stats['sizes']), stats['sizes']
    counters = stats['events']['written'] + left_out['events']
    top = check_known(TURNS)
    noise = top['noise']
    assert noise['alloc_count'] >= 2000 * TURNS, noise
    live = stats['blocks']['live_at_end']
    same('leaks', tool('leaks')['total']['count'], live)
    same('blocks', stats['blocks']['allocated'] - stats['blocks']['freed'], live)
    assert counters >= stats['blocks']['allocated'] + stats['blocks']['freed'] - 3
    every_tool_reads()
    same('verify', execute([MEMLYZE, 'verify', 'trace.mlyze']).returncode, 0)
    for to in ('collapsed', 'speedscope', 'pprof', 'dhat', 'massif', 'perfetto', 'json'):
        same(to, execute([MEMLYZE, 'export', '--to', to, '-o', 'out', 'trace.mlyze']).returncode, 0)
    early = execute([MEMLYZE, 'top', '--at', '1ms', 'trace.mlyze'])
    assert early.returncode == 2 and 'left out' in early.stderr, early.stderr


@case
def several_processes():
    record(program() + [str(TURNS), 'fork'], '--max-size', '1MiB', '--sample-rate', '1')
    assert os.path.getsize('trace.mlyze') <= LIMIT
    stats = tool('stats', '--process', 'all')
    same('leaks', tool('leaks', '--process', 'all')['total']['count'], stats['blocks']['live_at_end'])
    same('processes', len(stats['processes']), 2)
    top = sites(tool('top', '--group', 'function', '--process', 'all'), 'sites')
    assert 2 * 5000 <= top['leak_early']['live_count'] <= 2 * 5000 + 6


@case
def a_killed_recorder_leaves_what_it_kept():
    recorder = subprocess.Popen([MEMLYZE, 'record', '-f', '-o', 'trace.mlyze', '--quiet', '--max-size', '1MiB', '--'] + program() +
                                [str(TURNS), 'wait'], stdout=subprocess.PIPE, env=clean_env())
    try:
        same('program', recorder.stdout.readline(), b'ready\n')
        time.sleep(1.5)  # a group is written each second
    finally:
        pid = int(execute(['ps', '-o', 'pid=', '--ppid', str(recorder.pid)]).stdout.split()[0])
        recorder.kill()
        recorder.wait()
        os.kill(pid, signal.SIGKILL)
    assert sum(os.path.getsize(f) for f in os.listdir('.') if 'mlyze' in f) <= LIMIT
    stats = tool('stats')
    same('complete', stats['complete'], False)
    assert stats['left_out']['events'] > 100000
    check_known(TURNS)


@case
def a_damaged_begin_is_told():
    record(program() + [str(TURNS)], '--max-size', '1MiB')
    data = bytearray(open('trace.mlyze', 'rb').read())
    at, first = 64, None
    while first is None:
        kind, size = int.from_bytes(data[at + 4:at + 6], 'little'), int.from_bytes(data[at + 8:at + 12], 'little')
        first = at + 32 + size // 2 if kind == 12 else None
        at += 32 + size
    data[first] ^= 0x55
    open('trace.mlyze', 'wb').write(data)
    same('verify', execute([MEMLYZE, 'verify', 'trace.mlyze']).returncode, 1)
    for name in ('top', 'leaks', 'stats'):
        result = execute([MEMLYZE, name, 'trace.mlyze'])
        assert result.returncode == 0 and 'damaged' in result.stderr, result.stderr


@case
def wrong_use():
    for size in ('0', '1000000', 'much'):
        result = execute([MEMLYZE, 'record', '--max-size', size, 'true'])
        assert result.returncode == 2 and '1 MiB' in result.stderr and result.stderr.count('\n') == 1, result.stderr
    result = execute([MEMLYZE, 'record', '--max-size', '1MiB', '-o', '/dev/null', 'true'])
    assert result.returncode == 125 and 'regular file' in result.stderr, result.stderr
    result = execute([MEMLYZE, 'record', '--flight-recorder', '1ms', 'true'])
    assert result.returncode == 2 and '100 ms' in result.stderr, result.stderr
    result = execute([MEMLYZE, 'record', '--snapshots-only', '--max-size', '2MiB', 'true'])
    assert result.returncode == 2 and '--snapshots-only' in result.stderr, result.stderr


# ---- the flight recorder ----

FLIGHT = '''
import os, sys, time
kept = [bytearray(1000) for _ in range(2000)]  # @early
def turn(n):
    return [bytes(100 + n % 50 + i) for i in range(2000)]
end = time.time() + float(sys.argv[1])
n = 0
while time.time() < end:
    turn(n)
    n += 1
    if n == 20: print('ready', flush=True)
    time.sleep(0.005)
if len(sys.argv) > 2: os.kill(os.getpid(), 11)
'''


def flight(*arguments, **more):
    with open('flight.py', 'w') as file:
        file.write(FLIGHT)
    return subprocess.Popen([MEMLYZE, 'record', '--quiet', '-f', '-o', 'trace.mlyze', '--flight-recorder', '500ms', '--max-size', '8MiB', '--', PYTHON, '-I', '-B',
                             'flight.py'] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=clean_env(), **more)


def read_flight(trace):
    stats = tool('stats', trace=trace)
    sites = [s for s in tool('top', trace=trace)['sites'] if s['file'].endswith('flight.py') and s['line'] == 3]
    assert sum(s['live_bytes'] for s in sites) >= 2000 * 1000, sites
    same('verify', execute([MEMLYZE, 'verify', trace]).returncode, 0)
    return stats


@case
def a_flight_recorder_is_written_when_asked():
    recorder = flight('4')
    same('program', recorder.stdout.readline(), 'ready\n')
    time.sleep(1.5)
    assert not os.path.exists('trace.mlyze'), 'it is written already'
    recorder.send_signal(signal.SIGUSR2)
    for _ in range(200 * SLOW):
        if os.path.exists('trace.mlyze'):
            break
        time.sleep(0.02)
    first = read_flight('trace.mlyze')
    same('complete', first['complete'], False)
    result = execute([MEMLYZE, 'control', '--pid', str(recorder.pid), '--dump', 'other.mlyze'])
    assert result.returncode == 0 and 'dumped' in result.stdout, result.stderr
    second = read_flight('other.mlyze')
    assert second['duration_ns'] > first['duration_ns']
    out, err = recorder.communicate(timeout=60 * SLOW)
    same('status', (recorder.returncode, err), (0, ''))
    last = read_flight('trace.mlyze')
    same('complete', last['complete'], True)
    assert last['duration_ns'] > second['duration_ns'] and last['left_out']['events'] > 0, last
    assert last['duration_ns'] - last['left_out']['until_ns'] < 4e9 * SLOW


@case
def a_flight_recorder_is_written_after_a_crash():
    recorder = flight('1', 'crash')
    recorder.communicate(timeout=60 * SLOW)
    same('status', recorder.returncode, 128 + 11)
    stats = read_flight('trace.mlyze')
    same('complete', stats['complete'], True)


@case
def a_recorder_without_flight_has_nothing_to_dump():
    recorder = subprocess.Popen([MEMLYZE, 'record', '--quiet', '-f', '-o', 'trace.mlyze', '--', 'sleep', '600'], env=clean_env())
    try:
        for _ in range(200 * SLOW):
            result = execute([MEMLYZE, 'control', '--pid', str(recorder.pid), '--dump'])
            if 'is not traced' not in result.stderr:
                break
            time.sleep(0.02)
        assert result.returncode == 2 and 'no flight recorder' in result.stderr, result.stderr
    finally:
        recorder.terminate()
        recorder.wait()


OUTGROWN = '''
import random, sys
keep = []
for i in range(int(sys.argv[1])):
    names = {}
    exec(compile("def f%d(n):\\n    return bytes(n)\\n" % i, "/%x.py" % random.getrandbits(1200), "exec"), names)
    keep.append(names["f%d" % i](i % 100))
'''


@case
def a_flight_recorder_whose_names_outgrow_it_is_written_all_the_same():
    with open('outgrown.py', 'w') as file:
        file.write(OUTGROWN)
    for options, words in (('--flight-recorder', '60s'), 'what had been recorded is written'), ((), 'the trace is readable up to the last whole part'):
        result = execute([MEMLYZE, 'record', '-f', '-o', 'trace.mlyze', '--max-size', '1MiB', *options, '--', PYTHON, '-I', '-B', 'outgrown.py', '9000'], env=clean_env())
        assert 'need too much of --max-size' in result.stderr and words in result.stderr, result.stderr
        stats = tool('stats')
        same('complete', stats['complete'], False)
        assert tool('top')['sites'], 'nothing is in it'


@case
def a_flight_recorder_has_the_names_of_native_frames():
    life = os.path.join(BUILD, 'tests', 'integration', 'native_life')
    result = execute([MEMLYZE, 'record', '--quiet', '-f', '-o', 'trace.mlyze', '--native', '--flight-recorder', '60s', '--', life, 'jumps'], env=clean_env())
    same('status', (result.returncode, result.stderr), (0, ''))
    names = {s['function'] for s in tool('top', '--group', 'function')['sites']}
    assert 'life_leaf' in names and not any('+0x' in name for name in names), names


run(__name__)
