"""A low rate: recorded blocks live outside pymalloc's arenas, and the frees of all others are not looked at. What the program sees is the same, each
recorded block's end is seen, and the rate may be raised and lowered."""
import os

from harness import MEMLYZE, PYTHONS, case, clean_env, execute, record, same, tool

# Nothing of it lives at the end, whatever way its blocks went.
CHURN = '''
import sys, os
UNIT = b'x'
def small(): return UNIT * 100
def large(): return UNIT * 5000
def grown():
    items = []
    for n in range(300): items.append(n)
    while items: items.pop()
    return items
def texts():
    s = ''
    for n in range(200): s += 'ab'
    return s
class Node:
    def __init__(self, other): self.other = other
def nodes(): return [Node(n) for n in range(50)]
def work(rounds):
    for n in range(rounds):
        kept = [small() for _ in range(20)], [large() for _ in range(4)], grown(), texts(), nodes(), {str(k): k for k in range(40)}
        del kept
def resized():
    import ctypes
    api = ctypes.pythonapi
    total = 0
    for family in 'PyMem', 'PyObject':
        m, c, r, f = (getattr(api, family + '_' + name) for name in ('Malloc', 'Calloc', 'Realloc', 'Free'))
        for g in m, c, r: g.restype = ctypes.c_void_p
        m.argtypes, c.argtypes, r.argtypes, f.argtypes = [ctypes.c_size_t], [ctypes.c_size_t] * 2, [ctypes.c_void_p, ctypes.c_size_t], [ctypes.c_void_p]
        f.restype = None
        for start in 1, 8, 100, 512, 513, 3000:
            for n in range(40):
                p = m(start)
                size = start
                ctypes.memset(p, 0x5a, size)
                for to in 0, 10, 500, 511, 513, 4000, 400, 20, 512, 1, 2000, 30:
                    p = r(p, to)
                    assert p and p % 16 == 0, (p, to)
                    keep = min(size, to)
                    assert ctypes.string_at(p, keep) == b'\\x5a' * keep, (size, to)
                    ctypes.memset(p, 0x5a, to)
                    size = to
                f(p)
                p = c(3, start)
                assert p and ctypes.string_at(p, 3 * start) == bytes(3 * start) and p % 16 == 0
                f(p)
                f(m(0)); f(r(None, 50)); f(None)
                total += 1
    return total
'''
MAIN = CHURN + '''
import gc
work(30); gc.collect()
before = sys.getallocatedblocks()
work(300); made = resized(); gc.collect()
after = sys.getallocatedblocks()
print(made, 'grown' if after - before > 400 else 'not grown', 'shrunk' if before - after > 400 else 'not shrunk')
'''


def program(text):
    with open('app.py', 'w') as file:
        file.write(text)
    return 'app.py'


def check_ends(at_least, weight):
    """Next to nothing lives at the end: a frame that is kept for its function (3.10 and earlier), what lies in the interpreter's free lists."""
    sites = [s for s in tool('top', '-n', '0')['sites'] if os.path.basename(s['file'] or '') == 'app.py']
    simple = [s for s in sites if s['function'] in ('small', 'large', 'texts')]
    made = sum(s['alloc_count'] for s in simple)
    assert made > at_least, 'recorded for %d, wanted %d' % (made, at_least)
    same('alive at the end', [(s['function'], s['live_count']) for s in simple if s['live_count'] > 2 * weight], [])
    inside = [s for s in sites if s['function'] in ('grown', 'nodes', '__init__', 'resized', 'work')]
    live, made = sum(s['live_count'] for s in inside), sum(s['alloc_count'] for s in inside)
    assert live < made / 30, '%d of %d are alive at the end' % (live, made)
    counters = tool('stats')['counters']
    same('counters', {k: counters[k] for k in ('events_dropped', 'unmarked', 'unaligned', 'free_inferred', 'nested') if counters[k]}, {})


VARIANTS = [('', {}, ()), ('PYTHONMALLOC=debug', {'PYTHONMALLOC': 'debug'}, ()), ('PYTHONMALLOC=malloc', {'PYTHONMALLOC': 'malloc'}, ()),
            ('-X dev', {}, ('-X', 'dev')), ('tracemalloc', {}, ('-X', 'tracemalloc'))]


@case(each=[('%s at %s %s' % (label, rate, variant), python, rate, env, flags) for label, python in PYTHONS for rate in ('0.03', '0.01')
            for variant, env, flags in VARIANTS if rate == '0.03' or not variant])
def every_end_is_seen(python, rate, env, flags):
    app = program(MAIN)
    plain = execute([python, *flags, app], env=clean_env(**env))
    same('untraced', (plain.returncode, plain.stderr), (0, ''))
    traced = record([python, *flags, app], '--sample-rate', rate, env=clean_env(**env))
    same('what it prints', (traced.stdout, traced.stderr), (plain.stdout, plain.stderr))
    check_ends(4000, 1 / float(rate))


@case(each=PYTHONS)
def what_lives_is_estimated(python):
    app = program('class A: __slots__ = ("x",)\ndef make(): return [A() for n in range(20000)]\nkept = make()\n')
    record([python, app], '--sample-rate', '0.03')
    sites = [s for s in tool('top', '-n', '0')['sites'] if os.path.basename(s['file'] or '') == 'app.py']
    live = sum(s['live_count'] for s in sites)
    assert 16000 < live < 24000, live


RATES = CHURN + '''
import subprocess
untraced = {k: v for k, v in os.environ.items() if k != 'LD_PRELOAD'}  # a tool under sanitizers cannot be traced
def rate(r): subprocess.run(['MEMLYZE', 'control', '--pid', str(os.getpid()), '--sample-rate', r], check=True, env=untraced)
held = [small() for n in range(3000)]
work(40)
rate('1')
more = [small() for n in range(3000)]
work(40); resized()
rate('0.01')
del held, more
work(40)
rate('0.5')
work(40)
'''


@case(each=PYTHONS)
def the_rate_is_raised_and_lowered(python):
    app = program(RATES.replace("MEMLYZE", MEMLYZE))
    record([python, app], '--sample-rate', '0.03')
    check_ends(6000, 34)


@case(each=PYTHONS)
def a_child_frees_what_it_inherited(python):
    app = program(CHURN + '''
held = [small() for n in range(3000)]
for n in range(3):
    pid = os.fork()
    if pid == 0:
        del held
        work(30)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    work(10)
del held
''')
    record([python, app], '--sample-rate', '0.03')
    check_ends(2000, 34)


if __name__ == '__main__':
    from harness import run
    run(__name__)
