"""Threads that allocate at once, and free each other's blocks. Prints as JSON {size: [blocks, of them live at the end]}. For free-threaded interpreters."""
import json
import threading

UNIT = b'x'
N, THREADS, SHARED = 5000, 8, 512
kept = [[None] * N for _ in range(THREADS)]
shared = [None] * SHARED


def work(t):
    mine = kept[t]
    for i in range(N):
        mine[i] = UNIT * 3000
        shared[(i * 7 + t) % SHARED] = UNIT * 3100  # frees what another thread put there
        UNIT * 3200
        if i % 2:
            mine[i] = None


threads = [threading.Thread(target=work, args=(t,)) for t in range(THREADS)]
for t in threads:
    t.start()
for t in threads:
    t.join()
head = b''.__sizeof__()
print(json.dumps({3000 + head: [N * THREADS, N * THREADS // 2], 3100 + head: [N * THREADS, SHARED], 3200 + head: [N * THREADS, 0]}))
