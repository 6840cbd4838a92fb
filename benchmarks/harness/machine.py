"""Where it runs: the interpreter itself, the machine's description, and what else kept it busy."""
import os
import platform
import shutil
import subprocess
import time

TICK = os.sysconf('SC_CLK_TCK')


def real_python(given):
    """The interpreter behind wrappers (pyenv's shims are shell scripts whose start would hide everything): an ELF file, or SystemExit."""
    python = shutil.which(given or os.environ.get('PYTHON') or 'python3')
    if not python:
        raise SystemExit('run.py: %s: no such interpreter; name one with --python' % (given or 'python3'))
    try:
        found = subprocess.run([python, '-c', 'import sys; print(sys.executable)'], stdout=subprocess.PIPE, universal_newlines=True)
        path = found.stdout.strip() if found.returncode == 0 else ''
    except OSError:
        path = ''
    if not os.path.isfile(path):
        raise SystemExit('run.py: %s is no Python interpreter; name one with --python' % python)
    with open(path, 'rb') as file:
        if file.read(4) != b'\x7fELF':
            raise SystemExit('run.py: %s is a script, whose start would count as the program; name the interpreter itself with --python' % path)
    return path


def python_version(python):
    return subprocess.run([python, '-c', 'import platform; print(platform.python_version())'], stdout=subprocess.PIPE, universal_newlines=True,
                          check=True).stdout.strip()


def describe():
    model = platform.machine()
    try:
        with open('/proc/cpuinfo') as file:
            model = next((line.split(':', 1)[1].strip() for line in file if line.startswith('model name')), model)
    except OSError:
        pass
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return {'cpu': model, 'cpus': len(os.sched_getaffinity(0)), 'memory': memory, 'kernel': platform.release().split('-')[0], 'date': time.strftime('%Y-%m-%d %H:%M')}


def busy_seconds():
    """CPU time that the whole machine has spent, idle and waiting left out."""
    with open('/proc/stat') as file:
        fields = [int(x) for x in file.readline().split()[1:9]]
    user, nice, system, _idle, _wait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICK
