"""The Python package on every interpreter: start and stop in a plain Python and inside `memlyze record`, its errors, `python -m memlyze`, the installed copy,
the wheel."""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import time

from harness import BUILD, MEMLYZE, PROGRAMS, PYTHON, PYTHONS, SLOW, TESTS, Skip, case, clean_env, compare_exact, data_python, execute, lines_of, record, run, same, sites_of, tool

ROOT = os.path.dirname(TESTS)
PACKAGE = os.path.join(ROOT, 'tracer', 'python')
EXACT = os.path.join(PROGRAMS, 'exact.py')


def env(**more):
    return clean_env(**dict(dict(MEMLYZE_HOME=BUILD, PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE='1'), **more))


def python(interpreter, text, *arguments, status=0, **more):
    """Runs a program against the package; what it printed."""
    with open('program.py', 'w', encoding='utf-8') as file:
        file.write(text)
    result = execute([interpreter, 'program.py', *arguments], env=env(), **more)
    same('exit status; %s%s' % (result.stdout[-3000:], result.stderr[-3000:]), result.returncode, status)
    return result


# ---- exact ----

UNDER_API = '''
import sys, memlyze
code = compile(open(sys.argv[1], encoding="utf-8").read(), sys.argv[1], "exec")
space = {"__name__": "__main__"}
tracer = memlyze.start("trace.mlyze", max_stack_depth=20, overwrite=True)
exec(code, space)
stats = tracer.stop()
sys.stderr.write(stats.json())
'''


@case(each=PYTHONS)
def exact_through_the_api(interpreter):
    result = python(interpreter, UNDER_API, EXACT)
    compare_exact(EXACT, result, tool('top', '-n', '0'), tool('top', '-n', '0', '--by', 'peak-bytes'))
    told, asked = json.loads(result.stderr), tool('stats')
    same('events_written', told.pop('events_written'), asked['events']['written'])
    same('events_dropped', told.pop('events_dropped'), asked['events']['dropped'])
    asked.pop('_stderr')
    same('stop() and stats --json', told, asked)


THRICE = '''
import json, sys, threading, memlyze
UNIT, N = b"x", 300
sizes = [1000 + n for n in range(N)]

def worker(into):
    for i in range(N):
        into[i] = UNIT * sizes[i]  # @worker

def main(run):
    kept = [[None] * N for _ in range(4)]
    threads = [threading.Thread(target=worker, args=(k,)) for k in kept[1:]]
    worker(kept[0])
    for t in threads: t.start()
    for t in threads: t.join()
    memlyze.mark("done")
    return kept

for run in range(3):
    before = main(run) if run == 1 else None   # not in any trace, its frees neither
    with memlyze.start("trace-%d.mlyze" % run, exclude_patterns="threading") as tracer:
        kept = main(run)
        before = None
        tracer.snapshot("kept")
        kept = None
'''.replace('main(run) if run == 1 else None ', '[UNIT * s for s in sizes] if run == 1 else None')


@case(each=PYTHONS)
def start_stop_start_with_threads(interpreter):
    python(interpreter, THRICE)
    line = lines_of('program.py')['worker']
    size = sum(33 + 1000 + n for n in range(300))
    for n in range(3):
        trace = 'trace-%d.mlyze' % n
        for at, kept in (('kept', 4), ('end', 0)):
            site = sites_of(tool('top', '-n', '0', '--at', at, trace=trace), 'program.py')[line]
            got = [site[k] for k in ('alloc_count', 'alloc_bytes', 'live_count', 'live_bytes')]
            same('run %d at %s' % (n, at), got, [4 * 300, 4 * size, kept * 300, kept * size])
        stats = tool('stats', trace=trace)
        same('marks, snapshots, complete', (stats['events']['marks'], stats['events']['snapshots'], stats['complete']), (1, 1, True))
        same('threads beside the main one', len([t for t in stats['threads'] if t['events']]) >= 4, True)


# ---- behaviour ----

