"""Interpreters with a GIL each (CPython 3.12 and later) that come and go in threads, while the main one starts and stops recordings.

    own_gil.py SECONDS SEED [plain] [stay] [still] [low]

plain: nothing is recorded, to see what the interpreter alone does; stay: the interpreters stay until the end; still: the first recording begins before them; low: at rates up to 1/32 that are now
and then raised and lowered. Prints how many recordings
there were, and how many interpreters.
"""
import gc
import random
import sys
import threading
import time

try:
    import _interpreters as some
except ImportError:
    import _xxsubinterpreters as some

INNER = """
import gc, random, time
chance = random.Random(%d)
end = time.monotonic() + %f
def work(n):
    return [str(i) * 3 for i in range(n)], {i: (i, [i]) for i in range(n)}, bytearray(5000)
def codes(n):
    space = {}
    for i in range(n):
        exec(compile("def f%%d(x):\\n    return [x, str(x)] * %%d\\nkept = f%%d(1)" %% (i, i + 1, i), "made", "exec"), space)
    return space
class Cycle:
    def __init__(self):
        self.me = self
while time.monotonic() < end:
    what = chance.randrange(6)
    if what < 3:
        kept = work(chance.randrange(100))
    elif what == 3:
        kept = codes(chance.randrange(20))
    elif what == 4:
        kept = [Cycle() for n in range(50)]
        gc.collect(chance.randrange(3))
    else:
        import json, string, textwrap
        kept = json.dumps({str(n): n for n in range(50)})
"""


def main():
    seconds, seed, how = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    count = [0]
    recordings = 0

    def come_and_go(seed):
        chance = random.Random(seed)
        while time.monotonic() < end:
            one = some.create()
            left = max(0.0, end - time.monotonic())
            some.run_string(one, INNER % (chance.randrange(1 << 30), left if "stay" in how else min(left, chance.choice((0, 0.003, 0.03, 0.3)))))
            some.destroy(one)
            count[0] += 1

    def allocate():
        while time.monotonic() < end:
            kept = [[n] for n in range(1000)]
            time.sleep(0.0001)

    def record():
        tracer = memlyze.start("trace.mlyze", chance.choice((0.03, 0.03, 0.01) if "low" in how else (1.0, 1.0, 0.3, 0.05)), chance.choice((0, 5, 100)), overwrite=True, native=chance.random() < (0 if "low" in how else 0.2))
        for _ in range(chance.randrange(3)):
            kept = [bytes(100) for _ in range(chance.randrange(300))]
            what = chance.randrange(5)
            if what == 0:
                tracer.set_sample_rate(chance.choice((1.0, 0.5, 0.01)))
            elif what == 1:
                tracer.snapshot()
            elif what == 2:
                gc.collect()
            elif what == 3:
                time.sleep(chance.choice((0, 0.001, 0.02)))
        tracer.stop()

    if "plain" not in how:
        import memlyze
        if "still" in how:
            record()
            recordings += 1
    threads = [threading.Thread(target=come_and_go, args=(chance.randrange(1 << 30),)) for _ in range(3)]
    threads.append(threading.Thread(target=allocate))
    for thread in threads:
        thread.start()
    time.sleep(chance.random() * 0.1)
    while time.monotonic() < end:
        if "plain" in how:
            kept = [bytes(100) for _ in range(300)]
            time.sleep(0.003)
        else:
            record()
            recordings += 1
            time.sleep(chance.choice((0, 0, 0.001, 0.01)))
    for thread in threads:
        thread.join()
    print(recordings, "recordings,", count[0], "interpreters")


main()
