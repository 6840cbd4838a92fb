"""Ordinary data, kept to the end: what tracemalloc and memlyze must agree on, on each line marked `# both`.

The marked lines make no list, tuple, dict, float or frame objects, nor small integers: the interpreter takes those from free lists, and tracemalloc then
blames the line that reuses a block, memlyze the line that allocated it.
"""
import array
import gc

gc.disable()
ROUNDS = range(400)
WIDE = 10 ** 12  # two digits of the interpreter's: 3.14 has a free list of integers of one


class Point:
    __slots__ = ('x', 'y')


class Open:
    pass


numbers, texts, joined, points, names, index, members, lines, blobs, opened = [], [], [], [], [], {}, set(), [], [], []
shadow = bytearray()
arrays = array.array('q')


def fill():
    for n in ROUNDS:
        numbers.append(n + WIDE)  # @both_1
    for n in ROUNDS:
        texts.append(repr(numbers[n]))  # @both_2
    for n in ROUNDS:
        names.append(texts[n] * 3)  # @both_3
    for n in ROUNDS:
        joined.append(names[n] + texts[n])  # @both_4
    for n in ROUNDS:
        points.append(Point())  # @both_5
    for n in ROUNDS:
        index[texts[n]] = numbers[n]  # @both_6
    for n in ROUNDS:
        members.add(numbers[n])  # @both_7
    for n in ROUNDS:
        lines.append(f'{texts[n]}: {names[n]}')  # @both_8
    for n in ROUNDS:
        shadow.extend(b'0123456789')  # @both_9
    for n in ROUNDS:
        arrays.append(n)  # @both_10
    for n in range(20):
        blobs.append(b'12345678' * (n * 1000 + 7))  # @both_11
    whole = '\n'.join(lines)  # @both_12
    upper = whole.upper()  # @both_13
    coded = upper.encode()  # @both_14
    wide = whole.replace(':', '\U0001f600')  # @both_15
    for n in ROUNDS:
        names[n] = None
    for n in range(0, 400, 2):
        texts[n] = None
    return whole, upper, coded, wide


kept = fill()
