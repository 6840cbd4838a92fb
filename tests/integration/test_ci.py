"""docs/ci.md: the shell of its GitHub workflow and its GitLab job is run as it stands there, in a repository as it describes: on the program of the baseline, and
on one that keeps one more block for each request. `pip install` alone is not run: what it installs comes from the build tree."""
import json
import os
import re
import shlex
import textwrap
import xml.etree.ElementTree

from harness import BUILD, MEMLYZE, PYTHONS, TESTS, Skip, case, clean_env, execute, run, same

ROOT = os.path.dirname(TESTS)
PACKAGE = os.path.join(ROOT, 'tracer', 'python')

APP = '''
import json
UNIT = b'x'
kept = [None] * 4000
cache = {}
def remember(n):
    kept[n] = UNIT * 50
def handle(n):
    json.loads('{"request": [%d, 2, 3], "name": "x"}' % n)
    cache[n % 100] = UNIT * 3000
    LEAK
def serve():
    for n in range(3000):
        handle(n)
if __name__ == '__main__':
    serve()
'''
SUITE = '''
import pytest, app

@pytest.mark.limit_memory("24 MB")
def test_serve():
    app.serve()
'''


def blocks():
    """[(language, text)] of the document."""
    with open(os.path.join(ROOT, 'docs', 'ci.md'), encoding='utf-8') as file:
        return [(language, text) for language, text in re.findall(r'(?ms)^```(\w+)\n(.*?)^```$', file.read())]


def text_of(language, holds=''):
    found = [text for its, text in blocks() if its == language and holds in text]
    same('blocks of %s with %r' % (language, holds), len(found), 1)
    return found[0]


def steps(yaml, key):
    """The scripts behind `run:` (key 'run') or in the list `script:`, in order; the rest of the file is not for us."""
    pattern = r'(?m)^ +run: *' if key == 'run' else r'(?m)^    - (?=\S)'
    text = yaml if key == 'run' else yaml[yaml.index('  script:\n'):yaml.index('  artifacts:\n')]
    found = []
    for match in re.finditer(pattern, text):
        line, _, rest = text[match.end():].partition('\n')
        if line == '|':
            indent = len(rest) - len(rest.lstrip(' '))
            body = re.match(r'(?:^ {%d}.*\n?|^\n)+' % indent, rest, re.M).group()
            found.append(textwrap.dedent(body))
        else:
            found.append(line)
    return found


def repository():
    """Its environment: programs on PATH, memlyze.json, app.py, tests, ci/."""
    python = next((path for label, path in reversed(PYTHONS) if execute([path, '-c', 'import pytest']).returncode == 0), None)
    if not python:
        raise Skip('no interpreter has pytest')
    os.makedirs('bin')
    os.mkdir('ci')
    os.symlink(MEMLYZE, 'bin/memlyze')
    for name, line in (('python', 'exec %s "$@"' % shlex.quote(python)),
                       ('pytest', 'exec %s -m pytest -p memlyze.pytest_plugin -p no:cacheprovider "$@"' % shlex.quote(python)),
                       ('pip', '[ "$1 $2" = "install pytest" ] && echo installed')):
        with open('bin/' + name, 'w') as file:
            file.write('#!/bin/sh\n%s\n' % line)
        os.chmod('bin/' + name, 0o755)
    with open('memlyze.json', 'w') as file:
        file.write(text_of('json'))
    with open('test_app.py', 'w') as file:
        file.write(SUITE)
    write_app(False)
    env = clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=PACKAGE + ':.', PYTHONDONTWRITEBYTECODE='1', PYTHONHASHSEED='0', GITHUB_STEP_SUMMARY='summary.md')
    env['PATH'] = os.path.abspath('bin') + ':' + env['PATH']
    return env


def write_app(leak):
    with open('app.py', 'w') as file:
        file.write(APP.replace('LEAK', 'remember(n)' if leak else 'pass'))


def shell(script, env, status=0):
    """As GitHub's runners and GitLab's do: the first failure ends it."""
    result = execute(['bash', '-e', '-o', 'pipefail', '-c', script], env=env, timeout=240)
    same('exit status of\n%s\n%s%s' % (script, result.stdout[-3000:], result.stderr[-3000:]), result.returncode, status)
    return result.stdout


def make_baselines(env):
    shell(text_of('sh', '--save-baseline'), env)
    for name in ('ci/memlyze-base.json', 'ci/memlyze-tests.json'):
        with open(name, encoding='utf-8') as file:
            json.load(file)
    os.rename('run1.mlyze', 'old.mlyze')


@case
def github_workflow():
    env = repository()
    make_baselines(env)
    scripts = steps(text_of('yaml', 'GITHUB_STEP_SUMMARY'), 'run')
    same('steps', len(scripts), 5)
    for script in scripts:
        shell(script, env)
    with open('summary.md', encoding='utf-8') as file:
        assert '|' in file.read()
    os.remove('summary.md')
    write_app(True)
    install, tests, record, summary, check = scripts
    for script in (record, summary):
        shell(script, env)
    told = shell(check, env, status=1)
    assert re.search(r'(?m)^::error .*file=app\.py', told), told
    with open('summary.md', encoding='utf-8') as file:
        assert 'remember' in file.read() or 'remember' in told
    shell(text_of('sh', 'memlyze diff'), env)
    with open('diff.svg', encoding='utf-8') as file:
        assert 'remember' in file.read()


@case
def gitlab_job():
    env = repository()
    make_baselines(env)
    scripts = steps(text_of('yaml', 'artifacts:'), 'script')
    same('steps', len(scripts), 5)
    for script in scripts:
        shell(script, env)
    checks = json.loads(execute(['memlyze', 'check', '--json', 'run1.mlyze'], env=env).stdout)['checks']
    for wanted in ('peak', 'leaked', 'app.py'):  # each limit of memlyze.json is of something
        assert any(wanted in c['name'] and c['value'] for c in checks), (wanted, checks)
    root = xml.etree.ElementTree.parse('memory.xml').getroot()
    same('failures', len(root.findall('.//failure')), 0)
    assert len(root.findall('.//testcase')) > 3
    assert os.path.getsize('tests.xml') > 0 and os.path.getsize('memory.md') > 0
    write_app(True)
    install, tests, record, markdown, check = scripts
    for script in (record, markdown):
        shell(script, env)
    shell(check, env, status=1)
    failures = xml.etree.ElementTree.parse('memory.xml').getroot().findall('.//failure')
    assert failures and any('remember' in (f.get('message') or '') + (f.text or '') for f in failures), [f.attrib for f in failures]


@case
def a_summary_does_not_hide_an_error():
    env = repository()
    for document, key in (('GITHUB_STEP_SUMMARY', 'run'), ('artifacts:', 'script')):
        script = steps(text_of('yaml', document), key)[3]
        assert 'markdown' in script
        result = execute(['bash', '-e', '-o', 'pipefail', '-c', script], env=env)  # there are no traces
        assert result.returncode != 0 and 'o such file' in result.stderr, result


run(__name__)
