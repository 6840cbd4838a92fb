"""Object churn: instances with and without __slots__, linked and unlinked, short-lived and kept for a while."""
import sys
from collections import deque


class Point:
    __slots__ = ('x', 'y', 'name')

    def __init__(self, x, y, name):
        self.x = x
        self.y = y
        self.name = name

    def moved(self, dx, dy):
        return Point(self.x + dx, self.y + dy, self.name)


class Node:
    def __init__(self, value, after):
        self.value = value
        self.after = after
        self.tags = [value, after]


def chain(n):
    head = None
    for i in range(n):
        head = Node(i * 1.5, head)
    return head


def walk(head):
    total = 0.0
    while head:
        total += head.value + len(head.tags)
        head = head.after
    return total


kept = deque(maxlen=20000)
total = 0.0
for n in range(int(46 * float(sys.argv[1]))):
    points = [Point(i, n, 'p') for i in range(3000)]
    points = [p.moved(0.5, 1) for p in points]
    kept.extend(points[::5])
    total += walk(chain(2000)) + sum(p.x for p in points)
print(round(total, 3), len(kept))
