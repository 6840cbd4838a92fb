"""memlyze export: each format is read back by a reader of its own, held against what the other tools say, and opened by the viewer that it is for, where
that is installed (go tool pprof, ms_print, DHAT's viewer in Chromium, speedscope's schema)."""
import collections
import csv
import glob
import gzip
import html
import json
import os
import re
import shutil
import subprocess

from harness import BUILD, MEMLYZE, PROGRAMS, PYTHON, SCHEMAS, SLOW, Skip, case, clean_env, execute, record, run, same, tool

MAKE_TRACE = os.path.join(BUILD, 'tests', 'unit', 'analyzer', 'make_trace')
FORMATS = ('collapsed', 'speedscope', 'pprof', 'dhat', 'massif', 'perfetto', 'csv', 'json')
METRICS = {'alloc-bytes': 'alloc_bytes', 'alloc-count': 'alloc_count', 'live-bytes': 'live_bytes', 'peak-bytes': 'peak_bytes', 'temporary': 'temporary_count'}
SCENARIOS = ('service', 'processes', 'names', 'sampled', 'lost', 'empty', 'children', 'version1', 'handover')


def make(scenario, *events, path='trace.mlyze'):
    execute([MAKE_TRACE, scenario, path] + list(events), check=True)


def export(to, *options, trace='trace.mlyze', status=0, out='out'):
    result = execute([MEMLYZE, 'export', '--to', to, '-o', out, trace] + list(options))
    same('exit status of --to %s: %s' % (to, result.stderr), result.returncode, status)
    return result.stderr


def text_of(to, *options, **more):
    export(to, *options, **more)
    with open('out', encoding='utf-8', newline='') as file:
        return file.read()


def stacks_of(answer, key):
    """{((function, file, line), ...): value} of top --group stack, innermost first, as formats show it: whole file names."""
    found = collections.Counter()
    for site in answer['sites']:
        found[tuple((f['function'], f['file'], f['line']) for f in site['stack']) or (('(no stack)', '', 0),)] += max(site[key], 0)
    return {stack: value for stack, value in found.items() if value}


def top(*options, trace='trace.mlyze'):
    return tool('top', '--group', 'stack', *options, trace=trace)


def whole(stacks):
    """Without the frame that says that others are missing: top does not show it."""
    found = collections.Counter()
    for stack, value in stacks.items():
        found[stack[:-1] if stack[-1][0] == '(outer frames not recorded)' else stack] += value
    return dict(found)


def same_stacks(what, got, wanted):
    wrong = ['%r: %r, wanted %r' % (k, got.get(k), wanted.get(k)) for k in {**got, **wanted} if got.get(k) != wanted.get(k)]
    assert not wrong, '%s: %d differ, like %s' % (what, len(wrong), wrong[0])


# ---- readers ----

def read_speedscope(text):
    """Every key that the schema names and no other; {metric name: {stack: weight}}."""
    document = json.loads(text)
    same('keys', set(document), {'$schema', 'exporter', 'name', 'activeProfileIndex', 'shared', 'profiles'})
    same('schema', document['$schema'], 'https://www.speedscope.app/file-format-schema.json')
    same('keys of shared', set(document['shared']), {'frames'})
    frames = []
    for f in document['shared']['frames']:
        assert {'name'} <= set(f) <= {'name', 'file', 'line'} and isinstance(f['name'], str), f
        frames.append((f['name'], f.get('file', ''), f.get('line', 0)))
    assert document['activeProfileIndex'] in range(len(document['profiles'])), document['activeProfileIndex']
    found = {}
    for p in document['profiles']:
        same('keys of a profile', set(p), {'type', 'name', 'unit', 'startValue', 'endValue', 'samples', 'weights'})
        same('type', p['type'], 'sampled')
        assert p['unit'] in ('none', 'bytes'), p['unit']
        same('samples and weights', len(p['samples']), len(p['weights']))
        same('values', (p['startValue'], p['endValue']), (0, sum(p['weights'])))
        stacks = {tuple(frames[i] for i in reversed(s)): w for s, w in zip(p['samples'], p['weights'])}
        same('stacks are there once', len(stacks), len(p['samples']))
        found[p['name']] = stacks
    return document, found


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    """[(field, value)] of a message: numbers and bytes, the only kinds that are written."""
    at, found = 0, []
    while at < len(data):
        key, at = varint(data, at)
        value, at = varint(data, at)
        if key & 7 == 2:
            assert at + value <= len(data), 'a field reaches beyond its message'
            found.append((key >> 3, data[at:at + value]))
            at += value
        else:
            same('wire type', key & 7, 0)
            found.append((key >> 3, value))
    return found


