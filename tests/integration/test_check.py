"""memlyze check: limits, baselines, the limits file, and the formats of CI systems."""
import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree

from harness import MEMLYZE, PYTHON, SCHEMAS, Skip, case, clean_env, execute, lines_of, record, run, same

# What a server does: a cache that is filled, requests that come and go; LEAK is one more kept block for each.
SERVER = '''
import json
UNIT = b'x'
kept = [None] * 4000
cache = {}
def parse(n):
    return json.loads('{"request": [%d, 2, 3], "name": "x"}' % n)
def remember(n):
    kept[n] = UNIT * 50  # @remember
def render(n):
    cache[n % 100] = UNIT * 3000
def handle(n):
    parse(n)
    render(n)
    LEAK
def big():
    return UNIT * 500000  # @big
for n in range(3000): handle(n)
big()
'''


def serve(trace='trace.mlyze', leak=False, options=(), name='server.py', seed=0):
    with open(name, 'w') as file:
        file.write(SERVER.replace('LEAK', 'remember(n)' if leak else 'pass'))
    record([PYTHON, name], *options, trace=trace, env=clean_env(PYTHONHASHSEED=seed))


def check(*arguments, status=0):
    """Its answer; status None: 0 or 1."""
    result = execute([MEMLYZE, 'check', '--json', *arguments])
    status = result.returncode if status is None and result.returncode < 2 else status
    same('exit status of check %s: %s' % (' '.join(arguments), result.stderr), result.returncode, status)
    answer = json.loads(result.stdout)
    same('first key', next(iter(answer)), 'schema')
    same('schema and ok', (answer['schema'], answer['ok']), ('memlyze.check/1', not status))
    for c in answer['checks']:
        same('missing keys', [k for k in ('name', 'ok', 'value', 'limit', 'message') if k not in c], [])
    same('ok is that of all', answer['ok'], all(c['ok'] for c in answer['checks']))
    answer['_failed'] = [c['name'] for c in answer['checks'] if not c['ok']]
    answer['_stderr'] = result.stderr
    return answer


def figures(trace='trace.mlyze'):
    return {name: f['median'] for name, f in check(trace, '--limit', 'peak<=1TB')['figures'].items()}


