"""Deaths and stops at random instants: of the program, whose trace keeps every published record; of the recorder, without which the program
comes to the same result."""
import os
import random
import signal
import subprocess
import time

from harness import MEMLYZE, PROGRAMS, PYTHON, PYTHONS, SLOW, TOOLS, case, clean_env, every_tool_reads, execute, record, run, same, tool

STEADY = os.path.join(PROGRAMS, 'steady.py')
ROUNDS = '8000'
seed = int(os.environ.get('MEMLYZE_TEST_SEED') or random.SystemRandom().randrange(1 << 30))
print('# seed %d (MEMLYZE_TEST_SEED)' % seed)
dice = random.Random(seed)


class Recording:
    """A running `memlyze record` of steady.py; .child is the program's pid."""
    def __init__(self, *arguments, python=PYTHON, options=()):
        self.process = subprocess.Popen([MEMLYZE, 'record', '--quiet', '-f', '-o', 'trace.mlyze', *options, '--', python, STEADY, *arguments],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=clean_env(),
                                        universal_newlines=True)
        line = self.process.stderr.readline()
        if line != 'ready\n':
            rest = self.process.communicate(timeout=30)
            raise AssertionError('not ready: %r %r' % (line, rest))
        children = '/proc/%d/task/%d/children' % (self.process.pid, self.process.pid)
        self.child = int(open(children).read().split()[0])

    def finish(self, timeout=60 * SLOW):
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for pid in (self.process.pid, self.child):
            if self.process.poll() is None:
                try:
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        if self.process.poll() is None:
            self.process.wait(timeout=30)
        self.process.stdout.close()
        self.process.stderr.close()


def gone(pid, timeout=30):
    end = time.monotonic() + timeout
    while os.path.exists('/proc/%d' % pid):
        state = open('/proc/%d/stat' % pid).read().rpartition(')')[2].split()[0] if os.path.exists('/proc/%d/stat' % pid) else 'X'
        if state in 'ZX':
            return
        assert time.monotonic() < end, 'process %d is still there' % pid
        time.sleep(0.02)


@case(each=[('%s, time %d' % (label, i), python) for label, python in PYTHONS for i in range(3)])
def program_killed(python):
    with Recording('30', python=python) as r:
        time.sleep(dice.random() * 0.4)
        os.kill(r.child, signal.SIGKILL)
        same('exit status and stderr', r.finish()[::2], (137, ''))
    every_tool_reads()
    stats = tool('stats')
    assert stats['complete'] is True and stats['events']['dropped'] == 0, stats
    assert stats['events']['allocs'] > 1000, stats['events']


@case
def every_record_that_was_published_before_a_kill():
    # The program writes down each block before it goes on; all blocks that it wrote down must be in the trace.
    with open('count.py', 'w') as file:
        file.write('''
import mmap, os, sys
done = mmap.mmap(os.open('done', os.O_RDWR), 8)
UNIT = b'x'
kept = [None] * 2000000
sys.stderr.write('ready\\n'); sys.stderr.flush()
for i in range(2000000):
    kept[i] = UNIT * 30
    done[0:8] = (i + 1).to_bytes(8, 'little')
''')
    for _ in range(4):
        with open('done', 'wb') as file:
            file.write(bytes(8))
        with subprocess.Popen([MEMLYZE, 'record', '--quiet', '-f', '-o', 'trace.mlyze', PYTHON, 'count.py'], stderr=subprocess.PIPE,
                              env=clean_env()) as p:
            p.stderr.readline()
            time.sleep(dice.random() * 0.3)
            child = int(open('/proc/%d/task/%d/children' % (p.pid, p.pid)).read().split()[0])
            os.kill(child, signal.SIGKILL)
            p.wait(timeout=60)
        written = int.from_bytes(open('done', 'rb').read(), 'little')
        site = [s for s in tool('top', '-n', '0')['sites'] if (s['file'] or '').endswith('count.py') and s['line'] == 8]
        count = site[0]['alloc_count'] if site else 0
        assert count in (written, written + 1), '%d blocks made, %d in the trace' % (written, count)
        same('blocks live at the kill', site[0]['live_count'] if site else 0, count)


def result_of(*arguments):
    return execute([PYTHON, STEADY, *arguments]).stdout


def reads_or_says_that_nothing_is_in_it():
    """True: every tool reads the trace. A recorder that was killed before its first whole group of chunks leaves a file without events."""
    text = execute([MEMLYZE, 'stats', 'trace.mlyze'])
    if text.returncode == 2:
        for name in TOOLS:
            empty = execute([MEMLYZE, name, 'trace.mlyze'])
            same('exit status of ' + name, empty.returncode, 2)
            assert 'trace.mlyze: ' in empty.stderr, empty.stderr
        return False
    every_tool_reads()
    return True