def numbers(packed):
    at, found = 0, []
    while at < len(packed):
        value, at = varint(packed, at)
        found.append(value)
    return found


def read_pprof(path):
    """profile.proto: ({sample type: {stack: value}}, comments, default type)."""
    with gzip.open(path) as file:
        profile = fields(file.read())
    strings = [v.decode('utf-8') for f, v in profile if f == 6]
    same('string 0', strings[0], '')
    assert len(set(strings)) == len(strings)
    types = [tuple(strings[dict(fields(v)).get(k, 0)] for k in (1, 2)) for f, v in profile if f == 1]
    functions = {d[1]: (strings[d.get(2, 0)], strings[d.get(4, 0)]) for d in (dict(fields(v)) for f, v in profile if f == 5)}
    mappings = [dict(fields(v)) for f, v in profile if f == 3]
    same('mappings that say that names are known', [(m[1], m[7], m[8], m[9]) for m in mappings], [(1, 1, 1, 1)])
    locations = {}
    for d in (dict(fields(v)) for f, v in profile if f == 4):
        line = dict(fields(d[4]))
        same('mapping', d[2], 1)
        locations[d[1]] = functions[line[1]] + (line.get(2, 0),)
    found = {t: {} for t, _ in types}
    for d in (dict(fields(v)) for f, v in profile if f == 2):
        stack, values = tuple(locations[i] for i in numbers(d[1])), numbers(d[2])
        same('values of a sample', len(values), len(types))
        for (kind, _), value in zip(types, values):
            if value:
                assert stack not in found[kind], stack
                found[kind][stack] = value
    last = dict(profile)
    same('period', last[12], 1)
    return types, found, [strings[v] for f, v in profile if f == 13], strings[last[14]]


DHAT_KEYS = {'dhatFileVersion', 'mode', 'verb', 'bklt', 'bkacc', 'tu', 'Mtu', 'cmd', 'pid', 'te', 'pps', 'ftbl'}


def read_dhat(text):
    document = json.loads(text)
    lives = document['bklt']
    same('keys', set(document), DHAT_KEYS | ({'tg', 'tuth'} if lives else set()))
    same('version, mode, accesses', (document['dhatFileVersion'], document['mode'], document['bkacc']), (2, 'heap', False))
    seen = set()
    for p in document['pps']:
        same('keys of a point', set(p), {'tb', 'tbk', 'fs'} | ({'tl', 'mb', 'mbk', 'gb', 'gbk', 'eb', 'ebk'} if lives else set()))
        assert all(isinstance(v, int) and v >= 0 for k, v in p.items() if k != 'fs'), p
        assert p['fs'] and all(0 < i < len(document['ftbl']) for i in p['fs']) and tuple(p['fs']) not in seen, p
        if lives:
            assert p['mb'] >= max(p['gb'], p['eb']), p
        seen.add(tuple(p['fs']))
    return document


def read_massif(text):
    """(head, [(ms, bytes, kind, tree)]): a tree is [bytes, text, children]."""
    lines = [line for line in text.splitlines() if not line.startswith('#')]
    head = dict(line.split(': ', 1) for line in lines[:3])
    same('time unit', head['time_unit'], 'ms')
    at, snapshots = 3, []

    def node(depth):
        nonlocal at
        found = re.fullmatch(r'( *)n(\d+): (\d+) (.*)', lines[at])
        assert found and len(found.group(1)) == depth, lines[at]
        at += 1
        return [int(found.group(3)), found.group(4), [node(depth + 1) for _ in range(int(found.group(2)))]]
    while at < len(lines):
        values = [lines[at + i].split('=') for i in range(6)]
        same('keys', [k for k, _ in values], ['snapshot', 'time', 'mem_heap_B', 'mem_heap_extra_B', 'mem_stacks_B', 'heap_tree'])
        same('number', int(values[0][1]), len(snapshots))
        at += 6
        kind = values[5][1]
        assert kind in ('empty', 'detailed', 'peak'), kind
        tree = node(0) if kind != 'empty' else None
        assert not tree or tree[0] == int(values[2][1]), 'a tree of %d in a snapshot of %s' % (tree[0], values[2][1])
        snapshots.append((float(values[1][1]), int(values[2][1]), kind, tree))
    assert [s[0] for s in snapshots] == sorted(s[0] for s in snapshots)
    return head, snapshots


