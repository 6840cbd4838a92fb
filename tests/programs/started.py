"""The agent's C interface (tracer/agent/api.h), driven directly through ctypes. MEMLYZE_BUILD names the build tree. Not a program: others import it."""
import ctypes
import json
import math
import os

BUILD = os.environ['MEMLYZE_BUILD']
RECORDER = os.path.join(BUILD, 'tracer', 'recorder', 'memlyze-record')
E_STATE, E_VALUE, E_SYSTEM, E_RECORDER = -1, -2, -3, -4
NONE, RECORD, STARTED, CHILD = range(4)


class Info(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint32), ('mode', ctypes.c_uint32), ('recorder_pid', ctypes.c_uint32),
                ('max_stack_depth', ctypes.c_uint32), ('sample_rate', ctypes.c_double), ('sample_over', ctypes.c_uint64),
                ('track_gc', ctypes.c_uint32), ('paused', ctypes.c_uint32), ('session', ctypes.c_char * 256)]


class Refused(Exception):
    """code, text"""


def _load(kind):
    try:
        library = kind(None)
        library.memlyze_api_version
        return library
    except AttributeError:
        return kind(os.path.join(BUILD, 'tracer', 'agent', 'libmemlyze.so'))


_held, _free = _load(ctypes.PyDLL), _load(ctypes.CDLL)
assert _held.memlyze_api_version() == 1
_text = ctypes.create_string_buffer(512)


def _check(code):
    if code:
        raise Refused(code, _text.value.decode())


def info():
    i = Info(bytes=ctypes.sizeof(Info))
    _held.memlyze_info(ctypes.byref(i))
    return i


def start(*options, trace='trace.mlyze', recorder=RECORDER):
    """A descriptor for stop()."""
    words = [recorder, '--serve', '-f', '-o', trace] + list(options)
    argv = (ctypes.c_char_p * (len(words) + 1))(*[w.encode() for w in words], None)
    answers = ctypes.c_int(-1)
    _check(_held.memlyze_start(argv, ctypes.byref(answers), _text, 512))
    return answers.value


def stop(answers=None):
    """The statistics; of a fork's child nothing."""
    _check(_held.memlyze_stop(_text, 512))
    return read(answers) if answers is not None else None


def read(answers):
    with os.fdopen(answers, 'rb') as file:
        text = file.read()
    return json.loads(text.decode()) if text.startswith(b'{') else text.decode()


def request(mark=None, snapshot=None, rate=math.nan, depth=-1, paused=-1):
    ns = ctypes.c_uint64()
    _check(_free.memlyze_request(mark and mark.encode(), snapshot and snapshot.encode(), ctypes.c_double(rate), depth, paused,
                                 ctypes.byref(ns), _text, ctypes.c_size_t(512)))
    return ns.value
