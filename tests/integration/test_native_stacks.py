"""--native: one stack of native and Python frames, in their order, with names; and what annotate makes of it."""
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import mlyze_decode  # noqa: E402
from harness import PYTHONS, Skip, TESTS, case, clean_env, execute, MEMLYZE, record, run, same, tool  # noqa: E402

SOURCE = os.path.join(TESTS, 'programs', 'native_leaks.c')
LIBRARY = '''
#include <stdlib.h>
void *%(name)s_kept;
void keep(void) { %(name)s_kept = malloc(%(bytes)d); }
'''
if platform.machine() != 'x86_64':
    raise SystemExit(0)


def compiled(source, output, *options):
    done = subprocess.run(['gcc', '-g', '-O2', '-fno-builtin', source, '-o', output, *options, '-ldl'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True)
    assert done.returncode == 0, done.stdout
    return os.path.abspath(output)


def markers():
    with open(SOURCE, encoding='utf-8') as file:
        return {m.group(1): n for n, text in enumerate(file, 1) for m in [re.search(r'/\* @(\w+)', text)] if m}


def native(command, *options, **more):
    return record(command, '--native', *options, **more)


def chain(stack, n):
    return [(f['function'], f['line']) for f in stack[:n]]


def stacks(*arguments, **more):
    return tool('top', '-n', '0', '--group', 'stack', *arguments, **more)['sites']


@case
def leaks_of_a_program_by_function_and_line():
    program = compiled(SOURCE, 'program', '-pthread')
    native([program])
    lines, found = markers(), {}
    for leak in tool('leaks')['leaks']:
        names = [(f['function'], f['line']) for f in leak['stack'] if f['file'].endswith('native_leaks.c')]
        found[tuple(names)] = (leak['count'], leak['bytes'])
    main = [n for n in found if n[-1][0] == 'main']

    def of(function, line):
        got = [found[n] for n in found if (function, lines[line]) in n]
        assert got, '%s:%s is in no stack of %r' % (function, line, found)
        return (sum(c for c, _ in got), sum(b for _, b in got))

    same('ten', of('keep_ten', 'ten'), (10, 1000))
    same('inlined', of('inlined', 'inlined'), (1, 3000))
    same('recursion', of('recurse', 'recurse'), (1, 7777))
    same('thread', of('thread', 'thread'), (1, 5000))
    assert len(main) >= 3, found
    same('depth of the recursion', [sum(f == ('recurse', lines['recurse']) for f in n) for n in found if n[0][1] == lines['make'] and len(n) > 4], [5])
    same('the inlined function has its caller', [n[1][0] for n in found if n[0] == ('inlined', lines['inlined'])], ['main'])
    dropped = [s for s in stacks() if ('drop_ten', lines['drop']) in chain(s['stack'], 3)]
    same('freed blocks', [(s['alloc_count'], s['alloc_bytes'], s['live_count']) for s in dropped], [(10, 500, 0)])
    assert all(f['language'] == 'native' for s in dropped for f in s['stack'])


@case
def libraries_that_come_and_go():
    for name, size in ('first', 1111), ('second', 2222):
        with open(name + '.c', 'w') as file:
            file.write(LIBRARY % {'name': name, 'bytes': size})
        compiled(name + '.c', 'lib%s.so' % name, '-shared', '-fPIC')
    program = compiled(SOURCE, 'program', '-pthread', '-ldl')
    native([program, os.path.abspath('libfirst.so'), os.path.abspath('libsecond.so')])
    for name, size in ('first', 1111), ('second', 2222):
        site = [s for s in stacks() if s['live_bytes'] == size]
        same('%s.c: file and line, though it is unloaded' % name, [(s['function'], os.path.basename(s['file']), s['line']) for s in site], [('keep', name + '.c', 4)])
        same('its caller', site[0]['stack'][1]['function'], 'main')


@case
def without_names_and_with_them_later():
    program = compiled(SOURCE, 'program', '-pthread')
    os.mkdir('symbols')
    subprocess.run(['objcopy', '--only-keep-debug', program, 'symbols/program.debug'], check=True)
    subprocess.run(['strip', program], check=True)
    native([program])
    bare = [s for s in stacks() if s['live_count'] == 10][0]
    assert re.match(r'program\+0x[0-9a-f]+$', bare['function']) and bare['file'] == program and bare['line'] == 0, bare
    os.remove(program)
    lines = markers()
    wanted = [('make', lines['make']), ('keep_ten', lines['ten'])]
    same('by file name', chain([s for s in stacks('--symbols', 'symbols') if s['live_count'] == 10][0]['stack'], 2), wanted)
    note = subprocess.run(['readelf', '-n', 'symbols/program.debug'], stdout=subprocess.PIPE, universal_newlines=True).stdout
    build_id = re.search(r'Build ID: ([0-9a-f]+)', note).group(1)
    os.makedirs('store/.build-id/' + build_id[:2])
    shutil.move('symbols/program.debug', 'store/.build-id/%s/%s.debug' % (build_id[:2], build_id[2:]))
    same('by build id', chain([s for s in stacks('--symbols', 'store') if s['live_count'] == 10][0]['stack'], 2), wanted)
    compiled(SOURCE, 'symbols/program', '-pthread', '-DOTHER', '-O1')
    same('another build is not believed', [s for s in stacks('--symbols', 'symbols') if s['live_count'] == 10][0]['function'], bare['function'])
    for name in 'leaks', 'flame', 'diff', 'export', 'annotate':
        arguments = {'diff': ['trace.mlyze', 'trace.mlyze', '--all'], 'export': ['trace.mlyze', '--to', 'collapsed']}.get(name, ['trace.mlyze'])
        if name == 'diff':
            arguments = ['trace.mlyze@0s', 'trace.mlyze']
        done = execute([MEMLYZE, name, *arguments, '--symbols', 'store'])
        assert done.returncode == 0 and ('keep_ten' if name in ('flame', 'export') else 'make') in done.stdout, (name, done)
    missing = execute([MEMLYZE, 'top', 'trace.mlyze', '--symbols', 'nowhere'])
    assert missing.returncode == 2 and 'nowhere' in missing.stderr, missing


@case
def names_from_a_debuginfod_server():
    if not shutil.which('debuginfod'):
        raise Skip('no debuginfod')
    program, lines = compiled(SOURCE, 'program', '-pthread'), markers()
    os.mkdir('served')
    subprocess.run(['objcopy', '--only-keep-debug', program, 'served/program.debug'], check=True)
    subprocess.run(['strip', program], check=True)
    note = subprocess.run(['readelf', '-n', program], stdout=subprocess.PIPE, universal_newlines=True).stdout
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        url = 'http://127.0.0.1:%d' % free.getsockname()[1]
    with open('server.log', 'w') as log:
        server = subprocess.Popen(['debuginfod', '-F', '-p', url.rsplit(':', 1)[1], '-d', ':memory:', 'served'], stdout=log, stderr=log)
    try:
        path = '%s/buildid/%s/debuginfo' % (url, re.search(r'Build ID: ([0-9a-f]+)', note).group(1))
        for attempt in range(300):
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(path, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise Skip('the server does not answer')
        wanted = [('make', lines['make']), ('keep_ten', lines['ten'])]
        asked = dict(clean_env(), DEBUGINFOD_URLS=url, DEBUGINFOD_CACHE_PATH=os.path.abspath('cache'), no_proxy='*')
        native([program], env=asked)
        same('by the recorder', chain([s for s in stacks() if s['live_count'] == 10][0]['stack'], 2), wanted)
        native([program])
        bare = [s for s in stacks() if s['live_count'] == 10][0]['function']
        assert re.match(r'program\+0x', bare), bare
        shutil.rmtree('cache')
        os.mkdir('nothing')
        later = json.loads(execute([MEMLYZE, 'top', 'trace.mlyze', '--json', '-n', '0', '--group', 'stack', '--symbols', 'nothing'], env=asked).stdout)
        same('by a tool, later', chain([s for s in later['sites'] if s['live_count'] == 10][0]['stack'], 2), wanted)
    finally:
        server.terminate()
        server.wait()


@case
def cplusplus():
    if not shutil.which('g++'):
        raise Skip('no C++ compiler')
    with open('program.cc', 'w') as file:
        file.write('''#include <string>
#include <vector>
namespace shop { struct Cart { std::vector<std::string> items; void put(int n); };
__attribute__((noinline)) void Cart::put(int n) { items.push_back(std::string(n, 'x')); } }
shop::Cart *kept;
int main() { kept = new shop::Cart; kept->put(5000); }
''')
    subprocess.run(['g++', '-g', '-O1', 'program.cc', '-o', 'program'], check=True)
    native(['./program'])
    found = stacks()
    text = [s for s in found if s['live_bytes'] == 5001]
    assert text and any(f['function'] == 'shop::Cart::put(int)' and f['line'] == 4 for f in text[0]['stack']), text
    cart = [s for s in found if s['live_bytes'] == 24]
    same('operator new is hidden', chain(cart[0]['stack'], 1), [('main', 6)])
    hidden = [f['function'] for s in found for f in s['stack'] if f['function'].startswith('operator new') or f['function'] in ('malloc', 'calloc', 'realloc')]
    same('frames of allocators', hidden, [])


@case
def tail_calls_are_inferred_only_where_they_are_certain():
    with open('tail.c', 'w') as file:
        file.write('''#include <stdlib.h>
#define NOINLINE __attribute__((noinline)) static void *
NOINLINE xmalloc(size_t n) { return malloc(n + 1); }
NOINLINE wrap(size_t n) { return xmalloc(n * 2); }
NOINLINE either(size_t n) { if (n > 100) return calloc(1, n); return malloc(n); }
NOINLINE both(size_t n) { free(malloc(n)); return malloc(n + 3); }
void *kept[4];
int main(int c, char **v) { (void)v; kept[0] = wrap(1000 * c); kept[1] = either(77 * c); kept[2] = both(55 * c); kept[3] = xmalloc(5 * c); return 0; }
''')
    native([compiled('tail.c', 'program', '-gdwarf-5')])
    found = {s['alloc_bytes']: [(f['function'], f['line'], f.get('inferred', False)) for f in s['stack'][:s['stack'].index(next(f for f in s['stack'] if f['function'] == 'main'))]]
             for s in stacks() if any(f['function'] == 'main' for f in s['stack'])}
    same('through both', found[2001], [('xmalloc', 3, True), ('wrap', 4, True)])
    same('through one', found[6], [('xmalloc', 3, True)])
    same('one of two calls', found[77], [('either', 0, True)])
    same('what calls otherwise, too', found[58], [])
    same('that call', found[55], [('both', 6, False)])


PROGRAM = '''
import json, re
class Value:
    def __lt__(self, other):
        return self.compare(other)
    def compare(self, other):
        Value.kept = [0] * 1000                      # @compare
        return True
def generate():
    for i in range(3):
        yield bytearray(20000 + i)                   # @generate
def parse(text):
    return json.loads(text, object_hook=hook)        # @parse
def hook(d):
    hook.kept = [0] * 3000                           # @hook
    return d
def run():
    sorted([Value(), Value()])                       # @sorted
    list(generate())                                 # @list
    parse('{"a": 1}')
    re.sub('x', lambda m: 'y' * 70000, 'x')          # @sub
run()
'''


@case(each=[(label, path) for label, path in PYTHONS])
def python_and_native_frames_in_their_order(path):
    with open('program.py', 'w') as file:
        file.write(PROGRAM)
    native([path, 'program.py'], '--max-stack-depth', '60')
    found = [s['stack'] for s in stacks('--filter', 'program.py')]
    lines = {m.group(1): n for n, text in enumerate(PROGRAM.splitlines(), 1) for m in [re.search(r'# @(\w+)', text)] if m}

    def order(name, *wanted):
        """The Python frames of the stacks through the marked line, innermost first, each followed by whether native ones stand before the next."""
        seen = []
        for stack in found:
            at = [i for i, f in enumerate(stack) if f['language'] == 'python' and f['line'] == lines[name] and f['file'].endswith('program.py')]
            python = [i for i, f in enumerate(stack) if f['language'] == 'python']
            if not at or at[0] != python[0]:
                continue
            shape = []
            for i, j in zip(python, python[1:] + [len(stack)]):
                shape += [stack[i]['function'].split('.')[-1]] + (['-'] if j > i + 1 else [])
            seen.append(shape)
        assert seen, 'no stack goes through %s' % name
        old = '3.8' in path or '3.9' in path or '3.10' in path
        for shape in seen:
            short = [x for x in shape if x != '-'] if old else shape
            want = [x for x in wanted if x != '-'] if old else list(wanted)
            assert short[:len(want)] == want, '%s: %r, not %r' % (name, shape, want)

    # From 3.11 on Python calls share a loop: native frames stand where C lies between. Before, each call goes through C.
    order('compare', 'compare', '__lt__', '-', 'run', '<module>', '-')
    order('generate', 'generate', '-', 'run', '<module>', '-')
    order('hook', 'hook', '-')
    loops = {f['function'] for s in found for f in s if re.match(r'_PyEval_EvalFrameDefault', f['function'])}
    same('loops of the interpreter in stacks', loops, set())
    allocators = {f['function'] for s in found for f in s if re.match(r'_?Py(Mem|Object)_(Raw)?(Malloc|Calloc|Realloc)', f['function'])}
    same('allocators in stacks', allocators, set())
    ends = {s[-1]['function'] for s in found if not re.match(r'.*\+0x', s[-1]['function'])}
    assert '_start' in ends or '__libc_start_main' in ' '.join(ends), ends


@case
def filters_and_depth():
    python = PYTHONS[-1][1]
    with open('program.py', 'w') as file:
        file.write(PROGRAM)
    native([python, 'program.py'], '--include', '__main__.hook')
    found = stacks()
    assert found and all(any(f['function'] == 'hook' for f in s['stack']) for s in found), [s['stack'] for s in found if not any(f['function'] == 'hook' for f in s['stack'])][:1]
    native([python, 'program.py'], '--max-stack-depth', '3')
    stats = tool('stats')
    same('settings', (stats['settings']['native'], stats['max_stack_depth']), (True, 3))
    with open('trace.mlyze', 'rb') as file:
        stored = mlyze_decode.Trace(file.read()).stacks
    same('depth of the deepest stack', max(len(row) for _, row in stored.values()), 3)
    assert any(truncated for truncated, _ in stored.values())
    native([python, 'program.py'], '--snapshots-only')
    assert any(f['language'] == 'native' for s in stacks('--filter', 'program.py') for f in s['stack'])


@case
def python_frames_alone():
    with open('program.py', 'w') as file:
        file.write(PROGRAM)
    native([PYTHONS[-1][1], 'program.py'], '--max-stack-depth', '60')
    whole, alone = stacks(), stacks('--python')
    def sums(sites):
        """Bytes by what a stack shows of Python, or shows at all if nothing of it is Python's."""
        out = {}
        for s in sites:
            python = [f for f in s['stack'] if f['language'] == 'python']
            key = tuple((f['function'], f['file'], f['line']) for f in python or s['stack'])
            out[key] = out.get(key, 0) + s['alloc_bytes']
        return out

    assert any(len({f['language'] for f in s['stack']}) == 2 for s in whole)
    assert not any(len({f['language'] for f in s['stack']}) == 2 for s in alone)
    before, after = sums(whole), sums(alone)
    same('stacks that differ', [key[:1] for key in set(before) | set(after) if before.get(key) != after.get(key)][:3], [])
    shown = [(tuple(tuple(f.items()) for f in s['stack']), s.get('truncated')) for s in alone
             if s['stack'] and s['stack'][0]['file'].endswith('program.py')]
    same('Python stacks shown twice', len(shown) - len(set(shown)), 0)
    assert len(alone) < len(whole)
    line = PROGRAM.splitlines().index([text for text in PROGRAM.splitlines() if '@generate' in text][0]) + 1
    rows = [s for s in tool('top', '-n', '0', '--python')['sites'] if s['line'] == line and s['file'].endswith('program.py')]
    assert len(rows) == 1 and rows[0]['alloc_bytes'] >= 60003, rows
    same('leaks', tool('leaks', '--python')['total']['bytes'], tool('leaks')['total']['bytes'])
    flame = execute([MEMLYZE, 'flame', '--python', 'trace.mlyze']).stdout
    assert 'generate' in flame and 'list_extend' not in flame
    collapsed = execute([MEMLYZE, 'export', '--to', 'collapsed', '--python', 'trace.mlyze']).stdout.splitlines()
    same('lines of collapsed stacks', len({line.rpartition(' ')[0] for line in collapsed}), len(collapsed))


# ---- annotate ----

@case
def annotate_source_and_calls():
    program = compiled(SOURCE, 'program', '-pthread')
    native([program])
    lines = markers()
    answer = tool('annotate')
    files = [f for f in answer['files'] if f['file'].endswith('native_leaks.c')]
    same('the source', [os.path.realpath(f['source']) for f in files], [os.path.realpath(SOURCE)])
    by_line = {row['line']: row for row in files[0]['lines']}
    row = by_line[lines['make']]
    same('make', (row['function'], row['language'], row['alloc_count']), ('make', 'native', 23))
    assert 'malloc(bytes)' in row['text'], row
    call = row['calls'][0]
    marked = [i for i in call['instructions'] if i['call']]
    assert len(marked) == 1 and re.match(r'(call|jmp)\b', marked[0]['text']), call
    assert marked[0]['address'] <= call['address'] < marked[0]['address'] + len(marked[0]['bytes']) // 2, call
    disassembled = subprocess.run(['objdump', '-d', program], stdout=subprocess.PIPE, universal_newlines=True).stdout
    assert re.search(r'^\s+%x:\s.*\bcall' % marked[0]['address'], disassembled, re.M), marked
    total = tool('top', '--group', 'file', '-n', '0')
    same('the same bytes as top', files[0]['alloc_bytes'], sum(s['alloc_bytes'] for s in total['sites'] if s['file'].endswith('native_leaks.c')))
    text = execute([MEMLYZE, 'annotate', 'trace.mlyze', '--function', 'keep_ten', '--function', 'make']).stdout
    assert re.search(r'^ +\S+ \S+ +23 +%d +void \*p = malloc' % lines['make'], text, re.M) and re.search(r'^ +> +[0-9a-f]+ +call', text, re.M), text
    os.makedirs('elsewhere/programs')
    shutil.copy(SOURCE, 'elsewhere/programs/native_leaks.c')
    moved = tool('annotate', '--source', 'elsewhere')
    same('--source', [f['source'] for f in moved['files'] if f['file'].endswith('native_leaks.c')], ['elsewhere/programs/native_leaks.c'])
    os.remove(program)
    answer = tool('annotate', '--file', 'native_leaks.c')
    same('files', [os.path.basename(f['file']) for f in answer['files']], ['native_leaks.c'])
    assert all(c['instructions'] == [] and 'not there' in c['missing'] for row in answer['files'][0]['lines'] for c in row['calls']), answer
    text = execute([MEMLYZE, 'annotate', 'trace.mlyze', '--file', 'native_leaks.c'])
    assert text.returncode == 0 and 'not there' in text.stdout and 'keep_ten' in text.stdout, text
    same('what nobody asked for', tool('annotate', '--function', 'no_such')['files'], [])
    for arguments, said in ((['--function', 'no_such'], 'of the function no_such;'), (['--file', 'no.c'], 'of the file no.c;'),
                            (['--function', 'no_such', '--file', 'no.c', '--json'], 'of the function no_such in the file no.c;')):
        done = execute([MEMLYZE, 'annotate', 'trace.mlyze', *arguments])
        same('exit status', done.returncode, 0)
        assert [said in line for line in done.stderr.splitlines()].count(True) == 1, done.stderr


@case
def annotate_python():
    with open('program.py', 'w') as file:
        file.write(PROGRAM)
    lines = {m.group(1): n for n, text in enumerate(PROGRAM.splitlines(), 1) for m in [re.search(r'# @(\w+)', text)] if m}
    for options in [], ['--native']:
        record([PYTHONS[-1][1], 'program.py'], *options)
        rows = {row['line']: row for f in tool('annotate', '--file', 'program.py')['files'] for row in f['lines']}
        row = rows[lines['generate']]
        assert row['function'].endswith('generate') and row['language'] == 'python' and row['alloc_bytes'] >= 60003, (options, row)
        assert 'yield bytearray' in row['text']
    os.remove('program.py')
    done = execute([MEMLYZE, 'annotate', 'trace.mlyze', '--file', 'program.py'])
    assert done.returncode == 0 and 'no source there' in done.stdout and 'generate' in done.stdout, done


run(__name__)
