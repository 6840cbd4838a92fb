"""memlyze diff and flame --diff: two versions of a program, two instants of one, limits."""
import json
import os
import re
import subprocess
import xml.etree.ElementTree

from harness import MEMLYZE, PYTHON, PYTHONS, case, clean_env, execute, lines_of, record, run, same

OLD = '''
import sys
UNIT = b'x'
kept, others = [None] * 1000, [None] * 1000
def grows(n):
    kept[n] = UNIT * 1000  # @grows
def work(turns):
    for n in range(turns):
        grows(n)
        others[n] = UNIT * 2000  # @own
def goes():
    kept[700] = UNIT * 77000  # @goes
def shrinks(turns):
    for n in range(turns): UNIT * 5000  # @shrinks
def steady():
    kept[800] = UNIT * 3000  # @steady
def run(turns):
    work(turns)
    goes()
    shrinks(50)
    steady()
run(100)
'''
# Lines are added above, between and below; a function is gone, another one came.
NEW = OLD.replace('import sys', '# one line\n# another\nimport sys').replace('def goes', '# a third\n\ndef comes').replace('77000  # @goes', '66000  # @comes') \
    .replace('    goes()', '    comes()  # and some\n').replace('run(100)', 'run(300)').replace('shrinks(50)', 'shrinks(10)')
BLOCK = 33  # bytes of an empty bytes object


def versions(*options, python=PYTHON):
    for folder, text in (('old', OLD), ('new', NEW)):
        os.mkdir(folder)
        with open(folder + '/app.py', 'w') as file:
            file.write(text)
        record([python, folder + '/app.py'], *options, trace=folder + '.mlyze', env=clean_env(PYTHONHASHSEED=0))


def diff(*arguments, status=0):
    result = execute([MEMLYZE, 'diff', '--json', *arguments])
    same('exit status of diff %s: %s' % (' '.join(arguments), result.stderr), result.returncode, status)
    answer = json.loads(result.stdout)
    same('first key', next(iter(answer)), 'schema')
    same('schema', answer['schema'], 'memlyze.diff/1')
    for site in answer['sites']:
        missing = [k for k in ('function', 'file', 'line', 'language', 'before', 'after', 'delta', 'status', 'stack') if k not in site]
        same('missing keys', missing, [])
        same('delta', site['delta'], site['after'] - site['before'])
        wanted = 'new' if not site['before'] else 'gone' if not site['after'] else 'grew' if site['delta'] > 0 else 'shrank'
        same('status of %s' % site['function'], site['status'], wanted)
    same('largest first', [abs(s['delta']) for s in answer['sites']], sorted((abs(s['delta']) for s in answer['sites']), reverse=True))
    answer['_stderr'] = result.stderr
    return answer


def by_line(answer):
    """{(function, file, line of the trace it is in)}: site, of our program."""
    return {(s['function'], os.path.relpath(s['file']), s['line']): s for s in answer['sites'] if s['file'].endswith('/app.py')}


@case(each=PYTHONS)
def moved_lines_are_the_same_lines(python):
    versions(python=python)
    old, new = lines_of('old/app.py'), lines_of('new/app.py')
    for arguments in ([], ['--group', 'line']):
        answer = diff('old.mlyze', 'new.mlyze', *arguments)
        same('by', (answer['by'], answer['group']), ('alloc-bytes', arguments[1] if arguments else 'stack'))
        sites = by_line(answer)
        got = {f: (s['status'], s['delta'], s['after_count'] - s['before_count']) for (f, _, _), s in sites.items() if f not in ('<module>', 'run')}
        work = [s for (f, _, line), s in sites.items() if (f, line) == ('work', new['own'])]
        same('own', [(s['status'], s['delta'], s['moved_from']['line']) for s in work], [('grew', 200 * (2000 + BLOCK), old['own'])])
        got.pop('work')  # its loop makes numbers, too
        same('the sites', got, {'grows': ('grew', 200 * (1000 + BLOCK), 200), 'goes': ('gone', -77000 - BLOCK, -1), 'comes': ('new', 66000 + BLOCK, 1),
                                'shrinks': ('shrank', -40 * (5000 + BLOCK), -40)})
        grows = sites['grows', 'new/app.py', new['grows']]
        same('was', (os.path.relpath(grows['moved_from']['file']), grows['moved_from']['line']), ('old/app.py', old['grows']))
        assert ('goes', 'old/app.py', old['goes']) in sites and ('comes', 'new/app.py', new['comes']) in sites
        statuses = [s['status'] for s in answer['sites']]
        for status in ('new', 'gone', 'grew', 'shrank'):
            same('sites counted as ' + status, answer['statuses'][status]['sites'], statuses.count(status))
        assert answer['statuses']['same']['sites'] > 100
        total = answer['total']
        same('the differences sum up', sum(s['delta'] for s in answer['sites']), total['delta'])
        for side, trace in (('before', 'old.mlyze'), ('after', 'new.mlyze')):
            top = json.loads(execute([MEMLYZE, 'top', '--json', trace]).stdout)
            same('total ' + side, (total[side], total[side + '_count']), (top['total']['bytes'], top['total']['count']))