@case
def figures_are_those_of_the_other_tools():
    serve()
    got = figures()
    stats, top, gc = (json.loads(execute([MEMLYZE, name, '--json', 'trace.mlyze']).stdout) for name in ('stats', 'top', 'gc'))
    same('peak', got['peak'], stats['bytes']['peak'])
    same('live at the end', got['live_at_end'], stats['bytes']['live_at_end'])
    same('allocations', (got['allocs'], got['allocated']), (top['total']['count'], top['total']['bytes']))
    same('temporary', got['temporary'], sum(s['temporary_count'] for s in top['sites']))
    pauses = sorted(p['duration_ns'] for p in gc['pauses'])
    same('pause', got['gc_pause_p99'], pauses[-(-99 * len(pauses) // 100) - 1] if pauses else 0)
    assert 100 * 3033 <= got['leaked'] <= 100 * 3033 + 60000, got


@case
def each_limit_holds_at_its_value_and_fails_below():
    serve()
    got = figures()
    for option, name in (('--max-peak', 'peak'), ('--max-leaked', 'leaked'), ('--max-allocs', 'allocs'), ('--max-growing', 'growing')):
        same(name, check('trace.mlyze', option, str(got[name]))['checks'][0]['value'], got[name])
        if got[name]:
            answer = check('trace.mlyze', option, str(got[name] - 1), status=1)
            same('failed', answer['_failed'], [name])
            assert 'over the limit' in answer['_stderr'] and name in answer['_stderr'], answer['_stderr']
    for name in got:
        unit = 'ns' if name == 'gc_pause_p99' else ''
        check('trace.mlyze', '--limit', '%s<=%d%s' % (name, got[name], unit))
        check('trace.mlyze', '--limit', '%s<%d%s' % (name, got[name], unit), status=1)
    both = check('trace.mlyze', '--max-peak', '1kB', '--max-allocs', '1', '--limit', 'leaked<=1TB', status=1)
    same('all are judged', both['_failed'], ['peak', 'allocs'])


@case
def limits_on_parts_of_a_program():
    serve(leak=True)
    sites = json.loads(execute([MEMLYZE, 'top', '--json', '--group', 'function', '-n', '0', 'trace.mlyze']).stdout)['sites']
    own = [s for s in sites if s['file'].endswith('/server.py')]
    remember = next(s for s in own if s['function'] == 'remember')
    parser = [s for s in sites if s['file'].endswith(('json/decoder.py', 'json/scanner.py', 'json/__init__.py', 'json/encoder.py'))]
    for pattern, metric, wanted in (('__main__.remember', 'alloc-count', remember['alloc_count']), ('__main__.rem*', 'alloc_bytes', remember['alloc_bytes']),
                                    ('__main__', 'alloc-count', sum(s['alloc_count'] for s in own)), ('__main__.*', 'live-bytes', sum(s['live_bytes'] for s in own)),
                                    ('server.py', 'temporary', sum(s['temporary_count'] for s in own)), ('*/server.py', 'peak', sum(s['peak_bytes'] for s in own)),
                                    (os.path.abspath('server.py'), 'allocs', sum(s['alloc_count'] for s in own)), ('json.*', 'allocs', sum(s['alloc_count'] for s in parser)),
                                    ('json/*', 'allocs', sum(s['alloc_count'] for s in parser)), ('no.such', 'allocs', 0), ('__main__.remember', 'growing', remember['live_bytes'])):
        limit = '%s:%s<=%d' % (pattern, metric, wanted)
        same(limit, check('trace.mlyze', '--limit', limit)['checks'][0]['value'], wanted)
        if wanted:
            check('trace.mlyze', '--limit', '%s:%s <= %d' % (pattern, metric, wanted - 1), status=1)
    failed = check('trace.mlyze', '--limit', '__main__:leaked<=100kB', status=1)['checks'][0]
    same('the line that leaks most', (failed['function'], failed['line']), ('render', lines_of('server.py')['remember'] + 2))


@case
def two_recordings_pass_and_one_more_block_for_each_request_does_not():
    for n in range(2):
        serve('old%d.mlyze' % n, seed=n + 1)
    serve('leak.mlyze', leak=True, seed=3)
    check('old0.mlyze', '--save-baseline', 'base.json')
    for baseline in ('old0.mlyze', 'base.json'):
        answer = check('old1.mlyze', '--baseline', baseline)
        names = [c['name'] for c in answer['checks']]
        same('compared', [n for n in ('peak', 'live_at_end', 'leaked', 'allocs', 'allocated') if 'baseline:' + n not in names], [])
        answer = check('leak.mlyze', '--baseline', baseline, status=1)
        assert {'baseline:leaked', 'baseline:growing', 'baseline:growing_functions'} <= set(answer['_failed']), answer['_failed']
        functions = next(c for c in answer['checks'] if c['name'] == 'baseline:growing_functions')
        assert 'server.py remember' in functions['message'] and functions['value'] >= 3000 * 83, functions
        # The sums may be let go, the function may not.
        answer = check('leak.mlyze', '--baseline', baseline, '--tolerance', '1000000%', status=1)
        assert 'baseline:growing_functions' in answer['_failed'], answer['_failed']
    answer = check('leak.mlyze', '--baseline', 'old0.mlyze', status=1)
    live = next(c for c in answer['checks'] if c['name'] == 'baseline:live_at_end')
    if not live['ok']:
        same('the line that grew', (live['function'], live['line']), ('remember', lines_of('server.py')['remember']))
    check('leak.mlyze', '--baseline', 'base.json', '--min-change', '1 GB', '--min-change-count', '1000000000')
    same('better is no failure', check('old0.mlyze', '--baseline', 'leak.mlyze')['ok'], True)


@case
def several_runs_and_their_noise():
    def write(name, runs):
        with open(name, 'w') as file:
            json.dump({'schema': 'memlyze.check/1', 'figures': {'peak': {'runs': runs}}}, file)
    serve()
    peak = figures()['peak']
    write('same.json', [peak] * 5)
    write('tight.json', [int(peak * f) for f in (0.899, 0.9, 0.9, 0.901, 0.9)])
    write('wide.json', [int(peak * f) for f in (0.8, 0.85, 0.9, 0.95, 1.0)])

    def verdict(name, *options):
        return next(c['ok'] for c in check('trace.mlyze', '--baseline', name, *options, status=None)['checks'] if c['name'] == 'baseline:peak')
    same('the same', verdict('same.json'), True)
    same('11 % more than runs that agree', verdict('tight.json'), False)
    same('11 % more than runs that differ by that much', verdict('wide.json'), True)
    same('with more tolerance', verdict('tight.json', '--tolerance', '12%'), True)
    same('both as one series', verdict('tight.json', '--baseline', 'same.json'), True)
    answer = check('trace.mlyze', 'trace.mlyze', 'trace.mlyze', '--limit', 'peak<=%d' % peak)
    same('runs', (answer['figures']['peak']['runs'], answer['figures']['peak']['mad'], answer['traces']), ([peak] * 3, 0, ['trace.mlyze'] * 3))


@case
def a_limit_that_limits_nothing_says_so():
    serve()
    for pattern in ('gone', '__main__.renamed', '*/gone.py', 'gone.*'):
        for metric in ('peak', 'leaked', 'allocs', 'temporary'):
            answer = check('trace.mlyze', '--limit', '%s:%s<=1' % (pattern, metric))
            row = answer['checks'][0]
            same(pattern, (row['ok'], row['unmatched'], row['value'], answer['ok']), (True, True, 0, True))
            assert 'nothing in the trace is of %s' % pattern in row['message'] and 'limits nothing' in answer['_stderr'], answer
    same('a pattern that matches', 'unmatched' in check('trace.mlyze', '--limit', '__main__:peak<=1TB')['checks'][0], False)
    text = execute([MEMLYZE, 'check', 'trace.mlyze', '--limit', 'gone:peak<=1'])
    assert text.returncode == 0 and 'limits nothing' in text.stdout and 'limits nothing' in text.stderr, text


@case
def the_limits_file():
    serve(leak=True)
    with open('memlyze.json', 'w') as file:
        json.dump({'max_peak': '1 GB', 'max_allocs': 100, 'limits': ['__main__.remember:alloc-count<=10'], 'min_change': '1 kB'}, file)
    same('from memlyze.json', check('trace.mlyze', status=1)['_failed'], ['allocs', '__main__.remember:allocs'])
    same('the command line counts', check('trace.mlyze', '--max-allocs', '1000000', status=1)['_failed'], ['__main__.remember:allocs'])
    check('trace.mlyze', '--no-config', '--max-peak', '1GB')
    os.rename('memlyze.json', 'other.json')
    same('--config', len(check('trace.mlyze', '--config', 'other.json', status=1)['checks']), 3)
    for text, said in (('{', 'line 1'), ('[]', 'an object'), ('{"max_paek": 1}', "'max_paek' is not known"), ('{"max_peak": [1]}', 'neither a text nor a number'),
                       ('{"max_peak": "x"}', 'no size'), ('{"limits": [1]}', 'no list'), ('{"limits": ["peak"]}', 'no limit'), ('{"tolerance": 5}', 'no share')):
        with open('memlyze.json', 'w') as file:
            file.write(text)
        result = execute([MEMLYZE, 'check', 'trace.mlyze'])
        same('status of %s' % text, (result.returncode, len(result.stderr.splitlines()), result.stdout), (2, 1, ''))
        assert said in result.stderr, result.stderr


@case
def suppressions():
    serve(leak=True)
    before = figures()
    with open('leaks.supp', 'w') as file:
        file.write('# known\nleak:remember\n')
    answer = check('trace.mlyze', '--suppress', 'leaks.supp', '--limit', '__main__.remember:leaked<=0', '--limit', '__main__.remember:growing<=0')
    same('the rest', before['leaked'] - answer['figures']['leaked']['median'], 3000 * 83)
    same('a file that is not there', execute([MEMLYZE, 'check', 'trace.mlyze', '--suppress', 'missing', '--max-peak', '1']).returncode, 2)


@case
def formats():
    serve(leak=True)
    arguments = ['trace.mlyze', '--max-peak', '1 kB', '--max-allocs', '1000000000', '--limit', '__main__.remember:alloc-count<=10']
    line = lines_of('server.py')['remember']

    def show(name, status=1):
        result = execute([MEMLYZE, 'check', *arguments, '--format', name])
        same('exit status of ' + name, result.returncode, status)
        return result.stdout
    text = execute([MEMLYZE, 'check', *arguments], env=clean_env(COLUMNS=80))
    same('text on stdout only', (text.returncode, text.stderr), (1, ''))
    assert re.search(r'^FAILED  peak\n', text.stdout, re.M) and re.search(r'^ok      allocs\n', text.stdout, re.M) and text.stdout.endswith('2 of 3 checks failed\n'), text.stdout
    same('too wide', [line for line in text.stdout.splitlines() if len(line) > 80], [])
    same('json', json.loads(show('json'))['ok'], False)
    markdown = show('markdown').splitlines()
    same('a row for each', [row.count(' | ') for row in markdown if row.startswith('| **failed**') or row.startswith('| passed')], [4, 4, 4])
    suite = xml.etree.ElementTree.fromstring(show('junit')).find('testsuite')
    same('JUnit', (suite.get('tests'), suite.get('failures'), [c.get('name') for c in suite if c.find('failure') is not None]),
         ('3', '2', ['peak', '__main__.remember:allocs']))
    github = show('github').splitlines()
    same('commands', [row.split(' ')[0] for row in github], ['::error', '::notice', '::error'])
    assert github[2].startswith('::error file=server.py,line=%d,title=memlyze __main__.remember%%3Aallocs::' % line), github[2]
    sarif = json.loads(show('sarif'))
    same('SARIF', (sarif['version'], [r['ruleId'] for r in sarif['runs'][0]['results']]), ('2.1.0', ['peak', '__main__.remember:allocs']))
    where = sarif['runs'][0]['results'][1]['locations'][0]['physicalLocation']
    same('where', (where['artifactLocation']['uri'], where['region']['startLine']), ('server.py', line))
    assert {r['ruleId'] for r in sarif['runs'][0]['results']} <= {r['id'] for r in sarif['runs'][0]['tool']['driver']['rules']}
    assert execute([MEMLYZE, 'check', *arguments, '--format', 'junit', '-o', 'out.xml']).stderr.count('\n') == 2
    same('-o', open('out.xml').read(), show('junit'))
    arguments[2:] = ['1 GB']
    for name in ('text', 'json', 'markdown', 'junit', 'github', 'sarif'):
        assert show(name, status=0).strip(), name


# What grows is allocated by the standard library, for a line of the program.
CALLER = '''
import json, sys
from work import keep
def batch(kept, n):
    for i in range(n):
        keep(kept, i)
kept = []
batch(kept, int(sys.argv[1]))
'''
WORK = '''
import json
def keep(kept, i):
    kept.append(json.dumps({'a': [i, i + 1], 'b': 'x' * 40}, indent=1))  # @dumps
'''


@case
def an_annotation_is_of_a_line_of_the_project():
    os.mkdir('project')
    for name, text in (('app.py', CALLER), ('work.py', WORK)):
        with open('project/' + name, 'w') as file:
            file.write(text)
    line = lines_of('project/work.py')['dumps']
    for turns in (10, 500, 6000):  # the first one compiles work.py
        record([PYTHON, 'app.py', str(turns)], trace='../%d.mlyze' % turns, cwd='project')
    check('500.mlyze', '--save-baseline', 'base.json')

    def show(form, *arguments, cwd='project'):
        result = execute([MEMLYZE, 'check', os.path.abspath('6000.mlyze'), '--no-config', '--format', form, *arguments], cwd=cwd)
        same('exit status: ' + result.stderr, result.returncode, 1)
        return result.stdout
    for baseline in ('base.json', '500.mlyze'):  # functions alone, and stacks
        options = ('--baseline', os.path.abspath(baseline))
        for cwd, path in (('project', 'work.py'), ('.', 'project/work.py'), ('/', 'work.py')):
            rows = {re.search('title=memlyze (.*?)::', row).group(1).replace('%3A', ':'): row for row in show('github', *options, cwd=cwd).splitlines()}
            for name in ('leaked', 'growing', 'growing_functions', 'allocs') + (('live_at_end', 'peak') if baseline == '500.mlyze' else ()):
                row = rows.get('baseline:' + name, '')
                assert row.startswith('::error file=%s,line=%d,title=' % (path, line)), (baseline, cwd, name, row)
                assert 'json/' in row and ', called from %s:%d keep' % (path, line) in row, row
        results = [r for r in json.loads(show('sarif', *options))['runs'][0]['results'] if 'called from' in r['message']['text']]
        where = [r['locations'][0]['physicalLocation'] for r in results]
        same('SARIF', {(w['artifactLocation']['uri'], w['region']['startLine']) for w in where}, {('work.py', line)})
        for form in ('text', 'markdown', 'junit'):
            assert 'called from work.py:%d keep' % line in ' '.join(show(form, *options).split()), form
    row = next(c for c in json.loads(show('json', '--max-growing', '1 kB'))['checks'])
    same('json', (row['function'].rpartition('.')[2], row['called_from']), ('encode', {'function': 'keep', 'file': 'work.py', 'line': line}))


@case
def a_line_without_the_project_stays_what_it_is():
    """Code in an environment below the project is none of it, and what allocates itself was called by nobody."""
    package = os.path.abspath('.venv/lib/python3.11/site-packages')
    os.makedirs(package)
    with open(package + '/dependency.py', 'w') as file:
        file.write('kept = []\ndef keep(n):\n    for i in range(n):\n        kept.append(b"x" * (i % 7 + 2000))  # @keep\n')
    record([PYTHON, '-c', 'import sys; sys.path.insert(0, %r); import dependency; dependency.keep(3000)' % package])
    row = next(c for c in check('trace.mlyze', '--max-leaked', '1 kB', status=1)['checks'])
    same('the dependency', (row['function'], os.path.basename(row['file']), 'called_from' in row), ('keep', 'dependency.py', False))
    assert 'called from' not in row['message'], row
    github = execute([MEMLYZE, 'check', 'trace.mlyze', '--max-leaked', '1 kB', '--format', 'github']).stdout
    assert 'dependency.py,line=%d,' % lines_of(package + '/dependency.py')['keep'] in github, github
    serve(leak=True)
    row = next(c for c in check('trace.mlyze', '--limit', '__main__.remember:growing<=1 kB', status=1)['checks'])
    same('itself', (row['function'], 'called_from' in row, 'called from' in row['message']), ('remember', False, False))


@case
def a_limit_is_told_as_it_was_written():
    serve()
    for typed, said in (('64 MB', 'at most 64 MB (61.0 MiB)'), ('64 MiB', 'at most 64 MiB'), ('1 kB', 'over the limit of 1 kB (0.98 KiB)')):
        result = execute([MEMLYZE, 'check', 'trace.mlyze', '--max-peak', typed], env=clean_env(COLUMNS=200))
        assert re.search(re.escape(said) + '(;|$)', result.stdout, re.M), (said, result.stdout)
    with open('memlyze.json', 'w') as file:
        json.dump({'max_peak': '64 MB', 'max_allocs': 120000000}, file)
    text = execute([MEMLYZE, 'check', 'trace.mlyze', '--format', 'markdown']).stdout
    assert '| 64 MB (61.0 MiB) |' in text and '| 120,000,000 |' in text, text


def reports(name):
    """What check writes in a format: nothing wrong, something wrong, names that need escaping, a cut trace."""
    serve(leak=True)
    with open('trace.mlyze', 'rb') as file, open('cut.mlyze', 'wb') as cut:
        cut.write(file.read()[:-40])
    for arguments in (['trace.mlyze', '--max-peak', '1 GB'], ['trace.mlyze', '--max-peak', '1 kB', '--max-leaked', '1 B', '--limit', '__main__.remember:alloc-count<=10'],
                      ['trace.mlyze', '--limit', 'a&"\'c\x01\u00e4*:alloc-count<=0', '--limit', '*:alloc-count<=1'], ['cut.mlyze', '--max-peak', '1 GB']):
        result = execute([MEMLYZE, 'check', '--no-config', *arguments, '--format', name])
        assert result.returncode in (0, 1) and result.stdout, result
        yield result.stdout


@case
def the_schema_of_junit_reports():
    schema = os.path.join(SCHEMAS, 'junit.xsd')
    if not shutil.which('xmllint') or not os.path.exists(schema):
        raise Skip('no xmllint (Debian: libxml2-utils) or no schema (.ci/setup-ci)')
    for text in reports('junit'):
        with open('report.xml', 'w', encoding='utf-8') as file:
            file.write(text)
        result = execute(['xmllint', '--nonet', '--noout', '--schema', schema, 'report.xml'])
        same(result.stderr + text, result.returncode, 0)


@case
def the_schema_of_sarif():
    schema = os.path.join(SCHEMAS, 'sarif.json')
    try:
        import jsonschema
    except ImportError:
        raise Skip('no jsonschema for this Python (Debian: python3-jsonschema)')
    if not os.path.exists(schema):
        raise Skip('no schema of SARIF (.ci/setup-ci)')
    with open(schema, encoding='utf-8') as file:
        rules = json.load(file)
    validator = jsonschema.validators.validator_for(rules)(rules)
    for text in reports('sarif'):
        same(text, [error.message for error in validator.iter_errors(json.loads(text))], [])


@case
def traces_that_cannot_be_trusted():
    serve()
    with open('trace.mlyze', 'rb') as file:
        whole = file.read()
    with open('cut.mlyze', 'wb') as file:
        file.write(whole[:-40])
    same('a cut trace', check('cut.mlyze', '--max-peak', '1GB', status=1)['_failed'], ['complete'])
    check('cut.mlyze', '--max-peak', '1GB', '--allow-losses')
    with open('static.c', 'w') as file:
        file.write('int main(void) { return 0; }\n')
    subprocess.run(['cc', '-static', '-o', 'static', 'static.c'], check=True)
    record(['./static'], trace='empty.mlyze', status=None)
    result = execute([MEMLYZE, 'check', 'empty.mlyze', '--max-peak', '1GB'])
    same('an empty trace', (result.returncode, result.stdout), (2, ''))
    assert 'an empty trace passes no check' in result.stderr, result.stderr


@case
def a_sampled_trace_is_judged_beyond_its_error():
    serve(options=('--sample-rate', '0.05'), leak=True)
    answer = check('trace.mlyze', '--max-allocs', '1000000000')
    allocs = answer['figures']['allocs']
    assert answer['estimated'] and allocs['error'] > 0, answer['figures']
    near = check('trace.mlyze', '--max-allocs', str(int(allocs['median'] - allocs['error'] / 2)))
    assert 'not judged' in near['checks'][0]['message'], near['checks']
    check('trace.mlyze', '--max-allocs', str(int(allocs['median'] - 2 * allocs['error'])), status=1)


@case
def at_an_instant():
    serve()
    half, end = (check('trace.mlyze' + at, '--max-peak', '1GB')['figures'] for at in ('@50%', ''))
    assert half['allocs']['median'] < end['allocs']['median'], (half, end)
    same('a name that is not there', execute([MEMLYZE, 'check', 'trace.mlyze@nothing', '--max-peak', '1GB']).returncode, 2)


@case
def wrong_usage():
    serve()
    for arguments, said in (([], 'no trace given'), (['trace.mlyze'], 'nothing to check'), (['trace.mlyze', '--max-peak', 'x'], 'no size'),
                            (['trace.mlyze', '--max-allocs', '-1'], 'no number'), (['trace.mlyze', '--limit', 'peak'], 'no limit'),
                            (['trace.mlyze', '--limit', 'paek<=1'], 'no metric'), (['trace.mlyze', '--limit', 'x:gc_pause_p99<=1ms'], 'takes no pattern'),
                            (['trace.mlyze', '--limit', 'gc_pause_p99<=1MB'], 'no duration'), (['trace.mlyze', '--limit', 'peak<='], 'no size'),
                            (['trace.mlyze', '--baseline', 'missing'], 'missing'), (['trace.mlyze', '--baseline', 'server.py'], 'neither a trace nor JSON'),
                            (['trace.mlyze', '--baseline', 'empty.json'], 'no baseline'), (['trace.mlyze', '--max-peak', '1', '--tolerance', '5'], 'no share'),
                            (['trace.mlyze', '--save-baseline', 'trace.mlyze'], 'overwrite'), (['trace.mlyze', '--max-peak', '1', '-o', 'trace.mlyze'], 'overwrite'),
                            (['trace.mlyze', '--config', 'missing.json'], 'missing.json'), (['trace.mlyze', 'missing.mlyze', '--max-peak', '1'], 'missing.mlyze')):
        with open('empty.json', 'w') as file:
            file.write('{}')
        result = execute([MEMLYZE, 'check', *arguments])
        same('exit status of %s: %s' % (arguments, result.stderr), (result.returncode, result.stdout), (2, ''))
        same('lines on stderr: ' + result.stderr, len(result.stderr.splitlines()), 1)
        assert said in result.stderr and result.stderr.startswith('memlyze-check: '), result.stderr


run(__name__)
