"""start() and stop() in a running interpreter, and requests, through the agent's C interface (tracer/agent/api.h)."""
import json
import os
import signal
import subprocess
import time

from harness import BUILD, PROGRAMS, PYTHON, PYTHONS, SLOW, case, clean_env, compare_exact, execute, record, run, same, sites_of, tool

HEAD = '''
import json, os, sys, time
sys.path.insert(0, %r)
import started
from started import start, stop, request, info, Refused
UNIT = b'x'
def known(n=100):
    keep, indices = [None] * n, range(n)
    for i in indices:
        keep[i] = UNIT * 1000  # @known
    return keep
KNOWN = known.__code__.co_firstlineno + 3
def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except Refused as e:
        return list(e.args)
''' % PROGRAMS


def program(text, *arguments, python=PYTHON, status=0, env=None, **more):
    """Runs it; what it prints is JSON, line by line."""
    with open('program.py', 'w') as file:
        file.write(HEAD + text)
    result = execute([python, '-I', 'program.py', *arguments], env=clean_env(MEMLYZE_BUILD=BUILD, **(env or {})), **more)
    assert result.returncode == status, 'status %d\n%s\n%s' % (result.returncode, result.stdout, result.stderr)
    return [json.loads(line) for line in result.stdout.splitlines()]


def known_blocks(trace='trace.mlyze'):
    """[count, bytes] of the known line."""
    line = HEAD.splitlines().index("        keep[i] = UNIT * 1000  # @known") + 1
    site = sites_of(tool('top', '-n', '0', trace=trace), 'program.py').get(line)
    return [site['alloc_count'], site['alloc_bytes']] if site else None


