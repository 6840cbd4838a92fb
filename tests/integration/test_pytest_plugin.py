"""pytest --memlyze: limits, their reasons, figures that do not flake, the baseline, xdist. Run by an interpreter that has pytest (Debian: python3-pytest,
python3-pytest-xdist)."""
import json
import os
import re

from harness import BUILD, PYTHONS, TESTS, Skip, case, clean_env, execute, run, same, tool

PACKAGE = os.path.join(os.path.dirname(TESTS), 'tracer', 'python')

SUITE = '''
import gc, json, re, threading, unittest
import pytest

kept = []

@pytest.mark.limit_memory("24 MB")
def test_memory_within():
    block = bytearray(20_000_000)

@pytest.mark.limit_memory("10 MB")
def test_memory_beyond():
    block = bytearray(20_000_000)  # the hungry line

@pytest.mark.limit_leaks("1 MB")
def test_leaks_within():
    cycle = [bytearray(2_000_000)]
    cycle.append(cycle)

@pytest.mark.limit_leaks("1 MB")
def test_leaks_beyond():
    kept.append(bytearray(2_000_000))

@pytest.mark.limit_allocations(100)
@pytest.mark.parametrize("n", [20, 2000])
def test_allocations(n):
    blocks = [bytes(100) for _ in range(n)]

@pytest.mark.limit_allocations(50, warmup=1)
def test_warm():
    if not hasattr(test_warm, "cache"):
        test_warm.cache = [bytes(100) for _ in range(200)]

def test_threads():
    def work():
        blocks = [bytes(10_000) for _ in range(100)]
    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()

class Old(unittest.TestCase):
    def setUp(self):
        self.big = bytearray(30_000_000)

    @pytest.mark.limit_memory("1 MB")
    def test_setup_is_not_the_test(self):
        assert len(self.big)

    @pytest.mark.limit_allocations(10)
    def test_old_beyond(self):
        self.blocks = [object() for _ in range(100)]

@pytest.fixture
def big():
    return bytearray(30_000_000)

class TestNew:
    @pytest.mark.limit_memory("1 MB")
    def test_fixture_is_not_the_test(self, big):
        assert len(big)

    @pytest.mark.limit_memory("1 MB")
    def test_fails_by_itself(self):
        block = bytearray(5_000_000)
        assert False, "its own reason"

    @pytest.mark.skip
    @pytest.mark.limit_memory("1 MB")
    def test_skipped(self):
        pass

@pytest.mark.no_memlyze
def test_not_recorded():
    import memlyze
    assert not memlyze.is_recording()

def test_mix(tmp_path):
    text = json.dumps({"k%d" % n: [n] * (n % 7) for n in range(200)})
    json.loads(text)
    re.sub(r"[0-9]+", lambda m: m.group() + "x", text)
    (tmp_path / "f").write_text(text)
'''
FAILING = {'test_memory_beyond', 'test_leaks_beyond', 'test_allocations[2000]', 'Old::test_old_beyond', 'TestNew::test_fails_by_itself'}


def interpreters():
    """Those with pytest."""
    return [(label, path) for label, path in PYTHONS if execute([path, '-c', 'import pytest']).returncode == 0]


def suite(python, *options, status=None, text=SUITE, runner=()):
    with open('test_it.py', 'w', encoding='utf-8') as file:
        file.write(text)
    env = clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE='1', COLUMNS='150')
    result = execute([*runner, python, '-m', 'pytest', '-p', 'memlyze.pytest_plugin', '-p', 'no:cacheprovider', '-q', '-rA', 'test_it.py', *options], env=env, timeout=240)
    if status is not None:
        same('exit status of pytest\n%s%s' % (result.stdout[-6000:], result.stderr[-2000:]), result.returncode, status)
    return result.stdout


def failed(out):
    return {m.group(1) for m in re.finditer(r'^FAILED test_it\.py::(\S+)', out, re.M)}


