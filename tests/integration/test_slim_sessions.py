"""Low rates: how many allocations were seen does not depend on the rate; sessions that begin and end in one process, whose blocks outlive them; the rate
changed at any instant across 1/32, where recorded blocks begin to live elsewhere; forks; interpreters with GILs of their own."""
import json
import os
import re

from harness import BUILD, MEMLYZE, PROGRAMS, PYTHONS, SLOW, TESTS, Skip, case, clean_env, execute, record, run, same, tool

PACKAGE = os.path.join(os.path.dirname(TESTS), 'tracer', 'python')
OWN_GILS = [(label, path) for label, path in PYTHONS if not re.search(r'3\.(8|9|10|11)\b', label)]

# Threads that are joined by the system's own call have ended for certain: what they had passed over is told by then, and nothing else runs beside.
JOINED = '''
import sys, ctypes
UNIT = b'x'
libc = ctypes.CDLL(None)
create, join = libc.pthread_create, libc.pthread_join
create.argtypes, join.argtypes = [ctypes.c_void_p] * 4, [ctypes.c_ulong, ctypes.c_void_p]
def work():
    kept = [UNIT * (10 + n % 900) for n in range(700)]
    grown = []
    for n in range(1000): grown.append(n)
    named = {str(n): n for n in range(200)}
@ctypes.CFUNCTYPE(None)
def run():
    work()
ident = ctypes.c_ulong()
place, code = ctypes.addressof(ident), ctypes.cast(run, ctypes.c_void_p).value
for n in range(int(sys.argv[1])):
    assert create(place, None, code, None) == 0 and join(ident, None) == 0
work()
'''


def write(text, name='app.py'):
    with open(name, 'w') as file:
        file.write(text)
    return name


@case(each=[('%s, %s' % (label, 'one thread' if not threads else '%d threads' % threads), python, threads) for label, python in PYTHONS for threads in (0, 50)])
def as_many_allocations_are_seen_at_every_rate(python, threads):
    write(JOINED)
    seen_at([python, '-I', 'app.py', threads], ('1', '0.1', '0.03', '0.001') if not threads else ('1', '0.03', '0.01'))


def seen_at(command, rates):
    env, seen = clean_env(PYTHONHASHSEED=0), {}
    execute(command, env=env)  # whatever the first run leaves on the disk
    for rate in rates:
        record(command, '--sample-rate', rate, env=env)
        seen[rate] = tool('stats')['counters']['allocations_seen']
    same('allocations_seen', seen, dict.fromkeys(seen, seen['1']))


# A child goes on with its parent's countdown in its memory: what it allocates before it knows that it is a child is counted, too.
FORKS = '''
import os, sys
kept = []
for n in range(40):
    kept.append([str(n)] * (n % 7))
    child = os.fork()
    if child == 0:
        mine = [str(n) for n in range(n)]
        sys.exit()  # what is passed over before _exit, behind the last record, nobody hears of
    assert os.waitpid(child, 0)[1] == 0
'''


@case(each=PYTHONS)
def so_are_those_of_a_forks_children(python):
    write(FORKS)
    seen_at([python, '-I', 'app.py'], ('1', '0.1', '0.03', '0.001'))