BEHAVIOUR = '''
import os, sys, threading, signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)   # of a fork while a thread that was joined is still on its way out
signals = []
signal.signal(signal.SIGCHLD, lambda *a: signals.append(a))
descriptors = sorted(os.listdir("/proc/self/fd"))
import Memlyze, memlyze
assert Memlyze is memlyze and sys.modules["Memlyze"] is memlyze
assert not memlyze.is_recording() and memlyze.current() is None
tracer = Memlyze.start("trace.mlyze", sample_rate=0.5, max_stack_depth=7, track_gc=False, max_events=5000, sample_over="64 KiB", on_full="drop",
                       include_patterns=["*"], exclude_patterns=["*.test"])
assert memlyze.is_recording() and memlyze.current() is tracer and tracer.running and tracer.mode == "started"
assert tracer.path == os.path.abspath("trace.mlyze"), tracer.path
first = tracer.mark("a mark")
assert first.name == "a mark" and first.time_ns > 0
assert [tracer.snapshot().name, memlyze.snapshot().name, memlyze.snapshot("mine").name] == ["snapshot-1", "snapshot-2", "mine"]
late = []
thread = threading.Thread(target=lambda: late.append(memlyze.mark("of a thread")))
thread.start(); thread.join()
assert late[0].time_ns > first.time_ns
memlyze.set_sample_rate(0.25); tracer.pause(); tracer.resume()
try:
    os.wait()
    raise SystemExit("there is a child")
except ChildProcessError:
    pass
child = os.fork()
if child == 0:
    assert tracer.mode == "child" and memlyze.is_recording()
    stats = tracer.stop()
    assert not stats.complete and not memlyze.is_recording()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
signals.clear()
stats = memlyze.stop()
assert not memlyze.is_recording() and not tracer.running and memlyze.current() is None
assert not signals, signals
assert stats.complete and stats["complete"] and stats.bytes.peak == stats["bytes"]["peak"] > 0
assert stats.events_written == stats.events.written == stats["events"]["written"] > 0 and stats.events_dropped == 0
assert "bytes" in stats and len(stats) == len(list(stats)) and dict(stats)["pid"] == os.getpid()
s = stats.settings
assert (s.sample_rate, s.max_stack_depth, s.track_gc, s.max_events, s.sample_over, s.on_full, s.include, s.exclude) == (0.5, 7, False, 5000, 65536, "drop", ["*"], ["*.test"]), s
assert [c["sample_rate"] for c in stats.rate_changes][0] == 0.25, stats.rate_changes
assert (stats.events.marks, stats.events.snapshots) == (2, 3), stats.events
try:
    stats.nothing
    raise SystemExit("no AttributeError")
except AttributeError as e:
    assert "nothing" in str(e)
assert sorted(os.listdir("/proc/self/fd")) == descriptors
'''


@case(each=PYTHONS)
def what_start_returns(interpreter):
    result = python(interpreter, BEHAVIOUR)
    same('output', (result.stdout, result.stderr), ('', ''))


