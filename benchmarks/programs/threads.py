"""Four threads under the GIL: each makes records, sorts and joins them, and hands every tenth batch to the next one, which frees it."""
import queue
import sys
import threading

THREADS = 4
queues = [queue.Queue() for _ in range(THREADS)]
sums = [0] * THREADS


def work(me, rounds):
    mine, following = queues[me], queues[(me + 1) % THREADS]
    total = 0
    for n in range(rounds):
        batch = [('key%d' % (i * 7919 % 997), [i, n], float(i)) for i in range(300)]
        batch.sort()
        total += len(','.join(key for key, _, _ in batch))
        if n % 10 == 0:
            following.put(batch)
        if n % 10 == 9:
            total += sum(len(pair) for _, pair, _ in mine.get())
    sums[me] = total


rounds = max(10, int(82 * float(sys.argv[1]) * 10) // 10 * 10)
threads = [threading.Thread(target=work, args=(i, rounds)) for i in range(THREADS)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(sums)
