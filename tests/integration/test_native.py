"""Programs without Python: the malloc family, C++ new and delete, threads, mmap; and what the C library allocates for Python."""
import os

from harness import BUILD, MEMLYZE, PYTHON, case, execute, record, run, same, tool

HELPERS = os.path.join(BUILD, 'tests', 'integration')


def totals(program, *arguments):
    path = os.path.join(HELPERS, program)
    result = record([path, *arguments])
    sites = tool('top', '-n', '0')['sites']
    plain = execute([path, *arguments])
    same('output, traced and untraced', (result.returncode, result.stdout), (plain.returncode, plain.stdout))
    sums = [sum(s[key] for s in sites) for key in ('alloc_count', 'alloc_bytes', 'live_count', 'live_bytes')]
    return sums, [int(n) for n in result.stdout.split()]


def difference(program, full, empty):
    got, known = totals(program, full)
    base, nothing = totals(program, empty)
    same('what the empty run knows', nothing, [0, 0, 0, 0])
    same('count, bytes, kept count, kept bytes', [a - b for a, b in zip(got, base)], known)


@case
def malloc_family():
    difference('malloc_family', 'functions', 'none')


@case
def new_and_delete():
    if not os.path.exists(os.path.join(HELPERS, 'new_delete')):
        from harness import Skip
        raise Skip('no C++ compiler')
    difference('new_delete', 'all', 'none')


@case
def four_threads_that_free_each_other_s_blocks():
    difference('malloc_family', 'threads', 'no-threads')


@case
def mappings_are_a_domain_of_their_own():
    path = os.path.join(HELPERS, 'malloc_family')
    reserved = {}
    for what in ('mappings', 'none'):
        record([path, what])
        heap = tool('top', '-n', '0')['sites']
        with_mmap = tool('top', '-n', '0', '--include-mmap')['sites']
        reserved[what] = [sum(s[k] for s in with_mmap) - sum(s[k] for s in heap) for k in ('live_count', 'live_bytes')]
    mib = 1 << 20
    same('mappings left, and their bytes', [a - b for a, b in zip(reserved['mappings'], reserved['none'])], [2, (16 + 24) * mib])


@case
def ctypes_calls_malloc_without_the_gil():
    program = '''
import ctypes, threading
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def work():
    for i in range(500):
        p = libc.malloc(7777)
        if i % 5:
            libc.free(p)
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
'''
    with open('threads.py', 'w') as file:
        file.write(program)
    # Only the C library's domain: the interpreter's own blocks of that size would be its obj domain's.
    for _ in range(8):  # the end of the process must not come before what the threads did: a matter of luck, once
        record([PYTHON, 'threads.py'], '--no-python')
        sites = tool('top', '-n', '0')['sites']
        count = sum(s['alloc_count'] for s in sites)
        held = sum(s['live_bytes'] for s in sites)
        assert count >= 2000 and held >= 4 * 100 * 7777, 'counted %d allocations, %d live bytes' % (count, held)


@case
def an_allocator_that_is_linked_in_is_named():
    path = os.path.join(HELPERS, 'own_allocator')
    result = execute([MEMLYZE, 'record', '-f', path])
    same('output', (result.returncode, result.stdout), (0, 'allocated\n'))
    said = path + ' has jemalloc linked in (je_malloc): what it gives is not traced'
    assert said in result.stderr, result.stderr
    assert said in execute([MEMLYZE, 'top', 'trace.mlyze']).stderr
    with open('script', 'w') as file:
        file.write('#!%s\n' % path)
    os.chmod('script', 0o755)
    assert said in execute([MEMLYZE, 'record', '-f', './script']).stderr, 'behind a script'
    for other in (os.path.join(HELPERS, 'malloc_family'), PYTHON):
        assert 'linked in' not in execute([MEMLYZE, 'record', '-f', other, '--version']).stderr


def said_of(result):
    return sorted(line.split('warning: ')[1] for line in result.stderr.splitlines() if 'linked in' in line)


@case
def allocators_of_libraries_are_named():
    path = lambda name: os.path.join(HELPERS, name + '.so')
    loaded = ['own_loaded', 'own_exported', 'own_usual', 'own_stripped', 'own_writes_about_it']
    known = {'libown_linked': ('mimalloc', 'mi_malloc'), 'own_loaded': ('jemalloc', '_rjem_malloc'),
             'own_stripped': ('jemalloc', 'by its text "<jemalloc>: "')}
    program = [os.path.join(HELPERS, 'own_modules')] + [path(name) for name in loaded]
    result = record(program, '--native')
    same('output', result.stdout, 'allocated\n')
    expected = sorted('%s has %s linked in (%s): what it gives is not traced' % (path(name), *what) for name, what in known.items())
    same('said', said_of(result), expected)
    stats = tool('stats')
    same('said by a tool', sorted(line.split('trace.mlyze: ')[1] for line in stats['_stderr'].splitlines() if 'linked in' in line), expected)
    same('stats --json', sorted((row['module'], row['allocator'], row['known_by'], row['program']) for row in stats['own_allocators']),
         sorted((path(name), *what, False) for name, what in known.items()))
    frames = ''.join(str(site) for site in tool('top', '-n', '0', '--group', 'module')['sites'])
    for name in loaded:
        assert name in frames, 'no stack came through %s, so it was not looked at: %s' % (name, frames)
    same('nobody asked for malloc', said_of(record(program, '--native', '--no-malloc')), [])


@case
def an_allocator_of_an_extension_module_is_named():
    path = os.path.join(HELPERS, 'own_loaded.so')
    program = 'import ctypes\nfor i in range(3): ctypes.CDLL(%r).own_work(100)\n' % path
    result = record([PYTHON, '-c', program], '--native')
    same('said', said_of(result), [path + ' has jemalloc linked in (_rjem_malloc): what it gives is not traced'])


@case
def the_program_among_the_modules_is_named_once():
    path = os.path.join(HELPERS, 'own_allocator')
    same('said', said_of(record([path], '--native')),
         [path + ' has jemalloc linked in (je_malloc): what it gives is not traced; link it as a shared library to see it'])


run(__name__)
