#!/usr/bin/env python3
"""What recording costs: the tables of `make bench`. Usage: run.py BUILD [--pairs N] [--scale S] [--mode NAME]... [PROGRAM...]

Each program of benchmarks/programs runs untraced and traced in turn, so that what else the machine does meets both; a row gives the median of
the paired ratios and their spread (quartiles). The CPU of the program and of the recorder are told apart. The output of both must be the same.
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MODES = {
    'full': ['record'],
    '0.1': ['record', '--sample-rate', '0.1'],
    'ultra-low': ['record', '--sample-rate', '0.1', '--max-stack-depth', '5', '--no-track-gc'],
    '0.01': ['record', '--sample-rate', '0.01'],
    'tracemalloc': None,
    'memray': None,
}


def real_python():
    """The interpreter itself: a wrapper's start-up would hide everything."""
    python = os.environ.get('PYTHON') or shutil.which('python3')
    return subprocess.run([python, '-c', 'import sys; print(sys.executable)'], stdout=subprocess.PIPE, universal_newlines=True,
                          check=True).stdout.strip()


def measure(command):
    """(wall s, CPU s of all that it waited for, stdout, stderr)"""
    before = os.times()
    began = time.monotonic()
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    wall = time.monotonic() - began
    after = os.times()
    if run.returncode:
        raise SystemExit('%s: exit status %d\n%s' % (' '.join(command), run.returncode, run.stderr))
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return wall, cpu, run.stdout, run.stderr


def seconds(text):
    number, unit = text.split()
    return float(number) * {'ns': 1e-9, 'us': 1e-6, 'ms': 1e-3, 's': 1, 'min': 60}[unit]


def quartiles(values):
    values = sorted(values)
    return values[len(values) // 4], values[(3 * len(values)) // 4]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('build')
    parser.add_argument('program', nargs='*')
    parser.add_argument('--pairs', type=int, default=5)
    parser.add_argument('--scale', default='3', help='1 is about a second a run')
    parser.add_argument('--mode', action='append', choices=sorted(MODES))
    args = parser.parse_args()
    memlyze = os.path.join(args.build, 'tracer', 'recorder', 'memlyze')
    python = real_python()
    programs = args.program or sorted(f[:-3] for f in os.listdir(os.path.join(HERE, 'programs')) if f.endswith('.py'))
    modes = args.mode or ['full', '0.1', 'ultra-low', 'tracemalloc']
    if 'memray' in modes and subprocess.run([python, '-c', 'import memray'], stderr=subprocess.DEVNULL).returncode:
        raise SystemExit('memray is not installed for %s' % python)

    print('%s, %d pairs a row, %d CPUs' % (subprocess.run([python, '-V'], stdout=subprocess.PIPE, universal_newlines=True).stdout.strip(),
                                           args.pairs, os.cpu_count()))
    with tempfile.TemporaryDirectory() as directory:
        trace = os.path.join(directory, 't.mlyze')
        for mode in modes:
            print('\n%-22s %8s %14s %8s %9s %9s %8s' % (mode, 'wall', 'quartiles', 'CPU', 'recorder', 'events/s', 'B/event'))
            walls = []
            for name in programs:
                plain_command = [python, os.path.join(HERE, 'programs', name + '.py'), args.scale]
                if mode == 'tracemalloc':
                    command = [python, '-X', 'tracemalloc'] + plain_command[1:]
                elif mode == 'memray':
                    command = [python, '-m', 'memray', 'run', '-q', '-f', '--trace-python-allocators', '-o', trace] + plain_command[1:]
                else:
                    command = [memlyze] + MODES[mode] + ['-f', '-o', trace, '--'] + plain_command
                wall, cpu, recorder, rate, size = [], [], [], [], []
                for _ in range(args.pairs):
                    plain, traced = measure(plain_command), measure(command)
                    if plain[2] != traced[2] and mode != 'memray':
                        raise SystemExit('%s: the output differs when traced' % name)
                    spent = re.search(r'recorder CPU\s+([\d.,]+ \w+)', traced[3])
                    own = seconds(spent.group(1).replace(',', '')) if spent else 0.0
                    events = re.search(r'events_written\s+([\d,]+)', traced[3])
                    written = re.search(r'bytes_written\s+([\d,]+)', traced[3])
                    wall.append(traced[0] / plain[0])
                    cpu.append((traced[1] - own) / plain[1])
                    recorder.append(own / plain[1])
                    if events:
                        n = int(events.group(1).replace(',', ''))
                        rate.append(n / traced[0])
                        size.append(int(written.group(1).replace(',', '')) / max(n, 1))
                walls.append(statistics.median(wall))
                print('  %-20s %7.3fx %6.3f-%.3f %7.3fx %8.3fx %9s %8s' % (
                    (name, walls[-1]) + quartiles(wall) + (statistics.median(cpu), statistics.median(recorder),
                     '%.2f M' % (statistics.median(rate) / 1e6) if rate else '', '%.3f' % statistics.median(size) if size else '')), flush=True)
            print('  %-20s %7.3fx' % ('geometric mean', statistics.geometric_mean(walls)))


if __name__ == '__main__':
    sys.exit(main())