# Blocks of every way to be recorded go from one session into the next ones and behind stop(): recorded ones of a low rate are the C library's by then.
CYCLES = '''
import ctypes, gc, json, os, random, sys
sys.path.insert(0, %r)
from started import start, stop, request, info
times, warm = int(sys.argv[1]), int(sys.argv[2])
UNIT, chance = b'x', random.Random(5)
api, families = ctypes.pythonapi, []
for family in 'PyMem', 'PyObject':
    m, r, f = (getattr(api, family + '_' + name) for name in ('Malloc', 'Realloc', 'Free'))
    m.argtypes, r.argtypes, f.argtypes = [ctypes.c_size_t], [ctypes.c_void_p, ctypes.c_size_t], [ctypes.c_void_p]
    m.restype = r.restype = ctypes.c_void_p
    f.restype = None
    families.append((m, r, f))
def objects(): return [UNIT * (1 + n %% 700) for n in range(300)], [[n] for n in range(100)], {str(n): (n,) for n in range(60)}
blocks = {}
def change(n):
    """Some blocks come, some are resized, also through the other family (one allocator is below both; the debug hooks would tell), some go. Each has one
    value in every byte."""
    for _ in range(n):
        what = chance.randrange(5)
        family = chance.randrange(2)
        size = chance.choice((1, 16, 100, 400, 511, 512, 513, 514, 600, 3000))
        if what < 2 or len(blocks) < 50:
            p = families[family][0](size)
            assert p not in blocks
        else:
            p = chance.choice(list(blocks))
            old, byte, own = blocks.pop(p)
            if os.environ.get('PYTHONMALLOC') == 'debug': family = own
            assert ctypes.string_at(p, old) == bytes([byte]) * old, (p, old)
            if what == 2 or len(blocks) > 300:
                families[family][2](p)
                continue
            p = families[family][1](p, size)
            assert p and ctypes.string_at(p, min(old, size)) == bytes([byte]) * min(old, size), (p, old, size)
        assert p and p %% 16 == 0
        byte = chance.randrange(256)
        ctypes.memset(p, byte, size)
        blocks[p] = size, byte, family
def status():
    lines = dict(line.split(':') for line in open('/proc/self/status'))
    return [int(lines['VmSize'].split()[0]), int(lines['VmRSS'].split()[0]), len(os.listdir('/proc/self/fd')), int(lines['Threads']),
            len(open('/proc/self/maps').readlines())]
across = []
for n in range(times):
    answers = start('--sample-rate', ('0.03', '0.03', '0.01', '0.5', '1')[n %% 5])
    kept = objects()
    change(40)
    for rate in ((), (1.0,), (0.02,), (0.5, 0.01))[n %% 4]:
        request(rate=rate)
        change(20)
        kept[0][::2] = objects()[0][::2]
    across.append(kept)
    if len(across) > 3: del across[chance.randrange(3)]
    if n %% 20 == 7:
        child = os.fork()
        if not child:
            try:
                if n %% 40 == 7: across.clear()
                change(100)
                stop()
                change(100)
                across.clear()
                gc.collect()
                if n %% 60 == 27:
                    again = start('--sample-rate', '0.02', trace='child.mlyze')
                    change(100)
                    stop(again)
                    change(100)
                os._exit(7)
            except BaseException as e:
                os.write(2, repr(e).encode())
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 7 << 8
    change(20)
    stats = stop(answers)
    assert stats['complete'] and not any(stats['counters'][k] for k in ('unmarked', 'unaligned', 'nested', 'free_inferred')), stats
    change(20)
    if n == warm:
        gc.collect()
        before = status()
gc.collect()
print(json.dumps([before, status()]))
''' % PROGRAMS


def cycles(python, times, warm, **env):
    write(CYCLES)
    result = execute([python, '-X', 'faulthandler', 'app.py', times, warm], env=clean_env(MEMLYZE_BUILD=BUILD, PYTHONDONTWRITEBYTECODE=1, **env), timeout=600)
    same('exit status; %s%s' % (result.stdout[-2000:], result.stderr[-2000:]), result.returncode, 0)
    before, after = json.loads(result.stdout)
    assert after[0] - before[0] <= 4096 and after[1] - before[1] <= 4096, 'address space, resident memory (KiB): %r, then %r' % (before, after)
    same('descriptors and threads', after[2:4], before[2:4])
    assert after[4] - before[4] <= 12, 'mappings: %d, then %d' % (before[4], after[4])


