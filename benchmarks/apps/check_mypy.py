"""mypy checks the package tornado without a cache (PyPI's wheel: compiled by mypyc). Argument: about seconds."""
import sys

from mypy import api

total = 0
for _ in range(max(1, round(float(sys.argv[1]) / 1.6))):
    out, err, status = api.run(['--cache-dir=/dev/null', '--no-incremental', '--ignore-missing-imports', '-p', 'tornado'])
    if err:
        raise SystemExit(err)
    total += len(out) + status
print(total)
