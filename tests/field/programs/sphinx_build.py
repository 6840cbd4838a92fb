"""Sphinx builds the documentation of forty modules of the standard library out of their docstrings."""
import os
import sys
import tempfile

from sphinx.cmd.build import main

MODULES = ("abc argparse ast base64 bisect calendar cmd code codecs collections configparser contextlib copy csv dataclasses datetime decimal difflib dis email enum "
           "fnmatch fractions functools glob gzip hashlib heapq html inspect io json logging pathlib pprint queue random shelve statistics string").split()
with tempfile.TemporaryDirectory() as d:
    with open(os.path.join(d, "conf.py"), "w") as f:
        f.write("extensions = ['sphinx.ext.autodoc']\nproject = 'x'\nhtml_theme = 'basic'\nautodoc_default_options = {'members': True}\n")
    with open(os.path.join(d, "index.rst"), "w") as f:
        f.write("Index\n=====\n\n.. toctree::\n\n" + "".join("   %s\n" % m for m in MODULES[: int(sys.argv[1]) if len(sys.argv) > 1 else 40]))
    for m in MODULES:
        with open(os.path.join(d, m + ".rst"), "w") as f:
            f.write("%s\n%s\n\n.. automodule:: %s\n" % (m, "=" * len(m), m))
    status = main(["-q", "-Q", "-b", "html", d, os.path.join(d, "out")])
    print(status, sum(os.path.getsize(os.path.join(d, "out", n)) for n in sorted(os.listdir(os.path.join(d, "out"))) if n.endswith(".html")))
