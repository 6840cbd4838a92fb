"""Greenlets (or gevent's) that switch in the middle of calls; at each stop a block whose size is BASE + the number of the stop.

    switching.py greenlet|gevent OUT    writes the stack of each stop to OUT, as tests/programs/stacks.py does
"""
import json
import random
import sys

BASE = 1000000
stops = []
rng = random.Random(11)
QUALIFIED = sys.version_info >= (3, 11)


def stop():
    frame, stack = sys._getframe(1), []
    while frame is not None:
        code = frame.f_code
        stack.append([code.co_qualname if QUALIFIED else code.co_name, frame.f_lineno])
        frame = frame.f_back
    stops.append(stack)
    return BASE + len(stops) - 1


def deep(n, switch):
    bytes(stop())
    if n:
        deep(n - 1, switch)
    bytes(stop()); switch()
    bytes(stop())


def numbers(n, switch):
    for i in range(n):
        bytes(stop())
        switch()
        yield i


def worker(n, switch):
    for round in range(6):
        deep(rng.randrange(n), switch)
        for i in numbers(3, switch):
            bytes(stop())


def by_greenlet():
    import greenlet
    main = greenlet.getcurrent()
    alive = []
    for n in range(1, 30):
        alive.append(greenlet.greenlet(worker))
    for i, g in enumerate(alive):
        g.switch(i + 1, main.switch)
    while alive:
        g = rng.choice(alive)
        g.switch()
        bytes(stop())
        alive = [g for g in alive if not g.dead]


def by_gevent():
    from gevent import monkey
    monkey.patch_all()
    import gevent
    gevent.joinall([gevent.spawn(worker, n, lambda: gevent.sleep(0)) for n in range(1, 30)])


by_greenlet() if sys.argv[1] == 'greenlet' else by_gevent()
with open(sys.argv[2], 'w') as file:
    json.dump(stops, file)