@case
def every_metric_is_that_of_top():
    versions()
    for metric, key in (('alloc-bytes', 'alloc_bytes'), ('alloc-count', 'alloc_count'), ('live-bytes', 'live_bytes'), ('peak-bytes', 'peak_bytes'),
                        ('temporary', 'temporary_count')):
        answer = diff('old.mlyze', 'new.mlyze', '--by', metric, '--group', 'function')
        same('by', answer['by'], metric)
        for side, trace in (('before', 'old.mlyze'), ('after', 'new.mlyze')):
            wanted = {s['function']: s[key] for s in json.loads(execute([MEMLYZE, 'top', '--json', '--group', 'function', trace]).stdout)['sites']}
            for site in answer['sites']:
                if site['function'] in ('grows', 'work', 'goes', 'comes', 'shrinks'):
                    same('%s of %s %s' % (metric, site['function'], side), site[side], wanted.get(site['function'], 0))
    for group in ('line', 'file', 'module'):
        answer = diff('old.mlyze', 'new.mlyze', '--group', group)
        same('the differences sum up by ' + group, sum(s['delta'] for s in answer['sites']), answer['total']['delta'])


@case
def the_text():
    versions()
    for columns in (60, 80, 120):
        for options in ([], ['--group', 'stack'], ['--by', 'alloc-count', '--group', 'file'], ['-n', '2']):
            shown = execute([MEMLYZE, 'diff', 'old.mlyze', 'new.mlyze', *options], env=clean_env(COLUMNS=columns))
            same('exit status and stderr', (shown.returncode, shown.stderr), (0, ''))
            same('lines too wide', [line for line in shown.stdout.splitlines() if len(line) > columns], [])
    text = execute([MEMLYZE, 'diff', 'old.mlyze', 'new.mlyze'], env=clean_env(COLUMNS=120)).stdout
    head = text.splitlines()[:4]
    assert re.match(r'\+\d+ KiB allocated \(\+[\d.]+%\)$', head[0]), head
    assert re.match(r'  before  .* in old\.mlyze$', head[1]) and re.match(r'  after   .* in new\.mlyze$', head[2]), head
    assert re.match(r'\d+ new, \d+ gone, \d+ grew, \d+ shrank, \d+ the same$', head[3]), head
    assert re.search(r'\+\d+ KiB .* grew +grows +new/app.py:%d +was line %d\n' % (lines_of('new/app.py')['grows'], lines_of('old/app.py')['grows']), text), text
    assert 'steady' not in text, text
    assert '\x1b[31m' in execute([MEMLYZE, 'diff', 'old.mlyze', 'new.mlyze', '--color=always']).stdout
    filtered = diff('old.mlyze', 'new.mlyze', '--filter', r'__main__\.(goes|comes) ')
    same('filtered', sorted(s['function'] for s in filtered['sites']), ['comes', 'goes'])
    same('the total is theirs', filtered['total']['delta'], -11000)
    same('-n', len(diff('old.mlyze', 'new.mlyze', '-n', '3')['sites']), 3)