def no_recorder(since=()):
    """No --serve of this build runs any more (but those of other tests, `since`)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = [p for p in recorders() if p not in since]
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError('recorders that run on: %r' % left)


def recorders():
    """Those that write into this directory."""
    found = []
    for pid in os.listdir('/proc'):
        try:
            if pid.isdigit() and os.readlink('/proc/%s/cwd' % pid) == os.getcwd() and b'--serve' in open('/proc/%s/cmdline' % pid, 'rb').read():
                found.append(int(pid))
        except OSError:
            pass
    return found


@case(each=PYTHONS)
def exact(python):
    with open('run_exact.py', 'w') as file:
        file.write(HEAD + '''
import runpy
answers = start('--max-stack-depth', '20')
runpy.run_path(sys.argv[1], run_name='__main__')
stats = stop(answers)
assert stats['complete'] and stats['events']['dropped'] == 0
''')
    file = os.path.join(PROGRAMS, 'exact.py')
    result = execute([python, '-I', 'run_exact.py', file], env=clean_env(MEMLYZE_BUILD=BUILD))
    same('status', (result.returncode, result.stderr), (0, ''))
    compare_exact(file, result, tool('top', '-n', '0'), tool('top', '-n', '0', '--by', 'peak-bytes'))


@case(each=PYTHONS)
def start_stop_start(python):
    program('''
for name in 'one', 'two', 'three':
    known()
    answers = start(trace=name)
    mode = info().mode
    keep = known()
    stats = stop(answers)
    print(json.dumps([mode, info().mode, stats['complete'], stats['pid'] == os.getpid(), len(stats['processes']), stats['python_version']]))
''', python=python)
    for name in ('one', 'two', 'three'):
        same(name, known_blocks(name), [100, 103300])
        every = tool('stats', trace=name)
        assert every['bytes']['live_at_end'] > 100000, 'what lives at stop() counts as living: %r' % every['bytes']


@case
def modes_and_what_is_refused():
    said = program('''
print(json.dumps([info().mode, refused(stop), refused(request, mark='x')]))
answers = start('--sample-rate', '0.5', '--max-stack-depth', '7', '--sample-over', '4096', '--no-track-gc')
i = info()
print(json.dumps([i.mode, i.sample_rate, i.max_stack_depth, i.sample_over, i.track_gc, i.paused, os.path.isdir(i.session), refused(start)]))
print(json.dumps([refused(request, mark='a\\nb'), refused(request, rate=2.0), refused(request, depth=2000), refused(request, snapshot='y' * 300)]))
first, second = request(mark='warm'), request(snapshot='hot', rate=0.25, depth=3)
i = info()
print(json.dumps([first < second, i.sample_rate, i.max_stack_depth]))
request(paused=1); one = info().paused; request(paused=0)
print(json.dumps([one, info().paused]))
stats = stop(answers)
print(json.dumps([stats['events']['marks'], stats['events']['snapshots'], info().mode, os.path.isdir(i.session)]))
''')
    same('before', said[0], [0, [-1, 'recording was not started'], [-1, 'recording was not started']])
    same('started', said[1], [2, 0.5, 7, 4096, 0, 0, True, [-1, 'recording was started already; stop it first']])
    same('refused', [r[0] for r in said[2]], [-2] * 4)
    same('changed', said[3], [True, 0.25, 3])
    same('paused', said[4], [1, 0])
    same('stopped', said[5], [1, 1, 0, False])


@case
def why_it_does_not_start():
    os.mkdir('readonly')
    said = program('''
print(json.dumps(refused(start, trace='nowhere/trace.mlyze')))
print(json.dumps(refused(start, '--sample-rate', '2')))
print(json.dumps(refused(start, recorder='/nonexistent/memlyze-record')))
print(json.dumps(refused(start, recorder='/bin/true')))
print(json.dumps([info().mode, len(os.listdir('/proc/self/fd'))]))
try:
    os.wait()
except ChildProcessError:
    print(json.dumps('no child'))
answers = start()
keep = known()
stop(answers)
''')
    same('no directory', said[0], [-3, 'nowhere/trace.mlyze: cannot be created: No such file or directory; choose another file with -o'])
    same('a value', said[1], [-2, '--sample-rate 2 must be a number above 0 and at most 1'])
    same('no recorder', said[2], [-3, '/nonexistent/memlyze-record: cannot be executed: No such file or directory'])
    same('another program', said[3], [-3, 'the recorder ended before it was ready'])
    same('afterwards', said[4:], [[0, 4], 'no child'])
    same('and then it starts', known_blocks(), [100, 103300])


@case
def the_program_does_not_notice():
    said = program('''
import signal
got = []
signal.signal(signal.SIGCHLD, lambda *a: got.append(a))
before = os.listdir('/proc/self/fd')
import ctypes
ctypes.set_errno(5)
answers = start()
after = [f for f in os.listdir('/proc/self/fd') if int(f) != answers]
recorder = info().recorder_pid
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError as e:
    print(json.dumps('no child'))
theirs = {f: os.readlink('/proc/%d/fd/%s' % (recorder, f)) for f in os.listdir('/proc/%d/fd' % recorder)}
print(json.dumps([before == after, [theirs[f] for f in '012'], os.getpgid(recorder) == recorder,
                  open('/proc/%d/stat' % recorder).read().rsplit(')', 1)[1].split()[1] != str(os.getpid())]))
mine = {os.readlink('/proc/self/fd/' + f) for f in '012'}
print(json.dumps(sorted(mine & set(theirs.values()) - {'/dev/null'})))
stop(answers)
time.sleep(0.1)
print(json.dumps(got))
''')
    same('said', said, ['no child', [True, ['/dev/null'] * 3, True, True], [], []])


@case
def a_shell_that_waits_for_its_output():
    with open('program.py', 'w') as file:
        file.write(HEAD + 'answers = start()\nkeep = known()\nprint("done")\n')
    began = time.monotonic()
    out = subprocess.check_output(['sh', '-c', 'x=$(%s -I program.py); echo "$x"' % PYTHON], env=clean_env(MEMLYZE_BUILD=BUILD), timeout=20)
    same('output', out, b'done\n')
    no_recorder()
    same('a trace without stop()', known_blocks(), [100, 103300])
    stats = tool('stats')
    assert stats['complete'] and time.monotonic() - began < 20 * SLOW, stats


@case(each=[('exit', 'sys.exit(3)', 3), ('os._exit', 'os._exit(4)', 4), ('SIGKILL', 'os.kill(os.getpid(), 9)', -9),
            ('SIGINT of the terminal', 'os.killpg(0, 2); time.sleep(5)', None)])
def ends_without_stop(end, status):
    with open('program.py', 'w') as file:
        file.write(HEAD + 'answers = start()\nkeep = known()\n' + end + '\n')
    result = execute([PYTHON, '-I', 'program.py'], env=clean_env(MEMLYZE_BUILD=BUILD), start_new_session=True)
    assert status is None or result.returncode == status, result
    no_recorder()
    same('known line', known_blocks(), [100, 103300])
    stats = tool('stats')
    assert stats['complete'], stats
    assert stats['bytes']['live_at_end'] >= 103300, stats['bytes']


THREADS = '''
import threading, zlib
running = True
def python():
    while running:
        kept = [bytearray(n) for n in range(0, 3000, 50)]
        names = {n: str(n) for n in range(100)}
def native():
    data = os.urandom(100000)
    while running:
        zlib.decompress(zlib.compress(data, 1))
def short():
    while running:
        some = [threading.Thread(target=lambda: [object() for _ in range(20)]) for _ in range(3)]
        for t in some: t.start()
        for t in some: t.join()
sys.setswitchinterval(0.0005)
others = [threading.Thread(target=f) for f in (python, native, short)]
for t in others: t.start()
def end():
    global running
    running = False
    for t in others: t.join()
'''


@case(each=PYTHONS)
def threads_that_allocate(python):
    program(THREADS + '''
for n in range(6):
    answers = start('--sample-rate', '0.1') if n == 4 else start(*(['--max-events', '1000'] if n % 2 else []))
    time.sleep(0.05)
    keep = known()
    stats = stop(answers)
    assert stats['complete'], stats
    assert stats['events']['dropped'] == 0, stats
end()
''', python=python)
    same('known line', known_blocks(), [100, 103300])


@case(each=[('quiet', ''), ('while threads allocate', THREADS)])
def a_thousand_times(others):
    said = program(others + '''
times, warm = int(sys.argv[1]), int(sys.argv[2])
def status():
    lines = dict(line.split(':') for line in open('/proc/self/status'))
    return [int(lines['VmSize'].split()[0]), int(lines['VmRSS'].split()[0]), len(os.listdir('/proc/self/fd')), int(lines['Threads'])]
def there():
    return [os.path.isdir(os.path.dirname(session)) and sorted(os.listdir(os.path.dirname(session))).count(os.path.basename(session))]
for n in range(times):
    answers = start('--sample-rate', '0.5') if n % 5 == 4 else start()
    session = info().session.decode()
    keep = known(10)
    if n %% 50 == 7:
        child = os.fork()
        if not child:
            keep = known(20)
            try:
                stop()
                assert info().mode == 0
                os._exit(7)
            except BaseException as e:
                os.write(2, repr(e).encode())
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 7 << 8
    stats = stop(answers)
    assert stats['complete'], stats
    assert not os.path.exists(session), session
    if n == warm: before = status()
print(json.dumps([before, status()]))
if 'end' in globals(): end()
'''.replace('%%', '%'), str(1000 // SLOW if not others else 200 // SLOW), '40', timeout=600)
    before, after = said[0]
    slack = 2048 if not others else 140000  # the C library makes a heap of 64 MiB of address space for a thread when it likes, and keeps stacks
    assert after[0] - before[0] <= slack, 'address space: %r KiB' % (said,)
    assert after[1] - before[1] <= 2048, 'resident memory: %r KiB' % (said,)
    same('descriptors', after[2], before[2])
    if not others:
        same('threads', after[3], before[3])
        same('shared memory', [f for f in os.listdir('/dev/shm') if 'memlyze' in f], [])


@case(each=PYTHONS)
def a_fork_is_followed(python):
    said = program('''
answers = start()
keep = known()
child = os.fork()
if not child:
    mine = known(50)
    mode = info().mode
    stop()
    known(70)
    again = start(trace='child.mlyze')
    mine = known(30)
    stats = stop(again)
    print(json.dumps([mode, stats['complete'], info().mode]), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps(info().mode))
keep = known(10)
stats = stop(answers)
print(json.dumps([len(stats['processes']), stats['complete']]))
''', python=python)
    same('said', said, [[3, True, 0], 2, [2, True]])
    same('of the child alone', known_blocks('child.mlyze'), [30, 30 * 1033])
    answer = tool('top', '-n', '0', '--process', 'all')
    line = HEAD.splitlines().index("        keep[i] = UNIT * 1000  # @known") + 1
    same('of both', sites_of(answer, 'program.py')[line]['alloc_count'], 160)


@case
def no_follow():
    said = program('''
answers = start('--no-follow')
child = os.fork()
if not child:
    mine = known(50)
    os._exit(0)
os.waitpid(child, 0)
keep = known(10)
print(json.dumps(len(stop(answers)['processes'])))
''')
    same('processes', said, [1])
    same('known line', known_blocks(), [10, 10330])


@case
def a_program_that_is_started_goes_untraced_and_is_counted():
    said = program('''
import subprocess
answers = start()
subprocess.check_call([sys.executable, '-c', 'import json'])
stats = stop(answers)
print(json.dumps(stats['complete']))
''')
    same('said', said, [True])
    text = execute([os.path.join(BUILD, 'tracer', 'recorder', 'memlyze'), 'stats', 'trace.mlyze'])
    assert '1 programs that this one started (subprocess, spawn) are not in the trace: memlyze.start() does not follow them' in text.stderr, text.stderr


@case
def the_recorder_is_killed():
    said = program('''
answers = start()
keep = known()
os.kill(info().recorder_pid, 9)
time.sleep(0.3)
keep = [known() for _ in range(300)]
print(json.dumps(refused(request, mark='x')))
print(json.dumps(refused(stop)))
print(json.dumps([started.read(answers), info().mode]))
answers = start(trace='second.mlyze')
keep = known()
print(json.dumps(stop(answers)['complete']))
''')
    same('codes', [said[0][0], said[1][0]], [-4, -4])
    assert 'has died' in said[1][1], said
    same('then', said[2:], [['', 0], True])
    same('known line', known_blocks('second.mlyze'), [100, 103300])


@case
def the_recorder_is_stopped_for_a_while():
    said = program('''
answers = start()
keep = known()
recorder = info().recorder_pid
os.kill(recorder, 19)
began = time.monotonic()
stop_text = refused(stop)
took = time.monotonic() - began
os.kill(recorder, 18)
stats = started.read(answers)
print(json.dumps([stop_text, took < 5, stats['complete']]))
''')
    same('said', said, [[None, True, True]])
    same('known line', known_blocks(), [100, 103300])


@case
def a_disk_that_is_full():
    if not os.path.exists('/dev/full'):
        return
    said = program('''
print(json.dumps(refused(start, trace='/dev/full')))
''')
    assert said[0][0] == -3 and 'No space left' in said[0][1], said


@case(each=[(label, python) for label, python in PYTHONS])
def tracemalloc_before_above_and_gone(python):
    """Whoever hooks before or after us, and goes or stays: the line is counted, and nothing crashes."""
    program('''
import tracemalloc
def one(name, before=None, inside=None):
    if before: before()
    answers = start('--no-malloc', trace=name)
    if inside: inside()
    keep = known()
    assert stop(answers)['complete']
one('plain')
one('below', before=tracemalloc.start)
one('still')
tracemalloc.stop()
one('gone')
one('above', inside=tracemalloc.start)
one('again')
tracemalloc.stop()
one('last')
''', python=python)
    for name in ('plain', 'below', 'still', 'gone', 'last'):
        same(name, known_blocks(name), [100, 103300])
    for name in ('above', 'again'):  # its own notes are made below it, and so are seen
        assert known_blocks(name)[0] >= 100, (name, known_blocks(name))


@case(each=PYTHONS)
def tracemalloc_below_and_its_own_malloc(python):
    """tracemalloc's tables grow with its lock held: the event of that malloc may be the first with some code in its stack."""
    program('''
import tracemalloc
tracemalloc.start(5)
for n in range(5):
    answers = start()
    keep = []
    for k in range(60):
        name = {}
        exec('def f%d():\\n return [bytes(300) for i in range(40)]\\n' % k, name)
        keep.append(name['f%d' % k]())
    mine = known()
    assert stop(answers)['complete']
''', python=python, timeout=60)
    same('known line', known_blocks(), [100, 103300])


