"""What is run: programs, applications, settings of `memlyze record`, peers."""
import os

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Allocation-bound programs: name -> file in benchmarks/programs. Files are not named after modules of the standard library: a script's directory is first on sys.path.
PROGRAMS = {
    'cycles': 'cycles.py',
    'deep': 'deep.py',
    'documents': 'documents.py',
    'numbers': 'nbody.py',
    'objects': 'objects.py',
    'parser': 'parser.py',
    'requests': 'web.py',
    'strings': 'strings.py',
    'tasks': 'tasks.py',
    'threads': 'threads.py',
    'trees': 'trees.py',
}

# Applications: name -> (file in benchmarks/apps, its first arguments, the module that must be installed).
APPS = {
    'black': ('format_black.py', [], 'black'),
    'django': ('site_django.py', [], 'django'),
    'html5lib': ('pyperformance_loop.py', ['html5lib'], 'html5lib'),
    'mypy': ('check_mypy.py', [], 'mypy'),
    'sphinx': ('build_sphinx.py', [], 'sphinx'),
    'sqlalchemy': ('pyperformance_loop.py', ['sqlalchemy'], 'sqlalchemy'),
    'sqlglot': ('pyperformance_loop.py', ['sqlglot'], 'sqlglot'),
    'tornado': ('pyperformance_loop.py', ['tornado'], 'tornado'),
    'docutils': ('pyperformance_loop.py', ['docutils'], 'docutils'),
    'dulwich': ('pyperformance_loop.py', ['dulwich'], 'dulwich'),
    'sympy': ('pyperformance_loop.py', ['sympy'], 'sympy'),
}
# Run when nothing is named; the others are alike one of these, or mostly C.
APPS_DEFAULT = ['black', 'django', 'html5lib', 'mypy', 'sphinx', 'sqlalchemy', 'sqlglot', 'tornado']

MODES = {
    'full': [],
    'rate-0.5': ['--sample-rate', '0.5'],
    'rate-0.1': ['--sample-rate', '0.1'],
    'rate-0.01': ['--sample-rate', '0.01'],
    'ultra-low': ['--sample-rate', '0.1', '--max-stack-depth', '5', '--no-track-gc'],
    'maximum': ['--sample-rate', '1.0', '--max-stack-depth', '25', '--track-gc'],
    'depth-5': ['--max-stack-depth', '5'],
    'no-gc': ['--no-track-gc'],
}
# No tracer, but hooks in the interpreter's allocators that only call on (agent/empty_hooks.c): below it no tracer can be that is called for each allocation.
EMPTY = 'empty-hooks'
MODES_DEFAULT = {
    'programs': ['full', 'maximum', 'ultra-low', 'rate-0.01', EMPTY],
    'apps': ['full', 'rate-0.5', 'rate-0.1', 'ultra-low', 'rate-0.01', EMPTY],
}
# Settings that only one program can tell something about.
MODES_EXTRA = {'deep': ['depth-5'], 'cycles': ['no-gc']}

# What a mode makes of a run's time, roughly: for the estimate of how long it all takes.
FACTORS = {'full': 1.2, 'maximum': 1.3, 'rate-0.5': 1.15, 'depth-5': 1.2, 'no-gc': 1.2}

PEER_PROGRAMS = ['documents', 'objects', 'strings', 'threads', 'trees']
PEERS = ['tracemalloc', 'tracemalloc-10', 'memray', 'memray-python', 'memray-native', 'scalene']
PEER_FACTORS = {'full': 1.3, 'tracemalloc': 3.5, 'tracemalloc-10': 12, 'memray': 1.5, 'memray-python': 7, 'memray-native': 2.5, 'scalene': 5}
PEER_MODULES = {'memray': 'memray', 'memray-python': 'memray', 'memray-native': 'memray', 'scalene': 'scalene'}
MEMRAY = {'memray': [], 'memray-python': ['--trace-python-allocators'], 'memray-native': ['--native']}


def script(name):
    """(file, first arguments) of a program or application."""
    if name in PROGRAMS:
        return os.path.join(HERE, 'programs', PROGRAMS[name]), []
    return os.path.join(HERE, 'apps', APPS[name][0]), APPS[name][1]


def peer_command(peer, python, trace, target):
    """How a peer runs `target` (script and its arguments), writing into `trace`."""
    if peer.startswith('tracemalloc'):
        return [python, '-X', 'tracemalloc' + ('=10' if peer.endswith('-10') else '')] + target
    if peer in MEMRAY:
        return [python, '-m', 'memray', 'run', '-q', '-f'] + MEMRAY[peer] + ['-o', trace] + target
    return [python, '-m', 'scalene', 'run', '-o', trace, target[0], '---'] + target[1:]
