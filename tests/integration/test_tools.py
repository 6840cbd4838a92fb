"""The tools as users and scripts know them: options as documented, the JSON keys of the contract, the exit statuses."""
import json
import os
import re
import xml.etree.ElementTree

from harness import BUILD, MEMLYZE, PROGRAMS, PYTHON, TESTS, TOOLS, case, clean_env, execute, record, run, same, tool

MAN = os.path.join(os.path.dirname(TESTS), 'docs', 'man')
PROGRAM = os.path.join(PROGRAMS, 'exact.py')
OPTION = re.compile(r'(?<![\w-])(--?[a-zA-Z][a-z-]*)')


def options_of(text):
    """Options at the beginning of their lines, as `  -o, --output FILE`."""
    found = set()
    for line in text.splitlines():
        if re.match(r'\s{2,6}-', line):
            head = re.split(r'\s{2,}', line.strip())[0]
            found.update(OPTION.findall(head))
    return found


@case(each=[(name, name) for name in ('record', 'control', 'diff', 'check', 'export', 'verify', 'annotate') + TOOLS])
def help_and_manual_name_the_same_options(name):
    text = execute([MEMLYZE, name, '--help'])
    same('exit status', text.returncode, 0)
    same('stderr', text.stderr, '')
    if name not in ('record', 'control'):
        same('lines too wide', [line for line in text.stdout.splitlines() if len(line) > 80], [])
    same('the same through help', execute([MEMLYZE, 'help', name]).stdout, text.stdout)
    with open(os.path.join(MAN, 'memlyze-%s.1.scd' % name), encoding='utf-8') as file:
        manual = file.read()
    documented = set()
    for line in manual.splitlines():
        if re.match(r'\*-', line):
            documented.update(OPTION.findall(line.replace('*', ' ')))
    offered = options_of(text.stdout)
    assert len(offered) >= 5, offered
    same('options that only the help names', offered - documented, set())
    same('options that only the manual names', documented - offered, set())


@case(each=[(name, name) for name in ('record', 'control', 'diff', 'check', 'export', 'verify', 'annotate') + TOOLS])
def version_and_wrong_options(name):
    shown = execute([MEMLYZE, name, '--version'])
    assert shown.returncode == 0 and re.search(r'\d+\.\d+\.\d+', shown.stdout), shown
    wrong = execute([MEMLYZE, name, '--no-such-option'])
    same('exit status', wrong.returncode, 2)
    assert wrong.stderr.strip() and not wrong.stdout, wrong


@case(each=[(name, name) for name in TOOLS])
def input_that_is_no_trace(name):
    with open('text.mlyze', 'w') as file:
        file.write('not a trace\n' * 100)
    for path in ('text.mlyze', 'missing.mlyze', '.', '/dev/null'):
        result = execute([MEMLYZE, name, path])
        same('exit status of %s %s' % (name, path), result.returncode, 2)
        lines = result.stderr.strip().splitlines()
        same('lines on stderr about ' + path, len(lines), 1)
        assert lines[0].startswith('memlyze-%s: ' % name) and path in lines[0], lines[0]


SITE = ('function', 'file', 'line', 'language')
KEYS = {
    'stats': ('command', 'pid', 'duration_ns', 'complete', 'sample_rate', 'max_stack_depth', 'python_version', 'settings', 'events', 'bytes',
              'threads', 'processes'),
    'top': ('total', 'sites'),
    'leaks': ('total', 'leaks'),
    'gc': ('generations', 'pauses', 'triggers'),
}
INNER = {
    'stats': {'events': ('written', 'dropped', 'allocs', 'frees', 'gc', 'marks', 'snapshots'),
              'bytes': ('allocated', 'freed', 'live_at_end', 'peak', 'peak_time_ns'),
              'threads': ('tid', 'name', 'process', 'events', 'dropped', 'blocked_ns'),
              'processes': ('pid', 'parent', 'command', 'python_version', 'start_ns', 'end_ns', 'events')},
    'top': {'total': ('count', 'bytes'),
            'sites': SITE + ('alloc_count', 'alloc_bytes', 'live_count', 'live_bytes', 'peak_bytes', 'temporary_count', 'stack')},
    'leaks': {'total': ('count', 'bytes'),
              'leaks': ('function', 'file', 'line', 'count', 'bytes', 'first_ns', 'last_ns', 'grade', 'stack')},
    'gc': {'generations': ('generation', 'count', 'collected', 'uncollectable', 'pause_ns'),
           'pauses': ('start_ns', 'duration_ns', 'generation', 'collected', 'stack'),
           'triggers': ('function', 'file', 'line', 'count', 'pause_ns')},
}


