"""Processes of every kind. Each keeps blocks on the line `@worker`, and says in a file named by its pid how many, what it is and whose child it is.

    processes.py DIRECTORY          everything
    processes.py DIRECTORY leaf KIND PARENT    what a program that was started does

Two processes outlive the first one: they go on when its end of a pipe is closed. Works on CPython 3.8 and later.
"""
import concurrent.futures
import json
import multiprocessing
import os
import subprocess
import sys

UNIT = b'x'
DIRECTORY = sys.argv[1]
kept = []
said = {'pid': 0}


def work(kind, n, parent=None):
    mine = [None] * n
    for i in range(n):
        mine[i] = UNIT * 5000  # @worker
    kept.append(mine)
    if said['pid'] != os.getpid():
        said.clear()
        said.update(pid=os.getpid(), kind=kind, parent=parent or os.getppid(), blocks=0)
    said['blocks'] += n
    path = os.path.join(DIRECTORY, str(os.getpid()))
    with open(path + '.new', 'w') as file:
        json.dump(said, file)
    os.rename(path + '.new', path)


def task(argument):
    work(*argument)
    return argument[1]


def pool(method):
    with multiprocessing.get_context(method).Pool(2) as workers:
        done = workers.map(task, [('pool by ' + method, n) for n in range(10, 16)], chunksize=1)
        workers.close()
        workers.join()
    assert done == list(range(10, 16))


def executor():
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork')) as workers:
        assert sorted(workers.map(task, [('executor', n) for n in (7, 8, 9)])) == [7, 8, 9]


def leaf(kind, **more):
    return subprocess.Popen([sys.executable, __file__, DIRECTORY, 'leaf', kind, str(os.getpid())], **more)


def bare_fork(before):
    pid = os.fork()
    if pid == 0:
        for i in range(50):
            before[i] = None
        work('bare fork', 30)
        os._exit(0)
    for i in range(20):
        before[i] = None
    assert os.waitpid(pid, 0)[1] == 0


def daemon():
    """Double fork; the middle process ends at once."""
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.setsid()
        above = os.getpid()
        if os.fork():
            os._exit(0)
        os.chdir('/')
        os.closerange(0, read)
        os.closerange(read + 1, 256)
        work('daemon', 5, above)
        os.read(read, 1)  # the first process ends
        work('daemon', 20)
        os._exit(0)
    os.close(read)
    assert os.waitpid(middle, 0)[1] == 0


def main():
    before = [None] * 100
    for i in range(100):
        before[i] = UNIT * 3000  # @before
    kept.append(before)
    work('first', 40)
    pool('fork')
    pool('spawn')
    pool('forkserver')
    executor()
    assert leaf('subprocess, closed descriptors', close_fds=True).wait() == 0
    assert leaf('subprocess, open descriptors', close_fds=False).wait() == 0
    arguments = [sys.executable, __file__, DIRECTORY, 'leaf', 'posix_spawn', str(os.getpid())]
    assert os.waitpid(os.posix_spawn(sys.executable, arguments, os.environ), 0)[1] == 0
    bare_fork(before)
    daemon()
    left = leaf('outlives its parent', stdin=subprocess.PIPE)
    left.returncode = 0  # not waited for
    work('first', 60)


if __name__ == '__main__':
    if sys.argv[2:3] == ['leaf']:
        if sys.argv[3] == 'outlives its parent':
            sys.stdin.read()  # the first process ends
        work(sys.argv[3], 25, int(sys.argv[4]))
    else:
        main()