def read_perfetto(text):
    document = json.loads(text)
    same('keys', set(document), {'displayTimeUnit', 'traceEvents', 'otherData'})
    for e in document['traceEvents']:
        assert {'name', 'ph', 'pid', 'tid', 'ts'} <= set(e) and e['ph'] in 'MCXi' and e['ts'] >= 0, e
        assert e['ph'] != 'C' or list(e['args']) == [{'heap': 'bytes', 'blocks': 'live', 'resident': 'bytes'}[e['name']]], e
        assert e['ph'] != 'X' or e['dur'] >= 0, e
        assert e['ph'] != 'i' or e['s'] == 'p', e
    return document


def counters(document, name):
    """{pid: [(us, value)]} in the order of the file."""
    found = collections.defaultdict(list)
    for e in document['traceEvents']:
        if e['ph'] == 'C' and e['name'] == name:
            found[e['pid']].append((e['ts'], *e['args'].values()))
    return found


def rows(text):
    found = list(csv.DictReader(text.splitlines(True)))
    assert all(None not in r and None not in r.values() for r in found)
    return found


# ---- stacks ----

@case(each=[(s, s) for s in ('service', 'processes', 'sampled', 'version1')])
def stacks_are_those_of_top(scenario):
    make(scenario)
    answer = top()
    _, speedscope = read_speedscope(text_of('speedscope'))
    names = dict(zip(METRICS, ('allocated', 'allocations', 'live', 'live at the peak', 'temporary allocations')))
    same('profiles', list(speedscope), list(names.values()))
    export('pprof')
    types, pprof, _, _ = read_pprof('out')
    same('sample types', types, [('alloc_objects', 'count'), ('alloc_space', 'bytes'), ('inuse_objects', 'count'), ('inuse_space', 'bytes'),
                                 ('peak_space', 'bytes'), ('temporary_objects', 'count')])
    kinds = dict(zip(METRICS, ('alloc_space', 'alloc_objects', 'inuse_space', 'peak_space', 'temporary_objects')))
    for metric, key in METRICS.items():
        wanted = stacks_of(answer, key)
        assert wanted or metric == 'temporary', metric
        same_stacks('speedscope, %s' % metric, speedscope[names[metric]], wanted)
        same_stacks('pprof, %s' % metric, pprof[kinds[metric]], wanted)
        collapsed = {}
        for line in text_of('collapsed', '--by', metric).splitlines():
            stack, value = line.rsplit(' ', 1)
            collapsed[stack] = int(value)
        same_stacks('collapsed, %s' % metric, collapsed, {';'.join('%s (%s:%d)' % f if f[2] else '%s (%s)' % f[:2] if f[1] else f[0] for f in reversed(s)): v for s, v in wanted.items()})


@case(each=[(s, s) for s in ('service', 'processes', 'sampled', 'children')])
def tables_are_those_of_top(scenario):
    make(scenario)
    answer = top()
    table = rows(text_of('csv'))
    document = json.loads(text_of('json'))
    same('schema', (next(iter(document)), document['schema']), ('schema', 'memlyze.export/1'))
    same('estimated', document.get('estimated'), answer.get('estimated'))
    same('total', [document['total'][k] for k in ('alloc_count', 'alloc_bytes')], [answer['total']['count'], answer['total']['bytes']])
    same('peak', document['peak'], answer['peak'])
    for metric, key in METRICS.items():
        wanted = sorted(s[key] for s in answer['sites'])
        same('csv, %s' % key, sorted(int(r[key]) for r in table), wanted)
        same('json, %s' % key, sorted(s[key] for s in document['stacks']), wanted)
    frames = [(f['function'], f['file'], f['line']) for f in document['frames']]
    by_number = {s['stack']: tuple(frames[i] for i in s['frames']) for s in document['stacks']}
    assert {r['stack'] for r in table} == {str(n) for n in by_number}
    for r in table:
        same('frame of the row', (r['function'], r['file'], int(r['line'])), by_number[int(r['stack'])][0])
        same('frames', r['frames'].count(';') + 1, len(by_number[int(r['stack'])]))
    order = [int(r['live_bytes']) for r in rows(text_of('csv', '--by', 'live-bytes'))]
    same('order', order, sorted(order, reverse=True))


