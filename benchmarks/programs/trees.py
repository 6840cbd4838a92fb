"""Binary trees: nothing but allocation of small objects."""
import sys


def make(depth):
    return (make(depth - 1), make(depth - 1)) if depth else (None, None)


def count(tree):
    left, right = tree
    return 1 + (count(left) + count(right) if left else 0)


total = sum(count(make(14)) for _ in range(int(60 * float(sys.argv[1]))))
print(total)
