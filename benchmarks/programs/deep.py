"""Deep recursion: a descent of 300 calls through four functions in turn, as recursive parsers have it; each call allocates before and after the one below it."""
import sys

sys.setrecursionlimit(5000)


def expression(depth, out):
    out.append([depth])
    if depth:
        term(depth - 1, out)
    return (depth, str(depth))


def term(depth, out):
    left = (depth, depth + 1)
    result = factor(depth - 1, out) if depth else None
    return [left, result]


def factor(depth, out):
    name = 'f%d' % depth
    inner = atom(depth - 1, out) if depth else ''
    return {name: inner}


def atom(depth, out):
    value = expression(depth - 1, out) if depth else (0, '')
    return (value[0] + 1.0, value)


total = 0
for n in range(int(3600 * float(sys.argv[1]))):
    out = []
    tree = expression(300, out)
    total += len(out) + tree[0]
print(total)
