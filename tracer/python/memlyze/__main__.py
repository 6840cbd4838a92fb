"""`python -m memlyze TOOL ...`: the program `memlyze TOOL ...`, run as a child, so that `python -m cProfile -m memlyze record ...` has something to profile.

The exit status is the program's. What the terminal sends reaches both; a signal sent to this process alone is passed on."""
from __future__ import annotations

import signal
import subprocess
import sys
from typing import List, Set

from memlyze import _places

_PASSED = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def _wait(child: "subprocess.Popen[bytes]", watched: Set[signal.Signals]) -> int:
    while child.poll() is None:
        info = signal.sigwaitinfo(watched)
        # The terminal's own (si_pid 0) went to the whole process group, the child included.
        if info.si_signo != signal.SIGCHLD and info.si_pid != 0:
            child.send_signal(info.si_signo)
    return child.returncode


def run(tool: str, arguments: List[str]) -> int:
    """Runs `memlyze-TOOL` ('': the launcher `memlyze`) to its end; its exit status, 128+N when signal N ended it."""
    command = [_places.program(tool)] + arguments
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    watched = {s for s in _PASSED if signal.getsignal(s) != signal.SIG_IGN} | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        child = subprocess.Popen(command, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before), close_fds=False)
        status = _wait(child, watched)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return status if status >= 0 else 128 - status


def main() -> int:
    try:
        return run("", sys.argv[1:])
    except OSError as error:
        print("memlyze: %s" % (error.strerror or error), file=sys.stderr)
        return 125 if sys.argv[1:2] == ["record"] else 2


if __name__ == "__main__":
    sys.exit(main())
