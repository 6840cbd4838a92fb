"""What the package itself does is not in the trace, and goes on where a program can no longer reach files."""
import os
import re
import subprocess

from harness import BUILD, MEMLYZE, PROGRAMS, PYTHONS, SLOW, TESTS, Skip, case, clean_env, execute, lines_of, run, same, tool

PACKAGE = os.path.join(os.path.dirname(TESTS), 'tracer', 'python')


def python(interpreter, text, *arguments, runner=(), status=0):
    with open('program.py', 'w', encoding='utf-8') as file:
        file.write(text)
    env = clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE='1')
    result = execute([*runner, interpreter, '-W', 'ignore', 'program.py', *arguments], env=env)
    same('exit status; %s%s' % (result.stdout[-3000:], result.stderr[-3000:]), result.returncode, status)
    return result


# Every call of the package, between blocks of known lines. The names are made beforehand, and given by position: so the lines that call allocate nothing.
EVERY_CALL = '''
import memlyze
UNIT = b"x"
NAMES = ["mark %d" % n for n in range(40)]

def calls(tracer, name, other):  # @calls
    tracer.mark(name)
    memlyze.mark(other)
    tracer.snapshot()
    memlyze.snapshot(name)
    tracer.set_sample_rate(1.0)
    memlyze.set_sample_rate(1)
    tracer.pause()
    memlyze.resume()
    memlyze.pause()
    tracer.resume()
    memlyze.is_recording()
    memlyze.current()  # @calls_end

def mine(size):
    return UNIT * size  # @mine

def main():
    tracer = memlyze.start("trace.mlyze", 1.0, 10)
    a = mine(1000)
    n = 0
    while n < 20:
        calls(tracer, NAMES[n], NAMES[n + 20])
        n += 1
    b = mine(2000)
    tracer.stop()
    return a, b

kept = main()
'''


def only_the_program(*when):
    for by in ('alloc-count', 'peak-bytes', 'live-bytes'):
        top = tool('top', '-n', '0', '--by', by, *when)
        sites = {(os.path.basename(s['file']), s['line']): (s['alloc_count'], s['alloc_bytes'], s['live_count']) for s in top['sites']}
        lines = lines_of('program.py')
        same('mine by ' + by, sites.pop(('program.py', lines['mine'])), (2, 33 + 1000 + 33 + 2000, 2))
        # Before 3.11 the frames of main's own calls lie on the lines that call.
        same('nothing else by ' + by, [s for s in sites if s[0] != 'program.py' or lines['calls'] <= s[1] <= lines['calls_end']], [])
        key = 'count' if by == 'alloc-count' else 'bytes'
        same('total by ' + by, top['total'][key], sum(s[{'alloc-count': 'alloc_count', 'peak-bytes': 'peak_bytes', 'live-bytes': 'live_bytes'}[by]] for s in top['sites']))


@case(each=PYTHONS)
def nothing_of_the_package_in_a_trace(interpreter):
    python(interpreter, EVERY_CALL)
    only_the_program()
    stats = tool('stats')
    same('marks and snapshots', (stats['events']['marks'], stats['events']['snapshots']), (40, 40))
    assert stats['blocks']['allocated'] == stats['events']['allocs'] <= 4, stats
    same('nothing was filtered', stats['counters']['allocations_filtered'], 0)


@case(each=PYTHONS)
def nothing_of_the_package_inside_memlyze_record(interpreter):
    python(interpreter, EVERY_CALL, runner=[MEMLYZE, 'record', '--quiet', '-f', '-o', 'trace.mlyze'])
    top = tool('top', '-n', '0', '--by', 'alloc-count', '--from', 'start', '--to', 'stop')
    files = {s['file'] for s in top['sites'] if s['alloc_count']}
    same('files', {os.path.basename(f) for f in files}, {'program.py'})