@case(each=[(name, name) for name in KEYS])
def json_keys(name):
    record([PYTHON, PROGRAM])
    answer = tool(name)
    same('schema', re.sub(r'\d+$', 'N', answer['schema']), 'memlyze.%s/N' % name)
    same('missing keys', [k for k in KEYS[name] if k not in answer], [])
    for key, wanted in INNER[name].items():
        value = answer[key]
        for item in (value if isinstance(value, list) else [value]):
            same('missing keys of ' + key, [k for k in wanted if k not in item], [])
        assert value, '%s is empty' % key
    if name == 'gc':
        same('pause_ns', [k for k in ('total', 'min', 'p50', 'p90', 'p99', 'max') if k not in answer['generations'][0]['pause_ns']], [])
    if name == 'stats':
        e = answer['events']
        same('written', e['written'], e['allocs'] + e['frees'] + e['gc'] + e['marks'] + e['snapshots'])
        b = answer['bytes']
        same('live at the end', b['allocated'] - b['freed'], b['live_at_end'])
        assert b['peak'] >= b['live_at_end'] and 0 < b['peak_time_ns'] <= answer['duration_ns'], b
    if name == 'top':
        same('the sites sum up to the total', sum(s['alloc_bytes'] for s in answer['sites']), answer['total']['bytes'])
        same('largest first', [s['alloc_bytes'] for s in answer['sites']], sorted((s['alloc_bytes'] for s in answer['sites']), reverse=True))


@case
def tools_agree_with_each_other():
    record([PYTHON, PROGRAM])
    stats, top, leaks, gc = (tool(name) for name in ('stats', 'top', 'leaks', 'gc'))
    same('allocated bytes', top['total']['bytes'], stats['bytes']['allocated'])
    same('live at the end', sum(s['live_bytes'] for s in top['sites']), stats['bytes']['live_at_end'])
    same('leaked', leaks['total']['bytes'], stats['bytes']['live_at_end'])
    same('peak', sum(s['peak_bytes'] for s in top['sites']), stats['bytes']['peak'])
    same('collections', sum(g['count'] for g in gc['generations']), len(gc['pauses']))
    for group in ('line', 'function', 'file', 'module', 'stack', 'thread', 'process', 'domain'):
        grouped = tool('top', '--group', group)['sites']
        # Address space that mmap reserved is shown as a domain, and is no part of the totals.
        heap = [s for s in grouped if group != 'domain' or s['name'] != 'mmap']
        same('total by ' + group, sum(s['alloc_bytes'] for s in heap), top['total']['bytes'])


@case
def options_before_and_after_the_file():
    record([PYTHON, PROGRAM])
    before = execute([MEMLYZE, 'top', '-n', '3', '--json', 'trace.mlyze']).stdout
    same('after', execute([MEMLYZE, 'top', 'trace.mlyze', '--json', '-n', '3']).stdout, before)
    execute([MEMLYZE, 'top', 'trace.mlyze', '--json', '-n', '3', '-o', 'out.json'])
    same('-o', open('out.json').read(), before)


@case
def a_report_does_not_overwrite_its_trace():
    record([PYTHON, PROGRAM])
    os.symlink('trace.mlyze', 'other')
    with open('trace.mlyze', 'rb') as file:
        before = file.read()
    for name in TOOLS:
        result = execute([MEMLYZE, name, 'trace.mlyze', '-o', 'other'])
        same('exit status of ' + name, result.returncode, 2)
        assert 'overwrite the trace' in result.stderr, result.stderr
    with open('trace.mlyze', 'rb') as file:
        same('the trace', file.read() == before, True)


