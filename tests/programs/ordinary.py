"""Ordinary data, kept to the end: what tracemalloc and memlyze must agree on, line by line. Warms up first, so that the interpreter's
free lists and caches are the same whether or not somebody looks on."""
import gc

gc.disable()
ROUNDS = range(300)


class Record:
    def __init__(self, number):
        self.number = number
        self.name = 'record %d' % number
        self.tags = ['tag', 'number', str(number)]


class Point:
    __slots__ = ('x', 'y')

    def __init__(self, x, y):
        self.x = x * 1.5
        self.y = y


def text(n):
    return 'line %05d of text, not very long' % n


def build():
    records = [Record(n + 1000) for n in ROUNDS]
    points = [Point(n, n + 1000) for n in ROUNDS]
    index = {}
    for r in records:
        index[r.name] = r
    lines = []
    for n in ROUNDS:
        lines.append(text(n))
    joined = '\n'.join(lines)
    words = joined.split()
    table = {n + 5000: (n + 7000, text(n)) for n in ROUNDS}
    numbers = set()
    for n in ROUNDS:
        numbers.add(n * 1000)
    frozen = frozenset(numbers)
    nested = [[i * 500 + j for j in range(20)] for i in range(30)]
    data = bytearray()
    for n in ROUNDS:
        data += b'0123456789'
    big = [bytes(100000) for _ in range(5)]
    return records, points, index, lines, joined, words, table, numbers, frozen, nested, data, big


build()
kept = build()