@case(each=PYTHONS)
def from_anywhere(python):
    """From several threads at once, from a signal's handler, within a collection, from a finalizer: one at a time, and each trace is whole."""
    said = program('''
import gc, signal, threading
done, refusals = [], []
def worker():
    for n in range(6):
        try:
            answers = start()
        except Refused as e:
            refusals.append(e.args[0])
            time.sleep(0.01)
            continue
        keep = known(20)
        result = []
        other = threading.Thread(target=lambda: result.append(stop(answers)))
        other.start()
        other.join()
        done.append(result[0]['complete'])
workers = [threading.Thread(target=worker) for _ in range(3)]
for t in workers: t.start()
for t in workers: t.join()
print(json.dumps([len(done) + len(refusals), all(done), set(refusals) <= {-1}, info().mode]))
handled = []
def handler(*_):
    handled.append(stop(start())['complete'])
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.01)
while not handled: [object() for _ in range(100)]
states = []
def begin(phase, _):
    if phase == 'start' and not states: states.append(start())
def end(phase, _):
    if phase == 'stop' and len(states) == 1: states.append(stop(states[0])['complete'])
gc.callbacks += [begin, end]
gc.collect()
gc.collect()
print(json.dumps([handled[0], states[1], len(gc.callbacks)]))
class Last:
    def __del__(self): states.append(stop(self.answers)['complete'])
last = Last()
last.answers, last.self = start(), last
del last
gc.collect()
print(json.dumps([states[2], info().mode, len(gc.callbacks)]))
''', python=python)
    same('said', said, [[18, True, True, 0], [True, True, 2], [True, 0, 2]])


