"""Sampling: exactly one allocation of each window, at a place that no periodic program keeps step with; the same run, the same choice."""
from harness import PYTHON, case, clean_env, execute, record, run, same, tool

# `period` kinds of blocks in turn; kind 0 alone is the one with another size.
PATTERN = '''
UNIT = b'x'
def first(n):
    return UNIT * 700
def other(n):
    return UNIT * 300
period = %d
for i in range(30000):
    if i %% period == 0:
        first(i)
    else:
        other(i)
'''


@case(each=[('period %d, rate %s' % (p, r), p, r) for p in (2, 3, 4, 10) for r in ('0.5', '0.25', '0.1', '0.3')])
def no_alias(period, rate):
    with open('pattern.py', 'w') as file:
        file.write(PATTERN % period)
    record([PYTHON, 'pattern.py'], '--sample-rate', rate)
    answer = tool('top', '-n', '0')
    same('estimated', answer.get('estimated'), True)
    sites = {s['line']: s['alloc_count'] for s in answer['sites'] if (s['file'] or '').endswith('pattern.py')}
    wanted = 30000 / period
    # One in each window: the error of a share is that of a binomial. Six deviations.
    room = 6 * (wanted * (1 - float(rate)) / float(rate)) ** 0.5
    assert abs(sites.get(4, 0) - wanted) < room, '%r of kind 0, wanted %r within %r' % (sites.get(4, 0), wanted, room)
    others = 30000 - wanted
    room = 6 * (others * (1 - float(rate)) / float(rate)) ** 0.5
    assert abs(sites.get(6, 0) - others) < room, '%r of the others, wanted %r within %r' % (sites.get(6, 0), others, room)


@case(each=[(r, r) for r in ('0.5', '0.07', '0.01')])
def one_in_each_window(rate):
    with open('pattern.py', 'w') as file:
        file.write(PATTERN % 4)
    result = record([PYTHON, 'pattern.py'], '--sample-rate', rate, quiet=False)
    words = dict(line.split(None, 1) for line in result.stderr.splitlines() if len(line.split(None, 1)) == 2)
    seen, traced = int(words['allocations_seen'].replace(',', '')), int(words['allocations_traced'].replace(',', ''))
    assert seen >= 30000 and abs(traced - seen * float(rate)) <= 3, 'seen %d, traced %d at rate %s' % (seen, traced, rate)


@case
def the_same_run_makes_the_same_choice():
    with open('pattern.py', 'w') as file:
        file.write(PATTERN % 3)
    answers = []
    for _ in range(2):
        record([PYTHON, '-I', 'pattern.py'], '--sample-rate', '0.1', env=clean_env(PYTHONHASHSEED=0))
        sites = tool('top', '-n', '0')['sites']
        answers.append(sorted((s['file'], s['line'], s['alloc_count'], s['alloc_bytes']) for s in sites if (s['file'] or '').endswith('pattern.py')))
    same('second run', answers[1], answers[0])


@case
def sample_over_always_traces_the_large_ones():
    with open('large.py', 'w') as file:
        file.write('''
UNIT = b'x'
kept = [None] * 500
for i in range(500):
    kept[i] = UNIT * 20000
    for n in range(20):
        UNIT * 100
''')
    record([PYTHON, 'large.py'], '--sample-rate', '0.02', '--sample-over', '10000')
    sites = {s['line']: s for s in tool('top', '-n', '0')['sites'] if (s['file'] or '').endswith('large.py')}
    same('large blocks, exactly', (sites[5]['alloc_count'], sites[5]['alloc_bytes'], sites[5]['live_count']), (500, 500 * 20033, 500))
    # Each of the small ones stands for 50: the estimate is of the right order.
    assert 5000 < sites[7]['alloc_count'] < 15000, sites[7]['alloc_count']


@case
def a_sampled_leak_is_seen_and_estimated():
    with open('leaky.py', 'w') as file:
        file.write('''
kept = []
for n in range(20000):
    kept.append(b'x' * (100 + n % 7))
    str(n) * 3
''')
    record([PYTHON, 'leaky.py'], '--sample-rate', '0.1')
    answer = tool('leaks')
    leak = [x for x in answer['leaks'] if (x['file'] or '').endswith('leaky.py') and x['line'] == 4]
    assert leak and leak[0]['grade'] == 'growing' and answer['estimated'] is True, leak
    assert 16000 < leak[0]['count'] < 24000, leak[0]['count']


@case(each=[(rate, rate) for rate in ('0', '-1', '1.5', 'nan', 'x', '')])
def a_rate_that_is_none(rate):
    result = record([PYTHON, '-c', 'pass'], '--sample-rate', rate, status=2)
    same('lines on stderr', len(result.stderr.strip().splitlines()), 1)


run(__name__)