@case
def limits():
    versions()
    total = diff('old.mlyze', 'new.mlyze')['total']
    for options, status in ((['--fail-over', str(total['delta'])], 0), (['--fail-over', str(total['delta'] - 1)], 1), (['--fail-over', '1 GB'], 0),
                            (['--fail-over', '1%'], 1), (['--fail-over', '400.5%'], 0), (['--fail-over', '1kB', '--filter', 'goes|comes'], 0),
                            (['--fail-site-over', '100 kB'], 1), (['--fail-site-over', '1 MB'], 0), (['--by', 'alloc-count', '--fail-over', '100'], 1),
                            (['--by', 'alloc-count', '--fail-site-over', '330'], 0), (['--by', 'alloc-count', '--fail-site-over', '199'], 1)):
        answer = diff('old.mlyze', 'new.mlyze', *options, status=status)
        same('ok of %s' % options, answer['ok'], not status)
        same('reasons on stderr', 'more than --fail' in answer['_stderr'], bool(status))
    same('the other way round it shrank', diff('new.mlyze', 'old.mlyze', '--fail-over', '0')['ok'], True)
    reason = execute([MEMLYZE, 'diff', 'old.mlyze', 'new.mlyze', '--fail-site-over', '300k'])
    same('text exits alike', reason.returncode, 1)
    assert re.match(r'memlyze-diff: new\.mlyze: work \(new/app\.py:\d+\) allocated \+\d+ KiB \(from .* to .*\), more than --fail-site-over 300k\n$', reason.stderr), reason.stderr
    record(['/bin/true'], trace='empty.mlyze', status=None)
    for wrong in (['--fail-over', 'x'], ['--fail-over', '-1'], ['--fail-over', '%'], ['--fail-site-over', '5%'], ['--fail-over', '']):
        result = execute([MEMLYZE, 'diff', 'old.mlyze', 'new.mlyze', *wrong])
        same('status of %s' % wrong, (result.returncode, len(result.stderr.splitlines()), result.stdout), (2, 1, ''))


@case
def a_trace_of_nothing_passes_no_limit():
    versions()
    with open('static.c', 'w') as file:
        file.write('int main(void) { return 0; }\n')
    subprocess.run(['cc', '-static', '-o', 'static', 'static.c'], check=True)
    record(['./static'], trace='empty.mlyze', status=None)
    same('without a limit', execute([MEMLYZE, 'diff', 'old.mlyze', 'empty.mlyze']).returncode, 0)
    result = execute([MEMLYZE, 'diff', 'old.mlyze', 'empty.mlyze', '--fail-over', '1 GB'])
    same('with one', result.returncode, 2)
    assert 'an empty trace passes no limit' in result.stderr, result.stderr


@case
def two_instants_of_one_trace():
    # memlyze itself is not to be traced: one built with a sanitizer lets no preloaded library come first.
    program = '''
import subprocess, os
untraced = {k: v for k, v in os.environ.items() if k != 'LD_PRELOAD'}
UNIT = b'x'
kept = [None] * 100
def first(n): kept[n] = UNIT * 1000
def second(n): kept[50 + n] = UNIT * 2000
def control(*order): subprocess.run([os.environ['MEMLYZE'], 'control', '--pid', str(os.getpid()), *order], check=True, stdout=subprocess.DEVNULL, env=untraced)
control('--mark', 'start')
for n in range(40): first(n)
control('--snapshot', 'middle')
for n in range(30): second(n)
kept[:10] = [None] * 10
control('--mark', 'late')
'''
    with open('instants.py', 'w') as file:
        file.write(program)
    record([PYTHON, '-I', 'instants.py'], '--no-follow', env=clean_env(MEMLYZE=MEMLYZE))
    counts = lambda *arguments: {s['function']: (s['status'], s['before_count'], s['after_count']) for s in diff(*arguments, '--group', 'function')['sites']
                                 if s['function'] in ('first', 'second')}
    whole = {'first': ('new', 0, 40)}
    same('start to middle', counts('trace.mlyze@start', 'trace.mlyze@middle'), whole)
    same('middle to late', counts('trace.mlyze@middle', '@late'), {'first': ('shrank', 40, 30), 'second': ('new', 0, 30)})
    same('backwards', counts('trace.mlyze@late', '@middle'), {'first': ('grew', 30, 40), 'second': ('gone', 30, 0)})
    same('to the end', counts('trace.mlyze@middle', '@end'), {'first': ('shrank', 40, 30), 'second': ('new', 0, 30)})
    same('from the whole', counts('trace.mlyze', 'trace.mlyze@middle')['second'], ('gone', 30, 0))
    answer = diff('trace.mlyze@start', '@middle')
    same('instants compare what is live', (answer['by'], answer['before']['at'], answer['after']['at']), ('live-bytes', 'start', 'middle'))
    text = execute([MEMLYZE, 'diff', 'trace.mlyze@start', '@middle']).stdout
    assert re.search(r'KiB live \(.*\n  before .* in trace\.mlyze at start\n  after .* in trace\.mlyze at middle\n', text), text
    same('the same instant twice', diff('trace.mlyze@late', '@late')['sites'], [])
    missing = execute([MEMLYZE, 'diff', 'trace.mlyze@start', '@nothing'])
    same('a name that is not there', (missing.returncode, missing.stdout), (2, ''))
    assert missing.stderr.rstrip().endswith('its names: start, middle, late'), missing.stderr


