"""Where the programs and the agent are: beside this package, wherever that was installed or moved.

Installed layouts have one thing in common, `make install` (DIR/share/memlyze/python) and pip (DIR/lib/python3.N/site-packages) alike: the programs are in
DIR/bin, four levels up from the package, and the agent in DIR/lib/memlyze. `pip install --target DIR` puts all three side by side. MEMLYZE_HOME names
another DIR, or a build directory.
"""
from __future__ import annotations

import errno
import os
from typing import Iterator, List, Optional, Tuple

_PACKAGE = os.path.dirname(os.path.realpath(__file__))
# A layout: (the launcher and the recorder, the tools, the agent)
_INSTALLED = ("bin", "bin", os.path.join("lib", "memlyze"))
_BUILT = (os.path.join("tracer", "recorder"), "analyzer", os.path.join("tracer", "agent"))

Layout = Tuple[str, str, str]


def _layouts() -> Iterator[Layout]:
    home = os.environ.get("MEMLYZE_HOME")
    if home:
        for layout in (_INSTALLED, _BUILT):
            yield _under(os.path.abspath(home), layout)
        return
    up: List[str] = [_PACKAGE]
    for _ in range(4):
        up.append(os.path.dirname(up[-1]))
    yield _under(up[4], _INSTALLED)
    yield _under(up[1], _INSTALLED)
    scripts = _scripts()
    if scripts:
        yield _under(os.path.dirname(scripts), _INSTALLED)


def _under(directory: str, layout: Layout) -> Layout:
    return (os.path.join(directory, layout[0]), os.path.join(directory, layout[1]), os.path.join(directory, layout[2]))


def _scripts() -> Optional[str]:
    """Where pip put the programs of this very package, for schemes in which that is not four levels up."""
    try:
        import sysconfig
        return sysconfig.get_path("scripts")
    except (ImportError, KeyError):
        return None


def _layout() -> Layout:
    tried = []
    for layout in _layouts():
        if os.access(os.path.join(layout[0], "memlyze-record"), os.X_OK):
            return layout
        tried.append(layout[0])
    raise OSError(errno.ENOENT, "memlyze's programs were not found in %s; reinstall memlyze, or set MEMLYZE_HOME to where it is installed" % ", ".join(tried))


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
    path = os.path.join(_layout()[2], "libmemlyze.so")
    if not os.path.exists(path):
        raise OSError(errno.ENOENT, "%s is missing; reinstall memlyze" % path)
    return path

