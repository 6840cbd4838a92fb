"""Allocations that are known line by line. Prints as JSON what they are: marker -> [count, bytes, kept count, kept bytes, bytes at the peak].

`UNIT * n` makes exactly one block: a bytes object of 33 + n bytes. The indices are small integers, the sizes are made beforehand, the
lists have their length, so that nothing else is allocated on a marked line. Runs on CPython 3.8 and later.
"""
import gc
import json
import sys
import threading

gc.disable()
UNIT = b'x'
HEAD = sys.getsizeof(b'')
N = 200
INDICES = range(N)
SMALL = [2 + i for i in INDICES]
LARGE = [1000 + i for i in INDICES]
known = {}


def tell(name, blocks, kept=(), at_peak=None):
    known[name] = [len(blocks), sum(blocks), len(kept), sum(kept), sum(kept) if at_peak is None else at_peak]


def sizes(of):
    return [HEAD + n for n in of]


kept_large = [None] * N
for i in INDICES:
    kept_large[i] = UNIT * LARGE[i]  # @kept_large
tell('kept_large', sizes(LARGE), sizes(LARGE))

kept_small = [None] * N
for i in INDICES:
    kept_small[i] = UNIT * SMALL[i]  # @kept_small
tell('kept_small', sizes(SMALL), sizes(SMALL))

block = None
for i in INDICES:
    block = UNIT * LARGE[i]  # @freed_large
    block = None
tell('freed_large', sizes(LARGE))
for i in INDICES:
    block = UNIT * SMALL[i]  # @freed_small
    block = None
tell('freed_small', sizes(SMALL))

some = [None] * N
for i in INDICES:
    some[i] = UNIT * LARGE[i]  # @some
for i in INDICES:
    if i % 3:
        some[i] = None
tell('some', sizes(LARGE), sizes(LARGE[::3]))

# Sizes of a growing bytearray: its first run shows them, the marked one repeats them.
PIECE = b'piece of text'
trial, seen = bytearray(), []
EMPTY = sys.getsizeof(trial)
for i in INDICES:
    trial.extend(PIECE)
    if not seen or seen[-1] != sys.getsizeof(trial) - EMPTY:
        seen.append(sys.getsizeof(trial) - EMPTY)
grown = bytearray()  # @bytearray
for i in INDICES:
    grown.extend(PIECE)  # @grown
tell('bytearray', [EMPTY], [EMPTY])
tell('grown', seen, seen[-1:])


class Node:
    __slots__ = ('other',)


NODE = sys.getsizeof(Node())
nodes = [None] * N
for i in INDICES:
    nodes[i] = Node()  # @nodes
for i in range(0, N, 2):
    nodes[i] = None
tell('nodes', [NODE] * N, [NODE] * (N // 2))

gc.collect()
for i in INDICES:
    node = Node()  # @cycles
    node.other = node
    node = None
collected = gc.collect()
tell('cycles', [NODE] * N)


def generator():
    for n in LARGE:
        yield UNIT * n  # @generator


for block in generator():
    pass
block = None
tell('generator', sizes(LARGE))

for block in (
    UNIT * n  # @expression
    for n in SMALL
):
    pass
block = None
tell('expression', sizes(SMALL))


class Pause:
    def __await__(self):
        yield


async def coroutine(keep):
    pause = Pause()
    for i in INDICES:
        keep[i] = UNIT * LARGE[i]  # @coroutine
        if i % 50 == 0:
            await pause


kept_coroutine = [None] * N
running = coroutine(kept_coroutine)
while True:
    try:
        running.send(None)
    except StopIteration:
        break
tell('coroutine', sizes(LARGE), sizes(LARGE))

by_lambda = lambda n: (
    UNIT * n)  # @by_lambda
kept_lambda = [None] * N
for i in INDICES:
    kept_lambda[i] = by_lambda(LARGE[i])
tell('by_lambda', sizes(LARGE), sizes(LARGE))


def größe_漢字(n):
    return UNIT * n  # @unicode


kept_unicode = [None] * N
for i in INDICES:
    kept_unicode[i] = größe_漢字(SMALL[i])
tell('unicode', sizes(SMALL), sizes(SMALL))


def deep(levels, n):
    if levels:
        return deep(levels - 1, n)
    return UNIT * n  # @deep


sys.setrecursionlimit(3000)
kept_deep = deep(1500, 700)
tell('deep', sizes([700]), sizes([700]))


def key(n):
    sink[n - 1000] = UNIT * n  # @called_from_c
    return n


sink = [None] * N
LARGE.sort(key=key)
tell('called_from_c', sizes(LARGE), sizes(LARGE))

namespace = {'UNIT': UNIT, 'LARGE': LARGE, 'kept': [None] * N}
exec(compile('for i in range(200):\n\n    kept[i] = UNIT * LARGE[i]\n', 'in memory ä.py', 'exec'), namespace)
tell('executed', sizes(LARGE), sizes(LARGE))


def in_thread(keep):
    for i in INDICES:
        keep[i] = UNIT * LARGE[i]  # @thread


kept_thread = [None] * N
thread = threading.Thread(target=in_thread, args=(kept_thread,), name='worker')
thread.start()
thread.join()
tell('thread', sizes(LARGE), sizes(LARGE))


class Outer:
    def method(self):
        return self.inner()  # @chain_2

    def inner(self):
        return UNIT * 5000  # @chain_1


kept_chain = Outer().method()  # @chain_3
tell('chain_1', sizes([5000]), sizes([5000]))

# The peak: 40 blocks of a MiB. What was kept before is live then, what comes later is not.
MIB = 1 << 20
high = [None] * 40
for i in range(40):
    high[i] = UNIT * MIB  # @peak
for i in range(40):
    high[i] = None
tell('peak', sizes([MIB] * 40), at_peak=40 * (HEAD + MIB))

late = [None] * N
for i in INDICES:
    late[i] = UNIT * LARGE[i]  # @late
tell('late', sizes(LARGE), sizes(LARGE), at_peak=0)

print(json.dumps({'known': known, 'collected': collected, 'nodes': N}))
