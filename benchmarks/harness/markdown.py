"""The tables of docs/performance.md out of a report. Each block of the document stands between `<!-- bench NAME -->` and `<!-- end -->`; refill() renews them."""
import re

from . import catalog, tables

SETTINGS = [  # mode, what it is called in the document
    ('full', 'default: every allocation, 10 frames, GC on'),
    ('maximum', '`--max-stack-depth 25`'),
    ('rate-0.5', '`--sample-rate 0.5`'),
    ('rate-0.1', '`--sample-rate 0.1`'),
    ('ultra-low', '`--sample-rate 0.1 --max-stack-depth 5 --no-track-gc`'),
    ('rate-0.01', '`--sample-rate 0.01`'),
    (catalog.EMPTY, 'no tracer: hooks in the allocators of the interpreter that only call on'),
]
RATES = [('1.0', 'full', 'Every allocation', 'Default, development'), ('0.5', 'rate-0.5', 'One of each two', 'A smaller trace'),
         ('0.1', 'rate-0.1', 'One of each ten', 'Production monitoring'), ('0.01', 'rate-0.01', 'One of each hundred', 'Always-on profiling')]
NONE = '-'


def table(head, lines):
    return '\n'.join(['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)] + ['| ' + ' | '.join(line) + ' |' for line in lines])


def percent(ratio):
    return '%+.1f %%' % ((ratio - 1) * 100)


class Document:
    def __init__(self, report):
        self.report = report
        self.found = {group: tables.rows(report, group) for group in ('apps', 'programs', 'peers')}

    def mean(self, group, mode, key):
        """Geometric mean as text, '-' where the mode was not run with the group."""
        rows = self.found[group].get(mode)
        return percent(tables.means(rows, key)[0]) if rows and mode in self.report['modes'][group] else NONE

    def row(self, group, mode, name):
        return next((r for r in self.found[group].get(mode, []) if r.name == name), None)

    # -- blocks

    def machine(self):
        m, r = self.report['machine'], self.report
        runs = r['runs']
        base = sorted(x['wall'] for x in runs if x['mode'] == 'untraced' and x['group'] != 'peers')
        pairs = max((x['turn'] + 1 for x in runs if x['group'] != 'peers'), default=0)
        text = 'Measured %s with memlyze %s and CPython %s on %d CPUs (%s), Linux %s' % (
            m['date'][:10], r['version'].split()[-1], r['python'], m['cpus'], m['cpu'], m['kernel'])
        if base:
            text += '; %d turns, untraced runs of %.1f to %.1f s' % (pairs, base[0], base[-1])
        return text + '.'

    def settings(self):
        lines = []
        for mode, label in SETTINGS:
            cells = [self.mean(group, mode, key) for group in ('apps', 'programs') for key in ('wall', 'cpu')]
            if any(cell != NONE for cell in cells):
                lines.append([label] + cells)
        return table(['setting', 'applications: wall', 'CPU', 'allocation-bound: wall', 'CPU'], lines)

    def rate(self):
        return table(['Value', 'Behavior', 'Overhead, applications', 'Overhead, allocation-bound programs', 'Use case'],
                     [[value, what, self.mean('apps', mode, 'cpu'), self.mean('programs', mode, 'cpu'), use] for value, mode, what, use in RATES])

    def depth(self):
        lines = []
        for depth, mode, what in (('5', 'depth-5', 'May miss the cause'), ('10', 'full', 'Good default'), ('25', 'maximum', 'Full context')):
            deep = self.row('programs', mode, 'deep')
            lines.append([depth, percent(deep.cpu.median) if deep else NONE, self.mean('programs', mode, 'cpu'), what])
        return table(['Value', 'Overhead, a recursion 300 calls deep', 'Overhead, allocation-bound programs', 'Trade-off'], lines)

    def gc(self):
        full, off = self.row('programs', 'full', 'cycles'), self.row('programs', 'no-gc', 'cycles')
        if not full or not off:
            return table(['setting', 'CPU'], [])
        return table(['a program that makes little but garbage', 'wall', 'CPU'],
                     [[label, percent(r.wall.median), percent(r.cpu.median)] for label, r in (('`--track-gc` (default)', full), ('`--no-track-gc`', off))])

    def goals(self):
        """What was to be reached, and what was."""
        lines = []
        for (group, mode), goal in sorted(tables.GOALS.items(), key=lambda item: (item[0][0], -item[1])):
            rows = self.found[group].get(mode)
            if rows:
                wall, cpu = tables.means(rows, 'wall'), tables.means(rows, 'cpu')
                lines.append([tables.TITLES[group], ' '.join(self.report['arguments'][mode]) or 'default', '%.3fx' % goal] + [
                    '%.3fx (%.3f-%.3f)' % m for m in (wall, cpu)] + ['yes' if max(wall[0], cpu[0]) <= goal else 'no'])
        return table(['programs', 'options', 'goal', 'wall (quartiles)', 'CPU (quartiles)', 'reached'], lines)

    def each(self, group):
        lines = []
        for r in self.found[group].get('full', []):
            lines.append([r.name, '%.3fx' % r.wall.median, '%.3f-%.3f' % (r.wall.low, r.wall.high), '%.3fx' % r.cpu.median, '%.2fx' % r.recorder, '%.0f ms' % (r.blocked * 1e3),
                          tables.count_text(r.rate), '%.3f' % r.bytes, 'LOST %d' % r.lost if r.lost else '0'])
        rows = self.found[group].get('full')
        if rows:
            wall, cpu = tables.means(rows, 'wall'), tables.means(rows, 'cpu')
            lines.append(['geometric mean', '%.3fx' % wall[0], '%.3f-%.3f' % wall[1:], '%.3fx' % cpu[0], '', '', '', '', ''])
        return table(['program', 'wall', 'quartiles', 'CPU', 'CPU of the recorder', 'blocked', 'events/s', 'bytes an event', 'lost'], lines)

    def modes(self, group):
        modes = [m for m, _ in SETTINGS if m in self.found[group]]
        names = [r.name for r in self.found[group].get('full', [])]
        lines = []
        for name in names:
            found = [self.row(group, mode, name) for mode in modes]
            lines.append([name] + ['%.3f / %.3f' % (r.wall.median, r.cpu.median) if r else NONE for r in found])
        means = [[tables.means(self.found[group][m], key)[0] for key in ('wall', 'cpu')] for m in modes]
        if names:
            lines.append(['geometric mean'] + ['%.3f / %.3f' % tuple(m) for m in means])
        return table(['wall / CPU'] + modes, lines)

    def memory(self):
        lines = [[r.name, '%.1f' % (r.base_rss / 1e6), '%.2f' % (r.added / 1e6), '%.2f' % (r.rings / 1e6), '%.2f' % (r.beyond / 1e6), '%.2f' % (r.allowed / 1e6)]
                 for group in ('apps', 'programs') for r in self.found[group].get('full', [])]
        return table(['MB', 'peak alone', 'added', 'of it rings', 'beyond', 'limit: 4 MB + 1 % of the heap'], lines)

    def peers(self):
        found = self.found['peers']
        names = sorted({r.name for rows in found.values() for r in rows})
        lines = []
        for mode in ['full'] + [p for p in catalog.PEERS if p in found]:
            rows = {r.name: r for r in found.get(mode, [])}
            if rows:
                lines.append(['memlyze' if mode == 'full' else mode] + ['%.2fx' % rows[n].wall.median if n in rows else NONE for n in names]
                             + ['%.2fx' % tables.geometric([r.wall.median for r in rows.values()])])
        return table(['wall'] + names + ['geometric mean'], lines)

    def sizes(self):
        lines = [[name, '%.3f' % ours, '%.3f' % theirs, '%.3f' % (ours / theirs), '%.2f' % (ours * n / 1e6), '%.2f' % (theirs * m / 1e6)]
                 for name, ours, n, theirs, m in tables.size_rows(self.report)]
        return table(['bytes a record', 'memlyze', 'memray', 'ratio', 'memlyze, file in MB', 'memray, file in MB'], lines)

    def hot_path(self):
        hot = self.report.get('hot_path') or {'unit': 'ns', 'steps': []}
        return table(['step', hot['unit'], 'quartiles'], [[s['step'], '%.1f' % s['median'], '%.1f to %.1f' % (s['low'], s['high'])] for s in hot['steps']])

    def blocks(self):
        return {'machine': self.machine, 'settings': self.settings, 'rate': self.rate, 'depth': self.depth, 'gc': self.gc, 'apps': lambda: self.each('apps'),
                'programs': lambda: self.each('programs'), 'apps-modes': lambda: self.modes('apps'), 'programs-modes': lambda: self.modes('programs'),
                'memory': self.memory, 'goals': self.goals, 'peers': self.peers, 'sizes': self.sizes, 'hot-path': self.hot_path}


def everything(report):
    return '\n\n'.join('<!-- bench %s -->\n%s\n<!-- end -->' % (name, block()) for name, block in Document(report).blocks().items())


def refill(report, text):
    """The document with each block renewed; the names of blocks that nobody knows, and of those that the report has nothing for."""
    blocks = Document(report).blocks()
    unknown, kept = [], []

    def renew(match):
        name = match.group(1)
        if name not in blocks:
            unknown.append(name)
            return match.group(0)
        content = blocks[name]()
        if name != 'machine' and content.count('\n') < 2:  # not measured: what stands there stays
            kept.append(name)
            return match.group(0)
        return '<!-- bench %s -->\n%s\n<!-- end -->' % (name, content)
    return re.sub(r'<!-- bench ([\w-]+) -->.*?<!-- end -->', renew, text, flags=re.S), unknown, kept