@case
def totals_of_snapshots():
    # memlyze itself is not to be traced: one built with a sanitizer lets no preloaded library come first.
    program = '''
import subprocess, os
untraced = {k: v for k, v in os.environ.items() if k != 'LD_PRELOAD'}
kept = [None] * 100
UNIT = b'x'
def first(n): kept[n] = UNIT * 1000
def second(n): kept[50 + n] = UNIT * 2000
def snapshot(name): subprocess.run([os.environ['MEMLYZE'], 'control', '--pid', str(os.getpid()), '--snapshot', name], check=True, stdout=subprocess.DEVNULL, env=untraced)
snapshot('start')
for n in range(40): first(n)
snapshot('middle')
for n in range(30): second(n)
snapshot('late')
'''
    with open('snapshots.py', 'w') as file:
        file.write(program)
    record([PYTHON, '-I', 'snapshots.py'], '--no-follow', '--snapshots-only', env=clean_env(MEMLYZE=MEMLYZE))
    for points, wanted in ((('start', 'late'), {'first': ('new', 0, 40), 'second': ('new', 0, 30)}), (('middle', 'late'), {'second': ('new', 0, 30)})):
        answer = diff('trace.mlyze@' + points[0], '@' + points[1], '--fail-over', '1 GB')
        same('from %s to %s' % points, {s['function']: (s['status'], s['before_count'], s['after_count']) for s in answer['sites'] if s['function'] in ('first', 'second')}, wanted)
    same('a limit', diff('trace.mlyze@start', '@late', '--fail-site-over', '50 kB', status=1)['ok'], False)
    unknown = execute([MEMLYZE, 'diff', '--by', 'peak-bytes', 'trace.mlyze@start', '@late'])
    same('the peak is not known', (unknown.returncode, unknown.stdout), (2, ''))


@case
def sampled_traces_say_how_sure_they_are():
    for name, turns in (('old', 20000), ('new', 20200), ('more', 30000)):
        with open(name + '.py', 'w') as file:
            file.write('UNIT = b"x"\ndef f(n): UNIT * (n %% 100 + 100)\nfor n in range(%d): f(n)\n' % turns)
        record([PYTHON, '-I', name + '.py'], '--sample-rate', '0.05', trace=name + '.mlyze', env=clean_env(PYTHONHASHSEED=0))
    f = lambda answer: next(s for s in answer['sites'] if s['function'] == 'f')
    answer = diff('old.mlyze', 'new.mlyze', '--by', 'alloc-count', '--fail-over', '10', '--fail-site-over', '10')
    same('estimated', answer['estimated'], True)
    if any(s['function'] == 'f' for s in answer['sites']):
        site = f(answer)
        same('within the noise', (site['within_noise'], abs(site['delta'] - 200) <= site['delta_error']), (True, True))
    answer = diff('old.mlyze', 'more.mlyze', '--by', 'alloc-count', '--fail-site-over', '1000', status=1)
    site = f(answer)
    same('beyond the noise', (site['within_noise'], abs(site['delta'] - 10000) <= site['delta_error']), (False, True))
    assert ' ~' not in execute([MEMLYZE, 'diff', 'old.mlyze', 'more.mlyze', '-n', '1']).stdout
    assert '~ within the noise of the samples' in execute([MEMLYZE, 'diff', 'old.mlyze', 'new.mlyze', '-n', '0']).stdout


@case
def depths_that_differ_are_told():
    versions('--max-stack-depth', '3')
    record([PYTHON, 'new/app.py'], '--max-stack-depth', '2', trace='new.mlyze')
    assert 'a depth of 3 before and of 2 after' in diff('old.mlyze', 'new.mlyze')['_stderr']
    same('by line it does not matter', diff('old.mlyze', 'new.mlyze', '--group', 'line')['_stderr'], '')