@case
def collections_are_seen_at_once_and_no_callback_stays():
    said = program('''
import gc
for n in range(3):
    answers = start()
    gc.collect(); gc.collect()
    inside = len(gc.callbacks)
    stats = stop(answers)
    print(json.dumps([stats['events']['gc'], inside, len(gc.callbacks)]))
''')
    same('said', said, [[2, 1, 0]] * 3)


@case
def modules_that_come_later_and_address_space():
    """What a module that was loaded before, or is loaded while recording, takes from the C library is seen."""
    said = program('''
import ctypes, mmap
c = ctypes.CDLL('libc.so.6', use_errno=True)
answers = start()
early = mmap.mmap(-1, 1 << 20)
import sqlite3
connection = sqlite3.connect(':memory:')
connection.execute('create table t (a)')
connection.execute('insert into t values (zeroblob(300000))')
stats = stop(answers)
print(json.dumps(stats['complete']))
connection.execute('insert into t values (zeroblob(300000))')
connection.close()
early.close()
''')
    same('said', said, [True])
    domains = {s['name'] for s in tool('top', '-n', '0', '--group', 'domain')['sites']}
    assert 'malloc' in domains and 'mmap' in domains, domains


@case(each=PYTHONS)
def modules_ask_the_loader_as_themselves(python):
    """A dlopen by a bare name looks where its caller's run path leads, RTLD_NEXT begins behind its caller, and the module that came is seen."""
    said = program('''
import ctypes
outer = ctypes.CDLL(sys.argv[1])
outer.outer_block.restype = outer.outer_next.restype = ctypes.c_void_p
before = outer.outer_next()
answers = start('--no-python')
block, inside = outer.outer_block(), outer.outer_next()
stats = stop(answers)
print(json.dumps([bool(block), before == inside == outer.outer_next(), stats['bytes']['allocated'] >= 77777]))
''', os.path.join(BUILD, 'tests', 'integration', 'loaded_outer.so'), python=python)
    same('said', said, [[True, True, True]])


