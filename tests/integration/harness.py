"""What the integration tests share: the programs of the build tree, the interpreters, a temporary directory, cases printed as TAP.

A test file is run as `file.py BUILD`; it declares its cases with @case and ends with run(__name__).
"""
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
PROGRAMS = os.path.join(TESTS, 'programs')
SCHEMAS = os.path.join(os.path.dirname(TESTS), 'build', 'schemas')  # .ci/setup-ci
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ.get('MEMLYZE_BUILD', 'build'))
MEMLYZE = os.path.join(BUILD, 'tracer', 'recorder', 'memlyze')
AGENT = os.path.join(BUILD, 'tracer', 'agent', 'libmemlyze.so')
# The tests under sanitizers are as many as the plain ones, and slower.
SLOW = 4 if os.environ.get('ASAN_OPTIONS') else 1
TIMEOUT = 60 * SLOW

_cases = []
_skipped_pythons = []
FREE_THREADED = []  # (label, path), from MEMLYZE_TEST_PYTHONS: traced without stacks, so in no other test


class Skip(Exception):
    pass


def case(function=None, each=None, name=None):
    """Declares a case; `each`: an iterable of (label, argument...) for one case each."""
    def declare(f):
        title = name or f.__name__.replace('_', ' ')
        if each is None:
            _cases.append((title, f, ()))
        else:
            for label, *arguments in each:
                _cases.append(('%s: %s' % (title, label), f, tuple(arguments)))
        return f
    return declare(function) if function else declare


def run(module):
    if module != '__main__':
        return
    only = sys.argv[2] if len(sys.argv) > 2 else ''
    chosen = [c for c in _cases if only in c[0]]
    print('1..%d' % len(chosen))
    for line in _skipped_pythons:
        print('# skipped interpreter: ' + line)
    failed = 0
    for number, (title, function, arguments) in enumerate(chosen, 1):
        began = time.monotonic()
        directory = tempfile.mkdtemp(prefix='memlyze-test-')
        before = os.getcwd()
        os.chdir(directory)
        try:
            function(*arguments)
            print('ok %d - %s' % (number, title))
        except Skip as reason:
            print('ok %d - %s # SKIP %s' % (number, title, reason))
        except Exception as error:  # any failure of any kind is this case's
            failed += 1
            print('not ok %d - %s' % (number, title))
            text = traceback.format_exc() if not isinstance(error, AssertionError) else ''.join(
                traceback.format_tb(error.__traceback__)[-1:]) + str(error)
            for stream in ('stdout', 'stderr'):
                out = getattr(error, stream, None)
                if out:
                    text += '\n%s: %s' % (stream, out if isinstance(out, str) else out.decode(errors='replace'))
            print('\n'.join('#   ' + line for line in text.splitlines()[-40:]))
        finally:
            os.chdir(before)
            shutil.rmtree(directory, ignore_errors=True)
        print('# %.1f s' % (time.monotonic() - began), flush=True)
    sys.exit(1 if failed else 0)


# ---- running things ----

def clean_env(**more):
    """The environment for a program under test, without what the sanitizers of this build or the user's Python settings add."""
    env = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON') and k not in ('LD_PRELOAD', 'MALLOC_PERTURB_')}
    env.update({k: str(v) for k, v in more.items()})
    return env


def execute(command, timeout=None, env=None, **more):
    more.setdefault('stdin', subprocess.DEVNULL)
    more.setdefault('stdout', subprocess.PIPE)
    more.setdefault('stderr', subprocess.PIPE)
    return subprocess.run([str(c) for c in command], env=env or clean_env(), timeout=timeout or TIMEOUT, universal_newlines=True,
                          errors='surrogateescape', **more)


def record(command, *options, status=0, trace='trace.mlyze', quiet=True, **more):
    """Runs `memlyze record`; the status must be `status` (None: any)."""
    result = execute([MEMLYZE, 'record', '-f', '-o', trace] + (['--quiet'] if quiet else []) + list(options) + ['--'] + list(command), **more)
    if status is not None and result.returncode != status:
        raise AssertionError('record: exit status %d instead of %d\n%s\n%s' % (result.returncode, status, result.stdout, result.stderr))
    return result


def tool(name, *arguments, trace='trace.mlyze', status=0, **more):
    """The JSON answer of a tool. A warning on stderr is kept as '_stderr'."""
    result = execute([MEMLYZE, name, '--json', trace] + list(arguments), **more)
    if result.returncode != status:
        raise AssertionError('memlyze %s: exit status %d instead of %d\n%s' % (name, result.returncode, status, result.stderr))
    answer = json.loads(result.stdout)
    assert next(iter(answer)) == 'schema', 'the first key of %s --json is %r' % (name, next(iter(answer)))
    answer['_stderr'] = result.stderr
    return answer


TOOLS = ('stats', 'top', 'leaks', 'gc', 'flame')


def every_tool_reads(trace='trace.mlyze'):
    """Each tool answers with exit status 0 and prints something."""
    for name in TOOLS:
        result = execute([MEMLYZE, name, trace])
        assert result.returncode == 0, 'memlyze %s: exit status %d: %s' % (name, result.returncode, result.stderr)
        assert result.stdout.strip(), 'memlyze %s printed nothing' % name


