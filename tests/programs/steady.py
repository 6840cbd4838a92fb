"""Works for argv[1] seconds, or argv[2] rounds, and prints a checksum of what it did: kills and stops must not change it.
Says `ready` on stderr once it is at work."""
import sys
import threading
import time

seconds, rounds = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
UNIT = b'x'
kept = []
total = 0
lock = threading.Lock()


def work(base):
    global total
    data = {i: UNIT * (100 + (i * base) % 900) for i in range(100)}
    with lock:
        total += sum(len(v) for v in data.values())
    if base % 10 == 0:
        kept.append(UNIT * 1000)


def thread():
    n = 0
    while not stop.is_set():
        work(n % 50)
        n += 1


stop = threading.Event()
others = []
if not rounds:
    others = [threading.Thread(target=thread) for _ in range(2)]
    for t in others:
        t.start()
sys.stderr.write('ready\n')
sys.stderr.flush()
end = time.monotonic() + seconds
n = 0
while n < rounds if rounds else time.monotonic() < end:
    work(n)
    n += 1
stop.set()
for t in others:
    t.join()
print('rounds' if not rounds else 'total %d kept %d' % (total, len(kept)))
