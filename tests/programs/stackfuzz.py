"""Seeded random walks through calls of every kind, made twice: once untraced to learn the truth, once traced and silent.

    stackfuzz.py truth OUT SEED FUEL PARTS     writes what the whole stack was at each block, and what became of the block, as JSON
    stackfuzz.py silent - SEED FUEL PARTS      does the same and writes nothing

Every block is made where `w.stop()` (or a sibling) gives its size. In the silent run that is a C function that allocates nothing, so between
two blocks of the walk only what the walk does happens; in the other run it is a Python function that looks at the stack. The choices come
from a sequence drawn beforehand, so both runs take the same way. PARTS: words joined by commas: threads, fork, trace, subinterpreter.
The sizes of a block name it: they go up by 8 from one to the next, in each thread from another beginning. Works on CPython 3.8 and later.
"""
import contextlib
import functools
import gc
import itertools
import json
import os
import random
import re
import sys
import threading
import types
import weakref
import zlib

MODE, OUT, SEED, FUEL = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
PARTS = sys.argv[5].split(',')
TRUTH = MODE == 'truth'
QUALIFIED = sys.version_info >= (3, 11)
REACH = 48  # frames of a stack that are looked at
UNIT, LETTER = b'x', 'x'
STOPS = 6  # for each draw, at most
SLOTS = 48
BASE = 200000  # larger than what else is read or made in a run
walks = []
frames = {}  # (function, file, line) -> number
stops = []  # [kind, n, [frame numbers], whole, fate]
lock = threading.Lock()
forked_at = None
handed = []
inherited = []  # blocks of every layer that are there at the fork, freed by and by in parent and child
HELPERS = {'stop', 'small', 'listed', 'lettered', 'grew', 'kept', 'given', 'slot', 'note', 'look', 'line_of'}


def line_of(frame):
    """The line of the instruction. Before 3.10 f_lineno of a traced frame is that of its last line event instead: Objects/lnotab_notes.txt."""
    if sys.version_info >= (3, 10):
        return frame.f_lineno
    code, address, line = frame.f_code, 0, frame.f_code.co_firstlineno
    for i in range(0, len(code.co_lnotab), 2):
        address += code.co_lnotab[i]
        if address > frame.f_lasti:
            break
        line += code.co_lnotab[i + 1] - (256 if code.co_lnotab[i + 1] > 127 else 0)
    return line


def look(kind, n, frame, fate):
    """Notes a stop: the truth."""
    stack = []
    while frame is not None and len(stack) < REACH:
        code = frame.f_code
        key = (code.co_qualname if QUALIFIED else code.co_name, code.co_filename, line_of(frame))
        with lock:
            stack.append(frames.setdefault(key, len(frames)))
        frame = frame.f_back
    if fate == 'temporary' and (sys.gettrace() or sys.getprofile()):
        fate = 'gone'  # the tracer may be called while the block is being returned
    row = [kind, n, stack, frame is None, fate]
    stops.append(row)
    return row


class Walk:
    """What one thread's walk draws from. All of its functions are C functions in the silent run."""

    def __init__(self, number, fuel):
        rng = random.Random(SEED * 1000 + number)
        draws = bytes(rng.randrange(256) for _ in range(fuel))
        smalls = bytes(2 + rng.randrange(200) for _ in range(STOPS * fuel))
        slots = bytes(rng.randrange(SLOTS) for _ in range(STOPS * fuel))
        first = BASE + 8 * number * STOPS * FUEL // 4
        sizes = [first + 8 * i for i in range(STOPS * fuel)]
        self.draw = itertools.chain(draws, itertools.repeat(0)).__next__
        self.slots = [None] * SLOTS
        self.gens = [None] * 8
        self.functions = []
        self.number = number
        self.tick = itertools.count().__next__
        small, slot, size = itertools.cycle(smalls).__next__, itertools.cycle(slots).__next__, iter(sizes).__next__
        if not TRUTH:
            self.small, self.slot = small, slot
            self.stop = self.kept = self.given = self.listed = self.lettered = self.grew = size
            self.note = len
            return
        pending, held, grown = [], [None] * SLOTS, []

        def stopper(kind, draw, fate, then=None):
            def stop():
                row = look(kind, draw(), sys._getframe(1), fate)
                if then is not None:
                    then.append(row)
                return row[1]
            return stop

        def slot_of():
            at = slot()
            if held[at]:
                held[at][4] = 'freed'
            held[at] = pending.pop()
            return at

        def note(grown_list):
            row = grown.pop()
            row[1] = sys.getsizeof(grown_list) - sys.getsizeof([])
            return 0

        slot_of.__code__ = slot_of.__code__.replace(co_name='slot')
        self.stop = stopper('bytes', size, 'temporary')
        self.small = stopper('bytes', small, 'temporary')
        self.listed = stopper('list', size, 'temporary')
        self.lettered = stopper('str', size, 'temporary')
        self.kept = stopper('bytes', size, 'live', pending)
        self.given = stopper('bytes', size, 'gone')
        self.grew = stopper('grown', size, 'gone', grown)
        self.slot, self.note = slot_of, note


