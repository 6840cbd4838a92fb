"""Blocks of the C library that threads allocate with the GIL released (ctypes does so), while others run and code objects come and go.

Prints as JSON: marker -> [blocks, bytes, live blocks, live bytes]. Works on CPython 3.8 and later.
"""
import ctypes
import json
import threading

N, THREADS = 100, 4
libc = ctypes.CDLL(None)
malloc, free = libc.malloc, libc.free
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
free.restype, free.argtypes = None, [ctypes.c_void_p]
SIZES = [70000 + i for i in range(N)]
done = []


def one(size):
    return malloc(size)  # @released


def work():
    mine = [None] * N
    for i in range(N):
        mine[i] = one(SIZES[i])  # @called
    for i in range(0, N, 2):
        free(mine[i])
    done.append(1)


def churn():
    n = 0
    while len(done) < THREADS:
        n += 1
        space = {}
        exec(compile('\n' * (n % 50) + 'def f():\n  return [bytes(200 + i) for i in range(10)]', 'churn', 'exec'), space)
        space['f']()


threads = [threading.Thread(target=work) for _ in range(THREADS)] + [threading.Thread(target=churn)]
for t in threads:
    t.start()
for t in threads:
    t.join()
first = malloc(90000)  # @first
print(json.dumps({'released': [N * THREADS, sum(SIZES) * THREADS, N * THREADS // 2, sum(SIZES[1::2]) * THREADS], 'first': [1, 90000, 1, 90000]}))
