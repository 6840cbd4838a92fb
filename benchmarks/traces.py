#!/usr/bin/env python3
"""How fast the tools read a large trace, in how much memory, and whether they tell the truth about it.

  benchmarks/traces.py BUILD [--trace FILE | --events N] [--turns N] [--json FILE] [--recorded FILE...]

Makes a trace (BUILD/benchmarks/traces/make_large, a deterministic generator that knows what it wrote; kept in BUILD/bench), compares the answers of
stats, top, leaks and gc with it, and runs each tool in turn on one CPU and on two. Figures are medians over the turns: wall time and CPU time as
the kernel counts them for that process, its largest resident set. A busy machine shows as wall time above CPU time; CPU time is then the better
guess for one CPU, and half of it at most for two.
--recorded: traces of real programs, of which bytes for each event are told.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

GOAL_RATE, GOAL_MEMORY, GOAL_INSTANT = 60e6, 100e6, 0.2
EVENT_TOOLS = [('stats', []), ('top', []), ('top --from 1%', ['--from', '1%']), ('leaks', []), ('flame', []), ('gc', [])]
OTHERS = [('heap at 50 %', 'top', ['--by', 'live-bytes', '--at', '50%']), ('heap at a mark', 'top', ['--by', 'live-bytes', '--at', 'half']),
          ('peak', 'top', ['--by', 'peak-bytes']), ('export collapsed', 'export', ['--to', 'collapsed'])]


def cpus(n):
    allowed = sorted(os.sched_getaffinity(0))
    return set(allowed[-n:]) if len(allowed) >= n else None


def run_once(command, on):
    """wall seconds, CPU seconds, largest resident bytes."""
    null = os.open(os.devnull, os.O_RDWR)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.sched_setaffinity(0, on)
        for fd in (0, 1):
            os.dup2(null, fd)
        os.execv(command[0], command)
    os.close(null)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit('%s: status %d' % (' '.join(command), status))
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def answer(build, tool, trace, *options):
    path = os.path.join(build, 'analyzer', 'memlyze-' + tool)
    return json.loads(subprocess.run([path, '--json', trace] + list(options), check=True, stdout=subprocess.PIPE).stdout)


def differences(build, trace, truth):
    """What the tools say that is not so: [(what, told, true)]."""
    stats, top, leaks, gc = (answer(build, tool, trace) for tool in ('stats', 'top', 'leaks', 'gc'))
    half = answer(build, 'top', trace, '--by', 'live-bytes', '--at', 'half')
    found = [leak for leak in leaks['leaks'] if leak['function'] == truth['leak_function']]
    pairs = [
        ('events', stats['events']['written'], truth['events']),
        ('allocations', stats['blocks']['allocated'], truth['alloc_count']), ('bytes', stats['bytes']['allocated'], truth['alloc_bytes']),
        ('frees', stats['blocks']['freed'], truth['free_count']), ('freed bytes', stats['bytes']['freed'], truth['free_bytes']),
        ('temporary', stats['blocks']['temporary'], truth['temporary_count']),
        ('live', stats['bytes']['live_at_end'], truth['live_bytes']), ('live blocks', stats['blocks']['live_at_end'], truth['live_count']),
        ('threads', len(stats['threads']), truth['threads']), ('marks', stats['events']['marks'], truth['marks']),
        ('snapshots', stats['events']['snapshots'], truth['snapshots']),
        ('top: allocations', top['total']['count'], truth['alloc_count']), ('top: bytes', top['total']['bytes'], truth['alloc_bytes']),
        ('half: live', half['total']['bytes'], truth['half_live_bytes']), ('half: blocks', half['total']['count'], truth['half_live_count']),
        ('leaks: bytes', leaks['total']['bytes'], truth['live_bytes']), ('leaks: blocks', leaks['total']['count'], truth['live_count']),
        ('leak', sum(leak['count'] for leak in found), truth['leak_count']),
        ('leak: bytes', sum(leak['bytes'] for leak in found), truth['leak_bytes']),
        ('leak: grade', [leak['grade'] for leak in found], ['growing']),
        ('collections', gc['pauses_total'], truth['gc_count']),
        ('pauses', sum(g['pause_ns']['total'] for g in gc['generations']), truth['gc_ns']),
    ]
    pairs += [('generation %d' % g['generation'], g['count'], truth['gc_count_%d' % g['generation']]) for g in gc['generations']]
    if 'peak_bytes' in truth:
        pairs += [('peak', stats['bytes']['peak'], truth['peak_bytes']), ('peak: time', stats['bytes']['peak_time_ns'], truth['peak_ns'])]
    return [p for p in pairs if p[1] != p[2]]


def make_trace(build, events, seed):
    directory = os.path.join(build, 'bench')
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, 'large-%d-%d.mlyze' % (events, seed))
    if not os.path.exists(path + '.json'):
        print('making %s' % path, flush=True)
        began = time.monotonic()
        maker = os.path.join(build, 'benchmarks', 'traces', 'make_large')
        out = subprocess.run([maker, '--events', str(events), '--seed', str(seed), path], check=True, stdout=subprocess.PIPE).stdout
        with open(path + '.json', 'wb') as file:
            file.write(out)
        print('  in %.0f s' % (time.monotonic() - began))
    with open(path + '.json') as file:
        return path, json.load(file)


def measure(build, trace, events, turns):
    jobs = [n for n in (1, 2) if cpus(n)]
    todo = [(label, label.split()[0], options, n) for label, options in EVENT_TOOLS for n in jobs]
    todo += [(label, tool, options, jobs[-1]) for label, tool, options in OTHERS]
    runs = {(label, n): [] for label, _, _, n in todo}
    for turn in range(turns):
        for label, tool, options, n in todo:
            command = [os.path.join(build, 'analyzer', 'memlyze-' + tool), trace, '-o', os.devnull, '--jobs', str(n)] + options
            runs[label, n].append(run_once(command, cpus(n)))
    return [dict(zip(('wall', 'cpu', 'resident'), (statistics.median(column) for column in zip(*runs[label, n]))), what=label, cpus=n, events=events)
            for label, _, _, n in todo]


def show(rows):
    print('%-18s %4s %9s %9s %14s %14s %10s' % ('', 'CPUs', 'wall s', 'CPU s', 'M events/s', 'per CPU s', 'resident'))
    for row in rows:
        print('%-18s %4d %9.3f %9.3f %14.1f %14.1f %7.1f MB' % (row['what'], row['cpus'], row['wall'], row['cpu'], row['events'] / row['wall'] / 1e6,
                                                                row['events'] / row['cpu'] / 1e6, row['resident'] / 1e6))


def judge(rows):
    """The goals, by wall time."""
    one = {r['what']: r for r in rows if r['cpus'] == 1}
    two = {r['what']: r for r in rows if r['cpus'] == 2}
    rated = [label for label, _ in EVENT_TOOLS]
    slowest = min(rated, key=lambda label: one[label]['events'] / one[label]['wall'])
    print('one CPU: at least %.0f M events/s (%s); goal %.0f' % (one[slowest]['events'] / one[slowest]['wall'] / 1e6, slowest, GOAL_RATE / 1e6))
    gains = {label: one[label]['wall'] / two[label]['wall'] for label in rated if label in two and one[label]['wall'] > 1}
    if gains:
        print('two CPUs: ' + ', '.join('%s %.2f times' % gain for gain in gains.items()) + ' as fast; goal: nearly 2')
    print('resident: at most %.1f MB; goal below %.0f' % (max(r['resident'] for r in rows) / 1e6, GOAL_MEMORY / 1e6))
    instants = [r for r in rows if r['what'].startswith('heap at')]
    print('heap at T: ' + ', '.join('%s in %.0f ms' % (r['what'], 1000 * r['wall']) for r in instants) + '; goal below %.0f' % (1000 * GOAL_INSTANT))


def show_recorded(build, files):
    print('\n%-28s %14s %12s %12s' % ('recorded', 'events', 'bytes', 'bytes/event'))
    rates = []
    for file in files:
        events, size = answer(build, 'stats', file)['events']['written'], os.path.getsize(file)
        rates.append(size / events if events else 0)
        print('%-28s %14d %12d %12.3f' % (os.path.basename(file), events, size, rates[-1]))
    print('mean %.3f bytes an event, time included; goal at most 1' % statistics.mean(rates))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('build')
    parser.add_argument('--trace', help='one that is there; without a check of what is in it')
    parser.add_argument('--events', type=int, default=300_000_000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--turns', type=int, default=5)
    parser.add_argument('--json', metavar='FILE', help='keep the figures')
    parser.add_argument('--recorded', metavar='FILE', nargs='*', default=[])
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    wrong = []
    if args.trace:
        trace, events = args.trace, answer(build, 'stats', args.trace)['events']['written']
    else:
        trace, truth = make_trace(build, args.events, args.seed)
        events = truth['events']
        wrong = differences(build, trace, truth)
        for what, told, true in wrong:
            print('WRONG %s: %s, but it is %s' % (what, told, true))
    print('%s: %d events, %.3f bytes an event; load %.1f; medians of %d turns' % (os.path.basename(trace), events, os.path.getsize(trace) / events,
                                                                             os.getloadavg()[0], args.turns))
    rows = measure(build, trace, events, args.turns)
    show(rows)
    judge(rows)
    if args.recorded:
        show_recorded(build, args.recorded)
    if args.json:
        with open(args.json, 'w') as file:
            json.dump({'trace': trace, 'events': events, 'bytes': os.path.getsize(trace), 'rows': rows, 'wrong': wrong}, file, indent=1)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
