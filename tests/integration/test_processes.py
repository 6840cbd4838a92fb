"""One program with processes of every kind (tests/programs/processes.py): all are in the trace, and the bytes of a known line are exact in each.

The everyday run takes the oldest, the newest and the system's interpreter. For more: MEMLYZE_PROCESSES_REPEATS=200 (all interpreters take turns).
A deadlock is a time-out."""
import collections
import itertools
import json
import os
import stat

from harness import PROGRAMS, PYTHON, PYTHONS, Skip, case, lines_of, record, run, same, sites_of, tool

PROGRAM = os.path.join(PROGRAMS, 'processes.py')
LINES = lines_of(PROGRAM)
SIZE = 5033
KINDS = {'first': 1, 'pool by fork': 2, 'pool by spawn': 2, 'pool by forkserver': 2, 'executor': 2, 'subprocess, closed descriptors': 1,
         'subprocess, open descriptors': 1, 'posix_spawn': 1, 'bare fork': 1, 'daemon': 1, 'outlives its parent': 1}


def at_line(which, process):
    site = sites_of(tool('top', '-n', '0', '--process', str(process)), PROGRAM).get(LINES[which])
    return [site['alloc_count'], site['alloc_bytes'], site['live_count'], site['live_bytes']] if site else [0, 0, 0, 0]


def check(python):
    os.mkdir('said')
    result = record([python, PROGRAM, os.path.abspath('said')], '--wait', 'all')
    said = []
    for name in os.listdir('said'):
        with open(os.path.join('said', name)) as file:
            said.append(json.load(file))
    kinds = collections.Counter(p['kind'] for p in said)
    same('kinds of processes', set(kinds), set(KINDS))
    assert all(kinds[k] <= n for k, n in KINDS.items()), kinds  # one worker of a pool may have done it all
    stats = tool('stats', '--process', 'all')
    same('lost', [stats['events']['dropped'], result.stderr], [0, ''])
    processes = collections.defaultdict(list)
    for p in stats['processes']:
        processes[p['pid']].append(p)
        assert p['start_ns'] <= p['end_ns'], p
        above = [q['start_ns'] for q in processes[p['parent']]]
        assert not above or min(above) <= p['start_ns'], 'begun before its parent: %r' % p
    for p in said:
        images = processes[p['pid']]  # more than one where it was forked first and then called exec
        assert images, '%r is not in the trace' % p
        same('the parent of %r' % p, {q['parent'] for q in images}, {p['parent']})
        assert 'processes.py' in images[-1]['command'] or 'multiprocessing' in images[-1]['command'], images[-1]
        n = p['blocks']
        same('blocks of %r' % p, at_line('worker', p['pid']), [n, n * SIZE, n, n * SIZE])
        if p['kind'] != 'first':
            same('inherited blocks in the report on %r' % p, at_line('before', p['pid']), [0, 0, 0, 0])
    n = sum(p['blocks'] for p in said)
    same('blocks of all', at_line('worker', 'all'), [n, n * SIZE, n, n * SIZE])
    same('blocks of before the forks', at_line('before', 'all'), [100, 100 * 3033, 80, 80 * 3033])


REPEATS = int(os.environ.get('MEMLYZE_PROCESSES_REPEATS', '0'))


def repeated():
    for i, (label, python) in zip(range(REPEATS), itertools.cycle(PYTHONS)):
        yield '%d, %s' % (i + 1, label), python


@case(each=repeated() if REPEATS else sorted({PYTHONS[0], PYTHONS[-1], next(p for p in PYTHONS if p[1] == PYTHON)}))
def every_process_is_exact(python):
    check(python)


@case(each=[('an emptied environment', 'env={}'), ('an emptied environment, posix_spawn', 'env={}, close_fds=False'), ('another user', 'user=65534')])
def a_start_that_is_not_followed_is_said(how):
    if 'user' in how and os.geteuid() != 0:
        raise Skip('another user is needed, and only root can be one')
    if 'user' in how and not os.stat(PYTHON).st_mode & stat.S_IXOTH:
        raise Skip('the interpreter is closed to other users')
    result = record([PYTHON, '-c', 'import subprocess, sys; print(subprocess.run(["/bin/sh", "-c", "exit 3"], %s).returncode)' % how], quiet=False)
    same('the program itself', result.stdout, '3\n')
    assert '1 program starts were not followed' in result.stderr, result.stderr
    assert '1 program starts were not followed' in tool('stats')['_stderr']


run(__name__)
