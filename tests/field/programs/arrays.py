"""numpy arrays on marked lines. Prints as JSON: marker -> [bytes of one block of data, how many, how many of them are kept]."""
import json

import numpy as np

N = 50
SIZES = {'zeros': 800000, 'ones': 80008, 'empty': 1640, 'copy': 24008, 'temporary': 400008, 'small': 1048, 'grown': 160008}
known = {}


def tell(name, kept):
    known[name] = [SIZES[name], N, kept]


items = {name: size // 8 for name, size in SIZES.items()}
zeros, ones, empty, copies, small = ([None] * N for _ in range(5))
n = items['zeros']
for i in range(N):
    zeros[i] = np.zeros(n)  # @zeros
tell('zeros', N)
n = items['ones']
for i in range(N):
    ones[i] = np.ones(n)  # @ones
for i in range(0, N, 2):
    ones[i] = None
tell('ones', N // 2)
n = items['empty']
for i in range(N):
    empty[i] = np.empty(n)  # @empty
tell('empty', N)
source = np.arange(float(items['copy']))
for i in range(N):
    copies[i] = source.copy()  # @copy
tell('copy', N)
a = np.ones(items['temporary'])
for i in range(N):
    b = a * a  # @temporary
    b = None
tell('temporary', 0)
n = items['small']
for i in range(N):
    small[i] = np.zeros(n)  # @small
tell('small', N)
for i in range(N):
    grown = np.zeros(10)
    grown.resize(items['grown'], refcheck=False)  # @grown
tell('grown', 1)
print(json.dumps(known))