MISUSE = '''
import os, sys, memlyze
def wrong(kind, text, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind or kind is OSError, type(error)
        said = str(error)
        assert text in said and "\\n" not in said, (text, said)
        return
    raise SystemExit("no %s of %s" % (kind.__name__, text))

for rate in (0, -1, 1.5, float("nan"), float("inf")):
    wrong(ValueError, "sample_rate", lambda: memlyze.start("t.mlyze", sample_rate=rate))
for depth in (-1, 1025):
    wrong(ValueError, "max_stack_depth", lambda: memlyze.start("t.mlyze", max_stack_depth=depth))
wrong(ValueError, "max_events", lambda: memlyze.start("t.mlyze", max_events=0))
wrong(ValueError, "sample_over", lambda: memlyze.start("t.mlyze", sample_over="much"))
wrong(ValueError, "sample_over", lambda: memlyze.start("t.mlyze", sample_over=0))
wrong(ValueError, "on_full", lambda: memlyze.start("t.mlyze", on_full="perhaps"))
wrong(TypeError, "a pattern like", lambda: memlyze.start("t.mlyze", include_patterns=3))
wrong(ValueError, "empty pattern", lambda: memlyze.start("t.mlyze", include_patterns=[""]))
wrong(ValueError, "path", lambda: memlyze.start(""))
wrong(ValueError, "path", lambda: memlyze.start("a\\0b"))
wrong(ValueError, "max-stack-depth 0", lambda: memlyze.start("t.mlyze", max_stack_depth=0, include_patterns=["a"]))
for name, value in (("sample_rate", "1"), ("sample_rate", True), ("max_stack_depth", 1.5), ("max_events", "5"), ("track_gc", 1), ("include_patterns", [1]), ("sample_over", 1.5), ("native", 1)):
    wrong(TypeError, name, lambda: memlyze.start("t.mlyze", **{name: value}))
wrong(TypeError, "path", lambda: memlyze.start(b"t.mlyze"))
wrong(FileNotFoundError, "no such directory", lambda: memlyze.start("there/is/none.mlyze"))
wrong(IsADirectoryError, "directory", lambda: memlyze.start("."))
if os.getuid():
    wrong(PermissionError, "permission", lambda: memlyze.start("/t.mlyze"))
wrong(RuntimeError, "start() first", lambda: memlyze.stop())
for name in ("mark", "snapshot"):
    wrong(RuntimeError, "start() first", lambda: getattr(memlyze, name)("x"))
wrong(RuntimeError, "start() first", lambda: memlyze.set_sample_rate(0.5))
assert not os.path.exists("t.mlyze"), "something was written"

tracer = memlyze.start("t.mlyze")
wrong(RuntimeError, "call stop() first", lambda: memlyze.start("u.mlyze"))
for name in ("", "x" * 256, "a\\nb", "\\ud800"):
    wrong(ValueError, "the name of a mark", lambda: tracer.mark(name))
    wrong(ValueError, "the name of a snapshot", lambda: memlyze.snapshot(name))
wrong(TypeError, "the name of a mark", lambda: tracer.mark(7))
wrong(ValueError, "sample_rate", lambda: tracer.set_sample_rate(0))
tracer.stop()
for name in ("stop", "snapshot", "pause", "__enter__"):
    wrong(RuntimeError, "was stopped", lambda: getattr(tracer, name)())
wrong(RuntimeError, "was stopped", lambda: tracer.mark("late"))
os.environ["MEMLYZE_HOME"] = "/nowhere"
wrong(OSError, "MEMLYZE_HOME", lambda: memlyze.start("t.mlyze"))
'''


@case(each=PYTHONS)
def misuse_is_an_exception_with_one_line(interpreter):
    python(interpreter, MISUSE)


@case
def a_recorder_that_dies_is_an_oserror_and_start_works_again():
    python(PYTHON, '''
import glob, os, signal, time, memlyze
tracer = memlyze.start("t.mlyze")
os.kill(tracer._agent.info().recorder_pid, signal.SIGKILL)
time.sleep(0.2)
kept = [str(n) for n in range(1000)]
try:
    tracer.stop()
    raise SystemExit("no OSError")
except OSError as error:
    assert "recorder" in str(error), error
with memlyze.start("u.mlyze") as tracer:
    kept = [str(n) for n in range(1000)]
''')
    assert tool('stats', trace='u.mlyze')['events']['allocs'] >= 1000


@case
def an_existing_file_is_kept_unless_overwrite():
    python(PYTHON, 'import memlyze\nfor o in (False, False, True):\n    memlyze.start("t.mlyze", overwrite=o).stop()\n')
    same('files', sorted(f for f in os.listdir('.') if 'mlyze' in f), ['t.mlyze', 't.mlyze.old'])
    same('mode', os.stat('t.mlyze').st_mode & 0o777, 0o600)


@case
def descriptors_that_the_program_closed_are_not_asked_nor_closed():
    """As daemons do; where the tracer's was there is a file of the program's afterwards."""
    result = python(PYTHON, '''
import json, os, memlyze
tracer = memlyze.start("trace.mlyze")
keep = [bytes(1000) for n in range(100)]
os.closerange(3, 256)
while True:
    mine, its = os.pipe()
    os.write(its, b"hello")
    if its > 40: break
stats = tracer.stop()
print(json.dumps([os.read(mine, 9).decode(), stats.complete, stats.bytes.peak > 100000]))
os.closerange(3, 256)
memlyze.start("second.mlyze")
os.closerange(3, 256)
print(json.dumps(memlyze.stop().complete))
''')
    same('said', result.stdout.split('\n')[:2], ['["hello", true, true]', 'true'])


@case(each=PYTHONS)
def a_program_that_never_stops_leaves_a_complete_trace(interpreter):
    python(interpreter, 'import memlyze\nmemlyze.start("trace.mlyze")\nkept = list(map(bytes, [1000] * 500))  # @line\nmemlyze.snapshot("all")\n')
    until = time.monotonic() + 20
    while not os.path.exists('trace.mlyze') or not tool('stats')['complete']:  # the recorder outlives the program by a moment
        assert time.monotonic() < until, 'the trace is not complete'
        time.sleep(0.05)
    site = sites_of(tool('top', '-n', '0'), 'program.py')[lines_of('program.py')['line']]
    assert site['alloc_count'] >= 500 and site['live_bytes'] > 500000, site


