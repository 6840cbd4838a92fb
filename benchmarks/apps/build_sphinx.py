"""Sphinx builds the part of CPython's documentation that pyperformance ships, as HTML, from scratch each time. Argument: about seconds."""
import os
import shutil
import sys
import tempfile
import warnings

warnings.simplefilter('ignore')

import pyperformance  # noqa: E402
from sphinx.cmd.build import main  # noqa: E402

DOC = os.path.join(os.path.dirname(pyperformance.__file__), 'data-files', 'benchmarks', 'bm_sphinx', 'data', 'Doc')
with tempfile.TemporaryDirectory() as directory:
    source, out = os.path.join(directory, 'Doc'), os.path.join(directory, 'out')
    shutil.copytree(DOC, source)
    pages = words = 0
    for _ in range(max(1, round(float(sys.argv[1]) / 2.5))):
        status = main(['--jobs', '1', '--fresh-env', '--write-all', '-Q', '-b', 'html', '-D', 'html_theme=basic', '-d', os.path.join(directory, 'trees'), source, out])
        for folder, _, names in sorted(os.walk(out)):
            for name in sorted(names):
                if name.endswith('.html'):
                    pages += 1
                    with open(os.path.join(folder, name), encoding='utf-8') as file:
                        words += len(file.read())
        shutil.rmtree(out)
print(status, pages, words)