# Fates: temporary (freed before the thread's next allocation), freed (later), gone (one of the two), live (at the end).

# ---- leaves ----

def leaf(w):
    UNIT * w.stop()


def leaf_of_two(w): UNIT * w.stop(); UNIT * w.small()


def quiet(w):
    return None


def leaf_kinds(w):
    d = w.draw()
    if d & 1:
        UNIT * w.small()
    if d & 2:
        [None] * (w.listed() // 8)
    if d & 4:
        LETTER * w.lettered()
    if d & 8:
        bytes(w.stop())
    if d & 16:
        w.slots[w.slot()] = UNIT * w.kept()
    if d & 32:
        UNIT * w.small(); UNIT * w.small()
    if d & 64:
        bytes(w.stop())


def growing(w):
    a = [None] * (1000 + w.draw() * 4)
    a.append(w.grew())
    w.note(a)
    del a
    UNIT * w.small()


def loop(w, n):
    for i in range(w.draw() & 3):
        leaf(w); leaf(w)
        leaf_of_two(w)
        UNIT * w.small()
        leaf(w)
        step(w, n - 2 - i)


# ---- calls and returns ----

def step(w, n):
    d = w.draw()
    if d & 1:
        UNIT * w.stop()
    if n <= 0 or d == 0:
        return LEAVES[d % len(LEAVES)](w)
    WAYS[w.draw() % len(WAYS)](w, n - 1 - (d >> 1 & 1))
    if d & 4:
        UNIT * w.small()
    if d & 8:
        WAYS[w.draw() % len(WAYS)](w, n - 2)
    if d & 16:
        UNIT * w.stop()
    if d & 32:
        LEAVES[d % len(LEAVES)](w)


def down(w, n, levels):
    """Levels of recursion; now and then a block on the way down or up."""
    d = w.draw() if levels % 3 == 0 else 1
    if d % 5 == 0:
        UNIT * w.small()
    if levels:
        if d & 64:
            down(w, n, levels - 1)
        else:
            down(w, n, levels - 1)
    elif n > 0:
        step(w, n - 2)
    else:
        leaf(w)
    if d % 7 == 0:
        UNIT * w.stop()


def recursion(w, n):
    d = w.draw()
    down(w, n, d & 15)
    if d & 16: down(w, 0, d >> 3)
    if d == 99: down(w, 0, 500)
    UNIT * w.stop()


def ping(w, n):
    if n > 0:
        pong(w, n - 1); UNIT * w.small()
        pong(w, n - 2)
    UNIT * w.stop()


def pong(w, n):
    if n > 0:
        ping(w, n - 1)
        ping(w, n - 3)
    else:
        step(w, n)
    return UNIT * w.stop()


def back_and_forth(w, n):
    ping(w, 1 + (w.draw() & 3))
    step(w, n)


# ---- generators and coroutines ----

def numbers(w, n):
    UNIT * w.stop()
    try:
        while True:
            got = yield UNIT * w.stop()
            UNIT * w.stop()
            if got:
                step(w, n - 3)
            if w.draw() & 7 == 0:
                yield from inner(w, n)
    finally:
        UNIT * w.stop()
        leaf(w)


def inner(w, n):
    UNIT * w.small()
    try:
        yield UNIT * w.stop()
        leaf(w)
    except KeyError:
        UNIT * w.stop()
    yield


def generators(w, n):
    at = w.draw() & 7
    if w.gens[at] is None:
        w.gens[at] = numbers(w, n)
    g = w.gens[at]
    w.gens[at] = None  # nobody else resumes it meanwhile
    try:
        next(g)
        d = w.draw()
        if d & 1:
            resume(w, g)
        if d & 2:
            next(g)
        if d & 4:
            g.send(None)
        if d & 8 and d & 16:
            g.throw(KeyError())
        if d & 32:
            g.close()
            return
    except (StopIteration, KeyError):
        return
    UNIT * w.small()
    w.gens[at] = g


def resume(w, g):
    return next(g)


def expressions(w, n):
    [UNIT * w.stop() and i for i in (1, 2) if leaf(w) or i]
    {i: leaf(w) for i in (1, 2)}
    any(leaf(w) for i in (1, 2, 3))
    sum(1 for i in (
        1, 2) if step(w, n - 4) or UNIT * w.stop())


class Pause:
    def __init__(self, w):
        self.w = w

    def __await__(self):
        UNIT * self.w.stop()
        yield
        leaf(self.w)


async def outer_task(w, n):
    UNIT * w.stop()
    await middle_task(w, n)
    UNIT * w.small()
    async for i in ticks(w, n):
        UNIT * w.stop()
    async with Entered(w):
        await Pause(w)


async def middle_task(w, n):
    await Pause(w)
    UNIT * w.stop()
    step(w, n - 3)


async def ticks(w, n):
    for i in range(2):
        UNIT * w.small()
        await Pause(w)
        yield i
    leaf(w)


class Entered:
    def __init__(self, w):
        self.w = w

    async def __aenter__(self):
        UNIT * self.w.stop()

    async def __aexit__(self, *args):
        UNIT * self.w.stop()


def coroutines(w, n):
    tasks = [outer_task(w, n), middle_task(w, n - 2)]
    while tasks:
        task = tasks.pop(0)
        try:
            if w.draw() & 15 == 7:
                task.close()
                continue
            send(w, task) if w.draw() & 1 else task.send(None)
        except StopIteration:
            continue
        tasks.append(task)
        UNIT * w.small()


def send(w, task):
    UNIT * w.small()
    return task.send(None)


# ---- what C calls ----

class Odd:
    def __init__(self, w):
        self.w = w

    def __eq__(self, other):
        UNIT * self.w.stop()
        return False

    def __hash__(self):
        leaf(self.w)
        return 1

    def __getattr__(self, name):
        UNIT * self.w.small()
        return leaf(self.w)

    def __call__(self, *args):
        UNIT * self.w.small()

    def __lt__(self, other):
        UNIT * self.w.stop()
        return True

    @property
    def at(self):
        return leaf_kinds(self.w)


class Lookup(dict):
    def __missing__(self, key):
        leaf(key[0])
        UNIT * key[0].stop()


class Dying:
    def __init__(self, w, other=None):
        self.w, self.other = w, other

    def __del__(self):
        UNIT * self.w.stop()
        leaf(self.w)


def callbacks(w, n):
    d = w.draw()
    if d & 1:
        sorted([3, 1, 2], key=lambda v: leaf(w) or UNIT * w.stop() and v)
    if d & 2:
        re.sub('x', lambda m: step(w, n - 2) or 'y', 'xx')
    if d & 4:
        list(map(leaf, (w, w)))
    if d & 8:
        functools.reduce(lambda a, b: step(w, n - 3), (1, 2, 3))
    if d & 16:
        Lookup()[w, 1]
    if d & 32:
        odd = Odd(w)
        (odd in [1, 2, 3], {odd: 1, Odd(w): 2}, odd.at, odd.missing, odd(), functools.lru_cache(None)(leaf)(w), sorted([odd, odd]))
    if d & 64:
        Dying(w)
        thing = Dying(w, w)
        del thing
        UNIT * w.small()
    if d & 128:
        thing = functools.partial(leaf, w)
        ref = weakref.ref(thing, lambda r: leaf(w))
        thing = None
        assert ref() is None


def cycles(w, n):
    a = Dying(w)
    a.other = a
    del a
    if w.draw() & 3 == 0 and w.number == 0:
        gc.collect()
        UNIT * w.stop()


def on_collection(phase, info):
    w = walks[0]
    if threading.current_thread() is threading.main_thread() and len(walks) == 1:
        UNIT * w.stop()
        leaf(w)


# ---- classes, decorators, exceptions ----

class Root:
    def __init__(self, w, n):
        UNIT * w.stop()
        self.child = type(self)(w, n - 1) if n > 0 and w.draw() & 1 else None
        if w.draw() & 1:
            leaf(w)


class Derived(Root):
    def __init__(self, w, n):
        UNIT * w.small()
        super().__init__(w, n)
        UNIT * w.stop()


class More(Derived):
    def __init__(self, w, n):
        super(More, self).__init__(w, n)

    def __new__(cls, w, n):
        leaf(w)
        return super().__new__(cls)


class Quiet:
    def __init__(self, w):
        self.w = w


class Loud:
    def __init__(self, w):
        leaf(w)


def objects(w, n):
    d = w.draw()
    (Root, Derived, More)[d % 3](w, d >> 5 & 3)
    if d & 8:
        Quiet(w); UNIT * w.stop()
        Loud(w); UNIT * w.stop()
        Loud(w)
    if d & 16:
        step(w, n - 2)


def bodies(w, n):
    class Body:
        one = UNIT * w.small() and None
        leaf(w)
        step(w, n - 3)

        class Inner:
            UNIT * w.stop()

    UNIT * w.stop()
    return Body


def decorated(f):
    @functools.wraps(f)
    def wrapper(w, *args):
        UNIT * w.small()
        try:
            return f(w, *args)
        finally:
            UNIT * w.stop()
    return wrapper


@decorated
@decorated
def decorators(w, n):
    step(w, n - 1)
    UNIT * w.stop()


@contextlib.contextmanager
def context(w):
    UNIT * w.stop()
    try:
        yield
    finally:
        leaf(w)


def managers(w, n):
    with context(w), context(w):
        UNIT * w.stop()
        step(w, n - 2)
    try:
        with context(w):
            thrower(w, n, 3)
    except LookupError:
        UNIT * w.stop()


def thrower(w, n, levels):
    if levels:
        thrower(w, n, levels - 1)
    step(w, n - 3)
    UNIT * w.small()
    raise LookupError


def raising(w, n):
    try:
        thrower(w, n, w.draw() & 7)
    except LookupError:
        leaf(w)
    try:
        thrower(w, 0, w.draw() & 3)
    except LookupError:
        UNIT * w.stop()


# ---- code that comes and goes ----

SOURCE = '''UNIT * w.stop()
def made(w):
    UNIT * w.stop()
    leaf(w)
made(w)
UNIT * w.small()
made(w)
'''
COMPILED = compile(SOURCE, 'made.py', 'exec')


def names_of(number):
    names = {'co_name': 'name%d' % number, 'co_firstlineno': 1 + number, 'co_filename': 'made%d.py' % (number & 3)}
    if QUALIFIED:
        names['co_qualname'] = names['co_name']
    return names


def renamed(code, number):
    return code.replace(**names_of(number))


def twins(w, n):
    """Code dies and other code comes to its address, its frame to the address of the dead one's: nothing was called in between."""
    first, second, third = names_of(w.tick()), names_of(w.tick()), names_of(w.tick())
    make, code, scope = types.FunctionType, leaf.__code__, globals()
    f = make(code.replace(**first), scope)
    f(w)
    f = None
    f = make(code.replace(**second), scope)
    f(w)
    f = None
    f = make(code.replace(**third), scope)
    step(w, n - 2)
    f(w)


def dynamic(w, n):
    space = {'w': w, 'UNIT': UNIT, 'leaf': leaf, 'step': step}
    d = w.draw()
    if d & 1:
        exec(SOURCE, space)
    if d & 2:
        exec(renamed(COMPILED, w.tick()), space)
        exec(renamed(COMPILED, w.tick()), space)
    if d & 4:
        f = types.FunctionType(renamed(leaf.__code__, w.tick()), globals())
        f(w)
        f = types.FunctionType(renamed(leaf.__code__, w.tick()), globals())
        f(w)
        f = None
        types.FunctionType(renamed(leaf_of_two.__code__, w.tick()), globals())(w)
    if d & 8:
        eval('leaf(w) or step(w, %d)' % (n - 3), space)
        eval('UNIT * w.stop()', space)
    if d & 16:
        f = types.FunctionType(renamed(leaf.__code__, w.tick()), globals())
        for i in range(3):
            f(w)
            f.__code__ = renamed((leaf, leaf_of_two, leaf_kinds)[i].__code__, w.tick())
            UNIT * w.small()
        f(w)
    if d & 32:
        g = types.FunctionType(renamed(numbers.__code__, w.tick()), globals())(w, n)
        next(g)
        if d & 64:
            next(g)
        del g


def noise(w, n):
    zlib.decompress(zlib.compress(bytes(200)))
    if inherited:
        inherited.pop()
    step(w, n - 1)
    zlib.compressobj()
    UNIT * w.stop()


def gifts(w, n):
    handed.append(UNIT * w.given())
    if w.draw() & 1:
        try:
            handed.pop()
        except IndexError:
            pass
    step(w, n - 2)


def local_tracer(frame, event, arg):
    w = walks[0]
    if w.draw() & 7 == 0:
        UNIT * w.stop()
    return local_tracer


def tracer(frame, event, arg):
    if frame.f_code.co_name in HELPERS:
        return None
    w = walks[0]
    if w.draw() & 3 == 0:
        leaf(w)
    return local_tracer if w.draw() & 1 else None


def profiler(frame, event, arg):
    if event not in ('call', 'return') or frame.f_code.co_name in HELPERS:
        return
    w = walks[0]
    if w.draw() & 7 == 0:
        UNIT * w.stop()


def traced(w, n):
    if w.number or sys.gettrace() or sys.getprofile() or 'trace' not in PARTS:
        return step(w, n - 1)
    kind, function = (sys.settrace, tracer) if w.draw() & 1 else (sys.setprofile, profiler)
    kind(function)
    try:
        step(w, n - 1)
        leaf(w)
    finally:
        kind(None)
    UNIT * w.stop()


LEAVES = [leaf, leaf_kinds, leaf_of_two, quiet, growing, leaf_kinds]
WAYS = [step, recursion, back_and_forth, generators, expressions, coroutines, callbacks, cycles, objects, bodies, decorators, managers, raising,
        dynamic, loop, noise, traced, objects, generators, dynamic, recursion, gifts, twins, twins]


def walk(w):
    for depth in itertools.cycle((2, 5, 3, 9, 4, 14, 7)):
        if w.draw() == 0 and w.draw() == 0 and w.draw() == 0:
            break
        step(w, depth)
        UNIT * w.small()


def with_threads():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    more = [Walk(i, FUEL // 4) for i in range(len(walks), len(walks) + 3)]
    walks.extend(more)
    threads = [threading.Thread(target=walk, args=(w,)) for w in more]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    sys.setswitchinterval(before)
    del handed[:]


def with_fork(w):
    """Parent and child go on alike; one pid is written by either."""
    global forked_at
    inherited.extend(f() for i in range(100) for f in (threading.Lock, lambda: bytearray(5000), zlib.compressobj, lambda: [None] * 100))
    child = os.fork()
    if child == 0:
        forked_at = len(stops)
    step(w, 4)
    leaf(w)
    return child


def subinterpreter(w):
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        import _interpreters as interpreters
    leaf(w)
    one = interpreters.create()
    UNIT * w.stop()
    (getattr(interpreters, 'run_string', None) or interpreters.exec)(one, 'a = [bytes(i) for i in range(900)]\ndef f(n):\n    return f(n - 1) if n else bytes(5000)\nf(30)\n')
    leaf(w)
    interpreters.destroy(one)
    UNIT * w.stop()


def main():
    gc.disable()
    sys.setrecursionlimit(5000)
    w = Walk(0, FUEL)
    walks.append(w)
    gc.callbacks.append(on_collection)
    walk(w) if 'fork' not in PARTS else step(w, 12)
    gc.callbacks.remove(on_collection)
    child = None
    if 'threads' in PARTS:
        with_threads()
    if 'fork' in PARTS:
        child = with_fork(w)
        walk(w)
    if 'threads' in PARTS:
        with_threads()
    if 'subinterpreter' in PARTS:
        gc.collect()  # before 3.9 another interpreter's end would collect ours
        subinterpreter(w)
        step(w, 9)
    leaf(w)
    del handed[:]
    for w in walks:
        for i in range(8):
            w.gens[i] = None
    gc.collect()  # what the end of the interpreter collects would come too late
    if TRUTH:
        with open(OUT + ('.child' if child == 0 else ''), 'w', encoding='utf-8') as file:
            json.dump({'frames': list(frames), 'stops': stops, 'forked_at': forked_at,
                       'heads': {'bytes': sys.getsizeof(b''), 'str': sys.getsizeof('')}}, file)
    if child:
        pid, status = os.waitpid(child, 0)
        assert status == 0, status


main()