@case
def wrong_usage():
    versions()
    for arguments, said in ((['old.mlyze'], 'one more trace is needed; usage: memlyze diff'), ([], 'no trace given'),
                            (['old.mlyze', 'new.mlyze', 'old.mlyze'], 'at most 2 traces'), (['old.mlyze', 'missing.mlyze'], 'missing.mlyze'),
                            (['old/app.py', 'new.mlyze'], 'old/app.py'), (['old.mlyze', 'new.mlyze', '--process', '1'], 'no process 1'),
                            (['old.mlyze', 'new.mlyze', '--filter', '('], 'no regular expression'), (['old.mlyze', '@'], '@'),
                            (['old.mlyze', 'new.mlyze', '-o', 'old.mlyze'], 'overwrite the trace'), (['old.mlyze', 'new.mlyze', '-o', 'new.mlyze'], 'overwrite the trace'),
                            (['old.mlyze', 'new.mlyze', '--group', 'thread'], 'line|function')):
        result = execute([MEMLYZE, 'diff', *arguments])
        same('exit status of %s' % arguments, (result.returncode, result.stdout), (2, ''))
        same('lines on stderr', len(result.stderr.splitlines()), 1)
        assert said in result.stderr and result.stderr.startswith('memlyze-diff: '), result.stderr
    pids = [json.loads(execute([MEMLYZE, 'stats', '--json', t]).stdout)['pid'] for t in ('old.mlyze', 'new.mlyze')]
    same('a process of each', diff('old.mlyze', 'new.mlyze', '--process', '%d,%d' % tuple(pids))['total'], diff('old.mlyze', 'new.mlyze')['total'])


@case
def the_flame_graph_of_a_difference():
    versions()
    svg = execute([MEMLYZE, 'flame', 'new.mlyze', '--diff', 'old.mlyze', '--by', 'alloc-bytes']).stdout
    root = xml.etree.ElementTree.fromstring(svg)
    space = '{http://www.w3.org/2000/svg}'
    boxes = {}
    for box in root.find(".//*[@id='frames']"):
        name = box.find(space + 'text').text
        color = box.find(space + 'rect').get('fill')
        boxes[name] = (int(color[1:3], 16) - int(color[5:7], 16), box.find(space + 'title').text, float(box.get('data-w')))
    new, old = lines_of('new/app.py'), lines_of('old/app.py')
    grows, goes = boxes['grows app.py:%d' % new['grows']], boxes['goes app.py:%d' % old['goes']]
    steady, shrinks = boxes['steady app.py:%d' % new['steady']], boxes['shrinks app.py:%d' % new['shrinks']]
    assert grows[0] > 80 and goes[0] < -80 and shrinks[0] < -80 and abs(steady[0]) < 20, (grows, goes, shrinks, steady)
    assert re.search(r'\n101 KiB allocated before, 303 KiB after: \+202 KiB$', grows[1]) or re.search(r'allocated before, 3\d\d KiB after: \+2\d\d KiB$', grows[1]), grows
    same('all boxes lie within the whole', [n for n, b in boxes.items() if b[2] > 1], [])
    assert 'allocated: ' in svg and 'in old.mlyze' in svg and 'in new.mlyze' in svg and 'red: more, blue: less' in svg
    for options in (['--inverted'], ['--reverse'], ['--by', 'alloc-count'], ['--by', 'peak-bytes'], ['--from', '10%', '--to', '90%']):
        xml.etree.ElementTree.fromstring(execute([MEMLYZE, 'flame', 'new.mlyze', '--diff', 'old.mlyze', *options]).stdout)
    point = execute([MEMLYZE, 'flame', 'new.mlyze', '--diff', '@50%']).stdout
    assert 'live: ' in point and 'new.mlyze at 50%' in point
    for wrong, said in (('missing.mlyze', 'missing.mlyze'), ('old/app.py', 'old/app.py'), ('@nothing', 'its names')):
        result = execute([MEMLYZE, 'flame', 'new.mlyze', '--diff', wrong])
        same('exit status of %s' % wrong, (result.returncode, result.stdout), (2, ''))
        assert said in result.stderr, result.stderr
    same('over the base', execute([MEMLYZE, 'flame', 'new.mlyze', '--diff', 'old.mlyze', '-o', 'old.mlyze']).returncode, 2)


run(__name__)
