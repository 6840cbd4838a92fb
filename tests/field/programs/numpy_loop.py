"""Matrices: large temporary arrays, small arrays in a Python loop, one list that is kept."""
import sys

import numpy as np

n = int(sys.argv[1]) if len(sys.argv) > 1 else 60
rng = np.random.default_rng(7)
a = rng.random((500, 500))
kept = []
total = 0.0
for i in range(n):
    b = a @ a.T  # 2 MB, twice
    c = np.sqrt(b) + 1.0 - a * 2
    total += float(c.sum())
    kept.append(c[:10].copy())  # 40 kB each
for i in range(n * 1000):
    v = np.array([i, i + 1.0, i + 2.0])
    total += float(v.dot(v))
print("%.6e" % total, len(kept))
