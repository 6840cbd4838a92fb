"""Random walks through calls of every kind; at each stop a block whose size is BASE + the number of the stop.

Writes what the whole Python stack was at each stop, innermost first, as JSON to the file named by the first argument:
[[[function, line], ...], ...]. A trace must show exactly these frames. Works on CPython 3.8 and later.
"""
import functools
import json
import random
import re
import sys

BASE = 1000000
stops = []
rng = random.Random(7)
QUALIFIED = sys.version_info >= (3, 11)


def stop(frame):
    """The size for the block of this stop."""
    stack = []
    while frame is not None and len(stack) < 64:
        code = frame.f_code
        stack.append([code.co_qualname if QUALIFIED else code.co_name, frame.f_lineno])
        frame = frame.f_back
    stops.append(stack)
    return BASE + len(stops) - 1


def here():
    return sys._getframe(1)


def step(n):
    bytes(stop(here()))
    if n <= 0:
        return
    rng.choice(WAYS)(n - 1 - rng.randrange(3))
    bytes(stop(here()))
    if rng.random() < 0.3:
        rng.choice(WAYS)(n - 2)
    bytes(stop(here()))


def deep(n):
    if n > 0:
        deep(n - 1) if rng.random() < 0.8 else step(n - 3)
    bytes(stop(here()))


def straight(n):
    if n:
        straight(n - 1)
    bytes(stop(here()))


def loop(n):
    for i in range(3):
        bytes(stop(here())); bytes(stop(here()))
        leaf(); leaf()
        leaf()
    step(n)


def leaf():
    return bytes(stop(here()))


def gen(n):
    bytes(stop(here()))
    yield 1
    step(n)
    yield from inner_gen(n)
    bytes(stop(here()))


def inner_gen(n):
    bytes(stop(here()))
    yield bytes(stop(here()))
    step(n - 1)


def generators(n):
    a, b = gen(n - 1), gen(n - 2)
    for x in a:
        next(b, None)
        bytes(stop(here()))


def callbacks(n):
    sorted([2, 1], key=lambda v: (bytes(stop(here())), step(n - 2), v)[2])
    re.sub("x", lambda m: leaf() and "y", "xx")
    functools.reduce(lambda a, b: step(n - 3), [1, 2])


class Node:
    def __init__(self, n):
        bytes(stop(here()))
        self.child = Node(n - 1) if n > 0 and rng.random() < 0.7 else None
        bytes(stop(here()))

    def __eq__(self, other):
        bytes(stop(here()))
        return False

    @property
    def walk(self):
        bytes(stop(here()))
        return self.child and self.child.walk


def objects(n):
    node = Node(n)
    node.walk
    node in [Node(0), 1]


def dynamic(n):
    scope = {"step": step, "stop": stop, "here": here, "bytes": bytes, "n": n - 2}
    exec(compile("bytes(stop(here()))\nstep(n)\nbytes(stop(here()))\n", "<exec>", "exec"), scope)


def raising(n):
    try:
        thrower(n)
    except ValueError:
        bytes(stop(here()))


def thrower(n):
    step(n - 1)
    bytes(stop(here()))
    raise ValueError


def coroutines(n):
    async def outer():
        bytes(stop(here()))
        await inner()
        bytes(stop(here()))

    async def inner():
        bytes(stop(here()))
        step(n - 2)

    c = outer()
    try:
        c.send(None)
    except StopIteration:
        pass


WAYS = [step, deep, loop, generators, callbacks, objects, dynamic, raising, coroutines]


def main(out, rounds):
    sys.setrecursionlimit(100000)
    for i in range(rounds):
        step(rng.choice([4, 9, 16, 25]))
        if len(stops) > 150000:
            break
    straight(300)
    with open(out, "w", encoding="utf-8") as f:
        json.dump(stops, f)


main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60)
