"""Threads, forks and everything that begins or ends a process."""
import os

from harness import PROGRAMS, PYTHON, PYTHONS, Skip, case, clean_env, execute, record, run, same, tool

BASE = 300000  # sizes above it are ours


def write(name, text):
    with open(name, 'w') as file:
        file.write(text)
    return name


def blocks(answer, file):
    """{line: (count, live count)} over all processes that the answer holds."""
    found = {}
    for site in answer['sites']:
        if os.path.basename(site['file'] or '') == file:
            old = found.get(site['line'], (0, 0))
            found[site['line']] = (old[0] + site['alloc_count'], old[1] + site['live_count'])
    return found


@case(each=[('joined', False), ('daemon', True)])
def two_hundred_threads(daemon):
    write('many.py', '''
import threading, time
kept = [None] * 200
UNIT = b'x'
go = threading.Event()
def work(i):
    kept[i] = UNIT * 3000
    go.wait()
    for n in range(20):
        UNIT * 4000
threads = [threading.Thread(target=work, args=(i,), daemon=%r) for i in range(200)]
for t in threads: t.start()
go.set()
if not %r:
    for t in threads: t.join()
print("done")
''' % (daemon, daemon))
    same('output', record([PYTHON, 'many.py']).stdout, 'done\n')
    answer = tool('top', '-n', '0')
    found = blocks(answer, 'many.py')
    same('blocks of the threads (%s)' % answer['_stderr'], found.get(7), (200, 200))
    if not daemon:
        same('passing blocks of the threads', found.get(10), (4000, 0))


@case
def threads_that_come_and_go():
    write('churn.py', '''
import threading
UNIT = b'x'
def work():
    for n in range(50):
        UNIT * 2000
for round in range(40):
    threads = [threading.Thread(target=work) for _ in range(16)]
    for t in threads: t.start()
    for t in threads: t.join()
''')
    record([PYTHON, 'churn.py'])
    same('blocks', blocks(tool('top', '-n', '0'), 'churn.py').get(6), (40 * 16 * 50, 0))


@case
def names_of_threads():
    write('named.py', '''
import threading
def work(): return [bytes(1000) for _ in range(100)]
for name in ('first worker', 'zweiter-Fäden'):
    t = threading.Thread(target=work, name=name); t.start(); t.join()
''')
    record([PYTHON, 'named.py'])
    threads = tool('stats')['threads']
    same('threads', len(threads), 3)


FORK = '''
import os, sys
UNIT = b'x'
kept = [None] * 100
for i in range(100):
    kept[i] = UNIT * 3000
%s
if pid == 0:
    for i in range(50): kept[i] = None
    mine = [None] * 30
    for i in range(30):
        mine[i] = UNIT * 5000
    %s
else:
    for i in range(20): kept[i] = None
    os.waitpid(pid, 0)
'''


@case(each=[(label + how, python, fork, end) for label, python in PYTHONS for how, fork, end in (
    (', _exit', 'pid = os.fork()', 'os._exit(0)'), (', exit', 'pid = os.fork()', 'sys.exit(0)'))])
def a_fork(python, fork, end):
    write('fork.py', FORK % (fork, end))
    record([python, 'fork.py'])
    same('processes', len(tool('stats')['processes']), 2)
    # The child's frees of blocks that it inherited change no total.
    found = blocks(tool('top', '-n', '0', '--process', 'all'), 'fork.py')
    same('blocks of before the fork, not counted twice', found[6], (100, 80))
    same('blocks of the child', found[12], (30, 30))


@case
def raw_forks_that_no_handler_sees():
    write('raw.py', FORK % ('import ctypes\nlibc = ctypes.CDLL(None)\npid = libc._Fork() if hasattr(libc, "_Fork") else os.fork()',
                            'os._exit(0)'))
    record([PYTHON, 'raw.py'])
    same('blocks of the child', blocks(tool('top', '-n', '0', '--process', 'all'), 'raw.py')[14], (30, 30))


@case(each=PYTHONS)
def exec_begins_a_new_image(python):
    write('second.py', "UNIT = b'x'\nkept = [None] * 10\nfor i in range(10):\n    kept[i] = UNIT * 7000\nprint('second')\n")
    write('first.py', "import os, sys\nUNIT = b'x'\nkept = [None] * 20\nfor i in range(20):\n    kept[i] = UNIT * 6000\n"
                      "os.execv(sys.executable, [sys.executable, 'second.py'])\n")
    same('output', record([python, 'first.py']).stdout, 'second\n')
    answer = tool('top', '-n', '0', '--process', 'all')
    same('blocks before exec', blocks(answer, 'first.py').get(5), (20, 20))
    same('blocks after exec', blocks(answer, 'second.py').get(4), (10, 10))