STATS = '''
import json, memlyze
with memlyze.start("trace.mlyze") as tracer:
    kept = [bytes(1000)]
stats = memlyze.start("trace.mlyze", overwrite=True).stop()
assert json.loads(json.dumps(stats)) == stats == json.loads(stats.json(indent=1)) and isinstance(stats, dict)
assert stats.threads[0].name == stats["threads"][0]["name"] and stats.processes[0].command
assert sorted(stats) == sorted(json.loads(stats.json())) and dict(stats) == stats
'''


@case(each=PYTHONS)
def stats_are_plain_data_with_attributes(interpreter):
    python(interpreter, STATS)
    if SLOW > 1:
        return  # a tool that a traced program starts has the agent preloaded: of a sanitized one the loader's order is refused
    inside = STATS.replace('with memlyze', 'stats = memlyze.start(); stats = stats.stop()\nwith memlyze').replace('stats = memlyze.start("trace.mlyze", overwrite=True).stop()', '')
    python(interpreter, inside, runner=[MEMLYZE, 'record', '--quiet', '-f'])


WRONG_NAMES = '''
import memlyze
with memlyze.start("trace.mlyze") as tracer:
    for name in ("peak", "end", "50%", "1.5s", "200 ms"):
        for call in (tracer.mark, tracer.snapshot, memlyze.mark, memlyze.snapshot):
            try:
                call(name)
            except ValueError as error:
                assert "peak, end, 50% or 1.5s" in str(error), error
            else:
                raise SystemExit(name)
    tracer.mark("start"), tracer.mark("peak 1")
'''


@case
def a_mark_is_no_time():
    python(PYTHONS[-1][1], WRONG_NAMES)
    same('marks', tool('stats')['events']['marks'], 2)


# Three interpreters with a GIL each allocate while the main one starts and stops: whoever is between two words of a table of allocators goes on.
SEVERAL_GILS = '''
import sys, threading, time, memlyze
try:
    import _interpreters as some
except ImportError:
    import _xxsubinterpreters as some
WORK = """
import time
end = time.monotonic() + 2
while time.monotonic() < end:
    kept = [str(n) * 3 for n in range(50)], {n: (n, n) for n in range(100)}, bytearray(5000)
"""
others = [some.create() for n in range(3)]
threads = [threading.Thread(target=some.run_string, args=(other, WORK)) for other in others]
for thread in threads: thread.start()
while threads[0].is_alive():
    for rate in (1, 0.3):
        with memlyze.start("trace.mlyze", rate, overwrite=True):
            kept = [bytes(100) for n in range(300)]
for thread in threads: thread.join()
for other in others: some.destroy(other)
'''


OWN_GILS = [(label, path) for label, path in PYTHONS if not re.search(r'3\.(8|9|10|11)\b', label)]


@case(each=OWN_GILS)
def start_and_stop_beside_other_gils(interpreter):
    python(interpreter, SEVERAL_GILS)
    same('complete', tool('stats')['complete'], True)


# The longer way: tests/field/own_gil.py
@case(each=OWN_GILS)
def interpreters_come_and_go_beside_start_and_stop(interpreter):
    with open(os.path.join(PROGRAMS, 'own_gil.py'), encoding='utf-8') as file:
        program = file.read()
    for seed, how in (('1', ()), ('2', ()), ('3', ('stay',))):
        said = re.fullmatch(r'(\d+) recordings, (\d+) interpreters\n', python(interpreter, program, '0.7', seed, *how).stdout)
        assert said and int(said.group(1)) and int(said.group(2)), said
        same('complete', tool('stats')['complete'], True)


