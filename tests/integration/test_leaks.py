"""Leaks: what only grows is one, on every interpreter; what the interpreter keeps for itself, or was allocated once, is not."""
import os

from harness import PROGRAMS, PYTHONS, case, record, run, same, tool

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


run(__name__)
