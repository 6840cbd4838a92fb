"""Native stacks as the agent captures them (docs/native.md): what happens to stacks, modules, threads and processes, each capture walked a second time
without caches (MEMLYZE_NATIVE_CHECK)."""
import os
import shutil
import struct
import subprocess

from harness import BUILD, PYTHONS, SLOW, Skip, case, clean_env, execute, record, run, same, tool

HELPERS = os.path.join(BUILD, 'tests', 'integration')
LIFE = os.path.join(HELPERS, 'native_life')


def traced(command, *options, **more):
    env = dict(clean_env(), MEMLYZE_NATIVE_CHECK='1', **more)
    depth = [] if '--max-stack-depth' in options else ['--max-stack-depth', '32']  # some of the stacks are deeper
    result = record(command, '--native', *depth, *options, env=env)
    counters = tool('stats')['counters'] if 'counters' in tool('stats') else tool('stats')
    same('captures that a second walk finds to be wrong', counters['native_mismatches'], 0)
    return result


CUT = '(outer frames not recorded)'


def stacks(*arguments):
    """{names of the functions, outermost first: blocks}"""
    result = execute([os.path.join(BUILD, 'analyzer', 'memlyze-export'), '--to', 'collapsed', '--by', 'alloc-count', *arguments, 'trace.mlyze'])
    same('exit status of export', result.returncode, 0)
    found = {}
    for line in result.stdout.splitlines():
        frames, count = line.rsplit(' ', 1)
        names = tuple(f.rsplit(' (', 1)[0] for f in frames.split(';') if f != CUT)
        found[names] = found.get(names, 0) + int(count)
    return found


def life(what, *arguments, process=()):
    result = traced([LIFE, what, *arguments])
    plain = execute([LIFE, what, *arguments])
    same('output, traced and untraced', result.stdout, plain.stdout)
    leaves = {s: n for s, n in stacks(*process).items() if s[-1] == 'life_leaf'}
    return leaves, int(result.stdout)


def ends(leaves, *names):
    """Blocks whose stacks end so."""
    return sum(n for s, n in leaves.items() if s[-len(names):] == names)


def from_the_start(leaves):
    for stack in leaves:
        assert stack[0] == '_start' or len(stack) == 32, 'a stack that does not begin at the beginning: %r' % (stack,)


@case
def threads_that_come_and_go():
    leaves, known = life('threads')
    same('blocks', sum(leaves.values()), known)
    assert ends(leaves, 'some', 'life_two', 'life_one', 'life_leaf') >= known / 2, leaves
    for stack in leaves:
        assert 'main' not in stack, stack


@case
def forks_in_the_middle_of_malloc():
    leaves, known = life('forks', process=('--process', 'all'))
    in_children = {s: n for s, n in leaves.items() if 'life_deep' in s or 'forks' in s or 'main' in s}
    same('blocks of the children', sum(in_children.values()), known + 20 * 3)
    from_the_start(in_children)


@case
def handlers_of_signals():
    leaves, known = life('signals')
    same('blocks', sum(leaves.values()), known)
    from_the_start(leaves)
    for stack in leaves:
        assert 'life_raise' in stack and 'main' in stack, stack
        raised = stack.index('life_raise')
        assert any('raise' in name or 'kill' in name for name in stack[raised + 1:]), stack
    same('depths of recursion', {s.count('life_raise') for s in leaves}, set(range(1, 11)))


@case
def coroutines():
    leaves, known = life('contexts')
    same('blocks', sum(leaves.values()), known)
    inside = {s: n for s, n in leaves.items() if 'routine' in s}
    same('blocks of the coroutine', sum(inside.values()), 400)
    for stack in inside:
        assert 'main' not in stack and stack.index('routine') <= 1, stack
    from_the_start({s: n for s, n in leaves.items() if 'routine' not in s})


@case
def jumps_out_of_deep_frames():
    leaves, known = life('jumps')
    from_the_start(leaves)
    same('blocks of what follows the jump', sum(n for s, n in leaves.items() if 'life_deep' not in s), known)