# ---- inside memlyze record ----

INSIDE = '''
import os, warnings, memlyze
assert memlyze.is_recording() and memlyze.current() is None
memlyze.mark("early")
with warnings.catch_warnings():
    warnings.simplefilter("error")
    tracer = memlyze.start("other.mlyze", sample_rate=0.5, max_stack_depth=3)
assert tracer.mode == "record" and tracer.path == os.path.abspath("trace.mlyze"), tracer
tracer.snapshot("middle")
stats = tracer.stop()
if "ASAN_OPTIONS" not in os.environ:   # memlyze-stats is a child like any other, and a sanitized program refuses to be traced
    assert not stats.complete and stats.pid == os.getpid() and stats.events_written > 1000
assert memlyze.is_recording()
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    memlyze.start("other.mlyze", max_events=77, track_gc=True)
assert len(said) == 1 and said[0].category is RuntimeWarning and "max_events" in str(said[0].message) and "track_gc" not in str(said[0].message), said
assert said[0].filename == __file__, said[0].filename
memlyze.stop()
memlyze.mark("late")
'''


@case(each=PYTHONS)
def inside_memlyze_record(interpreter):
    with open('program.py', 'w') as file:
        file.write(INSIDE)
    result = record([interpreter, 'program.py'], env=env())
    same('output', (result.stdout, result.stderr), ('', ''))
    assert not os.path.exists('other.mlyze')
    stats = tool('stats')
    same('marks and snapshots', (stats['events']['marks'], stats['complete']), (4, True))
    same('settings', [(c['sample_rate'], c.get('max_stack_depth')) for c in stats['rate_changes']][:2], [(0.5, 3), (1.0, 10)])
    for name in ('early', 'start', 'middle', 'stop', 'late'):
        tool('top', '--at', name)


# ---- python -m memlyze ----

@case(each=PYTHONS)
def the_module_is_the_program(interpreter):
    for module in ('memlyze', 'Memlyze'):
        result = execute([interpreter, '-m', module, 'record', '--quiet', '-f', interpreter, '-c', 'import sys; print(sys.argv[1:]); sys.exit(7)', '--x'], env=env())
        same('exit status, output', (result.returncode, result.stdout, result.stderr), (7, "['--x']\n", ''))
    same('the tool', execute([interpreter, '-m', 'memlyze', 'stats', '--json', 'trace.mlyze'], env=env()).stdout, execute([MEMLYZE, 'stats', '--json', 'trace.mlyze']).stdout)
    result = execute([interpreter, '-m', 'memlyze', 'record', '--quiet', '-f', interpreter, '-c', 'import os; os.kill(os.getpid(), 9)'], env=env())
    same('128 + signal', result.returncode, 137)
    result = execute([interpreter, '-m', 'memlyze', 'stats', 'none.mlyze'], env=env())
    same('exit status', result.returncode, 2)
    result = execute([interpreter, '-m', 'memlyze', 'record', 'x'], env=env(MEMLYZE_HOME='/nowhere'))
    same('without programs', (result.returncode, result.stderr.count('\n'), 'MEMLYZE_HOME' in result.stderr), (125, 1, True))


@case
def signals_to_the_module_reach_the_program():
    waiting = 'import signal, sys, time\nsignal.signal(signal.%s, lambda *a: sys.exit(9))\nprint("up", flush=True)\nwhile True:\n    time.sleep(0.05)\n'
    for name in ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1'):
        # What was ignored when this test was started (nohup, a background job) is ignored by the module, too: it would wait for ever.
        process = subprocess.Popen([PYTHON, '-m', 'memlyze', 'record', '--quiet', '-f', PYTHON, '-c', waiting % name], env=env(), stdout=subprocess.PIPE, text=True,
                                   preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)])
        same('the program', process.stdout.readline(), 'up\n')
        process.send_signal(getattr(signal, name))
        same('exit status after ' + name, process.wait(30), 9)
        process.stdout.close()
        same('complete', tool('stats')['complete'], True)
    # The terminal's Ctrl-C goes to the group: the program gets it once.
    counting = 'import signal, time\nseen = []\nsignal.signal(signal.SIGINT, lambda *a: seen.append(1))\nprint("up", flush=True)\ntime.sleep(1)\nprint(len(seen))\n'
    script = 'import os, pty, sys, time\npid, fd = pty.fork()\nif pid == 0: os.execv(sys.argv[1], sys.argv[1:])\nout = b""\n' \
             'while b"up" not in out: out += os.read(fd, 99)\nos.write(fd, b"\\x03")\nout = b""\n' \
             'while True:\n    try: part = os.read(fd, 99)\n    except OSError: break\n    if not part: break\n    out += part\nos.waitpid(pid, 0)\nprint(out.decode())\n'
    result = execute([PYTHON, '-c', script, PYTHON, '-m', 'memlyze', 'record', '--quiet', '-f', PYTHON, '-c', counting], env=env())
    same('SIGINT seen by the program', result.stdout.split()[-1][-1:], '1')