def table(out):
    """{test: figures} of the table of the hungriest."""
    found = {}
    for m in re.finditer(r'^ *([\d.]+ \w+) +([\d.]+ \w+) +(\d+) +([\d.]+ \w+)  test_it\.py::(.+)$', out, re.M):
        found[m.group(5)] = m.groups()[:4]
    return found


def alike(what, got, wanted):
    """The same tests with the same counts, but for the few that the interpreter makes or saves by what ran before (specialised code, shared keys)."""
    same(what, sorted(got), sorted(wanted))
    for name in wanted:
        assert abs(int(got[name][2]) - int(wanted[name][2])) <= 5, '%s: %s: got %r, wanted %r' % (what, name, got[name], wanted[name])


WITH_PYTEST = interpreters()


@case
def an_interpreter_has_pytest():
    if not WITH_PYTEST:
        raise Skip('no interpreter here has pytest; Debian: python3-pytest')


@case(each=WITH_PYTEST)
def limits(python):
    same('without --memlyze the marks do nothing', failed(suite(python, status=1)), {'TestNew::test_fails_by_itself'})
    out = suite(python, '--memlyze', '--memlyze-most', '0', '--strict-markers', status=1)
    same('failed', failed(out), FAILING)
    for wanted in (r'its blocks took 19\.1 MiB \(20000\d\d\d bytes\) at their peak, limit_memory allows 9\.54 MiB \(10000000 bytes\)',
                   r'19\.1 MiB  test_memory_beyond \(.*test_it\.py:%d\)' % (1 + SUITE[:SUITE.index('# the hungry line')].count('\n')),
                   r'1\.91 MiB \(2000\d\d\d bytes\) of its blocks outlived it, limit_leaks allows 977 KiB \(1000000 bytes\)',
                   r'it made [234]\d\d\d allocations, limit_allocations allows 100', r'[234]\d\d\d allocations  (test_allocations|<listcomp>|test_allocations.<locals>.<listcomp>).* \(.*test_it\.py:\d+\)', 'its own reason'):
        assert re.search(wanted, out), '%s is not in\n%s' % (wanted, out)
    rows = table(out)
    assert 'test_not_recorded' not in rows and 'TestNew::test_skipped' not in rows and len(rows) == 13, rows
    same('hungriest first', list(rows)[:2], ['test_memory_beyond', 'test_memory_within'])
    assert int(rows['test_threads'][2]) >= 300 and rows['test_threads'][1].endswith('MiB'), rows
    same('tests in a short table', len(table(suite(python, '--memlyze', '--memlyze-most', '3'))), 3)


@case(each=WITH_PYTEST)
def figures_do_not_flake(python):
    quiet = ['--memlyze-most', '0', '--deselect', 'test_it.py::test_threads']  # the order of its threads decides what stands at the peak
    first = table(suite(python, '--memlyze', *quiet))
    for _ in range(3):
        same('figures', table(suite(python, '--memlyze', *quiet)), first)
    warm = ['--memlyze', '--memlyze-warmup', '8', *quiet]
    whole = table(suite(python, *warm))
    alike('warm, alone and after the others', table(suite(python, *warm, '-k', 'test_mix')), {'test_mix': whole['test_mix']})


@case(each=WITH_PYTEST)
def xdist(python):
    if execute([python, '-c', 'import xdist']).returncode:
        raise Skip('this interpreter has no pytest-xdist')
    quiet = ['--memlyze', '--memlyze-warmup', '8', '--memlyze-most', '0', '--deselect', 'test_it.py::test_threads', '--memlyze-baseline', 'base.json']
    alone = suite(python, *quiet, '--memlyze-update-baseline', status=1)
    many = suite(python, *quiet, '-n', '2', '--memlyze-tolerance', '1%', status=1)
    same('failed', failed(many), failed(alone))
    alike('figures', table(many), table(alone))
    os.unlink('base.json')
    suite(python, *quiet, '-n', '2', '--memlyze-update-baseline', status=1)
    same('failed against the baseline that xdist wrote', failed(suite(python, *quiet, '--memlyze-tolerance', '1%')), failed(alone))