@case(each=[(s, s) for s in ('service', 'processes', 'sampled')])
def events_add_up_to_the_stacks(scenario):
    make(scenario)
    stats = tool('stats')
    live, found = {}, collections.defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    last = collections.Counter()
    for r in rows(text_of('csv', '--rows', 'event')):
        key, weight = (r['process'], r['allocation']), float(r['weight'])
        assert int(r['time_ns']) >= last[r['process']], r
        last[r['process']] = int(r['time_ns'])
        row = found[r['stack']]
        if r['event'] == 'alloc':
            assert key not in live and r['temporary'] == '0', r
            live[key] = r
            row[0] += weight
            row[1] += weight * int(r['size'])
        else:
            born = live.pop(key)
            same('the block of a free', [born[k] for k in ('size', 'stack', 'domain', 'weight')], [r[k] for k in ('size', 'stack', 'domain', 'weight')])
            row[3] += weight * (r['temporary'] == '1')
    for r in live.values():
        found[r['stack']][2] += float(r['weight']) * int(r['size'])
    for r in rows(text_of('csv')):
        same('stack %s' % r['stack'], [round(v) for v in found[r['stack']]], [int(r[k]) for k in ('alloc_count', 'alloc_bytes', 'live_bytes', 'temporary_count')])
    same('live at the end', round(sum(float(r['weight']) * int(r['size']) for r in live.values())), stats['bytes']['live_at_end'])


@case
def windows():
    make('service')
    for ours, theirs in ((['--at', 'warm'], ['--at', 'warm']), (['--from', 'warm', '--until', '80%'], ['--from', 'warm', '--to', '80%']),
                         (['--until', '1s'], ['--to', '1s']), (['--at', 'peak'], ['--at', 'peak'])):
        for metric in ('alloc-bytes', 'live-bytes', 'peak-bytes'):
            wanted = stacks_of(top(*theirs), METRICS[metric])
            _, speedscope = read_speedscope(text_of('speedscope', '--by', metric, *ours))
            same_stacks('%s, %s' % (' '.join(ours), metric), speedscope[{'alloc-bytes': 'allocated', 'live-bytes': 'live', 'peak-bytes': 'live at the peak'}[metric]], wanted)
        for to in FORMATS:
            export(to, *ours)
        live = sum(stacks_of(top(*theirs), 'live_bytes').values())
        same('massif %s' % ours, read_massif(text_of('massif', *ours))[1][-1][1], live)
        same('dhat %s' % ours, sum(p['eb'] for p in read_dhat(text_of('dhat', *ours))['pps']), live)
        same('perfetto %s' % ours, counters(read_perfetto(text_of('perfetto', *ours)), 'heap')[4711][-1][1], live)
    same('@MARK', text_of('collapsed', trace='trace.mlyze@warm'), text_of('collapsed', '--at', 'warm'))


# ---- over time ----