@case
def tables_that_are_wrong_of_the_frame_pointer():
    leaves, known = life('wrong')
    same('blocks', sum(leaves.values()), known)
    same('who asked for them', {s[-2] for s in leaves}, {'life_added', 'life_loaded'})


@case
def a_module_whose_headers_were_moved():
    """Tools that change what is linked (BOLT, patchelf) put the program headers elsewhere in the file; where that is not loaded, nothing may be read."""
    with open(os.path.join(HELPERS, 'native_module_apart.so'), 'rb') as f:
        module = bytearray(f.read())
    at, = struct.unpack_from('<Q', module, 32)
    size = 56 * struct.unpack_from('<H', module, 56)[0]
    for name, to in ('hole', 0x100000), ('beyond', len(module) + 63 & ~63):
        moved = bytearray(module) + bytes(max(0, to + size - len(module)))
        moved[to:to + size] = module[at:at + size]
        moved[at:at + size] = bytes(size)
        struct.pack_into('<Q', moved, 32, to)
        with open(name + '.so', 'wb') as f:
            f.write(moved)
        leaves, known = life('moved', os.path.abspath(name + '.so'))
        same('blocks', sum(leaves.values()), known)
        for stack in leaves:
            assert 'module_work_apart' in stack and 'main' in stack, stack


