"""Calls of a Cython module (cython_module.pyx) on marked lines. Prints as JSON: marker -> [bytes of one block, how many, how many of them are kept]."""
import json
import sys

sys.path.insert(0, sys.argv[1])
import cython_module

N = 50
SIZES = {'mem': 20000, 'raw': 21000, 'c': 22000, 'announced': 23000}
kept = {name: [None] * N for name in SIZES}
made, mem, raw, c, announced = cython_module.make, *SIZES.values()
for i in range(N):
    kept['mem'][i] = made(0, mem)  # @mem
for i in range(N):
    kept['raw'][i] = made(1, raw)  # @raw
for i in range(N):
    kept['c'][i] = made(2, c)  # @c
for i in range(N):
    kept['announced'][i] = made(3, announced)  # @announced
for name in SIZES:
    for i in range(0, N, 2):
        kept[name][i] = None
objects = [None] * N
cython_module.objects(objects, 24000)  # @objects
print(json.dumps(dict({name: [size, N, N // 2] for name, size in SIZES.items()}, objects=[24000 + b''.__sizeof__(), N, N])))