@case
def the_course_of_the_heap():
    make('service')
    stats, gc = tool('stats')['bytes'], tool('gc')
    head, snapshots = read_massif(text_of('massif'))
    peaks = [s for s in snapshots if s[2] == 'peak']
    same('peak of massif', [(round(s[0] * 1e6, -3), s[1]) for s in peaks], [(round(stats['peak_time_ns'], -3), stats['peak'])])
    same('nothing is higher', max(s[1] for s in snapshots), stats['peak'])
    same('end of massif', (snapshots[-1][1], snapshots[-1][2]), (stats['live_at_end'], 'detailed'))
    assert len([s for s in snapshots if s[2] == 'detailed']) >= 4, snapshots
    for ms, size, kind, tree in snapshots:
        if tree:
            same('parts of the heap at %g ms' % ms, sum(c[0] for c in tree[2]), size)
    lines = {c[1].split(': ', 1)[1]: c[0] for c in peaks[0][3][2] if ': ' in c[1]}
    same('the line that makes the peak', lines['build_report (/srv/app/report.py:9)'], 19660800)
    # What stands at a time is what top says of it.
    for ms, size, kind, tree in snapshots[1:-1:9]:
        if kind != 'peak':
            at = '%dns' % (round(ms * 1e6) - 1)
            assert abs(size - top('--by', 'live-bytes', '--at', at)['total']['bytes']) <= 4096, (ms, size)
    document = read_perfetto(text_of('perfetto'))
    heap = counters(document, 'heap')
    same('processes', list(heap), [4711])
    same('highest', max(v for _, v in heap[4711]), stats['peak'])
    same('last', heap[4711][-1][1], stats['live_at_end'])
    same('times rise', [t for t, _ in heap[4711]], sorted(t for t, _ in heap[4711]))
    slices = [e for e in document['traceEvents'] if e['ph'] == 'X']
    same('collections', sorted((round(e['ts'] * 1000), round(e['dur'] * 1000), e['args']['collected']) for e in slices),
         sorted((p['start_ns'], p['duration_ns'], p['collected']) for p in gc['pauses']))
    assert slices and all(e['args']['trigger'] for e in slices), slices
    same('marks', [e['name'] for e in document['traceEvents'] if e['ph'] == 'i'], ['warm'])
    same('names', {e['args']['name'] for e in document['traceEvents'] if e['ph'] == 'M'}, {'python3 service.py --fast', 'MainThread', 'worker-1', 'worker-2'})


@case
def a_process_that_ended_holds_nothing():
    make('children')
    stats = tool('stats')
    _, snapshots = read_massif(text_of('massif'))
    same('peak', [s[1] for s in snapshots if s[2] == 'peak'], [stats['bytes']['peak']])
    heap = counters(read_perfetto(text_of('perfetto')), 'heap')
    ends = sorted((p['end_ns'] or 0, p['pid']) for p in stats['processes'])
    same('children at last', {heap[pid][-1][1] for _, pid in ends[:-1] if pid in heap}, {0})
    last = snapshots[-1][1]
    parent = tool('top', '--by', 'live-bytes', '--process', str(ends[-1][1]))['total']['bytes']
    same('at the end only what runs', last, parent)


@case
def lifetimes_of_dhat():
    make('service')
    export('csv', '--rows', 'event')
    with open('out', newline='') as file:
        events = rows(file.read())
    document = read_dhat(text_of('dhat'))
    born, wanted = {}, collections.Counter()
    most, now = collections.Counter(), collections.Counter()
    site = lambda r: '%s (%s:%s)' % (r['function'], r['file'], r['line'])
    end = int(document['te'])
    stacks = {r['stack']: r['frames'].split(';')[::-1] for r in rows(text_of('csv'))}
    for r in events:
        key, sign = tuple(stacks[r['stack']]), 1 if r['event'] == 'alloc' else -1
        if sign > 0:
            born[r['allocation']] = r
        else:
            wanted[key] += (int(r['time_ns']) - int(born.pop(r['allocation'])['time_ns'])) / 1000
        now[key] += sign * int(r['size'])
        most[key] = max(most[key], now[key])
    for r in born.values():
        wanted[tuple(stacks[r['stack']])] += end - int(r['time_ns']) / 1000
    table = {tuple(document['ftbl'][i] for i in p['fs']): p for p in document['pps']}
    same('stacks', set(table), set(most))
    for key, p in table.items():
        same('most of %s' % (key,), p['mb'], most[key])
        assert abs(p['tl'] - wanted[key]) <= 2 + p['ebk'], (key, p['tl'], wanted[key])
    same('at the peak', sum(p['gb'] for p in table.values()), tool('stats')['bytes']['peak'])


# ---- any trace ----

@case(each=[(s, s) for s in SCENARIOS])
def every_format_of(scenario):
    make(scenario)
    warned = tool('top')['_stderr'].replace('memlyze-top', 'memlyze-export')
    for to in FORMATS:
        same('what is said of the trace, %s' % to, export(to), warned)
    read_speedscope(text_of('speedscope'))
    export('pprof')
    _, _, comments, _ = read_pprof('out')
    for word, there in (('estimated', scenario == 'sampled'), ('lost', scenario == 'lost')):
        same('"%s" in the note' % word, word in comments[0], there)
    read_dhat(text_of('dhat'))
    read_massif(text_of('massif'))
    read_perfetto(text_of('perfetto'))
    rows(text_of('csv'))
    rows(text_of('csv', '--rows', 'event'))
    json.loads(text_of('json'))
    for line in text_of('collapsed').splitlines():
        assert re.fullmatch(r'.+ \d+', line), line


