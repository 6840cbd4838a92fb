"""What native stacks cost: programs untraced, recorded, recorded with --native, and under heaptrack, in turn.

    ninja -C BUILD benchmarks/native/churn benchmarks/native/bench_capture benchmarks/agent/bench_usage
    python3 benchmarks/native/run.py BUILD [--rounds N] [--only NAME,...]

Prints a table: medians of the ratios of each round, wall time and CPU time of the traced program (of the recorder: see the last column). Programs that are
not installed are left out, and said so.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile


def inputs():
    with open('some.xml', 'w') as f:
        f.write('<r>%s</r>' % ''.join('<a id="%d"><b>text %d</b><c x="%d"/></a>' % (i, i * i, i) for i in range(60000)))
    with open('some.sql', 'w') as f:
        f.write('create table t(a integer primary key, b text, c real);\nwith recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) '
                'insert into t select i, \'text \' || (i * 7919 % 10007), i * 1.5 from n;\ncreate index tb on t(b);\n'
                + ''.join('select count(*), sum(c) from t where a = %d or b = \'text %d\';\n' % (i * 7, i) for i in range(6000)))
    with open('many.c', 'w') as f:
        f.write(''.join('int f%d(int a, int b) { int s = 0; for (int i = 0; i < a; i++) { if (i %% 3 == b) s += i * b; else s ^= i; switch (s & 7) '
                        '{ case 1: s += %d; break; case 2: s -= a; break; default: s++; } } return s; }\n' % (i, i) for i in range(300)))
    with open('churn.py', 'w') as f:
        f.write('import json\nd = [{"a": i, "b": [1, 2, 3.5, "x%d" % i], "c": {"k": None}} for i in range(2000)]\n'
                'for _ in range(30): json.loads(json.dumps(d))\n')


def programs(build, source):
    compiler = subprocess.run(['gcc', '-print-prog-name=cc1'], stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()
    churn = os.path.join(build, 'benchmarks', 'native', 'churn')
    frames = ['--max-stack-depth', '32']  # as the others are told
    return {
        'xmllint': (['xmllint', '--noout', 'some.xml'], frames),
        'sqlite3': (['sqlite3', ':memory:', '.read some.sql'], frames),
        'git log --stat': (['git', '-C', source, 'log', '--stat', '-n', '200'], frames),
        'cc1 -O2': ([compiler, '-quiet', '-O2', 'many.c', '-o', '/dev/null'], frames),
        'churn, 1 thread': ([churn, '1', '4000000'], ['--max-stack-depth', '12']),
        'churn, 4 threads': ([churn, '4', '4000000'], ['--max-stack-depth', '12']),
        'Python json': ([sys.executable, 'churn.py'], frames),
    }


def one(usage, before, command):
    measured = [usage, 'usage.json']
    # heaptrack is a shell script that preloads into what it is given, so it is measured from outside, with what it starts.
    whole = measured + before + command if before[:1] == ['heaptrack'] else before + measured + command
    result = subprocess.run(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env=dict(os.environ, GIT_PAGER='cat'))
    if result.returncode:
        raise SystemExit('%s: exit status %d' % (' '.join(before + command), result.returncode))
    with open('usage.json') as f:
        u = json.load(f)
    return u['wall'], u['user'] + u['sys']


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('build')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', default='')
    options = parser.parse_args()
    build, source = os.path.abspath(options.build), os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))
    usage = os.path.join(build, 'benchmarks', 'agent', 'bench_usage')
    record = [os.path.join(build, 'tracer', 'recorder', 'memlyze'), 'record', '--quiet', '-f', '-o', 'trace.mlyze']
    heaptrack = ['heaptrack', '-o', 'heaptrack'] if shutil.which('heaptrack') else None
    os.chdir(tempfile.mkdtemp(prefix='memlyze-bench-'))
    inputs()
    print('| program | recorded | --native | heaptrack | recorded, CPU | --native, CPU | heaptrack, CPU |\n|---|---|---|---|---|---|---|')
    native = []
    for name, (command, more) in programs(build, source).items():
        if options.only and not any(part in name for part in options.only.split(',')):
            continue
        if not shutil.which(command[0]):
            print('| %s | not installed |' % name)
            continue
        modes = {'plain': [], 'recorded': record + more + ['--'], 'native': record + ['--native'] + more + ['--']}
        if heaptrack:
            modes['heaptrack'] = heaptrack
        times = {mode: [] for mode in modes}
        for _ in range(options.rounds):
            for mode, before in modes.items():
                times[mode].append(one(usage, before, command))
        row = {mode: [statistics.median(t[i] / p[i] for t, p in zip(times[mode], times['plain'])) for i in (0, 1)] for mode in modes}
        cells = ['%.2f' % row[m][i] if m in row else '' for i in (0, 1) for m in ('recorded', 'native', 'heaptrack')]
        print('| %s | %s |' % (name, ' | '.join(cells)), flush=True)
        if 'churn' not in name and 'Python' not in name:
            native.append(row['native'])
    if native:
        print('geometric mean of the programs with --native: wall %.2f, CPU %.2f' % tuple(statistics.geometric_mean(r[i] for r in native) for i in (0, 1)))


if __name__ == '__main__':
    main()
