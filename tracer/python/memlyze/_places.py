"""Where the programs and the agent are: beside this package, wherever that was installed or moved.

Installed layouts have one thing in common, `make install` (DIR/share/memlyze/python) and pip (DIR/lib/python3.N/site-packages) alike: the programs are in
DIR/bin, four levels up from the package, and the agent in DIR/lib/memlyze (pip: DIR/libexec/memlyze). `pip install --target DIR` puts all three side by side. MEMLYZE_HOME names
another DIR, or a build directory.
"""
from __future__ import annotations

import errno
import os
from typing import Iterator, List, Tuple

_AGENT = "libmemlyze.so"
_READER = "libmemlyze-read.so"
_PACKAGE = os.path.dirname(os.path.realpath(__file__))
# A layout: (the launcher and the recorder, the tools, the agent)
_INSTALLED = ("bin", "bin", os.path.join("lib", "memlyze"))
_BY_PIP = ("bin", "bin", os.path.join("libexec", "memlyze"))
_BUILT = (os.path.join("tracer", "recorder"), "analyzer", os.path.join("tracer", "agent"))

Layout = Tuple[str, str, str]


def _homes() -> Iterator[str]:
    up: List[str] = [_PACKAGE]
    for _ in range(4):
        up.append(os.path.dirname(up[-1]))
    yield up[4]
    yield up[1]
    try:  # where pip put the programs of this very package, for schemes in which that is not four levels up
        import sysconfig
        yield os.path.dirname(sysconfig.get_path("scripts"))
    except (ImportError, KeyError):
        pass


def _layout() -> Layout:
    given = os.environ.get("MEMLYZE_HOME")
    tried = []
    for home in [os.path.abspath(given)] if given else _homes():
        for programs, tools, agents in (_INSTALLED, _BY_PIP, _BUILT):
            layout = (os.path.join(home, programs), os.path.join(home, tools), os.path.join(home, agents))
            if os.access(os.path.join(layout[0], "memlyze-record"), os.X_OK) and os.path.exists(os.path.join(layout[2], _AGENT)):
                return layout
        tried.append(home)
    raise OSError(errno.ENOENT, "memlyze's programs and agent were not found in %s; reinstall memlyze, or set MEMLYZE_HOME to where it is installed"
                  % ", ".join(tried))


def program(tool: str) -> str:
    """The path of `memlyze-TOOL`, or of `memlyze` itself for ''. OSError if it is not there."""
    launcher, tools, _ = _layout()
    name = "memlyze-" + tool if tool else "memlyze"
    for directory in (launcher, tools):
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    raise OSError(errno.ENOENT, "%s is not in %s; reinstall memlyze" % (name, tools))


def agent() -> str:
    """The path of libmemlyze.so. OSError if it is not there."""
    return os.path.join(_layout()[2], _AGENT)


def reader() -> str:
    """The path of libmemlyze-read.so, beside the agent (in a build tree: beside the tools). OSError if it is not there."""
    _, tools, agents = _layout()
    for directory in (agents, tools):
        path = os.path.join(directory, _READER)
        if os.path.exists(path):
            return path
    raise OSError(errno.ENOENT, "%s is not in %s; reinstall memlyze" % (_READER, agents))
