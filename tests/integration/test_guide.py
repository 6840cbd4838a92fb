"""Every block of docs/performance.md is run as it stands there, in a directory with app.py, the programs on PATH, and a preamble for the names that a block
leaves open; afterwards the trace must be what the block asked for."""
import os
import re
import shlex
import shutil

from harness import BUILD, MEMLYZE, PROGRAMS, PYTHON, TESTS, Skip, case, clean_env, execute, record, run, same, tool

ROOT = os.path.dirname(TESTS)
GUIDE = os.path.join(ROOT, 'docs', 'performance.md')

# What a reader puts in these places.
PREAMBLE = '''
import sys, time
sys.argv[:] = ["program.py"]
real_sleep = time.sleep
time.sleep = lambda seconds: real_sleep(seconds / 100)
import Memlyze

def worker():
    for _ in range(20):
        kept = [str(n) for n in range(200)]
        real_sleep(0.002)

def run_workload():
    return sum(len(str(n)) for n in range(100000))

warmup = run_real_workload = run_workload
allocation_count, N, thread_number, traced = 0, 10, 1, []
def trace_this_allocation():
    traced.append(allocation_count)
'''
# A tracer that the block speaks of, and does not make.
STARTED = 'tracer = Memlyze.start("trace.mlyze", overwrite=True)\n'
EPILOGUE = '''
if Memlyze.is_recording():
    Memlyze.stop()
'''
# `make bench` takes half an hour: that what it says exists is what is looked at here. One round of hot_path.py instead of five.
SHELL = '''
set -eo pipefail
make() { command make -s -n -C %s "$@" >/dev/null; }
benchmarks/agent/hot_path.py() { command benchmarks/agent/hot_path.py "$@" --rounds 1; }
ninja() { PATH=%s command ninja "$@"; }
''' % (shlex.quote(ROOT), shlex.quote(os.environ['PATH']))


def blocks():
    """[(heading, language, text)] of the guide."""
    found, heading, inside, language, text, indent = [], '', False, '', [], 0
    with open(GUIDE, encoding='utf-8') as guide:
        for line in guide:
            fence = re.match(r'( *)```(\w*)\s*$', line)
            if fence and not inside:
                inside, language, text, indent = True, fence.group(2), [], len(fence.group(1))
            elif fence:
                inside = False
                found.append((heading, language, ''.join(text)))
            elif inside:
                text.append(line[indent:] if line[:indent].isspace() or not indent else line)
            elif line.startswith('#'):
                heading = line.strip('# \n')
    assert not inside, 'a block without an end'
    return found


def place(seconds):
    """The directory of a reader: programs on PATH, app.py, the project's benchmarks, a trace of before."""
    os.mkdir('bin')
    for name, target in (('memlyze', MEMLYZE), ('Memlyze', MEMLYZE), ('python', PYTHON), ('python3', PYTHON)):
        os.symlink(target, os.path.join('bin', name))
    shutil.copy(os.path.join(PROGRAMS, 'guide_app.py'), 'app.py')
    os.mkdir('benchmarks')
    for name in os.listdir(os.path.join(ROOT, 'benchmarks')):
        if name != 'benchmark_overhead.py':
            os.symlink(os.path.join(ROOT, 'benchmarks', name), os.path.join('benchmarks', name))
    with open(os.path.join(ROOT, 'benchmarks', 'benchmark_overhead.py'), encoding='utf-8') as file:
        text, times = re.subn(r'(?m)^REPEAT = .*$|^WORKLOADS = .*$', lambda m: 'REPEAT = 1' if m.group().startswith('R') else 'WORKLOADS = (documents,)', file.read())
    same('what makes benchmark_overhead.py short', times, 2)
    with open('benchmarks/benchmark_overhead.py', 'w', encoding='utf-8') as file:
        file.write(text)
    os.mkdir('build')
    os.symlink(BUILD, 'build/bench')
    record([PYTHON, 'app.py'], env=clean_env(APP_SECONDS='0.05'))
    env = clean_env(APP_SECONDS=seconds, MEMLYZE_HOME=BUILD, PYTHONPATH=os.path.join(ROOT, 'tracer', 'python'), PYTHONDONTWRITEBYTECODE='1')
    env['PATH'] = os.path.abspath('bin') + ':' + env['PATH']
    return env


def options_of(command):
    """What a record command line asks for, by the names of stats' settings."""
    wanted, words = {'sample_rate': 1.0, 'max_stack_depth': 10, 'track_gc': True, 'max_events': 10000, 'include': [], 'exclude': []}, iter(command)
    sizes = {'64KiB': 65536, '1MB': 1000000}
    for word in words:
        if word == '--sample-rate':
            wanted['sample_rate'] = float(next(words))
        elif word in ('--max-stack-depth', '--max-events'):
            wanted[word[2:].replace('-', '_')] = int(next(words))
        elif word == '--sample-over':
            wanted['sample_over'] = sizes[next(words)]
        elif word in ('--include', '--exclude'):
            wanted[word[2:]].append(next(words))
        elif word in ('--track-gc', '--no-track-gc'):
            wanted['track_gc'] = word == '--track-gc'
        elif not word.startswith('-'):
            break
    return wanted


def recorded(text):
    """The options of the last recording of a block into trace.mlyze; None: there is none."""
    found = None
    for line in text.replace('\\\n', ' ').splitlines():
        words = shlex.split(line, comments=True) if re.match(r'(time )?[Mm]emlyze record ', line) else []
        if words and '--against' not in words:
            found = options_of(words[words.index('record') + 1:])
    return found


