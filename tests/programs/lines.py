"""Allocates blocks whose size says the source line that must be blamed for them: bytes of BASE + line.

Every construct that gives frames an odd shape is here once, and again in a hot loop, so that specialised and inlined code is met.
Works on CPython 3.8 and later. Prints how many blocks it made.
"""
import asyncio
import functools
import re
import sys
import threading
import weakref

BASE = 200000
made = 0


def here():
    """A block for the caller's line: made in the caller's frame by `bytes(here())` on that line."""
    global made
    made += 1
    return BASE + sys._getframe(1).f_lineno


def plain():
    return bytes(here())


def arguments(a, b=1, *rest, **named):
    return bytes(here())


class Thing:
    def __init__(self):
        self.block = bytes(here())

    @property
    def value(self):
        return bytes(here())

    @value.setter
    def value(self, new):
        self.block = bytes(here())

    @staticmethod
    def static():
        return bytes(here())

    @classmethod
    def klass(cls):
        return bytes(here())

    def __getattr__(self, name):
        return bytes(here())

    def __getitem__(self, key):
        return bytes(here())

    def __add__(self, other):
        return bytes(here())

    def __lt__(self, other):
        bytes(here())
        return False

    def __call__(self):
        return bytes(here())

    def __enter__(self):
        return bytes(here())

    def __exit__(self, *exc):
        bytes(here())
        return True

    def __iter__(self):
        yield bytes(here())
        yield bytes(here())

    def __del__(self):
        bytes(here())


class Slots:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a
        bytes(here())


def generator(n):
    for i in range(n):
        yield bytes(here())
    yield from (bytes(here()) for _ in range(2))


def closure():
    x = bytes(here())

    def inner():
        nonlocal x
        x = bytes(here())
        return lambda: bytes(here())

    return inner()()


def decorated(f):
    @functools.wraps(f)
    def wrapper(*a):
        bytes(here())
        return f(*a)

    return wrapper


@decorated
@functools.lru_cache(maxsize=None)
def cached(n):
    return bytes(here())


def recursive(n):
    if n:
        bytes(here())
        recursive(n - 1)
    return bytes(here() - 0
                 ) if n == 0 else None


def exceptions():
    try:
        bytes(here())
        raise ValueError(bytes(here()))
    except ValueError:
        bytes(here())
    finally:
        bytes(here())


async def coroutine(n):
    bytes(here())
    await asyncio.sleep(0)
    bytes(here())
    async for x in async_generator(n):
        bytes(here())
    return [bytes(here()) async for x in async_generator(1)]


async def async_generator(n):
    for i in range(n):
        yield bytes(here())
        await asyncio.sleep(0)


async def tasks():
    await asyncio.gather(*(coroutine(2) for _ in range(3)))


def callbacks():
    sorted([3, 1, 2], key=lambda v: bytes(here()))
    list(map(lambda v: bytes(here()), range(3)))
    re.sub("a", lambda m: bytes(here()) and "b", "aaa")
    functools.reduce(lambda a, b: bytes(here()), [1, 2, 3])
    max([Thing(), Thing()])


def comprehensions():
    [bytes(here()) for _ in range(3)]
    {i: bytes(here()) for i in range(3)}
    {bytes(here()) for _ in range(2)}
    list(bytes(here()) for _ in range(3))
    [[bytes(here()) for _ in range(2)] for _ in range(2)]


def statements():
    x = bytes(here()); y = bytes(here())
    f"{len(bytes(here()))} {x!r:.3}"
    z = (bytes(here()),
         bytes(here()))
    if bytes(here()) and \
            bytes(here()):
        pass
    while bytes(here()):
        break
    assert bytes(here())
    del x, y, z
    with Thing() as t, \
            Thing() as u:
        bytes(here())
        raise KeyError


def attributes(t):
    t.value
    t.value = 1
    t.missing
    t[0]
    t + 1
    t()
    t.static()
    t.klass()
    list(t)
    [*t]
    a, b = t
    Slots(1)


def dynamic(i):
    code = "\n" * (i % 5) + "def f():\n    return bytes(here())\nf()\nbytes(here())\n"
    exec(compile(code, "<dynamic %d>" % i, "exec"), {"here": here, "bytes": bytes})
    eval("bytes(here())", {"here": here})


def dying():
    t = Thing()
    r = weakref.ref(t, lambda ref: bytes(here()))
    del t
    return r


def everything(i):
    plain()
    arguments(1, 2, 3, k=4)
    Thing()
    attributes(Thing())
    list(generator(3))
    closure()
    cached(i)
    recursive(i % 30)
    exceptions()
    callbacks()
    comprehensions()
    statements()
    dynamic(i)
    dying()


def main(rounds):
    for i in range(rounds):
        everything(i)
    asyncio.run(tasks())
    threads = [threading.Thread(target=everything, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for depth in (200, 800):
        recursive(depth)
    print(made)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
