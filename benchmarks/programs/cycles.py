"""Garbage: reference cycles that only the collector frees, beside a large heap of containers that every full collection walks."""
import gc
import sys


class Node:
    def __init__(self, name):
        self.name = name
        self.parent = None
        self.children = []

    def add(self, child):
        child.parent = self
        self.children.append(child)


def family(n):
    root = Node('root%d' % n)
    for i in range(6):
        child = Node(i)
        root.add(child)
        for j in range(3):
            child.add(Node([i, j]))
    return root


heap = [{'id': i, 'row': [i, (i, str(i))]} for i in range(60000)]
total = 0
for n in range(int(13000 * float(sys.argv[1]))):
    root = family(n)
    total += sum(len(c.children) for c in root.children)
    heap[n % len(heap)] = {'id': n, 'row': [n, (n, root.name)]}
    if n % 4000 == 3999:
        gc.collect()
print(total, len(heap))