@case(each=[(str(n), n) for n in (60, 80, 120)])
def tables_fit_the_terminal(columns):
    record([PYTHON, PROGRAM])
    env = clean_env(COLUMNS=str(columns))
    for command in ('top', 'gc'):
        out = execute([MEMLYZE, command, 'trace.mlyze'], env=env).stdout
        same('lines too wide, ' + command, [line for line in out.splitlines() if len(line) > columns], [])


@case
def record_s_own_words():
    result = record([PYTHON, PROGRAM], quiet=False)
    for word in ('allocations_seen', 'allocations_traced', 'events_written', 'events_dropped', 'blocked', 'bytes_written', 'peak', 'duration'):
        assert word in result.stderr, '%s is not in the summary:\n%s' % (word, result.stderr)
    figures = dict(line.split(None, 1) for line in result.stderr.splitlines() if len(line.split(None, 1)) == 2)
    same('traced at rate 1', figures['allocations_traced'], figures['allocations_seen'])
    same('bytes written', int(figures['bytes_written'].split()[0].replace(',', '')), os.path.getsize('trace.mlyze'))
    same('quiet', record([PYTHON, '-c', 'pass'], '--quiet').stderr, '')


@case
def the_flame_graph_is_valid_and_offline():
    record([PYTHON, PROGRAM])
    svg = execute([MEMLYZE, 'flame', 'trace.mlyze', '--title', '<&"\'>']).stdout
    root = xml.etree.ElementTree.fromstring(svg)
    assert root.tag.endswith('svg'), root.tag
    assert 'größe_漢字' in svg, 'function names are not there'
    outside = [u for u in re.findall(r'''(?:href|src)\s*=\s*["'](https?:[^"']+)''', svg)]
    same('links to the network', outside, [])


@case(each=[('NO_COLOR', {'NO_COLOR': '1', 'CLICOLOR_FORCE': ''}, [], False), ('--color=always', {}, ['--color=always'], True),
            ('a pipe', {}, [], False), ('CLICOLOR_FORCE', {'CLICOLOR_FORCE': '1'}, [], True),
            ('--color=never', {'CLICOLOR_FORCE': '1'}, ['--color=never'], False)])
def colour(variables, options, wanted):
    record([PYTHON, '-c', 'kept = [bytes(1000) for _ in range(1000)]'])
    env = {k: v for k, v in clean_env(**variables).items() if k not in ('NO_COLOR', 'CLICOLOR_FORCE') or k in variables}
    out = execute([MEMLYZE, 'top', 'trace.mlyze', *options], env=env).stdout
    same('escape sequences', '\x1b[' in out, wanted)


@case
def an_installed_copy_works_wherever_it_is_moved():
    execute(['meson', 'install', '-C', BUILD, '--no-rebuild', '--quiet', '--destdir', os.path.abspath('first')])
    programs = [os.path.join(d, 'memlyze') for d, _, files in os.walk('first') if 'memlyze' in files and d.endswith('/bin')]
    same('installed programs', len(programs), 1)
    prefix = os.path.dirname(os.path.dirname(programs[0]))
    os.rename(prefix, 'moved')
    memlyze = os.path.abspath('moved/bin/memlyze')
    result = execute([memlyze, 'record', '--quiet', '-f', '-o', 'trace.mlyze', '--', PYTHON, PROGRAM])
    same('exit status and stderr', (result.returncode, result.stderr), (0, ''))
    stats = json.loads(execute([memlyze, 'stats', '--json', 'trace.mlyze']).stdout)
    assert stats['events']['allocs'] > 10000, stats['events']
    same('the same by the tool of its own name', json.loads(execute(['moved/bin/memlyze-stats', '--json', 'trace.mlyze']).stdout), stats)


@case
def every_tool_of_the_dispatcher_is_a_program():
    text = execute([MEMLYZE, '--help']).stdout
    for name in ('record', 'control', 'diff', 'check', 'export', 'verify', 'annotate') + TOOLS:
        assert re.search(r'^\s+%s\b' % name, text, re.M), '%s is not in memlyze --help' % name
    unknown = execute([MEMLYZE, 'no-such-tool'])
    same('exit status of an unknown tool', unknown.returncode, 2)


run(__name__)