# caller.so has a search path of its own; it loads middle.so by its path, which needs leaf.so, and leaf.so by its bare name.
SEARCHED = {
    'leaf.c': '#include <stdlib.h>\nvoid *leaf(void) { return malloc(55555); }\n',
    'middle.c': 'void *leaf(void);\nvoid *middle(void) { return leaf(); }\n',
    'caller.c': '''
#include <dlfcn.h>
int loads(const char *file, const char *name) {
  void *handle = dlopen(file, RTLD_NOW);
  void *(*block)(void) = handle ? (void *(*)(void))dlsym(handle, name) : (void *(*)(void))0;
  return block && block();
}
'''}


@case(each=[('DT_RPATH', '--disable-new-dtags'), ('DT_RUNPATH', '--enable-new-dtags')])
def a_module_finds_what_it_would_find_untraced(tags):
    os.makedirs('far')
    for name, text in SEARCHED.items():
        with open(name, 'w') as file:
            file.write(text)
    for source, out, more in (('leaf.c', 'far/leaf.so', ['-Wl,-soname,leaf.so']), ('middle.c', 'middle.so', ['far/leaf.so']),
                              ('caller.c', 'caller.so', ['-Wl,%s,-rpath,%s' % (tags, os.path.abspath('far')), '-ldl'])):
        subprocess.check_call(['cc', '-shared', '-fPIC', '-fno-builtin', '-o', out, source, *more])
    text = '''
import ctypes
caller = ctypes.CDLL(sys.argv[1])
began = STARTS and start()
words = [(os.path.abspath("middle.so"), "middle"), ("leaf.so", "leaf"), (os.path.abspath("far/leaf.so"), "leaf"), ("/proc/self/cwd/far/leaf.so", "leaf")]
found = [caller.loads(file.encode(), name.encode()) for file, name in words]
print(json.dumps(found))
if STARTS: print(json.dumps(stop(began)["bytes"]["allocated"] >= 55555 * sum(found)))
'''
    untraced = program(text.replace('STARTS', 'False'), os.path.abspath('caller.so'))
    same('untraced', untraced, [[0, 1, 1, 1]])  # glibc forgets who loaded middle.so before it looks for leaf.so
    same('traced', program(text.replace('STARTS', 'True'), os.path.abspath('caller.so')), [*untraced, True])


