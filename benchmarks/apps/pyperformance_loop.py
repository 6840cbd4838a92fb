"""One of pyperformance's application benchmarks, by its own code, in a loop in this process. Arguments: NAME, about seconds."""
import importlib.util
import io
import os
import sys
import warnings

warnings.simplefilter('ignore')

import pyperformance  # noqa: E402

ROOT = os.path.join(os.path.dirname(pyperformance.__file__), 'data-files', 'benchmarks')


def load(name):
    spec = importlib.util.spec_from_file_location('bm_' + name, os.path.join(ROOT, 'bm_' + name, 'run_benchmark.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def docutils(module):
    return lambda n: module.bench_docutils(n, module.DOC_ROOT)


def dulwich(module):
    import dulwich.repo
    repo = dulwich.repo.Repo(os.path.join(ROOT, 'bm_dulwich_log', 'data', 'asyncio.git'))
    module.head = repo.head()
    return lambda n: [module.iter_all_commits(repo) for _ in range(n)]


def html5lib(module):
    with open(os.path.join(ROOT, 'bm_html5lib', 'data', 'w3_tr_html5.html'), 'rb') as file:
        page = io.BytesIO(file.read())
    return lambda n: [module.bench_html5lib(page) for _ in range(n)]


def sqlalchemy(module):
    return lambda n: module.bench_sqlalchemy(n, 100)


def sqlglot(module):
    return lambda n: [module.BENCHMARKS[part](n * times) for part, times in (('parse', 8), ('transpile', 8), ('optimize', 1), ('normalize', 2))]


def sympy(module):
    return lambda n: [module.bench_sympy(n, getattr(module, 'bench_' + part)) for part in ('expand', 'integrate', 'sum', 'str')]


def tornado(module):
    return module.bench_tornado


# What loads, and how many loops make about a second.
NAMED = {
    'docutils': ('docutils', docutils, 0.3),
    'dulwich': ('dulwich_log', dulwich, 12),
    'html5lib': ('html5lib', html5lib, 18),
    'sqlalchemy': ('sqlalchemy_declarative', sqlalchemy, 4),
    'sqlglot': ('sqlglot_v2', sqlglot, 12),
    'sympy': ('sympy', sympy, 1.1),
    'tornado': ('tornado_http', tornado, 9),
}

module, prepare, rate = NAMED[sys.argv[1]]
loops = max(1, round(rate * float(sys.argv[2])))
prepare(load(module))(loops)
print(sys.argv[1], loops)