@case
def a_recorded_program():
    record([PYTHON, os.path.join(PROGRAMS, 'exact.py')])
    answer = top()
    _, speedscope = read_speedscope(text_of('speedscope'))
    for name, key in (('allocated', 'alloc_bytes'), ('live', 'live_bytes'), ('live at the peak', 'peak_bytes')):
        same(name, sum(speedscope[name].values()), sum(s[key] for s in answer['sites']))
    export('pprof')
    same_stacks('pprof', read_pprof('out')[1]['inuse_space'], speedscope['live'])
    same_stacks('top', whole(speedscope['live']), stacks_of(answer, 'live_bytes'))
    stats = tool('stats')
    allocations = [r for r in rows(text_of('csv', '--rows', 'event')) if r['event'] == 'alloc']
    same('events', len(allocations), sum(s['alloc_count'] for s in answer['sites']))
    same('peak', max(v for p in counters(read_perfetto(text_of('perfetto')), 'heap').values() for _, v in p), stats['bytes']['peak'])


@case
def a_trace_of_totals():
    program = 'kept = []\nfor i in range(300):\n    kept.append(bytes(1000 + i))\n'
    record([PYTHON, '-c', program], '--snapshots-only')
    answer = top()
    _, speedscope = read_speedscope(text_of('speedscope'))
    same('profiles', list(speedscope), ['allocated', 'allocations', 'live', 'temporary allocations'])
    same_stacks('live', whole(speedscope['live']), stacks_of(answer, 'live_bytes'))
    export('pprof', '--by', 'temporary')
    types, pprof, _, shown = read_pprof('out')
    same('no peak', ('peak_space', 'bytes') in types, False)
    same('shown first', shown, 'temporary_objects')
    same_stacks('inuse', whole(pprof['inuse_space']), stacks_of(answer, 'live_bytes'))
    same('dhat has no lifetimes', read_dhat(text_of('dhat'))['bklt'], False)
    live = tool('top', '--by', 'live-bytes')['total']['bytes']
    _, snapshots = read_massif(text_of('massif'))
    same('massif', (snapshots[-1][1], snapshots[-1][2]), (live, 'detailed'))
    same('its peak', max(s[1] for s in snapshots), answer['peak']['bytes'])
    heap = list(counters(read_perfetto(text_of('perfetto')), 'heap').values())
    same('perfetto', [h[-1][1] for h in heap], [live])
    same('csv', {(r['peak_bytes'], r['peak_count']) for r in rows(text_of('csv'))}, {('', '')})
    same('json', {s['peak_bytes'] for s in json.loads(text_of('json'))['stacks']}, {None})
    for options in (['csv', '--rows', 'event'], ['collapsed', '--by', 'peak-bytes']):
        os.path.exists('out') and os.remove('out')
        said = export(*options, status=2)
        same('one line: %s' % said, said.count('\n'), 1)
        assert 'snapshots' in said and not os.path.exists('out'), said


