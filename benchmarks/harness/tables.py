"""What the runs say: medians of paired ratios with their quartiles, out of the report that run.py keeps (and writes with --json)."""
import math
import statistics

from . import catalog

GOALS = {  # geometric means to reach
    ('programs', 'full'): 1.12, ('programs', 'maximum'): 1.20, ('programs', 'ultra-low'): 1.03, ('programs', 'rate-0.01'): 1.02,
    ('apps', 'full'): 1.05, ('apps', 'rate-0.5'): 1.03, ('apps', 'rate-0.1'): 1.015, ('apps', 'ultra-low'): 1.01, ('apps', 'rate-0.01'): 1.005,
}
TITLES = {'programs': 'allocation-bound programs', 'apps': 'real applications', 'peers': 'peers'}


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0]
    q = statistics.quantiles(values, n=4, method='inclusive')
    return q[0], q[2]


def geometric(values):
    return math.exp(sum(math.log(v) for v in values) / len(values))


class Spread:
    """A median with quartiles."""

    def __init__(self, values):
        self.n = len(values)
        self.median = statistics.median(values)
        self.low, self.high = quartiles(values)


class Row:
    """One program in one mode: `pairs` is [(untraced run, traced run)] of the same turns."""

    def __init__(self, name, pairs):
        self.name = name
        self.pairs = pairs
        base, traced = zip(*pairs)
        self.seconds = statistics.median(b['wall'] for b in base)
        self.wall = Spread([t['wall'] / b['wall'] for b, t in pairs])
        self.cpu = Spread([t['cpu'] / b['cpu'] for b, t in pairs])
        self.outer = Spread([t['outer_wall'] / b['wall'] for b, t in pairs])
        self.outside = statistics.median(t['outer_wall'] - t['wall'] for t in traced)
        self.recorder = statistics.median(t.get('recorder_cpu', 0.0) / b['cpu'] for b, t in pairs)
        self.blocked = statistics.median(t.get('blocked', 0.0) for t in traced)
        self.lost = max(t.get('events_dropped', 0) for t in traced)
        self.warnings = sorted({w for t in traced for w in t.get('warnings', [])})
        events = [t for t in traced if t.get('events_written')]
        self.rate = statistics.median(t['events_written'] / t['wall'] for t in events) if events else 0.0
        self.bytes = statistics.median(t['bytes_written'] / t['events_written'] for t in events) if events else 0.0
        self.base_rss = statistics.median(b['max_rss'] for b in base)
        self.added = statistics.median(t['max_rss'] for t in traced) - self.base_rss
        self.rings = statistics.median(t['arena'] for t in traced)
        self.allowed = 4e6 + self.base_rss * 0.01  # beside the rings

    @property
    def beyond(self):
        return self.added - self.rings


def rows(report, group):
    """{mode: [Row]} in the order in which programs and modes were chosen."""
    runs = {}
    for run in report['runs']:
        if run['group'] == group:
            runs.setdefault((run['name'], run['mode']), {})[run['turn']] = run
    found = {}
    for name, mode in sorted(runs, key=lambda key: key[0]):
        turns = runs.get((name, 'untraced'), {})
        pairs = [(turns[turn], run) for turn, run in sorted(runs[name, mode].items()) if turn in turns]
        if mode != 'untraced' and pairs:
            found.setdefault(mode, []).append(Row(name, pairs))
    return found


def standing(found, report, group):
    """The modes that all programs of the group were run in."""
    chosen = report['modes'].get(group, [])
    return [mode for mode in chosen if mode in found]


def means(table, key):
    """Geometric mean of the medians; quartiles of the turns' own geometric means over all programs."""
    mean = geometric([getattr(row, key).median for row in table])
    turns = min(len(row.pairs) for row in table)
    field = {'wall': 'wall', 'cpu': 'cpu'}[key]
    each = [geometric([row.pairs[i][1][field] / row.pairs[i][0][field] for row in table]) for i in range(turns)]
    return (mean,) + quartiles(each)


def noise(report, group, key):
    """What the same does from turn to turn: quartiles of the group's geometric mean of untraced / previous untraced."""
    bases = {}
    for run in report['runs']:
        if run['group'] == group and run['mode'] == 'untraced':
            bases.setdefault(run['name'], {})[run['turn']] = run[key]
    if not bases:
        return None
    turns = min(len(b) for b in bases.values())
    steps = [geometric([b[i + 1] / b[i] for b in bases.values() if i in b and i + 1 in b] or [1.0]) for i in range(turns - 1)]
    return quartiles(steps) if steps else None


def count_text(rate):
    return '%.2f M' % (rate / 1e6) if rate >= 1e5 else '%.1f k' % (rate / 1e3)


def mode_text(report, mode):
    if mode == catalog.EMPTY:
        return 'no tracer: hooks that only call on'
    return ' '.join(report['arguments'][mode]) or 'every allocation, 10 frames, GC on: the default'