@case
def recorder_killed_late():
    # Long enough for groups of chunks to be there: all but the last second is readable.
    with Recording('2.5') as r:
        time.sleep(2.2)
        os.kill(r.process.pid, signal.SIGKILL)
        gone(r.child)
        r.finish()
    every_tool_reads()
    stats = tool('stats')
    same('complete', stats['complete'], False)
    assert stats['events']['allocs'] > 10000, stats['events']


@case(each=[('time %d' % i, i) for i in range(4)])
def recorder_killed(_):
    began = time.monotonic()
    wanted = result_of('0', ROUNDS)
    alone = time.monotonic() - began
    with Recording('0', ROUNDS) as r:
        time.sleep(dice.random() * alone * 0.7)  # while the program is at work
        os.kill(r.process.pid, signal.SIGKILL)
        gone(r.child)
        out = r.finish()[1]
    same('result of the program', out, wanted)
    if reads_or_says_that_nothing_is_in_it():
        same('complete', tool('stats')['complete'], False)


@case(each=[('time %d' % i, i) for i in range(2)])
def recorder_stopped_and_continued(_):
    wanted = result_of('0', ROUNDS)
    began = time.monotonic()
    with Recording('0', ROUNDS) as r:
        time.sleep(dice.random() * 0.2)
        os.kill(r.process.pid, signal.SIGSTOP)
        gone(r.child, timeout=20 * SLOW)  # the program goes on and ends while the recorder stands still
        stood = time.monotonic() - began
        os.kill(r.process.pid, signal.SIGCONT)
        status, out, err = r.finish()
    same('status and result of the program', (status, out), (0, wanted))
    assert stood < 15 * SLOW, 'the program took %.1f s' % stood
    every_tool_reads()
    stats = tool('stats')
    assert stats['events']['dropped'] > 0, 'nothing was dropped: %r' % stats['events']
    assert any(t['blocked_ns'] > 0 for t in stats['threads']), stats['threads']


@case
def recorder_stopped_for_ever_does_not_hold_a_fork_or_an_exec():
    program = '''
import os, subprocess, sys, threading
sys.stderr.write("ready\\n"); sys.stderr.flush()
import time; time.sleep(0.3)
assert subprocess.run([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE).stdout == b"1\\n"
pid = os.fork()
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
t = threading.Thread(target=lambda: [bytes(5000) for _ in range(30000)]); t.start(); t.join()
open("finished", "w").close()
'''
    with subprocess.Popen([MEMLYZE, 'record', '--quiet', '-f', '-o', 'trace.mlyze', PYTHON, '-c', program], stderr=subprocess.PIPE,
                          env=clean_env()) as p:
        p.stderr.readline()
        os.kill(p.pid, signal.SIGSTOP)
        end = time.monotonic() + 20 * SLOW
        try:
            while not os.path.exists('finished'):
                assert time.monotonic() < end, 'the program hangs on a stopped recorder'
                time.sleep(0.05)
        finally:
            os.kill(p.pid, signal.SIGCONT)
        same('status', p.wait(timeout=30), 0)
    every_tool_reads()


@case
def both_killed():
    with Recording('30') as r:
        time.sleep(0.3)
        os.kill(r.process.pid, signal.SIGKILL)
        os.kill(r.child, signal.SIGKILL)
        r.finish()
    reads_or_says_that_nothing_is_in_it()


@case
def a_file_cut_anywhere_is_read_or_refused():
    record([PYTHON, STEADY, '0', '1500'])
    whole = open('trace.mlyze', 'rb').read()
    places = [0, 1, 7, 8, 63, 64, 100] + [dice.randrange(len(whole)) for _ in range(25)] + [len(whole) - 1]
    for place in places:
        with open('cut.mlyze', 'wb') as file:
            file.write(whole[:place])
        for name in ('stats', 'top'):
            result = execute([MEMLYZE, name, 'cut.mlyze'])
            assert result.returncode in (0, 2), '%s of %d bytes: exit status %d\n%s' % (name, place, result.returncode, result.stderr)
            assert result.stderr.count('\n') >= 1, '%s of %d bytes says nothing about it' % (name, place)


@case
def a_file_with_wrong_bytes_is_read_or_refused():
    record([PYTHON, STEADY, '0', '800'])
    whole = open('trace.mlyze', 'rb').read()
    for _ in range(40):
        place = dice.randrange(len(whole))
        with open('bad.mlyze', 'wb') as file:
            file.write(whole[:place] + bytes([whole[place] ^ (1 << dice.randrange(8))]) + whole[place + 1:])
        result = execute([MEMLYZE, 'top', 'bad.mlyze'])
        assert result.returncode in (0, 2), 'byte %d: exit status %d\n%s' % (place, result.returncode, result.stderr)


run(__name__)
