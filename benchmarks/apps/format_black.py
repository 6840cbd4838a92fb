"""black formats argparse.py of the standard library, over and over in one process (PyPI's wheel: compiled by mypyc). Argument: about seconds."""
import argparse
import sys

import black

with open(argparse.__file__, encoding='utf-8') as file:
    source = file.read()
total = 0
for _ in range(max(1, round(float(sys.argv[1]) / 0.7))):
    total += len(black.format_str(source, mode=black.Mode()))
print(total)