def lines_of(program, file=None):
    """{marker: line} of the `# @marker` comments of a program."""
    with open(program, encoding='utf-8') as source:
        return {m.group(1): n for n, text in enumerate(source, 1) for m in [re.search(r'# @(\w+)', text)] if m}


def sites_of(answer, file):
    """{line: site} of the sites of `top --group line --json` in `file` (compared by its last component)."""
    base = os.path.basename(file)
    return {site['line']: site for site in answer['sites'] if os.path.basename(site['file'] or '') == base}


def same(what, got, wanted):
    assert got == wanted, '%s: got %r, wanted %r' % (what, got, wanted)


def compare_exact(program, result, answer, peaks):
    """What programs/exact.py (or a copy) printed, and what `top` says of it, by alloc-bytes and by peak-bytes."""
    said = json.loads(result.stdout)
    lines = lines_of(program)
    sites = sites_of(answer, program)
    executed = [s for s in answer['sites'] if s['file'] == 'in memory ä.py' and s['line'] == 3]
    peak_sites = sites_of(peaks, program)
    wrong = []
    for name, wanted in sorted(said['known'].items()):
        if name == 'executed':
            site = executed[0] if executed else None
        else:
            site = sites.get(lines[name])
        if site is None:
            wrong.append('%s: not there' % name)
            continue
        got = [site['alloc_count'], site['alloc_bytes'], site['live_count'], site['live_bytes']]
        if got != wanted[:4]:
            wrong.append('%s: got %r, wanted %r' % (name, got, wanted[:4]))
        if name != 'executed':
            peak = peak_sites[lines[name]]['peak_bytes'] if lines[name] in peak_sites else 0
            if peak != wanted[4]:
                wrong.append('%s: %d bytes at the peak, wanted %d' % (name, peak, wanted[4]))
    assert not wrong, '\n'.join(wrong)
    return said, lines, sites


# ---- interpreters ----

def _version_of(path):
    try:
        out = subprocess.run([path, '-I', '-S', '-c',
                              'import sys, sysconfig; print("%d.%d" % sys.version_info[:2], sys.implementation.name + '
                              '("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""), sys.executable)'],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, universal_newlines=True).stdout.split(None, 2)
        return tuple(int(x) for x in out[0].split('.')), out[1], out[2].strip()
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


def pythons():
    """[(label, path)]: CPython 3.8 to 3.14, by MEMLYZE_TEST_PYTHONS, else from PATH, /usr/bin and pyenv's root."""
    given = os.environ.get('MEMLYZE_TEST_PYTHONS')
    if given:
        candidates = given.split(':')
    else:
        candidates = [shutil.which('python3') or '', '/usr/bin/python3']
        root = os.environ.get('PYENV_ROOT') or os.path.expanduser('~/.pyenv')
        versions = os.path.join(root, 'versions')
        if os.path.isdir(versions):
            candidates += sorted(os.path.join(versions, v, 'bin', 'python3') for v in os.listdir(versions))
    found, seen = [], set()
    for path in candidates:
        if not path:
            continue
        known = _version_of(path)
        if not known:
            if given or os.path.exists(path):
                _skipped_pythons.append('%s: does not run' % path)
            continue
        version, kind, executable = known
        real = os.path.realpath(executable)
        if real in seen:
            continue
        seen.add(real)
        if kind == 'cpythont':
            FREE_THREADED.append(('CPython %d.%d free-threaded' % version, real))
            continue
        if kind != 'cpython' or not (3, 8) <= version <= (3, 14):
            _skipped_pythons.append('%s: %s %d.%d' % (path, kind, *version))
            continue
        label = 'CPython %d.%d%s' % (version + (' of the system' if real.startswith('/usr/bin/') else '',))
        found.append((label, real))
    if not found and not FREE_THREADED:
        raise SystemExit('no CPython 3.8 to 3.14 found; name one in MEMLYZE_TEST_PYTHONS')
    missing = [v for v in range(8, 15) if not any(label.startswith('CPython 3.%d' % v) for label, _ in found)]
    _skipped_pythons.extend('CPython 3.%d: not found' % v for v in missing)
    return sorted(found, key=lambda f: [int(x) for x in re.findall(r'\d+', f[0])[:2]])


@functools.lru_cache(maxsize=None)
def data_python(*modules):
    """A Python that has these modules: MEMLYZE_DATA_PYTHON, what `.ci/setup ci` makes, or one of those that are tested with. Skips the case if there is none."""
    made = os.path.join(os.path.dirname(TESTS), 'build', 'data-venv', 'bin', 'python')
    for candidate in [os.environ.get('MEMLYZE_DATA_PYTHON'), made] + [path for _, path in PYTHONS]:
        if candidate and os.path.exists(candidate) and subprocess.run([candidate, '-c', 'import ' + ', '.join(modules)], stdout=subprocess.DEVNULL,
                                                                      stderr=subprocess.DEVNULL, env=clean_env()).returncode == 0:
            return candidate
    raise Skip('no Python here has all of %s (.ci/setup ci, or MEMLYZE_DATA_PYTHON)' % ', '.join(modules))


PYTHONS = pythons()
PYTHON = next((path for label, path in PYTHONS if 'of the system' in label), (PYTHONS or FREE_THREADED)[-1][1])
