"""Async tasks: many small coroutines that wait for each other through queues, events and gather."""
import asyncio
import sys


async def step(n):
    await asyncio.sleep(0)
    return {'n': n, 'text': str(n)}


async def producer(q, n):
    for i in range(n):
        await q.put(await step(i))
    await q.put(None)


async def consumer(q):
    total = 0
    while True:
        item = await q.get()
        if item is None:
            return total
        total += item['n'] + len(item['text'])


async def main(rounds):
    total = 0
    for _ in range(rounds):
        queues = [asyncio.Queue(8) for _ in range(20)]
        results = await asyncio.gather(*[producer(q, 50) for q in queues], *[consumer(q) for q in queues])
        total += sum(r for r in results if r is not None)
        total += sum(r['n'] for r in await asyncio.gather(*[step(i) for i in range(500)]))
    return total


print(asyncio.run(main(max(1, int(22 * float(sys.argv[1]))))))
