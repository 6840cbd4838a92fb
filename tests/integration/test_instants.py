"""Marks and snapshots as instants: every tool takes their names, for --at, --from, --to, --since and behind the @ of a trace."""
import os
import subprocess

from harness import MEMLYZE, PYTHON, SLOW, case, clean_env, execute, run, same, tool

# Keeps 10 blocks of its own in each phase; a phase begins with a line on stdin.
PHASES = '''
import sys
UNIT = b'x'
kept = [None] * 40
def first(n): kept[n] = UNIT * 1000
def second(n): kept[n] = UNIT * 2000
def third(n): kept[n] = UNIT * 3000
def fourth(n): kept[n] = UNIT * 4000
for phase, function in enumerate((first, second, third, fourth)):
    for n in range(phase * 10, phase * 10 + 10): function(n)
    print('ready', flush=True)
    sys.stdin.readline()
'''
FUNCTIONS = ('first', 'second', 'third', 'fourth')


def record_phases(*orders):
    """Runs the program; after phase n `control` gets orders[n]."""
    with open('phases.py', 'w') as file:
        file.write(PHASES)
    recorder = subprocess.Popen([MEMLYZE, 'record', '-f', '-o', 'trace.mlyze', '--quiet', '--', PYTHON, '-I', 'phases.py'], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, universal_newlines=True, env=clean_env(PYTHONHASHSEED=0))
    for n in range(4):
        same('the program', recorder.stdout.readline(), 'ready\n')
        for order in orders[n:n + 1]:
            done = execute([MEMLYZE, 'control', '--pid', recorder.pid, *order])
            same('control', (done.returncode, done.stderr), (0, ''))
        recorder.stdin.write('\n')
        recorder.stdin.flush()
    recorder.communicate(timeout=60 * SLOW)
    same('exit status', recorder.returncode, 0)


def blocks(*arguments, trace='trace.mlyze', key='live_count'):
    """{function: its blocks}, of those that have any."""
    return {site['function']: site[key] for site in tool('top', *arguments, trace=trace)['sites'] if site['function'] in FUNCTIONS and site[key]}


def phases(*names):
    return {name: 10 for name in names}


def refused(*command):
    result = execute([MEMLYZE, *command])
    same('exit status of ' + ' '.join(command), (result.returncode, result.stdout), (2, ''))
    lines = result.stderr.strip().splitlines()
    same('lines on stderr: ' + result.stderr, len(lines), 1)
    return lines[0]


@case
def every_tool_takes_the_name_of_a_mark_and_of_a_snapshot():
    record_phases(['--mark', 'a'], ['--snapshot', 'b'], ['--mark', 'c d/e@f'])
    for name, live in (('a', phases('first')), ('b', phases('first', 'second')), ('c d/e@f', phases('first', 'second', 'third'))):
        same('live at ' + name, blocks('--at', name), live)
        same('allocated to ' + name, blocks('--to', name, key='alloc_count'), live)
        same('live in the trace @' + name, blocks(trace='trace.mlyze@' + name), live)
        rest = {k: v for k, v in phases('first', 'second', 'third', 'fourth').items() if k not in live}
        same('allocated from ' + name, blocks('--from', name, key='alloc_count'), rest)
        leaks = {leak['function']: leak['count'] for leak in tool('leaks', '--since', name)['leaks'] if leak['function'] in FUNCTIONS}
        same('leaks since ' + name, leaks, rest)
        for arguments in (['trace.mlyze', '--at', name], ['trace.mlyze@' + name]):
            picture = execute([MEMLYZE, 'flame', '--by', 'live-bytes', *arguments]).stdout
            same('in the picture', {f for f in FUNCTIONS if '>%s phases.py' % f in picture}, set(live))
        assert tool('stats', trace='trace.mlyze@' + name)['bytes']['live_at_end'] > 10000
        tool('gc', '--from', name)
    same('stats lists them', [(m['name'], m['kind']) for m in tool('stats')['marks']], [('a', 'mark'), ('b', 'snapshot'), ('c d/e@f', 'mark')])
    assert 'c d/e@f at ' in ' '.join(execute([MEMLYZE, 'stats', 'trace.mlyze']).stdout.split())
    same('from a to b', blocks('--from', 'a', '--to', 'b', key='alloc_count'), phases('second'))
    same('from b to c', blocks('--from', 'b', trace='trace.mlyze@c d/e@f'), phases('third'))
    assert 'nothing is between' in refused('top', '--from', 'b', '--to', 'a', 'trace.mlyze')
    os.rename('trace.mlyze', 'my@trace.mlyze')
    same('an @ in the name of the file', blocks(trace='my@trace.mlyze@a'), phases('first'))
    os.rename('my@trace.mlyze', 'trace.mlyze@a')
    same('a file that is called so', len(blocks(trace='trace.mlyze@a')), 4)


@case
def a_name_that_was_set_twice():
    record_phases(['--mark', 'again'], ['--snapshot', 'again'], ['--mark', 'other', '--snapshot', 'other#1'])
    shown = execute([MEMLYZE, 'top', 'trace.mlyze', '--at', 'again'])
    assert "'again' was set 2 times; the last is meant" in shown.stderr and 'again#1' in shown.stderr, shown.stderr
    same('the last', blocks('--at', 'again'), phases('first', 'second'))
    same('the first by number', blocks('--at', 'again#1'), phases('first'))
    same('the second by number', blocks(trace='trace.mlyze@again#2'), phases('first', 'second'))
    same('between them', blocks('--from', 'again#1', '--to', 'again#2', key='alloc_count'), phases('second'))
    same('a name that has a number', blocks('--at', 'other#1'), phases('first', 'second', 'third'))
    for name in ('again#3', 'again#0', 'again#', 'again#1x', '#1', 'nothing'):
        for command in (['top', '--at', name, 'trace.mlyze'], ['leaks', '--since', name, 'trace.mlyze'], ['flame', '--at', name, 'trace.mlyze'],
                        ['top', 'trace.mlyze@' + name], ['stats', 'trace.mlyze@' + name]):
            line = refused(*command)
            assert line.startswith("memlyze-%s: trace.mlyze: '%s' is neither" % (command[0], name)), line
            assert line.endswith('its names: again (2 times), other, other#1'), line


@case
def names_that_read_like_times():
    for option in ('--mark', '--snapshot'):
        for name in ('100%', 'end', 'peak', '1.5s', ' 3 min'):
            line = refused('control', '--pid', str(os.getpid()), option, name)
            same('refused', line, 'memlyze-control: %s: the name is what the tools call a time, like peak, end, 50%% or 1.5s; choose another' % option)
    record_phases(['--mark', 'start'], ['--mark', '100'])
    same('names', (blocks('--at', 'start'), blocks('--at', '100')), (phases('first'), phases('first', 'second')))
    same('@ is a time where no mark is called so', (len(blocks(trace='trace.mlyze@peak')), blocks(trace='trace.mlyze@0%')), (4, {}))


@case
def a_trace_without_names():
    record_phases()
    same('nothing behind the @', refused('top', 'trace.mlyze@'), 'memlyze-top: trace.mlyze@: no name behind the @; give a mark, a snapshot or a time, like trace.mlyze@end')
    assert refused('top', '--at', 'warm', 'trace.mlyze').endswith('its names: it has none')
    assert refused('top', 'trace.mlyze@\x1b[31m').isprintable()


run(__name__)
