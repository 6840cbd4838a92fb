"""Sub-interpreters in threads; from CPython 3.12 on each has a GIL of its own. Blocks are known on the lines `@inner` (of the others) and `@outer` (of the main one).

Prints as JSON: how many interpreters there were, and how many of them still live at the end. Works on CPython 3.8 and later.
"""
import json
import sys
import threading

UNIT = b'x'
THREADS, ROUNDS = 3, 2
alive = []


def keep(n):
    mine = [None] * n
    for i in range(n):
        mine[i] = UNIT * 7000  # @inner
    for i in range(0, n, 2):
        mine[i] = None
    return mine


def run(interpreters, source):
    for _ in range(ROUNDS):
        one = interpreters.create()
        interpreters.run_string(one, source)
        mine = [None] * 50
        for i in range(50):
            mine[i] = UNIT * 9000  # @outer
        if alive:
            interpreters.destroy(one)
        else:
            alive.append(one)


def main():
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    path = sys.argv[0]
    source = 'path, space = %r, {"__name__": "inner"}\nexec(compile(open(path, encoding="utf-8").read(), path, "exec"), space)' % path
    run(interpreters, source)
    threads = [threading.Thread(target=run, args=(interpreters, source)) for _ in range(THREADS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    # 3.14 ends them before it begins to finalise the main one.
    print(json.dumps({'interpreters': (THREADS + 1) * ROUNDS, 'alive': len(alive) if sys.version_info < (3, 14) else 0}))


if __name__ == 'inner':
    kept = keep(100)
else:
    main()
