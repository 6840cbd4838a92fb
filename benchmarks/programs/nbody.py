"""Numbers: n-body steps and integer arithmetic; few blocks live, most from free lists."""
import sys

bodies = [[float(i), float(i * 2), float(i * 3), 0.1 * i, 0.2, 0.3, 1.0 + i] for i in range(6)]
for step in range(int(26000 * float(sys.argv[1]))):
    for i, a in enumerate(bodies):
        for b in bodies[i + 1:]:
            dx, dy, dz = a[0] - b[0], a[1] - b[1], a[2] - b[2]
            d = 0.001 / ((dx * dx + dy * dy + dz * dz + 0.01) ** 1.5)
            for k, delta in ((3, dx), (4, dy), (5, dz)):
                a[k] -= delta * b[6] * d
                b[k] += delta * a[6] * d
    for a in bodies:
        for k in range(3):
            a[k] += 0.001 * a[k + 3]
print(round(sum(a[0] for a in bodies), 6))
