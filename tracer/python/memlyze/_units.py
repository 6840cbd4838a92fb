"""Sizes as the programs read and write them: `24 MB` (10^6), `12.3 MiB` (2^20), bare bytes."""
from __future__ import annotations

import math
import re
from typing import Union

_UNITS = {"": 1, "b": 1, "kb": 10 ** 3, "mb": 10 ** 6, "gb": 10 ** 9, "tb": 10 ** 12, "kib": 2 ** 10, "mib": 2 ** 20, "gib": 2 ** 30, "tib": 2 ** 40}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", re.I)


def size(value: Union[int, str], what: str) -> int:
    """Bytes of a size given as an int or as text. TypeError, ValueError: `what` tells whose value is wrong."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError("%s must be a number of bytes or a text like '64 KiB', not %s" % (what, type(value).__name__))
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        factor = _UNITS.get(match.group(2).lower()) if match else None
        if match is None or factor is None:
            raise ValueError("%s %r must be a size like 4096, '64 KiB' or '1.5 MB'" % (what, value))
        value = int(float(match.group(1)) * factor + 0.5) if "." in match.group(1) else int(match.group(1)) * factor
    if not 0 <= value < 2 ** 63:
        raise ValueError("%s %r is out of range: sizes are 0 to 2^63-1 bytes" % (what, value))
    return value


def share(value: Union[float, str], what: str) -> float:
    """A part of one, given as a number or as text like '5%'."""
    text = str(value).strip()
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError("%s %r must be a part like 0.05 or '5%%'" % (what, value))
    return number


def readable(count: Union[int, float]) -> str:
    """`1.50 MiB`; bytes below 1024 are exact."""
    number, sign = float(abs(count)), "-" if count < 0 else ""
    if number < 1024:
        return "%s%d B" % (sign, number)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        number /= 1024
        if number < 1024 or unit == "TiB":
            break
    return "%s%.*f %s" % (sign, 2 if number < 10 else 1 if number < 100 else 0, number, unit)
