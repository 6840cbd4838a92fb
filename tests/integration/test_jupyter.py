"""%%memlyze in IPython: the graph and the table, what a cell may do, the options. Run by an interpreter that has IPython (Debian: python3-ipython)."""
import json
import os
import re
import xml.etree.ElementTree as ElementTree

from harness import BUILD, PYTHONS, TESTS, Skip, case, clean_env, execute, run, same, tool

PACKAGE = os.path.join(os.path.dirname(TESTS), 'tracer', 'python')

# Runs cells and prints, as JSON, what each of them displayed and printed.
SHELL = '''
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance()
shell.colors = "NoColor"
shell.display_formatter.active_types = ["text/plain", "text/html"]
told = []
for cell in json.load(open("cells.json")):
    with capture_output() as out:
        result = shell.run_cell(cell, store_history=True)
    told.append({"ok": result.success, "out": out.stdout, "err": out.stderr, "shown": [o.data for o in out.outputs]})
json.dump(told, open("told.json", "w"))
'''


def cells(python, *texts):
    with open('cells.json', 'w') as file:
        json.dump(texts, file)
    env = clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE='1', IPYTHONDIR=os.path.abspath('ipython'), HOME=os.getcwd())
    result = execute([python, '-c', SHELL], env=env, timeout=120)
    same('exit status: ' + result.stdout[-2000:] + result.stderr[-3000:], result.returncode, 0)
    with open('told.json') as file:
        return json.load(file)


WITH_IPYTHON = [(label, path) for label, path in PYTHONS if execute([path, '-c', 'import IPython']).returncode == 0]


@case
def an_interpreter_has_ipython():
    if not WITH_IPYTHON:
        raise Skip('no interpreter here has IPython; Debian: python3-ipython')


@case(each=WITH_IPYTHON)
def a_cell(python):
    _, told = cells(python, '%load_ext memlyze', '%%memlyze --name result -o kept.mlyze\ndef fill(n):\n    return [bytes(1000) for _ in range(n)]\nkept = fill(3000)\nprint("printed")\nlen(kept)')
    assert told['ok'] and not told['err'], told
    assert told['out'].startswith('printed\n'), told['out']
    assert re.search(r'(?m)^Out\[\d\]: 3000$', told['out']), told['out']
    shown = [data for data in told['shown'] if 'text/html' in data]
    same('displayed with HTML', len(shown), 1)
    page, text = shown[0]['text/html'], shown[0]['text/plain']
    same('frames', page.count('<iframe'), 1)
    assert 'fill' in page and 'return [bytes(1000) for _ in range(n)]' in page, page[-3000:]
    assert re.search(r'^memlyze: peak [23]\.\d+ MiB, allocated [23]\.\d+ MiB in \d+ allocations, not freed [23]\.\d+ MiB; trace in .*kept\.mlyze', text), text
    assert re.search(r'(?m)MiB .*fill.*this cell:[23]\b.*return \[bytes\(1000\)', text), text
    graph = ElementTree.parse('kept.mlyze.svg')
    words = ' '.join(graph.getroot().itertext())
    assert 'fill' in words and 'this cell' in words and 'run_cell' not in words, words[:2000]
    top = tool('top', '--by', 'alloc-count', trace='kept.mlyze')
    assert 3000 <= top['total']['count'] < 3000 * 2 + 200 and not [s for s in top['sites'] if 'IPython' in s['file'] or 'memlyze/_' in s['file']], top['sites'][:5]


@case(each=WITH_IPYTHON)
def what_a_cell_may_do(python):
    told = cells(python, '%load_ext memlyze', '%%memlyze\n1/0', '%%memlyze\ndef broken(:', '%memlyze x = list(range(100000))', '%%memlyze --no-flame -n 2\ny = [str(n) for n in range(1000)];',
                 'len(x), len(y)', '%%memlyze --by alloc-count --max-stack-depth 5 --sample-rate 0.5\nsum(map(float, range(1000)))', '%%memlyze\n', '%memlyze', '%%memlyze\nimport memlyze\nmemlyze.start("t.mlyze")',
                 '%%memlyze\n!echo from the shell', 'import memlyze; assert not memlyze.is_recording()')
    by = dict(zip(('load', 'raise', 'syntax', 'line', 'table', 'kept', 'options', 'empty', 'nothing', 'start', 'shell', 'after'), told))
    assert 'ZeroDivisionError' in by['raise']['out'] and by['raise']['shown'], by['raise']
    assert 'SyntaxError' in by['syntax']['out'] + by['syntax']['err'] and not by['syntax']['shown'], by['syntax']
    assert 'memlyze: peak' in by['line']['shown'][0]['text/plain'], by['line']
    assert '<iframe' not in by['table']['shown'][0]['text/html'] and by['table']['shown'][0]['text/html'].count('<tr>') <= 3, by['table']
    assert '(100000, 1000)' in by['kept']['out'], by['kept']
    assert '499500.0' in by['options']['out'], by['options']
    for name in ('empty', 'nothing'):
        assert not by[name]['ok'] and not by[name]['shown'], by[name]
    assert 'nothing to run' in by['nothing']['out'], by['nothing']
    assert 'RuntimeError' in by['start']['out'] and 'stop()' in by['start']['out'], by['start']
    assert 'from the shell' in by['shell']['out'], by['shell']
    same('after all', by['after']['ok'], True)


run(__name__)