def check_trace(text, wanted):
    stats = tool('stats')
    same('complete', stats['complete'], True)
    nothing_runs = '# ... run app ...' in text  # and what the package itself allocates is in no trace
    assert stats['events']['allocs'] > 0 or '--include' in text or '--snapshots-only' in text or nothing_runs, stats['events']
    settings = {k: stats['settings'].get(k) for k in wanted}
    same('settings', settings, wanted)
    names = re.findall(r'--mark (\w+)', text)
    if names:
        assert stats['events']['marks'] >= len(names), stats['events']
    rates = [float(r) for line in text.splitlines() if 'memlyze control' in line for r in re.findall(r'--sample-rate ([\d.]+)', line)]
    same('rates by control', [c['sample_rate'] for c in stats['rate_changes']], rates)


def needs(text):
    """Skips a block whose tools, none of ours, are not on this machine."""
    if os.environ.get('ASAN_OPTIONS') and ('build/bench' in text or 'valgrind' in text):
        raise Skip('measures, which a sanitized build is not for')
    for word in ('valgrind', 'callgrind_annotate', 'perf', 'ninja'):
        if re.search(r'(?m)^(memlyze record )?%s\b' % word, text) and not shutil.which(word):
            raise Skip('%s is not installed' % word)
    if re.search(r'(?m)^perf ', text) and execute(['perf', 'record', '-o', '/dev/null', 'true']).returncode:
        raise Skip('perf may not measure here')


def run_shell(text):
    needs(text)
    background = '&\n' in text
    env = place('3.5' if background else '0.1')
    result = execute(['bash', '-c', SHELL + text + ('\nwait\n' if background else '')], env=env, timeout=240)
    same('exit status of\n%s\n%s%s' % (text, result.stdout, result.stderr), result.returncode, 0)
    wanted = recorded(text)
    if wanted is not None:
        check_trace(text, wanted)
    return result


def run_python(text):
    env = place('0.05')
    known = re.search(r'(?m)^tracer = |^ *import Memlyze|memlyze', text)
    steers = 'tracer.' in text and not re.search(r'(?m)^tracer = ', text)
    with open('block.py', 'w', encoding='utf-8') as file:
        file.write(PREAMBLE + (STARTED if steers else '') + text + EPILOGUE)
    os.unlink('trace.mlyze')
    result = execute([PYTHON, 'block.py'], env=env, timeout=120)
    same('exit status of\n%s\n%s%s' % (text, result.stdout, result.stderr), result.returncode, 0)
    if 'Memlyze.start(' in text or steers:
        stats = tool('stats')
        same('complete', stats['complete'], True)
        wanted = {'sample_rate': r'sample_rate=([\d.]+)', 'max_events': r'max_events=(\d+)'}
        for key, pattern in wanted.items():
            for value in re.findall(pattern, text):
                same(key, stats['settings'][key], type(stats['settings'][key])(float(value)))
        if 'sample_over' in text:
            same('sample_over', stats['settings']['sample_over'], 1 << 20)
        for key in ('include', 'exclude'):
            patterns = re.search(key + r'_patterns=(\[.*?\])', text)
            same(key, stats['settings'][key], eval(patterns.group(1)) if patterns else [])
        if 'tracer.snapshot' in text:
            same('snapshots', stats['events']['snapshots'], 100)
        rates = [float(r) for r in re.findall(r'set_sample_rate\(([\d.]+)\)', text)]
        same('rate changes', [c['sample_rate'] for c in stats['rate_changes']], rates)
    else:
        assert known or 'trace_this_allocation' in text, 'a block of which nothing is checked:\n' + text
    return result


BLOCKS = blocks()


@case(each=[('%d, %s (%s)' % (n, heading, language), language, text) for n, (heading, language, text) in enumerate(BLOCKS, 1)])
def block(language, text):
    {'bash': run_shell, 'python': run_python}[language](text)


@case
def the_guide_has_what_the_user_wrote():
    """Each topic of the guide that the user began with has its block."""
    text = '\n'.join(t for _, _, t in BLOCKS)
    for wanted in ('--sample-rate 0.1 \\\n    --max-stack-depth 5 \\\n    --no-track-gc', '--max-stack-depth 25', '--sample-rate 0.05', '--max-stack-depth 8', 'tracer.snapshot(',
                   'threads = [Thread(target=worker) for _ in range(10)]', 'benchmarks/benchmark_overhead.py', 'overhead = (with_tracing - baseline) / baseline * 100',
                   'cProfile -o profile.txt app.py', 'ls -lh trace.mlyze', 'max_events=5000', 'sample_over', 'warmup()', 'cProfile -o Memlyze.prof -m Memlyze record python3 app.py',
                   'tracer.set_sample_rate(0.1)', 'include_patterns=["myapp.*"]', 'exclude_patterns=["*.test"]'):
        assert wanted in text, 'no block has ' + wanted


@case
def the_profile_of_memlyze_shows_what_the_guide_says():
    text = next(t for _, _, t in BLOCKS if 'Memlyze.prof' in t)
    out = run_shell(text).stdout
    for name in ('sigwaitinfo', '_find_and_load'):
        assert name in out, '%s is not among the first 30 of the profile:\n%s' % (name, out)


@case
def stats_print_what_one_who_helps_asks_for():
    record([PYTHON, os.path.join(PROGRAMS, 'guide_app.py')], '--sample-rate', '0.5', '--max-stack-depth', '7')
    out = ' '.join(execute([MEMLYZE, 'stats', 'trace.mlyze']).stdout.split())
    version = execute([MEMLYZE, '--version']).stdout.split()[1]
    for wanted in ('python 3.', 'settings rate 0.5, 7 frames, rings of', 'recorded by memlyze ' + version, 'threads 1, which waited', '0 lost'):
        assert wanted in out, (wanted, out)


run(__name__)