# A thread reads the two words of a call from the table of allocators, ctx and function, and may be put aside in between for as long as the system likes. What it
# does then is done here at leisure: the ctx from before start(), our function; then our ctx, and the function from after stop(). raw needs no GIL, mem and obj
# are called under another one where there are several.
HALF_READ = '''
import ctypes, gc, sys, memlyze
SIZE, POINTER = ctypes.c_size_t, ctypes.c_void_p
class Table(ctypes.Structure):
    _fields_ = [("ctx", POINTER), ("malloc", ctypes.PYFUNCTYPE(POINTER, POINTER, SIZE)), ("calloc", ctypes.PYFUNCTYPE(POINTER, POINTER, SIZE, SIZE)),
                ("realloc", ctypes.PYFUNCTYPE(POINTER, POINTER, POINTER, SIZE)), ("free", ctypes.PYFUNCTYPE(None, POINTER, POINTER))]
def tables():
    found = [Table() for domain in range(3)]
    for domain, table in enumerate(found): ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(table))
    return found
def called(ctx_of, functions_of, domains):
    for domain in domains:
        ctx, f = ctx_of[domain].ctx, functions_of[domain]
        blocks = [f.malloc(ctx, 100), f.calloc(ctx, 10, 100), f.realloc(ctx, None, 1000)]
        for block in blocks: ctypes.memset(block, 1, 100)
        blocks[0] = f.realloc(ctx, blocks[0], 5000)
        for block in blocks: f.free(ctx, block)
several = sys.argv[1] == "several"
if several:
    try:
        import _interpreters as some
    except ImportError:
        import _xxsubinterpreters as some
    other = some.create()
for native in (False, True):
    before = tables()
    tracer = memlyze.start("trace.mlyze", overwrite=True, native=native)
    now = tables()
    called(before, now, range(3) if several else [0])
    stats = tracer.stop()
    after = tables()
    if before[0].ctx is None or several: called(now, after, range(3) if several else [0])
    called(after, after, range(3))
print(sum(ctypes.cast(a.free, POINTER).value != ctypes.cast(b.free, POINTER).value for a, b in zip(before, now)))
'''


@case(each=PYTHONS)
def a_table_of_allocators_that_was_half_read(interpreter):
    ways = [('one', 'pymalloc')] + [('several', allocator) for allocator in ('pymalloc', 'debug') if interpreter in [path for _, path in OWN_GILS]]
    for way, allocator in ways:
        result = python(interpreter, HALF_READ, way, runner=['env', 'PYTHONMALLOC=' + allocator])
        stays = allocator == 'debug'  # what has a ctx is not put back then: ours stay above it
        same('%s, %s: tables that start() changes' % (way, allocator), result.stdout, '%d\n' % (0 if stays else 3))


# The recorder is told another directory's file by its whole name; what dump() itself does is in no report.
DUMPS = '''
import os, sys, memlyze
UNIT = b"x"
def made(n):
    return [UNIT * (1000 + i) for i in range(n)]  # @made
tracer = memlyze.start("trace.mlyze", overwrite=True, **({"flight_recorder": 60} if sys.argv[1] == "started" else {}))
kept = made(100)
first = tracer.dump()
kept += made(200)
second = memlyze.dump("second \\u00e9.mlyze")
print(first == tracer.path, second == os.path.abspath("second \\u00e9.mlyze"))
for path, kind in (("", ValueError), (5, TypeError), ("x" * 2000, ValueError), ("/nowhere/at/all.mlyze", OSError)):
    try:
        tracer.dump(path)
        print("dumped into", path)
    except kind as error:
        assert "\\n" not in str(error), error
assert tracer.running
kept += made(300)
tracer.stop()
for settings in ({}, {"max_size": "2 MiB"}):
    if sys.argv[1] == "started":
        with memlyze.start("plain.mlyze", overwrite=True, **settings) as tracer:
            try:
                tracer.dump()
                print("dumped", settings)
            except RuntimeError as error:
                assert "no flight recorder" in str(error), error
try:
    tracer.dump()
    print("dumped after stop()")
except RuntimeError:
    pass
'''


