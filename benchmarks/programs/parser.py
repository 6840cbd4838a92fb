"""The interpreter's own compiler and ast module over a part of the standard library."""
import ast
import os
import sys

ROOT = os.path.dirname(ast.__file__)
names = ['argparse.py', 'ast.py', 'dis.py', 'inspect.py', 'doctest.py', 'subprocess.py', 'tarfile.py', 'typing.py', 'zipfile.py', 'turtle.py']
sources = []
for name in names:
    path = os.path.join(ROOT, name)
    if os.path.exists(path):
        with open(path, encoding='utf-8') as file:
            sources.append((path, file.read()))
nodes = 0
for n in range(int(2 * float(sys.argv[1])) or 1):
    for path, source in sources:
        tree = ast.parse(source, path)
        nodes += sum(1 for _ in ast.walk(tree))
        compile(tree, path, 'exec')
print(nodes)