@case
def modules_that_take_each_other_s_place():
    leaves, known = life('modules', HELPERS)
    same('blocks', sum(leaves.values()), known)
    for name in 'ab':
        same('blocks called from module ' + name, sum(n for s, n in leaves.items() if 'module_work_' + name in s), known // 2)
    for stack in leaves:
        assert ('module_work_a' in stack) != ('module_work_b' in stack), stack
        assert 'module_entry' in stack and 'main' in stack, stack


@case
def recursion_deeper_than_can_be_remembered():
    leaves, known = life('deep')
    same('blocks', sum(leaves.values()), known)
    same('deepest stack that is shown', max(map(len, leaves)), 32)
    same('frames of the recursion in most', sum(n for s, n in leaves.items() if s.count('life_deep') == 30), known - 2)


@case
def exceptions():
    program = os.path.join(HELPERS, 'native_throw')
    if not os.path.exists(program):
        raise Skip('no C++ compiler')
    plain = execute([program])
    same('output', traced([program]).stdout, plain.stdout)
    found = stacks()
    same('destructors', sum(n for s, n in found.items() if s[-1] == 'Guard::~Guard()'), sum(i % 12 + 1 for i in range(200)))
    thrown = {s: n for s, n in found.items() if s[-1] == '__cxa_allocate_exception'}
    same('exceptions', sum(thrown.values()), 200)
    from_the_start(thrown)
    same('depths of the throw', {len([f for f in s if f.startswith('thrower')]) for s in thrown}, set(range(1, 13)))


@case(each=[(os.path.basename(p), p) for p in ('/usr/bin/git', '/usr/bin/sqlite3', '/usr/bin/xmllint', '/usr/bin/jq') if os.path.exists(p)])
def programs_without_frame_pointers(program):
    with open('some.xml', 'w') as f:
        f.write('<r>%s</r>' % ''.join('<a id="%d"><b>text %d</b></a>' % (i, i * i) for i in range(2000)))
    with open('some.json', 'w') as f:
        f.write('[%s]' % ','.join('{"a":%d,"b":["x%d",null]}' % (i, i) for i in range(2000)))
    arguments = {
        'git': ['hash-object', 'some.xml', 'some.json'],
        'sqlite3': [':memory:', 'create table t(a,b); insert into t select value, value * 7 from generate_series(1, 2000); '
                                'create index i on t(b); select count(*) from t where b % 3 = 1'],
        'xmllint': ['--noout', 'some.xml'],
        'jq': ['map(.a) | add', 'some.json'],
    }[os.path.basename(program)]
    plain = execute([program, *arguments])
    result = traced([program, *arguments])
    same('output and status', (result.returncode, result.stdout), (plain.returncode, plain.stdout))


@case(each=PYTHONS)
def an_interpreter(python):
    with open('some.py', 'w') as f:
        f.write('import json, threading\n'
                'def work():\n'
                '    for _ in range(3): json.loads(json.dumps([{"a": i, "b": [1.5, str(i)]} for i in range(200)]))\n'
                '    sorted(range(300), key=lambda x: [x])\n'
                'def gen():\n'
                '    for i in range(100): yield [i]\n'
                'threads = [threading.Thread(target=work) for _ in range(3)]\n'
                'for t in threads: t.start()\n'
                'work(); list(gen())\n'
                'for t in threads: t.join()\n'
                'print("done")\n')
    same('output', traced([python, 'some.py']).stdout, 'done\n')


EVENLY = '''
import collections, json, re
class E(Exception):
    pass
def deep(n):
    if n == 0:
        raise E('x' * 1000)
    return deep(n - 1)
def generate(n):
    try:
        for i in range(n):
            yield [i] * 10
    finally:
        kept = [1] * 1000
class Dies:
    def __init__(self, inner=None):
        self.inner = inner
    def __del__(self):
        kept = [0] * 500
        inner, self.inner = self.inner, None      # dies at the end of this frame
def dies(depth):
    chain = None
    for _ in range(depth):
        chain = Dies(chain)
    return 1                                      # and chain, when this frame has returned already
for i in range(12):
    json.loads(json.dumps({'a': [1, 2, {'b': [i] * 50}]}), object_hook=lambda d: dict(d))
    sorted([re.compile('a%d+b*(c|d)' % i) for _ in range(3)], key=lambda p: p.pattern)
    try:
        deep(i)
    except E:
        list(generate(i))
    dies(i)
collections.namedtuple('A', 'b c d')
dies(4)
'''


@case(each=PYTHONS)
def each_loop_of_the_interpreter_has_its_frames(path):
    """Of every stack that is whole: the system's interpreter is stripped, and a part of its loop lies elsewhere."""
    with open('evenly.py', 'w') as file:
        file.write(EVENLY)
    traced([path, 'evenly.py'], '--max-stack-depth', '1000')
    same('stacks with another number of loops than of frames that have one', tool('stats')['counters']['native_uneven'], 0)


ALLOCATORS = {
    'jemalloc': '/usr/lib/x86_64-linux-gnu/libjemalloc.so.2',
    'mimalloc': '/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0',
    'tcmalloc': '/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4',
}


PRELOADED = [(name, path) for name, path in ALLOCATORS.items() if os.path.exists(path)]


@case(each=PRELOADED)
def allocators_that_are_preloaded(path):
    if SLOW > 1:
        raise Skip("a sanitized agent and another's malloc do not go together")
    for program, *arguments in ([LIFE, 'threads'], [LIFE, 'forks']):
        plain = execute([program, *arguments], env=dict(clean_env(), LD_PRELOAD=path))
        result = traced([program, *arguments], LD_PRELOAD=path)
        same('output', result.stdout, plain.stdout)


@case(each=[('the C library\'s', None)] + PRELOADED)
def operators_of_an_allocator_s_own(path):
    """tcmalloc and others bring operator new: it reaches no malloc."""
    if path and SLOW > 1:
        raise Skip("a sanitized agent and another's malloc do not go together")
    program = os.path.join(HELPERS, 'new_delete')
    if not os.path.exists(program):
        raise Skip('no C++ compiler')
    preload = {'LD_PRELOAD': path} if path else {}
    for options in ([], ['--native']):
        sums = []
        for what in ('all', 'none'):
            result = record([program, what], *options, env=dict(clean_env(), MEMLYZE_NATIVE_CHECK='1', **preload))
            sites = tool('top', '-n', '0')['sites']
            sums.append([sum(s[key] for s in sites) for key in ('alloc_count', 'alloc_bytes', 'live_count', 'live_bytes')])
            if what == 'all':
                known = [int(n) for n in result.stdout.split()]
                stacks_then = stacks() if options else None
        same('count, bytes, kept count, kept bytes', [a - b for a, b in zip(*sums)], known)
        if stacks_then:
            same('blocks of main', sum(n for s, n in stacks_then.items() if s[-1] == 'main'), known[0])


run(__name__)