# ---- the documents ----

def python_blocks(name):
    with open(os.path.join(ROOT, name), encoding='utf-8') as file:
        return re.findall(r'(?ms)^```python\n(.*?)^```$', file.read())


@case(each=[('%s, block %d' % (name, n), text) for name in ('README.md', 'docs/python.md') for n, text in enumerate(python_blocks(name), 1)])
def examples(text):
    if 'memlyze.open(' in text:
        if SLOW > 1:
            raise Skip('a sanitized library cannot be loaded into an interpreter that is not')
        record([PYTHON, '-c', 'kept = [bytes(1000) for _ in range(1000)]'])
        assert python(data_python(*re.search(r'^import memlyze, (.*)$', text, re.M).group(1).split(', ')), text).stdout, 'nothing was printed'
        return
    if 'pytest' not in text:
        assert re.search(r'^\d+ \d+', python(PYTHON, text).stdout), 'nothing was printed'
        same('complete', tool('stats')['complete'], True)
        return
    with_pytest = [p for _, p in PYTHONS if execute([p, '-c', 'import pytest']).returncode == 0]
    if not with_pytest:
        raise Skip('no interpreter here has pytest')
    with open('test_example.py', 'w') as file:
        file.write(text)
    result = execute([with_pytest[0], '-m', 'pytest', '-q', '-p', 'memlyze.pytest_plugin', '--memlyze', '--strict-markers'], env=env())
    assert result.returncode == 0 and '3 passed' in result.stdout, result.stdout


# ---- getting it ----

USE = '''
import os, subprocess, sys, memlyze, Memlyze
assert os.path.realpath(memlyze.__file__).startswith(os.path.realpath(sys.argv[1])), memlyze.__file__
with memlyze.start("trace.mlyze") as tracer:
    kept = [bytes(1000) for _ in range(100)]
assert subprocess.call([sys.executable, "-m", "memlyze", "stats", "trace.mlyze"], stdout=subprocess.DEVNULL) == 0
from memlyze import _places
assert all(os.path.realpath(p).startswith(os.path.realpath(sys.argv[1])) for p in (_places.agent(), _places.program("record"), _places.program("")))
print(memlyze.__version__)
'''


@case
def version_is_that_of_the_programs():
    text = open(os.path.join(PACKAGE, 'memlyze', '__init__.py'), encoding='utf-8').read()
    same('version', 'memlyze ' + re.search(r'__version__ = "(.*)"', text).group(1), execute([MEMLYZE, '--version']).stdout.strip())


@case
def the_installed_package_works_wherever_it_is_moved():
    execute(['meson', 'install', '-C', BUILD, '--no-rebuild', '--quiet', '--destdir', os.path.abspath('first')])
    package = [d for d, _, files in os.walk('first') if '_tracer.py' in files]
    same('installed packages', len(package), 1)
    assert not [d for d, _, _ in os.walk('first') if d.endswith('__pycache__')]
    os.rename(os.path.normpath(os.path.join(package[0], '..', '..', '..', '..')), 'moved')
    with open('use.py', 'w') as file:
        file.write(USE)
    for label, interpreter in PYTHONS:
        result = execute([interpreter, 'use.py', 'moved'], env=clean_env(PYTHONPATH=os.path.abspath('moved/share/memlyze/python'), PYTHONDONTWRITEBYTECODE='1'))
        same(label + result.stderr, result.returncode, 0)