def print_mode(report, group, mode, table):
    print('\n%s, %s (%s)' % (TITLES[group], mode, mode_text(report, mode)))
    print('  %-14s %6s %3s %8s %13s %8s %13s %9s %9s %9s %7s' % (
        'program', 'alone', 'n', 'wall', 'quartiles', 'CPU', 'quartiles', 'recorder', 'blocked', 'events/s', 'B/event'))
    for r in table:
        print('  %-14s %4.1f s %3d %7.3fx %6.3f-%.3f %8.3fx %6.3f-%.3f %9.3fx %6.0f ms %9s %7.3f%s' % (
            r.name, r.seconds, r.wall.n, r.wall.median, r.wall.low, r.wall.high, r.cpu.median, r.cpu.low, r.cpu.high, r.recorder, r.blocked * 1e3,
            count_text(r.rate), r.bytes, '  LOST %d' % r.lost if r.lost else ''))
        for warning in r.warnings:
            print('    warning: ' + warning)
    if len(table) > 1:
        goal = GOALS.get((group, mode))
        wall, cpu = means(table, 'wall'), means(table, 'cpu')
        print('  %-14s %10s %7.3fx %6.3f-%.3f %8.3fx %6.3f-%.3f %9.3fx%s' % (
            ('geometric mean', '') + wall + cpu + (geometric([max(r.recorder, 1e-6) for r in table]),
             '   (goal: %.3fx, %s)' % (goal, 'reached' if max(wall[0], cpu[0]) <= goal else 'missed') if goal else '')))


def print_memory(table):
    print('\nmemory added to the traced program by full tracing (peak resident set, MB)')
    print('  %-14s %9s %9s %9s %9s %9s' % ('program', 'alone', 'added', 'rings', 'beyond', 'allowed'))
    for r in table:
        print('  %-14s %9.2f %9.2f %9.2f %9.2f %9.2f%s' % (
            r.name, r.base_rss / 1e6, r.added / 1e6, r.rings / 1e6, r.beyond / 1e6, r.allowed / 1e6, '  TOO MUCH' if r.beyond > r.allowed else ''))
    print('  beyond: what is neither ring nor control block; allowed: 4 MB and 1 % of the peak alone')


def print_peers(report):
    found = rows(report, 'peers')
    if not found:
        return
    names = sorted({r.name for table in found.values() for r in table})
    print('\npeers, wall time of the program in units of its time alone (medians of %d pairs; CPU of all processes below it)'
          % max(r.wall.n for t in found.values() for r in t))
    print('  %-16s' % '' + ''.join('%18s' % name for name in names) + '%18s' % 'geometric mean')
    for mode in ['full'] + [m for m in report['peers'] if m in found]:
        table = {r.name: r for r in found.get(mode, [])}
        if not table:
            continue
        both = lambda wall, cpu: '%7.2fx (%6.2fx)' % (wall, cpu)  # noqa: E731
        line = ''.join('%18s' % (both(table[n].wall.median, table[n].cpu.median) if n in table else '-') for n in names)
        print('  %-16s%s%18s' % ('memlyze' if mode == 'full' else mode, line, both(
            geometric([r.wall.median for r in table.values()]), geometric([r.cpu.median for r in table.values()]))))
    sizes = size_rows(report)
    if sizes:
        print('\nbytes in the file for one record (allocation or free; memray: its default compression, --trace-python-allocators)')
        print('  %-16s %10s %12s %10s %10s %12s %10s %10s' % ('', 'memlyze', 'records', 'file', 'memray', 'records', 'file', 'ratio'))
        for name, ours, our_records, theirs, their_records in sizes:
            print('  %-16s %10.3f %12d %7.2f MB %10.3f %12d %7.2f MB %10.3f' % (
                name, ours, our_records, ours * our_records / 1e6, theirs, their_records, theirs * their_records / 1e6, ours / theirs))


def size_rows(report):
    """[(program, bytes an event, events, memray's bytes a record, its records)]"""
    out = []
    for r in rows(report, 'peers').get('full', []):
        theirs = report['memray'].get(r.name)
        if theirs:
            out.append((r.name, r.bytes, int(statistics.median(t['events_written'] for _, t in r.pairs)), theirs['bytes'] / theirs['records'], theirs['records']))
    return out


def print_hot_path(report):
    hot = report.get('hot_path')
    if not hot:
        return
    unit = hot['unit']
    print('\nthe hot path, %s for each step (median, quartiles of %d rounds)' % (unit, hot['rounds']))
    for step in hot['steps']:
        print('  %-60s %8.2f   %s' % (step['step'], step['median'], '%.2f-%.2f' % (step['low'], step['high'])))


def print_all(report):
    for group in ('apps', 'programs'):
        found = rows(report, group)
        regular = standing(found, report, group)
        for mode in regular + sorted(set(found) - set(regular)):
            print_mode(report, group, mode, found[mode])
        if 'full' in found:
            print_memory(found['full'])
        for key in ('wall', 'cpu'):
            band = noise(report, group, key)
            if band:
                print('  the untraced runs alone, one turn to the next, %s: quartiles of the geometric mean %.3f-%.3f: what this benchmark can see' % ((key,) + band))
    print_peers(report)
    print_hot_path(report)
    foreign = [run['foreign'] for run in report['runs']]
    if foreign:
        print('\nbeside the benchmark the machine was busy with other things: median %.2f CPUs, at most %.2f' % (statistics.median(foreign), max(foreign)))