LOADS = '''
#include <dlfcn.h>
#include <pthread.h>
static volatile int running = 1;
static const char *path;
static long count;
static void *load(void *unused) {
  while (running) {
    void *h = dlopen(path, RTLD_NOW);
    if (!h) break;
    dlclose(h);
    count++;
  }
  return unused;
}
static pthread_t thread;
void begin(const char *file) {
  path = file;
  pthread_create(&thread, 0, load, 0);
}
long end(void) {
  running = 0;
  pthread_join(thread, 0);
  return count;
}
'''


@case(each=PYTHONS)
def not_from_a_sub_interpreter(python):
    said = program('''
try:
    import _interpreters as some
except ImportError:
    import _xxsubinterpreters as some
inside = HEAD + """
print(json.dumps([refused(start, trace='inside.mlyze'), refused(stop)]))
"""
answers = None
for n in range(2):
    other = some.create()
    try:
        if some.run_string(other, inside) is not None: raise RuntimeError
    except Exception:  # 3.12: ctypes is not for sub-interpreters
        print(json.dumps([[-1, 'sub-interpreter'], [-1, 'sub-interpreter']]))
    some.destroy(other)
    if n == 0:
        answers = start()
        keep = known()
stop(answers)
'''.replace('HEAD', repr(HEAD)), python=python)
    for start, stop in said:
        assert start[0] == stop[0] == -1 and 'sub-interpreter' in start[1] and 'sub-interpreter' in stop[1], said
    same('known line', known_blocks(), [100, 103300])