@case(each=PYTHONS)
def subprocesses_and_multiprocessing(python):
    write('child.py', "UNIT = b'x'\nkept = [None] * 10\nfor i in range(10):\n    kept[i] = UNIT * 7000\n")
    write('parent.py', '''
import multiprocessing, subprocess, sys
UNIT = b'x'
def work(n):
    block = UNIT * 9000
    return n * n
if __name__ == '__main__':
    for _ in range(3):
        subprocess.run([sys.executable, 'child.py'], check=True)
    for method in ('fork', 'spawn'):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(work, range(10)) == [n * n for n in range(10)]
    print(subprocess.run('exit 4', shell=True).returncode)
''')
    plain = execute([python, 'parent.py'])
    traced = record([python, 'parent.py'])
    same('result', (traced.stdout, traced.stderr), (plain.stdout, plain.stderr))
    answer = tool('top', '-n', '0', '--process', 'all')
    same('blocks of the three children', blocks(answer, 'child.py').get(4), (30, 30))
    same('blocks of the pools', blocks(answer, 'parent.py').get(5, (0,))[0], 20)


@case
def no_follow_traces_the_command_alone():
    write('child.py', "kept = [bytes(7000) for i in range(10)]\n")
    write('parent.py', "import subprocess, sys\nsubprocess.run([sys.executable, 'child.py'], check=True)\nkept = bytes(8000)\n")
    record([PYTHON, 'parent.py'], '--no-follow')
    answer = tool('top', '-n', '0', '--process', 'all')
    same('blocks of the child', blocks(answer, 'child.py'), {})
    assert blocks(answer, 'parent.py'), 'nothing of the command itself'


@case
def a_shell_script_s_python_is_what_the_report_is_about():
    write('app.py', "kept = [None] * 10\nfor i in range(10):\n    kept[i] = b'x' * 7000\n")
    write('wrapper', '#!/bin/sh\n# as pyenv does it\necho x | sed s/x/y/ | sort > /dev/null\nexec "%s" "$@"\n' % PYTHON)
    os.chmod('wrapper', 0o755)
    record(['./wrapper', 'app.py'])
    answer = tool('top', '-n', '0')
    same('blocks', blocks(answer, 'app.py').get(3), (10, 10))
    stats = tool('stats')
    assert len(stats['processes']) >= 3, 'processes: %r' % stats['processes']


@case(each=[('_exit', 'import os; os._exit(3)', 3), ('abort', 'import os; os.abort()', 134), ('exception', '1/0', 1),
            ('kill', 'import os; os.kill(os.getpid(), 9)', 137), ('atexit', 'import atexit; atexit.register(lambda: more.append(b"x" * 7000))', 0)])
def ends_of_a_process(end, status):
    write('end.py', "UNIT = b'x'\nkept = [None] * 10\nmore = []\nfor i in range(10):\n    kept[i] = UNIT * 7000\n%s\n" % end)
    record([PYTHON, 'end.py'], status=status)
    same('blocks live at the end', blocks(tool('top', '-n', '0'), 'end.py').get(5), (10, 10))
    assert tool('stats')['complete'] is True


@case
def a_signal_handler_that_allocates():
    write('signals.py', '''
import signal
count = 0
def handler(n, f):
    global count
    count += 1
    [bytes(1000) for _ in range(10)]
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
data = []
while count < 300:
    data = [bytes(100 + i) for i in range(500)]
signal.setitimer(signal.ITIMER_REAL, 0)
print("survived")
''')
    same('output', record([PYTHON, 'signals.py']).stdout, 'survived\n')
    found = blocks(tool('top', '-n', '0'), 'signals.py')
    assert found.get(7, (0, 0))[0] >= 3000, found.get(7)


@case
def very_deep_stacks():
    write('deep.py', '''
import sys
sys.setrecursionlimit(100000)
import threading
threading.stack_size(256 << 20)
def down(n):
    if n:
        return down(n - 1)
    return b'x' * 9000
kept = []
t = threading.Thread(target=lambda: kept.append(down(20000)))
t.start(); t.join()
''')
    for depth in ('0', '1', '10', '1024'):
        record([PYTHON, 'deep.py'], '--max-stack-depth', depth)
        all_sites = tool('top', '-n', '0', '--group', 'stack')['sites']
        if depth == '0':
            same('stacks at depth 0', [s for s in all_sites if s['stack']], [])
            continue
        sites = [s for s in all_sites if s['alloc_bytes'] == 9033]
        same('sites at depth ' + depth, len(sites), 1)
        same('frames', len(sites[0]['stack']), int(depth))


@case
def wait_all_waits_for_children():
    write('daemon.py', '''
import os, time
if os.fork() == 0:
    time.sleep(0.7)
    kept = [None] * 5
    for i in range(5):
        kept[i] = b'x' * 8000
    os._exit(0)
''')
    record([PYTHON, 'daemon.py'], '--wait', 'all', stdout=None)
    same('blocks of the child that outlives', blocks(tool('top', '-n', '0', '--process', 'all'), 'daemon.py').get(7), (5, 5))


@case(each=PYTHONS)
def threads_have_the_names_that_the_program_gave(python):
    record([python, os.path.join(PROGRAMS, 'names.py')])
    threads = tool('stats')['threads']
    same('names', {t['name'] for t in threads}, {'MainThread', 'web-0', 'größe', 'x' * 40})
    assert all(t['events'] > 1000 for t in threads), threads


run(__name__)