@case
def one_wheel_for_every_interpreter():
    if os.environ.get('ASAN_OPTIONS'):
        raise Skip('builds for itself, without sanitizers')
    with_pip = [p for _, p in PYTHONS if execute([p, '-c', 'import venv, ensurepip']).returncode == 0]
    if not with_pip:
        raise Skip('no interpreter here can make virtual environments (python3-venv)')
    if not os.path.isdir(os.path.join(ROOT, '.git')) or not shutil.which('git'):
        shutil.copytree(ROOT, 'source', symlinks=True, ignore=shutil.ignore_patterns('build', '.git', '__pycache__'))
    else:
        os.mkdir('source')
        files = execute(['git', '-C', ROOT, 'ls-files', '-z', '-c', '-o', '--exclude-standard']).stdout.split('\0')
        for name in filter(None, files):
            if os.path.isfile(os.path.join(ROOT, name)):
                os.makedirs(os.path.dirname(os.path.join('source', name)), exist_ok=True)
                shutil.copy(os.path.join(ROOT, name), os.path.join('source', name))
    execute([with_pip[-1], '-m', 'venv', 'builder'], timeout=120)
    result = execute(['builder/bin/pip', 'wheel', '--disable-pip-version-check', '--no-deps', '-w', 'dist', './source'], timeout=600, env=clean_env(PIP_RETRIES='1'))
    if result.returncode and re.search('No matching distribution|Could not find a version|Connection|Retrying', result.stdout + result.stderr):
        raise Skip('PyPI, where the build tools of a wheel come from, is not reachable')
    same('pip wheel: ' + (result.stdout + result.stderr)[-2000:], result.returncode, 0)
    wheels = os.listdir('dist')
    assert len(wheels) == 1 and re.fullmatch(r'memlyze-[\d.]+-py3-none-linux_x86_64\.whl', wheels[0]), wheels
    with open('use.py', 'w') as file:
        file.write(USE)
    tools = sorted(os.path.basename(p) for d in ('tracer/recorder', 'analyzer') for p in glob.glob(os.path.join(BUILD, d, 'memlyze*')) if os.access(p, os.X_OK) and os.path.isfile(p))
    for interpreter in with_pip:
        shutil.rmtree('venv', ignore_errors=True)
        execute([interpreter, '-m', 'venv', '--without-pip', 'venv'], timeout=120)
        result = execute(['builder/bin/pip', '--python', 'venv/bin/python', 'install', '-q', '--disable-pip-version-check', '--no-index', 'dist/' + wheels[0]], timeout=120)
        same('pip install: ' + result.stderr, result.returncode, 0)
        plain = clean_env(PATH=os.path.abspath('venv/bin') + ':' + os.environ['PATH'])
        result = execute(['venv/bin/python', 'use.py', 'venv'], env=plain)
        same(interpreter + ': ' + result.stderr, result.returncode, 0)
        same('programs', sorted(set(tools) - set(os.listdir('venv/bin'))), [])
        result = execute(['Memlyze', 'record', '--quiet', '-f', 'python', '-c', 'print(1)'], env=plain)
        same('Memlyze record', (result.returncode, result.stdout, result.stderr), (0, '1\n', ''))
        result = execute(['python', '-c', 'import memlyze; print(memlyze.open("trace.mlyze").complete, len(memlyze.open("trace.mlyze").allocations) > 100)'], env=plain)
        same('memlyze.open', (result.stdout, result.stderr), ('True True\n', ''))
    needed = set()
    for name in tools:
        needed |= set(re.findall(r'NEEDED.*\[(.*?)\]', execute(['readelf', '-dW', 'venv/bin/' + name]).stdout))
    library = glob.glob('venv/libexec/memlyze/libmemlyze-read.so')
    same('libraries', len(library), 1)
    needed |= set(re.findall(r'NEEDED.*\[(.*?)\]', execute(['readelf', '-dW', *library]).stdout))
    same('libraries that the wheel needs', needed - {'libc.so.6', 'libm.so.6', 'ld-linux-x86-64.so.2', 'libgcc_s.so.1'}, set())
    execute(['builder/bin/pip', 'install', '-q', '--no-index', '--target', 'first', 'dist/' + wheels[0]])
    os.rename('first', 'second')
    result = execute([with_pip[0], 'use.py', 'second'], env=clean_env(PYTHONPATH=os.path.abspath('second')))
    same('--target, moved: ' + result.stderr, result.returncode, 0)


run(__name__)