TIMES = int(os.environ.get('MEMLYZE_TEST_CYCLES', 32 // SLOW))  # a thousand: by hand


@case(each=[('%s%s' % (label, ' ' + m if m else ''), python, m) for label, python in PYTHONS for m in ('', 'malloc', 'debug')
            if not m or python == PYTHONS[-1][1]])
def sessions_come_and_go_and_blocks_stay(python, malloc):
    cycles(python, TIMES, TIMES // 4, **({'PYTHONMALLOC': malloc} if malloc else {}))


# The rate goes up and down while four threads allocate and a child does, by requests from within and from outside: each recorded block's end is seen all the same.
BORDER = '''
import os, random, subprocess, sys, threading, time
sys.path.insert(0, %r)
import memlyze
UNIT, chance, on = b'x', random.Random(7), True
untraced = {k: v for k, v in os.environ.items() if k != 'LD_PRELOAD'}
def small(n): return UNIT * (1 + n %% 600)
def work():
    kept = {}
    turn = 0
    while on:
        turn += 1
        for n in range(200): kept[n] = small(n + turn), [n]
        text = ''
        for n in range(50): text += 'ab'
    kept.clear()
    del kept, text
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
end = time.monotonic() + float(sys.argv[2])
n = 0
while time.monotonic() < end:
    rate = chance.choice((1, 0.5, 0.04, 0.03125, 0.031, 0.03, 0.01))
    if n %% 8 == 0:
        subprocess.run([sys.argv[1], 'control', '--pid', str(os.getpid()), '--sample-rate', str(rate)], check=True, env=untraced, stdout=subprocess.DEVNULL)
    else:
        memlyze.set_sample_rate(rate)
    if n %% 16 == 4:
        child = os.fork()
        if not child:
            mine = [small(k) for k in range(1000)]
            del mine
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    time.sleep(chance.choice((0, 0.001, 0.01)))
    n += 1
on = False
for t in threads: t.join()
print(n)
''' % PACKAGE


@case(each=[(label, path) for label, path in PYTHONS])
def the_rate_crosses_the_border_at_any_instant(python):
    write(BORDER)
    result = record([python, 'app.py', MEMLYZE, '0.5'], '--sample-rate', '0.03', env=clean_env(MEMLYZE_HOME=BUILD, PYTHONDONTWRITEBYTECODE=1))
    assert int(result.stdout) > 1, result
    answer = tool('top', '-n', '0', '--group', 'function')
    site = [s for s in answer['sites'] if s['function'] == 'small']
    made, live = sum(s['alloc_count'] for s in site), sum(s['live_count'] for s in site)
    assert made > 5000 and live <= 400, 'small: %d made, %d live' % (made, live)
    counters = tool('stats')['counters']
    same('counters', {k: counters[k] for k in ('events_dropped', 'unmarked', 'unaligned', 'free_inferred', 'nested') if counters[k]}, {})


# fork() itself, so that the interpreter does nothing in between: the child's first request looks like pymalloc's table of arenas that grows.
FORKED = '''
import ctypes
api, libc = ctypes.pythonapi, ctypes.PyDLL(None)
m, r = api.PyMem_RawMalloc, api.PyMem_RawRealloc
m.argtypes, r.argtypes = [ctypes.c_size_t], [ctypes.c_void_p, ctypes.c_size_t]
m.restype = r.restype = ctypes.c_void_p
fork, wait, leave = libc.fork, libc.wait, libc._exit
status = ctypes.c_int()
place, table, died = ctypes.byref(status), m(768), 0
for n in range(40):
    kept = [bytes(50) for _ in range(n)]
    if fork() == 0:
        r(table, 1536)
        leave(0)
    wait(place)
    died += status.value != 0
print(died)
'''


@case(each=PYTHONS)
def a_child_asks_before_it_has_a_ring(python):
    write(FORKED)
    same('children that died', record([python, 'app.py'], '--sample-rate', '0.01').stdout, '0\n')


# The C library has no memory left, pymalloc's arenas have: there is no room for a block outside of them, and the program must not notice.
EXHAUSTED = '''
import ctypes, resource
libc, api = ctypes.CDLL(None), ctypes.pythonapi
grab, m, c, r, f = libc.malloc, api.PyObject_Malloc, api.PyObject_Calloc, api.PyObject_Realloc, api.PyObject_Free
grab.argtypes, m.argtypes, c.argtypes, r.argtypes, f.argtypes = [ctypes.c_size_t], [ctypes.c_size_t], [ctypes.c_size_t] * 2, [ctypes.c_void_p, ctypes.c_size_t], [ctypes.c_void_p]
grab.restype = m.restype = c.restype = r.restype = ctypes.c_void_p
f.restype = None
room = [m(size) for size in range(16, 513, 16) for _ in range(2000)]
used = int(open('/proc/self/statm').read().split()[0]) * 4096
for p in room: f(p)
resource.setrlimit(resource.RLIMIT_AS, (used, used))
size = 1 << 20
while size >= 16:
    while grab(size): pass
    size //= 2
failed = 0
for n in range(20000):
    p = m(100) if n % 2 else c(1, 100)
    q = r(p, 60) if p else None
    failed += not q
    if q: f(q)
print(failed)
'''


@case(each=[PYTHONS[0], PYTHONS[-1]])
def the_last_memory_is_inside_the_arenas(python):
    if SLOW > 1:
        raise Skip('the sanitizers need address space')
    write(EXHAUSTED)
    same('untraced', execute([python, 'app.py']).stdout, '0\n')
    same('traced', record([python, 'app.py'], '--sample-rate', '0.03').stdout, '0\n')


# The longer way: tests/field/own_gil.py --low
@case(each=OWN_GILS)
def interpreters_with_gils_of_their_own(python):
    with open(os.path.join(PROGRAMS, 'own_gil.py'), encoding='utf-8') as file:
        write(file.read())
    env = clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE=1)
    for seed, how in (('1', ('low', 'still')), ('2', ('low',)), ('3', ('low', 'still', 'stay'))):
        result = execute([python, '-X', 'faulthandler', 'app.py', '0.4', seed, *how], env=env)
        same('exit status, seed %s; %s' % (seed, result.stderr[-3000:]), result.returncode, 0)
        assert re.fullmatch(r'([1-9]\d*) recordings, ([1-9]\d*) interpreters\n', result.stdout), result.stdout
        same('complete', tool('stats')['complete'], True)


run(__name__)