BASED = '''
def test_same():
    blocks = [bytes(100) for _ in range(%d)]
def test_other():
    block = bytearray(%d)
'''


@case(each=WITH_PYTEST)
def baseline(python):
    use = ['--memlyze-baseline', 'base.json']
    out = suite(python, *use, text=BASED % (100, 100000), status=4)
    out = suite(python, *use, '--memlyze-update-baseline', text=BASED % (100, 100000), status=0)
    assert 'has the figures of 2 tests' in out, out
    data = json.load(open('base.json'))
    same('schema', data['schema'], 'memlyze.pytest-baseline/1')
    suite(python, *use, '--memlyze-tolerance', '0', text=BASED % (100, 100000), status=0)
    suite(python, *use, text=BASED % (102, 102000), status=0)
    same('beyond 5 %', failed(suite(python, *use, text=BASED % (120, 100000), status=1)), {'test_same'})
    out = suite(python, *use, text=BASED % (100, 120000), status=1)
    same('beyond 5 %', failed(out), {'test_other'})
    assert re.search(r'its blocks took 117 KiB \(1200\d\d bytes\) at their peak, the baseline has 97\.7 KiB \(1000\d\d bytes\)', out), out
    suite(python, *use, '--memlyze-tolerance', '25%', text=BASED % (120, 120000), status=0)
    out = suite(python, *use, text=BASED % (100, 100000) + 'def test_new():\n    pass\n', status=0)
    assert 'has no figures of 1 of these tests' in out, out
    for bad in ('not json', '{"schema": "other"}', '[]'):
        with open('base.json', 'w') as file:
            file.write(bad)
        suite(python, *use, text=BASED % (100, 100000), status=4)


@case(each=WITH_PYTEST)
def traces(python):
    suite(python, '--memlyze-traces', 'kept', status=1)
    names = sorted(os.listdir('kept'))
    assert len(names) == 13 and 'test_it-test_allocations[2000].mlyze' in names and 'test_it-Old.test_old_beyond.mlyze' in names, names
    top = tool('top', trace='kept/test_it-test_memory_beyond.mlyze')
    same('the line', top['sites'][0]['line'], 1 + SUITE[:SUITE.index('# the hungry line')].count('\n'))
    assert not [s for s in top['sites'] if os.path.basename(s['file']) != 'test_it.py'], top['sites']


@case(each=WITH_PYTEST)
def misuse(python):
    for mark, said in (('limit_memory("much")', 'must be a size'), ('limit_memory()', 'takes one limit'), ('limit_allocations("5 MB")', 'number of allocations'),
                       ('limit_leaks("1 MB", warmup=-1)', 'warmup'), ('limit_leaks("1 MB", location=1)', 'takes one limit')):
        text = 'import pytest\n@pytest.mark.%s\ndef test_x():\n    raise SystemExit("it ran")\ndef test_other():\n    pass\n' % mark
        suite(python, status=0, text=text.replace('raise SystemExit("it ran")', 'pass'))
        with open('test_it.py', 'w') as file:
            file.write(text)
        out = execute([python, '-m', 'pytest', '-p', 'memlyze.pytest_plugin', '--memlyze', 'test_it.py'], env=clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=PACKAGE))
        assert out.returncode == 1 and said in out.stdout and '1 failed, 1 passed' in out.stdout, (mark, out.stdout, out.stderr)
    text = 'import memlyze\ndef test_starts():\n    memlyze.start("mine.mlyze")\ndef test_stops():\n    memlyze.stop()\ndef test_other():\n    pass\n'
    out = suite(python, '--memlyze', status=1, text=text)
    same('both are told what to do', out.count('needs @pytest.mark.no_memlyze') >= 2 and '2 failed, 1 passed' in out, True)
    suite(python, '--memlyze', '--memlyze-tolerance', 'some', status=4)
    suite(python, '--memlyze-update-baseline', status=4)
    suite(python, '--memlyze', status=4, runner=[os.path.join(BUILD, 'tracer', 'recorder', 'memlyze'), 'record', '--quiet', '-f'])


run(__name__)
