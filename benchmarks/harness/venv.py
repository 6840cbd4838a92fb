"""The virtual environment with the applications and the peers: made once, pinned versions; where PyPI cannot be reached a line says so and they are left out."""
import hashlib
import os
import subprocess
import sys

from . import catalog

FILES = {'apps': 'apps/requirements.txt', 'peers': 'apps/requirements-peers.txt'}


def _say(text):
    print('bench: ' + text, file=sys.stderr, flush=True)


def _pip(python, arguments):
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}
    command = [python, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--no-input', '--no-deps', '--only-binary', ':all:', '--retries', '1',
               '--timeout', '20'] + arguments
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)


def _install(python, directory, part):
    """Every pin that can be installed; the marker holds the list's digest, so a changed list is installed anew."""
    requirements = os.path.join(catalog.HERE, FILES[part])
    with open(requirements, 'rb') as file:
        content = file.read()
    digest = hashlib.sha256(content).hexdigest()
    marker = os.path.join(directory, 'bench-' + part)
    if os.path.exists(marker):
        with open(marker) as file:
            if file.read() == digest:
                return
    _say('installing %s into %s' % (part, directory))
    tried = _pip(python, ['-r', requirements])
    if tried.returncode:
        reason = (tried.stdout.strip().splitlines() or ['pip failed'])[-1]
        if 'Temporary failure in name resolution' in tried.stdout or 'No matching distribution' in reason and not _reachable(python, directory):
            _say('PyPI cannot be reached: %s are left out' % part)
            return
        # A version that this interpreter has no wheel for: everything else all the same.
        for line in content.decode().splitlines():
            pin = line.split('#')[0].strip()
            if pin and _pip(python, [pin]).returncode:
                _say('%s cannot be installed for this interpreter, and is left out' % pin)
    with open(marker, 'w') as file:
        file.write(digest)


def _reachable(python, directory):
    """Whether one small pure-Python package comes from the index."""
    return _pip(python, ['--upgrade', '--target', os.path.join(directory, 'probe'), 'six']).returncode == 0


def prepare(python, directory, parts):
    """The environment's interpreter, or None where none can be made."""
    inside = os.path.join(directory, 'bin', 'python3')
    if not os.path.exists(inside) or subprocess.run([inside, '-c', 'import pip'], stderr=subprocess.DEVNULL).returncode:
        made = subprocess.run([python, '-m', 'venv', '--clear', directory], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        if made.returncode:
            _say('no virtual environment could be made (%s): applications and peers are left out'
                 % (made.stdout.strip().splitlines() or ['python -m venv failed'])[0])
            return None
    for part in parts:
        _install(inside, directory, part)
    return inside


def has(python, module):
    return subprocess.run([python, '-c', 'import importlib.util, sys; sys.exit(not importlib.util.find_spec(%r))' % module], stderr=subprocess.DEVNULL).returncode == 0
