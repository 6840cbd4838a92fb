"""--include and --exclude: a filtered trace holds exactly what the full one holds of the stacks that match."""
import collections
import ctypes
import os

from harness import MEMLYZE, PYTHONS, case, clean_env, execute, record, run, same, tool

MODULES = {
    'shop/__init__.py': '',
    'shop/cart.py': '''
from shop import price
KEPT = []
def unit(n): return b'x' * (100 + n % 50)
class Cart:
    def fill(self, n):
        for i in range(n):
            unit(i)
            if i % 10 == 0: KEPT.append(unit(i))
        return price.total(n)
''',
    'shop/price.py': '''
GROWN = []
def total(n):
    for i in range(n): GROWN.append(str(i) * 10)   # the list grows by realloc
    return [float(i) * 1.5 for i in range(n)]
''',
    'app.py': '''
import os, sys, gc
from shop import cart, price
def late():
    return ['y' * (60 + i % 7) for i in range(200)]
keep = cart.Cart().fill(1000)
also = late()
price.GROWN.clear()                                # frees at another line than it allocated
pid = os.fork()
if pid == 0:
    cart.KEPT.clear()                              # inherited blocks
    cart.Cart().fill(100)
    gc.collect()
    os._exit(0)
os.waitpid(pid, 0)
last = late()
''',
}
PICK = ('alloc_count', 'alloc_bytes', 'live_count', 'live_bytes', 'temporary_count')
TWO = [PYTHONS[0], PYTHONS[-1]] if len(PYTHONS) > 1 else PYTHONS


def program():
    """In a folder of its own: the importer lists it, so the traces must not be there."""
    os.makedirs('folder/shop')
    for name, text in MODULES.items():
        with open('folder/' + name, 'w') as file:
            file.write(text)


def same_addresses():
    """The same run it is only at the same addresses: the interpreter keeps sets ordered by them, and allocates accordingly."""
    ctypes.CDLL(None).personality(0x0040000)  # ADDR_NO_RANDOMIZE


def traced(python, trace, *options):
    return record([python, '-B', 'folder/app.py'], '--max-stack-depth', '30', *options, trace=trace, env=clean_env(PYTHONHASHSEED=0),
                  preexec_fn=same_addresses)


def module(frame):
    """The modules of the program, by their files; '' for all others."""
    path = frame['file'] or ''
    return {'cart.py': 'shop.cart', 'price.py': 'shop.price', 'app.py': '__main__'}.get(os.path.basename(path), '')


def stacks(trace, keep, process):
    """{stack: totals} of the stacks that the predicate keeps: it is given the modules and functions, innermost first. Those of the program only."""
    out = collections.Counter()
    for site in tool('top', '-n', '0', '--group', 'stack', '--process', process, trace=trace)['sites']:
        frames = [(module(f), f['function'].rpartition('.')[2]) for f in site['stack']]
        if not any(m for m, _ in frames) or any('importlib' in (f['file'] or '') for f in site['stack']):
            continue
        if keep(frames):
            key = tuple((f['function'], f['file'], f['line']) for f in site['stack'])
            for name in PICK:
                out[key + (name,)] += site[name]
    return out


def counters(trace):
    return tool('stats', '--process', 'all', trace=trace)['counters']


def compare(python, options, keep, what, *more):
    traced(python, 'full.mlyze', *more)
    traced(python, 'part.mlyze', *options, *more)
    for number, process in enumerate(('parent', 'child')):
        pids = {trace: tool('stats', trace=trace)['processes'][number]['pid'] for trace in ('full.mlyze', 'part.mlyze')}
        full = stacks('full.mlyze', keep, pids['full.mlyze'])
        part = stacks('part.mlyze', lambda frames: True, pids['part.mlyze'])
        assert sum(full.values()) > 0, 'nothing in %s of the %s' % (what, process)
        same('stacks of %s in the %s' % (what, process), {k: v for k, v in part.items() if v}, {k: v for k, v in full.items() if v})
    answer = tool('stats', '--process', 'all', trace='part.mlyze')
    same('foreign frees', (answer['blocks']['foreign_frees'], answer['counters']['free_foreign']), (0, 0))
    assert answer['counters']['allocations_filtered'] > 0 and answer['counters']['frees_filtered'] > 0
    return answer


