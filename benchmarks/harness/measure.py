"""One run of a program: what it used, what the recorder beside it used, what the recorder says.

The program's tree is told from the recorder by benchmarks/agent/usage.c, which stands between the two: the kernel's own sums (wait4) of what the program
and its children used, and wait4's of `memlyze record` as a whole; the difference is the recorder. Wall time is the program's, from its start to its end;
`outer_wall` has the recorder's start and its last chunk, too.
"""
import json
import os
import re
import subprocess
import time

from . import machine

UNITS = {'s': 1, 'ms': 1e-3, 'us': 1e-6, 'ns': 1e-9, 'min': 60}


class Failed(Exception):
    pass


def environment(home):
    """The same for every run: nothing of the caller's Python settings, fixed hashes, no byte code written beside the sources."""
    env = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON') and k not in ('LD_PRELOAD', 'MAKEFLAGS')}
    env.update(PYTHONHASHSEED='0', PYTHONDONTWRITEBYTECODE='1', HOME=home, NO_COLOR='1')
    return env


def summary(text):
    """What `memlyze record` prints at the end, as numbers."""
    found = {}
    for key in ('allocations_seen', 'allocations_traced', 'events_written', 'events_dropped', 'bytes_written'):
        match = re.search(r'^ +%s +(\d+)' % key, text, re.M)
        if match:
            found[key] = int(match.group(1))
    for key, name in (('blocked', 'blocked'), ('recorder CPU', 'recorder_cpu_said')):
        match = re.search(r'^ +%s +([\d.]+) (\w+)' % key, text, re.M)
        if match:
            found[name] = float(match.group(1)) * UNITS[match.group(2)]
    found['warnings'] = re.findall(r'warning: (.*)', text)
    return found


def run(usage, directory, command, prefix=(), timeout=None, preload=None):
    """Runs `prefix + command`; a dictionary of figures and the program's output. `preload`: a library of LD_PRELOAD."""
    figures_file, out_file, err_file = (os.path.join(directory, name) for name in ('usage.json', 'out', 'err'))
    if os.path.exists(figures_file):
        os.unlink(figures_file)
    whole = list(prefix) + [usage, figures_file] + command
    env = environment(directory)
    if preload:
        env['LD_PRELOAD'] = preload
    load = os.getloadavg()[0]
    busy = machine.busy_seconds()
    began = time.monotonic()
    with open(out_file, 'wb') as out, open(err_file, 'wb') as err:
        process = subprocess.Popen(whole, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=directory, env=env)
        try:
            if timeout:
                _await_end(process, timeout)
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
    outer_wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status) if hasattr(os, 'waitstatus_to_exitcode') else status >> 8
    with open(out_file, encoding='utf-8', errors='replace') as file:
        out = file.read()
    with open(err_file, encoding='utf-8', errors='replace') as file:
        err = file.read()
    if process.returncode:
        raise Failed('%s: exit status %d\n%s' % (' '.join(whole), process.returncode, err[-2000:]))
    with open(figures_file) as file:
        figures = json.load(file)
    figures['cpu'] = figures['user'] + figures['sys']
    figures['outer_wall'] = outer_wall
    outer_cpu = used.ru_utime + used.ru_stime
    if prefix:
        figures['recorder_cpu'] = max(0.0, outer_cpu - figures['cpu'])
        figures.update(summary(err))
        figures['warnings'] = [w for w in figures['warnings'] if not w.startswith(usage)]  # that it is a static program
    figures['load'] = load
    figures['foreign'] = max(0.0, machine.busy_seconds() - busy - outer_cpu) / outer_wall
    return figures, out


def _await_end(process, timeout):
    """Returns when the process has ended (it stays to be waited for), or fails after `timeout` seconds."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.02)
    raise Failed('not done after %.0f s' % timeout)
