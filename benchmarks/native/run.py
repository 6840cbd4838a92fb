"""What native stacks cost: programs untraced, recorded, recorded with --native, and under heaptrack, in turn.

    ninja -C BUILD benchmarks/native/churn benchmarks/native/bench_capture benchmarks/agent/bench_usage
    python3 benchmarks/native/run.py BUILD [--rounds N] [--only NAME,...] [--short]

Two tables of medians of the ratios of each round to the untraced run, wall time and CPU time. In both:
    program         the traced program alone, from its exec to its end
    whole command   what a user waits for: from the call of `memlyze record` until it has returned, its start, the recorder's last chunk and the look-up of
                    names included; of CPU time, the recorder's too
heaptrack is a script that preloads into what it is given, so of it there is the whole command alone (its interpreter included).

The programs run 2 to 4 seconds untraced on the machine that this was written on. `churn` is nothing but malloc and free of blocks that are never touched, 30 ms
of it, as it always was (its whole command is mostly start and end); `churn, blocks written` is the same with blocks that are used, for longer. --short takes the inputs of the figures before 2026-11-24 (0.1 to 1.5 s of CPU time), so that those stay
comparable: they were `program`. Programs that are not installed are left out, and said so.
"""
import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = 'history'
COMMITS = 2000


def inputs(short):
    with open('some.xml', 'w') as f:
        f.write('<r>%s</r>' % ''.join('<a id="%d"><b>text %d</b><c x="%d"/></a>' % (i, i * i, i) for i in range(60000)))
    with open('some.sql', 'w') as f:
        f.write('create table t(a integer primary key, b text, c real);\nwith recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) '
                'insert into t select i, \'text \' || (i * 7919 % 10007), i * 1.5 from n;\ncreate index tb on t(b);\n'
                + ''.join('select count(*), sum(c) from t where a = %d or b = \'text %d\';\n' % (i * 7, i % 10007) for i in range(6000 if short else 120000)))
    with open('many.c', 'w') as f:
        f.write(''.join('int f%d(int a, int b) { int s = 0; for (int i = 0; i < a; i++) { if (i %% 3 == b) s += i * b; else s ^= i; switch (s & 7) '
                        '{ case 1: s += %d; break; case 2: s -= a; break; default: s++; } } return s; }\n' % (i, i) for i in range(300 if short else 600)))
    with open('churn.py', 'w') as f:
        f.write('import json\nd = [{"a": i, "b": [1, 2, 3.5, "x%d" % i], "c": {"k": None}} for i in range(2000)]\n'
                'for _ in range(' + ('30' if short else '400') + '): json.loads(json.dumps(d))\n')


def git(*arguments, **more):
    return subprocess.run(['git', *arguments], stdout=subprocess.PIPE, check=True, **more).stdout


def history(source):
    """A repository with the trees of `source`'s history, forth and back again, in one line of COMMITS commits: differences as people make them, the same length
    whatever the history is. It borrows the files of `source`."""
    git('clone', '-q', '--bare', '--shared', source, REPOSITORY)
    trees = git('log', '--reverse', '--first-parent', '--format=%T', cwd=REPOSITORY).split()
    there_and_back = trees + trees[-2:0:-1]
    stream = b''.join(b'commit refs/heads/long\ncommitter A <a@b> %d +0000\ndata 2\n%02d\nM 040000 %s \n\n' % (1000000000 + n, n % 100, there_and_back[n % len(there_and_back)])
                      for n in range(COMMITS))
    git('fast-import', '--quiet', cwd=REPOSITORY, input=stream)