WAYS = [
    ('a module', ['--include', 'shop.price'], lambda frames: any(m == 'shop.price' for m, _ in frames)),
    ('a package', ['--include', 'shop.*'], lambda frames: any(m.startswith('shop') for m, _ in frames)),
    ('a function', ['--include', '*.late'], lambda frames: any(f == 'late' for _, f in frames)),
    ('two patterns', ['--include', '__main__.late', '--include', 'shop.price.total'],
     lambda frames: any((m, f) in (('__main__', 'late'), ('shop.price', 'total')) for m, f in frames)),
    ('without a module', ['--exclude', 'shop.price'], lambda frames: frames[0][0] != 'shop.price'),
    ('both', ['--include', 'shop.*', '--exclude', 'shop.cart.*'],
     lambda frames: any(m.startswith('shop') for m, _ in frames) and frames[0][0] != 'shop.cart'),
]


@case(each=[('%s, %s' % (label, what), python, what, options, keep) for label, python in TWO for what, options, keep in WAYS])
def exactly_the_stacks_that_match(python, what, options, keep):
    program()
    # In the child nothing of __main__.late runs.
    if 'late' in ' '.join(options) and 'shop' not in ' '.join(options):
        traced(python, 'full.mlyze')
        traced(python, 'part.mlyze', *options)
        pids = {trace: tool('stats', trace=trace)['processes'][0]['pid'] for trace in ('full.mlyze', 'part.mlyze')}
        same(what, stacks('part.mlyze', lambda frames: True, pids['part.mlyze']), stacks('full.mlyze', keep, pids['full.mlyze']))
        return
    compare(python, options, keep, what)


@case(each=TWO)
def a_sampled_trace_takes_the_same_allocations(python):
    program()
    compare(python, ['--include', 'shop.*'], lambda frames: any(m.startswith('shop') for m, _ in frames), 'a package', '--sample-rate', '0.3')


@case(each=TWO)
def figures_and_settings(python):
    program()
    result = traced(python, 'part.mlyze', '--include', 'shop.*', '--exclude', 'shop.cart')
    answer = tool('stats', '--process', 'all', trace='part.mlyze')
    same('settings', (answer['settings']['include'], answer['settings']['exclude']), (['shop.*'], ['shop.cart']))
    c = answer['counters']
    same('seen', c['allocations_seen'], c['allocations_traced'] + c['allocations_filtered'])
    same('in the file', answer['events']['allocs'], c['allocations_traced'] + c['map_pieces'])
    text = execute([MEMLYZE, 'stats', 'part.mlyze']).stdout
    assert 'shop.*' in text and 'shop.cart' in text and 'filtered' in text, text
    said = record([python, '-B', 'folder/app.py'], '--include', 'shop.*', quiet=False).stderr
    assert 'allocations_filtered' in said, said
    same('without a filter', 'filtered' in record([python, '-B', 'folder/app.py'], quiet=False).stderr, False)


@case
def nothing_matches():
    program()
    said = record([PYTHONS[-1][1], '-B', 'folder/app.py'], '--include', 'shpo.*', quiet=False).stderr
    assert 'all of them were filtered out' in said, said
    said = execute([MEMLYZE, 'top', 'trace.mlyze']).stderr
    assert 'filtered out' in said, said


@case
def wrong_patterns():
    for options, words in ((['--include', ''], 'empty'), (['--exclude', ''], 'empty'), (['--include', 'a\nb'], 'control character'),
                           (['--include', 'x', '--max-stack-depth', '0'], '--max-stack-depth')):
        result = execute([MEMLYZE, 'record', *options, 'true'])
        same('status of %r' % options, result.returncode, 2)
        same('lines', len(result.stderr.splitlines()), 1)
        assert words in result.stderr, result.stderr


run(__name__)