@case
def a_trace_that_was_cut():
    make('service')
    with open('trace.mlyze', 'rb') as file:
        whole = file.read()
    with open('trace.mlyze', 'wb') as file:
        file.write(whole[:len(whole) * 2 // 3])
    for to in FORMATS:
        assert 'did not finish' in export(to), to
    assert 'damaged' in read_perfetto(text_of('perfetto'))['otherData']['exporter']
    assert json.loads(text_of('json'))['damage']['cut'] is True
    for name in ('missing.mlyze', MEMLYZE):
        for to in FORMATS:
            os.path.exists('out') and os.remove('out')
            said = export(to, trace=name, status=2)
            same('lines: %s' % said, said.count('\n'), 1)
            assert not os.path.exists('out'), to


@case(each=[('no format', [], 'write --to'), ('a time', ['--to', '3s'], 'one of'), ('--by of massif', ['--to', 'massif', '--by', 'live-bytes'], '--by'),
            ('--rows of pprof', ['--to', 'pprof', '--rows', 'event'], '--rows'), ('--by of events', ['--to', 'csv', '--rows', 'event', '--by', 'temporary'], '--by'),
            ('two limits', ['--to', 'csv', '--at', '1s', '--until', '2s'], '--until'), ('over the trace', ['--to', 'csv', '-o', 'trace.mlyze'], 'overwrite'),
            ('a limit too many', ['--to', 'csv', '--until', 'nowhere'], 'nowhere')])
def wrong_usage(options, word):
    make('version1')
    before = open('trace.mlyze', 'rb').read()
    result = execute([MEMLYZE, 'export', 'trace.mlyze'] + options)
    same('exit status', result.returncode, 2)
    assert word in result.stderr and result.stderr.count('\n') == 1 and not result.stdout, result
    same('the trace', open('trace.mlyze', 'rb').read() == before, True)


@case
def memory_does_not_grow_with_events():
    if SLOW > 1:
        raise Skip('the sanitizers keep what was freed')
    used = {}
    for events in (100000, 1500000):
        make('bulk', str(events))
        for options in (['perfetto'], ['csv', '--rows', 'event'], ['dhat'], ['massif']):
            with open(os.devnull, 'w') as out:
                child = subprocess.Popen([os.path.join(BUILD, 'analyzer', 'memlyze-export'), '--to', *options, 'trace.mlyze'], stdout=out, env=clean_env())
                _, status, usage = os.wait4(child.pid, 0)
                child.returncode = status
            same('exit status', status, 0)
            used.setdefault(options[0], []).append(usage.ru_maxrss)
    for to, (small, large) in used.items():
        assert large - small < 6000, '%s: %d KB for 100,000 events, %d for 1,500,000' % (to, small, large)


@case
def resident_memory_beside_the_heap():
    with open('app.py', 'w') as file:
        file.write('import time\nkept = []\nfor n in range(8):\n    kept.append(bytearray(b"x" * 4000000))\n    time.sleep(0.15)\n')
    record([PYTHON, 'app.py'])
    events = json.loads(text_of('perfetto'))['traceEvents']
    seen = [(e['ts'], e['args']['bytes']) for e in events if e['ph'] == 'C' and e['name'] == 'resident']
    stats = tool('stats')
    assert len(seen) >= 3 and seen == sorted(seen, key=lambda s: s[0]), seen
    assert seen[-1][1] - seen[0][1] >= 8000000 and max(b for _, b in seen) >= 20000000, seen
    same('peak', stats['resident']['peak'], max(b for _, b in seen))
    assert re.search(r'^  resident +up to [\d.]+ MiB at ', execute([MEMLYZE, 'stats', 'trace.mlyze']).stdout, re.M)
    make('service')
    same('not known', tool('stats')['resident'], None)


# ---- the viewers themselves ----

@case
def go_tool_pprof():
    go = shutil.which('go')
    if not go or execute([go, 'tool', 'pprof', '-h'], env=dict(os.environ), timeout=300).stderr.count('pprof') < 1:
        raise Skip('no go tool pprof here')
    make('service')
    export('pprof', '--by', 'live-bytes', out='heap.pb.gz')
    answer = top()

    def ask(*options):
        result = execute([go, 'tool', 'pprof', *options, 'heap.pb.gz'], env=dict(os.environ, PPROF_TMPDIR=os.getcwd()), timeout=300)
        same('pprof %s: %s' % (options, result.stderr), result.returncode, 0)
        return result.stdout
    raw = ask('-raw')
    assert 'inuse_space/bytes[dflt]' in raw, raw[:500]
    for metric, kind in (('alloc-bytes', 'alloc_space'), ('live-bytes', 'inuse_space'), ('alloc-count', 'alloc_objects'), ('peak-bytes', 'peak_space')):
        wanted = collections.Counter()
        for stack, value in stacks_of(answer, METRICS[metric]).items():
            wanted[stack[0][0]] += value
        shown = {}
        unit = ['-unit=B'] if 'space' in kind else []
        for line in ask('-top', '-nodecount=1000', '-nodefraction=0', '-sample_index=' + kind, *unit).splitlines():
            found = re.match(r' *(\d+)B? +[\d.]+% +[\d.]+% +\d+B? +[\d.]+%  (.*)', line)
            if found and int(found.group(1)):
                shown[found.group(2).replace(' (inline)', '')] = int(found.group(1))
        same('pprof -top, %s' % kind, shown, dict(wanted))


@case
def ms_print():
    program = shutil.which('ms_print')
    if not program:
        raise Skip('no ms_print here (valgrind)')
    make('service')
    export('massif', out='massif.out')
    result = execute([program, 'massif.out'])
    same('ms_print: ' + result.stderr, (result.returncode, result.stderr), (0, ''))
    stats = tool('stats')['bytes']
    assert '(peak)' in result.stdout and '{:,}'.format(stats['peak']) in result.stdout, result.stdout[:3000]
    assert re.search(r'->\d+\.\d+% \(19,660,800B\) 0x[0-9A-F]+: build_report \(/srv/app/report\.py:9\)', result.stdout), result.stdout
    graph = [line for line in result.stdout.splitlines() if re.match(r' *[\d.]*[ ^|]', line) and '#' in line]
    assert len(graph) >= 15, 'the peak is not in the picture:\n' + result.stdout[:2500]
    for scenario in ('names', 'children', 'sampled', 'empty'):
        make(scenario)
        export('massif', out='massif.out')
        result = execute([program, 'massif.out'])
        same('ms_print, %s' % scenario, (result.returncode, result.stderr), (0, ''))


@case
def the_viewer_of_dhat():
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    viewer = glob.glob('/usr/lib*/valgrind/dh_view.js') + glob.glob('/usr/lib*/*/valgrind/dh_view.js')
    if not chromium or not viewer:
        raise Skip('no Chromium or no dh_view.js (valgrind) here')
    shutil.copy(viewer[0], 'dh_view.js')
    for scenario in ('service', 'names'):
        make(scenario)
        text = text_of('dhat')
        # The page as it is, and what a person does: a file is chosen.
        with open('page.html', 'w', encoding='utf-8') as page:
            page.write('<!DOCTYPE html><meta charset="UTF-8"><script src="dh_view.js"></script><body onload="onLoad(); choose()"><script>function choose() {'
                       'const t = new DataTransfer(); t.items.add(new File([%s], "dhat.json")); gInput.files = t.files; loadFile(); }</script>'
                       % json.dumps(text).replace('</', '<\\/').replace('<!', '<\\u0021'))
        shown = execute([chromium, '--headless', '--no-sandbox', '--disable-gpu', '--user-data-dir=' + os.path.join(os.getcwd(), 'profile'),
                         '--virtual-time-budget=5000', '--dump-dom', 'file://' + os.path.abspath('page.html')], timeout=120 * SLOW).stdout
        plain = html.unescape(re.sub(r'<[^>]*>', '', shown))
        stats = tool('stats')['bytes']
        assert 'Invocation {' in plain and 'Error' not in plain, plain[-1500:]
        assert 'At t-gmax: {:,} bytes (100%)'.format(stats['peak']) in plain, plain[:3000]
        assert 'At t-end:  {:,} bytes'.format(stats['live_at_end']) in plain, plain[:3000]
        if scenario == 'service':
            assert '#1: JSONDecoder.raw_decode (/usr/lib/python3.11/json/decoder.py:353)' in plain, plain[:6000]


@case
def the_schema_of_speedscope():
    try:
        import jsonschema
    except ImportError:
        raise Skip('no jsonschema for this Python')
    npm = shutil.which('npm')
    roots = [os.environ.get('MEMLYZE_SPEEDSCOPE', '')] + ([os.path.join(execute([npm, 'root', '-g']).stdout.strip(), 'speedscope')] if npm else [])
    schemas = [f for r in roots if r for f in glob.glob(os.path.join(r, '**', 'file-format-schema.json'), recursive=True)]
    schemas += glob.glob(os.path.join(SCHEMAS, 'speedscope.json'))
    if not schemas:
        raise Skip("no speedscope here (.ci/setup-ci, npm install -g speedscope, or MEMLYZE_SPEEDSCOPE with its folder)")
    with open(schemas[0]) as file:
        schema = json.load(file)
    for scenario in SCENARIOS:
        make(scenario)
        jsonschema.validate(json.loads(text_of('speedscope')), schema)


run(__name__)