@case(each=[PYTHONS[0], PYTHONS[-1]])
def a_flight_recorder_is_written_from_within(interpreter):
    for way, runner in (('started', ()), ('recorded', [MEMLYZE, 'record', '-qf', '-o', 'trace.mlyze', '--flight-recorder', '60s'])):
        same('output, ' + way, python(interpreter, DUMPS, way, runner=runner).stdout, 'True True\n')
        line = lines_of('program.py')['made']
        for trace, wanted in (('second \u00e9.mlyze', 300), ('trace.mlyze', 600)):
            sites = tool('top', '-n', '0', trace=trace)['sites']
            known = [s for s in sites if s['file'].endswith('program.py') and s['line'] == line]
            assert wanted <= sum(s['live_count'] for s in known) <= wanted + 10, (way, trace, known)  # and the lists
            same('of the package', [s for s in sites if s['file'].endswith(('/_tracer.py', '/_agent.py'))], [])
            verified = execute([os.path.join(BUILD, 'analyzer', 'memlyze-verify'), trace])
            same('verify', verified.returncode, 0)


# 3.14: code that has anything in its co_extra is refused.
STATELESS = '''
from concurrent import interpreters
def main():
    def local():
        return 1 + 1
    assert local() == 2 == local()
    other = interpreters.create()
    print(other.call(local), other.call(local))
    other.close()
main()
'''


@case(each=[(label, path) for label, path in PYTHONS if re.search(r'3\.14\b', label)])
def a_function_that_ran_goes_to_another_interpreter(interpreter):
    same('output', python(interpreter, STATELESS, runner=[MEMLYZE, 'record', '--quiet', '-f', '-o', 'trace.mlyze']).stdout, '2 2\n')


ONE_AFTER_ANOTHER = '''
import memlyze
def kept(tracer):
    made = [bytes(1000 + n) for n in range(500)]  # @made
    return tracer.stop()
for settings in ({"native": True}, {}, {"native": True}, {"max_size": "2 MiB"}, {"flight_recorder": 60}, {"flight_recorder": "5m", "max_size": 4000000}, {}):
    stats = kept(memlyze.start("trace.mlyze", overwrite=True, **settings))
    assert stats.complete and stats.blocks.allocated >= 500 and stats.settings.native is settings.get("native", False), settings
for settings, kind in (({"max_size": 5}, ValueError), ({"flight_recorder": "x"}, ValueError), ({"flight_recorder": True}, TypeError)):
    try:
        memlyze.start("trace.mlyze", overwrite=True, **settings)
        raise SystemExit(settings)
    except kind:
        pass
'''


@case(each=[PYTHONS[0], PYTHONS[-1]])
def sessions_of_every_kind_one_after_another(interpreter):
    python(interpreter, ONE_AFTER_ANOTHER)


ELSEWHERE = '''
import ctypes, json, os, sys, threading, memlyze
how = sys.argv[1]
ctypes.CDLL("libgcc_s.so.1")  # a thread's end needs it, and it is not in the new root
tracer = memlyze.start("trace.mlyze")
memlyze.mark("before")
os.mkdir("jail")
if "root" in how:
    os.chroot("jail"); os.chdir("/")
if "user" in how:
    os.setgid(65534); os.setuid(65534)
kept = [bytes(1000) for n in range(100)]
tracer.mark("after"); tracer.snapshot("both"); tracer.set_sample_rate(0.5); tracer.set_sample_rate(1.0)
thread = threading.Thread(target=lambda: tracer.mark("of a thread"))
thread.start(); thread.join()
child = os.fork()
if child == 0:
    memlyze.mark("of a child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
stats = tracer.stop()
print(json.dumps([stats.events.marks, stats.events.snapshots, stats.complete, len(stats.processes)]))
'''


@case(each=[('another user', 'user'), ('another root', 'root'), ('both', 'root and user')])
def the_recorder_is_reached_from_elsewhere(how):
    runner = []
    if os.geteuid() != 0:
        runner = ['unshare', '-Ur', '--map-auto'] if 'user' in how else ['unshare', '-Ur']
        if subprocess.run([*runner, 'true'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
            raise Skip('neither root nor a user namespace')
    same('marks, snapshots, complete, processes', python(PYTHONS[0][1], ELSEWHERE, how, runner=runner).stdout, '[4, 1, true, 2]\n')


run(__name__)
