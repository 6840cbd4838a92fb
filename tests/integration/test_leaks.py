"""Leaks: what only grows is one, on every interpreter; what the interpreter keeps for itself, or was allocated once, is not."""
from harness import MEMLYZE, PYTHON, PYTHONS, case, clean_env, execute, record, run, same, tool

LEAKY = '''import time
registry = []
constants = [str(i) * 20 for i in range(2000)]  # start-up
def remember(n):
    registry.append(bytes(2000 + n))  # grows
def work(n):
    data = [bytes(1000) for _ in range(20)]
    return len(data)
for n in range(3000):
    work(n)
    if n % 3 == 0:
        remember(n)
'''


@case(each=PYTHONS)
def a_global_list_that_only_grows(python):
    with open('leaky.py', 'w') as file:
        file.write(LEAKY)
    record([python, 'leaky.py'])
    leaks = tool('leaks')['leaks']
    grades = {(leak['line'], leak['function']): leak for leak in leaks if leak['file'] and leak['file'].endswith('leaky.py')}
    assert (5, 'remember') in grades, 'remember is not among %r' % sorted(grades)
    leak = grades[5, 'remember']
    same('grade', leak['grade'], 'growing')
    assert leak['count'] >= 1000 and leak['bytes'] >= sum(2033 + n for n in range(0, 3000, 3)), leak
    # A block that a free list keeps may stay behind: no more than that.
    freed = [v for k, v in grades.items() if k[0] in (7, 8)]
    assert sum(v['bytes'] for v in freed) < 1000 and 'growing' not in [v['grade'] for v in freed], 'what is freed is no leak: %r' % freed
    constant = [v['grade'] for k, v in grades.items() if k[0] == 3]
    assert constant and 'growing' not in constant, 'start-up constants: %r' % constant
    growing = [(v['file'], v['line']) for v in leaks if v['grade'] == 'growing']
    same('nothing else grows', [g for g in growing if not g[0].endswith('leaky.py')], [])
    same('first in the list', leaks[0]['line'], 5)


@case(each=PYTHONS)
def a_program_without_a_leak(python):
    with open('fine.py', 'w') as file:
        file.write('''
def work(n):
    cache = {}
    for i in range(200):
        cache[i] = str(i) * 10
    return sum(len(v) for v in cache.values())
for n in range(500):
    work(n)
''')
    record([python, 'fine.py'])
    growing = [leak for leak in tool('leaks')['leaks'] if leak['grade'] == 'growing']
    same('growing', growing, [])


APPEND = '''import os
L = []
for i in range(%d):
    L.append(bytes(1000)); s = str(i) * 2
%s'''


@case(each=[('%d appends%s' % (n, ', killed' if end else ''), n, end) for n in (100, 300, 866) for end in ('', 'os.kill(os.getpid(), 9)\n')])
def a_plain_append_grows(n, end):
    with open('append.py', 'w') as file:
        file.write(APPEND % (n, end))
    record([PYTHON, 'append.py'], status=137 if end else 0)
    lines = [leak for leak in tool('leaks')['leaks'] if leak['file'] and leak['file'].endswith('append.py') and leak['line'] == 4]
    same('stacks of the line', len(lines), 1)
    same('grade (%s)' % lines[0]['reason'], lines[0]['grade'], 'growing')
    assert lines[0]['count'] >= n and lines[0]['bytes'] >= n * 1000, lines[0]
    assert lines[0]['reason'].startswith('added to until the end'), lines[0]['reason']


@case(each=PYTHONS)
def a_short_run_behind_large_imports(python):
    with open('imports.py', 'w') as file:
        file.write('''import json, argparse, logging
log = logging.getLogger()
L = []
class Thing:
    def __init__(self, n): self.n = bytes(n)
for i in range(300):
    L.append(Thing(1000 + i))
    text = json.dumps({'i': [i] * 5})
''')
    record([python, 'imports.py'])
    leaks = [leak for leak in tool('leaks')['leaks'] if leak['file'] and leak['file'].endswith('imports.py') and leak['count'] >= 300]
    same('the lines, and how they are graded', {(leak['line'], leak['grade']) for leak in leaks}, {(5, 'growing'), (7, 'growing')})


@case
def threads_that_follow_each_other_on_one_line(python=PYTHON):
    with open('threads.py', 'w') as file:
        file.write('''import threading
L = []
def remember():
    L.append(bytes(1000))
def first():
    for i in range(1000): remember()
def second():
    for i in range(1000): remember()
def third():
    for i in range(1000): remember()
for worker in (first, second, third):
    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
''')
    record([python, 'threads.py'])
    lines = [leak for leak in tool('leaks')['leaks'] if leak['function'] == 'remember']
    same('grades of the stacks', [leak['grade'] for leak in lines], ['growing'] * 3)
    text = execute([MEMLYZE, 'leaks', 'trace.mlyze'], env=clean_env(COLUMNS=100)).stdout
    row = [line for line in text.splitlines() if 'growing' in line and 'remember' in line]
    same('rows of the line in the text', len(row), 1)
    assert '3,00' in row[0] and '3 stacks' in text, text


@case
def a_report_says_why_nothing_has_a_stack():
    record([PYTHON, '-c', 'a = [str(i) for i in range(1000)]'], '--max-stack-depth', '0', trace='depth.mlyze')
    record(['/bin/sh', '-c', 'x=1; for i in 1 2 3; do x=$x$x; done'], trace='native.mlyze')
    record([PYTHON, '-c', 'a = [str(i) for i in range(1000)]'], trace='python.mlyze')
    for trace, words in (('depth', '--max-stack-depth 0'), ('native', 'native program'), ('python', None)):
        for name in ('leaks', 'top'):
            text = execute([MEMLYZE, name, trace + '.mlyze'], env=clean_env(COLUMNS=200)).stdout
            if words:
                assert 'No block has a stack' in text and words in text, text
            else:
                assert 'No block has a stack' not in text, text


@case
def every_line_fits_a_narrow_terminal():
    with open('l.py', 'w') as file:
        file.write(APPEND % (300, ''))
    record(['/bin/sh', '-c', '%s l.py; %s l.py' % (PYTHON, PYTHON)])
    for command in (['stats'], ['leaks'], ['leaks', '-a'], ['stats', '--process', 'all'], ['leaks', '--process', 'all']):
        for columns in (60, 80, 120):
            out = execute([MEMLYZE] + command + ['trace.mlyze'], env=clean_env(COLUMNS=columns)).stdout
            same('too wide for %d, %s' % (columns, ' '.join(command)), [line for line in out.splitlines() if len(line) > columns], [])
    text = execute([MEMLYZE, 'stats', 'trace.mlyze'], env=clean_env(COLUMNS=80)).stdout
    assert 'Left out: 1 thread of other processes' in text and 'Left out: 1 process ' in text, text


run(__name__)