def programs(build, source, short):
    compiler = subprocess.run(['gcc', '-print-prog-name=cc1'], stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()
    churn = os.path.join(build, 'benchmarks', 'native', 'churn')
    frames, few = ['--max-stack-depth', '32'], ['--max-stack-depth', '12']  # as the others are told
    log = ['git', '-C', source, 'log', '--stat', '-n', '200'] if short else ['git', '-C', REPOSITORY, 'log', '--stat', 'long']
    return {
        'xmllint': (['xmllint', '--noout'] + ['some.xml'] * (1 if short else 40), frames),
        'sqlite3': (['sqlite3', ':memory:', '.read some.sql'], frames),
        'git log --stat': (log, frames),
        'cc1 -O2': ([compiler, '-quiet', '-O2', 'many.c', '-o', '/dev/null'], frames),
        'churn, 1 thread': ([churn, '1', '4000000'], few),
        'churn, 4 threads': ([churn, '4', '4000000'], few),
        'churn, blocks written, 1 of 16 kept, 1 thread': ([churn, '1', '40000000', 'used'], few),
        'churn, blocks written, 1 of 16 kept, 4 threads': ([churn, '4', '40000000', 'used'], few),
        'Python json': ([sys.executable, 'churn.py'], frames),
    }


def one(usage, before, command):
    """[wall of the program, of the whole command, CPU of the program, of the whole command]"""
    measured, outside = [usage, 'usage.json'], before[:1] == ['heaptrack']
    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(measured + before + command if outside else before + measured + command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env=dict(os.environ, GIT_PAGER='cat'))
    wall, now = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise SystemExit('%s: exit status %d' % (' '.join(before + command), result.returncode))
    with open('usage.json') as f:
        u = json.load(f)
    cpu = u['user'] + u['sys']
    if outside or not before:  # `usage` itself is no part of it
        return [u['wall'], u['wall'], cpu, cpu]
    return [u['wall'], wall, cpu, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime]


def table(title, rows, first):
    print('\n| %s | alone, s | recorded: program | recorded: whole command | --native: program | --native: whole command | heaptrack: whole command |' % title)
    print('|---|---|---|---|---|---|---|')
    for name, (alone, ratios) in rows.items():
        cells = ['%.2f' % ratios[mode][first + i] if mode in ratios else '' for mode, i in (('recorded', 0), ('recorded', 1), ('native', 0), ('native', 1), ('heaptrack', 1))]
        print('| %s | %.2f | %s |' % (name, alone[first], ' | '.join(cells)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('build')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--heaptrack-rounds', type=int, default=2, help='heaptrack, which takes the longest, takes part in the first so many (default %(default)s)')
    parser.add_argument('--only', default='', help='programs whose names have one of these parts, with commas between')
    parser.add_argument('--short', action='store_true', help='the inputs of the figures before 2026-11-24')
    options = parser.parse_args()
    build, source = os.path.abspath(options.build), os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))
    usage = os.path.join(build, 'benchmarks', 'agent', 'bench_usage')
    record = [os.path.join(build, 'tracer', 'recorder', 'memlyze'), 'record', '--quiet', '-f', '-o', 'trace.mlyze']
    for made in (usage, record[0], os.path.join(build, 'benchmarks', 'native', 'churn')):
        if not os.access(made, os.X_OK):
            raise SystemExit('%s: it is not built; ninja -C %s benchmarks/native/churn benchmarks/agent/bench_usage' % (made, options.build))
    with tempfile.TemporaryDirectory(prefix='memlyze-bench-') as directory:
        os.chdir(directory)
        measure(options, build, source, usage, record)
        os.chdir('/')


def measure(options, build, source, usage, record):
    chosen = {name: p for name, p in programs(build, source, options.short).items() if not options.only or any(part in name for part in options.only.split(','))}
    for name in [name for name, (command, _) in chosen.items() if not shutil.which(command[0])]:
        print('%s: not installed: left out' % name)
        del chosen[name]
    inputs(options.short)
    if 'git log --stat' in chosen and not options.short:
        try:
            history(source)
        except subprocess.CalledProcessError as error:
            print('git log --stat: left out: %s' % error)
            del chosen['git log --stat']
    heaptrack = shutil.which('heaptrack')
    if not heaptrack:
        print('heaptrack: not installed: left out')
    rows = {}
    for name, (command, more) in chosen.items():
        modes = {'plain': [], 'recorded': record + more + ['--'], 'native': record + ['--native'] + more + ['--'], 'heaptrack': ['heaptrack', '-o', 'heaptrack']}
        times = {mode: [] for mode in modes}
        for turn in range(options.rounds):
            for mode, before in modes.items():
                if mode == 'heaptrack' and (not heaptrack or turn >= options.heaptrack_rounds):
                    continue
                times[mode].append(one(usage, before, command))
        rows[name] = ([statistics.median(t[i] for t in times['plain']) for i in range(4)],
                      {mode: [statistics.median(t[i] / p[i] for t, p in zip(times[mode], times['plain'])) for i in range(4)] for mode in modes if times[mode]})
        print('%s: done' % name, file=sys.stderr, flush=True)
    table('wall time', rows, 0)
    table('CPU time', rows, 2)
    four = [ratios['native'] for name, (_, ratios) in rows.items() if 'churn' not in name and 'Python' not in name]
    if four:
        print('\ngeometric mean of the programs with --native: wall: program %.2f, whole command %.2f; CPU: program %.2f, whole command %.2f'
              % tuple(statistics.geometric_mean(r[i] for r in four) for i in range(4)))


if __name__ == '__main__':
    main()