@case(each=PYTHONS)
def modules_that_another_thread_is_loading(python):
    """A module whose table is being filled is left alone: its many entries are filled for longer than a look takes to come by."""
    n = range(4000)
    slow = '#include <stdlib.h>\n' + ''.join('int f%d(void) { return %d; }\n' % (i, i) for i in n)
    slow += 'int (*const table[])(void) = {%s};\n' % ', '.join('f%d' % i for i in n) + 'void *(*const made)(size_t) = malloc;\nvoid *make(size_t n) { return malloc(n); }\n'
    for name, text in (('slow', slow), ('loads', LOADS), ('plain0', 'int x;'), ('plain1', 'int x;')):
        with open(name + '.c', 'w') as file:
            file.write(text)
        subprocess.run(['cc', '-O1', '-shared', '-fPIC', '-Wl,-z,now,-z,relro', '-o', name + '.so', name + '.c', '-lpthread'], check=True)
    said = program('''
import ctypes
loads = ctypes.CDLL('./loads.so')
loads.end.restype = ctypes.c_long
file = ctypes.create_string_buffer(b'./slow.so')
loads.begin(file)
for n in range(8):
    answers = start('--no-python')
    until = time.monotonic() + 0.1
    while time.monotonic() < until: ctypes.CDLL('./plain%d.so' % (n % 2))
    stop(answers)
print(json.dumps(loads.end() > 0))
answers = start('--no-python')
slow = ctypes.CDLL('./slow.so')
slow.make(ctypes.c_size_t(30000000))
stop(answers)
''', python=python)
    same('said', said, [True])
    made = {s['name']: s['alloc_bytes'] for s in tool('top', '-n', '0', '--group', 'domain')['sites']}
    assert made['malloc'] >= 30000000, made


@case
def inside_record():
    """The session of `memlyze record` is steered: marks of this process, no start, no stop."""
    with open('program.py', 'w') as file:
        file.write(HEAD + '''
print(json.dumps([info().mode, refused(start)[0], refused(stop)[0], info().sample_rate]))
keep = known()
request(mark='here')
request(rate=0.5)
print(json.dumps(info().sample_rate))
''')
    result = record([PYTHON, '-I', 'program.py'], env=clean_env(MEMLYZE_BUILD=BUILD))
    same('said', [json.loads(line) for line in result.stdout.splitlines()], [[1, -1, -1, 1.0], 0.5])
    same('marks', tool('stats')['events']['marks'], 1)
    same('known line', known_blocks(), [100, 103300])


@case
def after_the_recorder_of_record_has_gone():
    """A process that outlived `memlyze record` may start a recording of its own."""
    with open('program.py', 'w') as file:
        file.write(HEAD + '''
if os.fork(): os._exit(0)
while os.path.exists('/proc/%d' % info().recorder_pid): time.sleep(0.02)
time.sleep(0.1)
answers = start(trace='own.mlyze')
keep = known()
stats = stop(answers)
open('said', 'w').write(json.dumps([stats['complete'], info().mode]))
os.rename('said', 'done')
''')
    record([PYTHON, '-I', 'program.py'], env=clean_env(MEMLYZE_BUILD=BUILD), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20 * SLOW
    while not os.path.exists('done') and time.monotonic() < deadline:
        time.sleep(0.05)
    same('said', json.load(open('done')), [True, 0])
    same('known line', known_blocks('own.mlyze'), [100, 103300])


run(__name__)
