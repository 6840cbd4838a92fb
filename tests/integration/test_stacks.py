"""Every frame of every stack: programs whose block sizes say which line, and which whole stack, each block must be blamed on.

The trace is read by the second reader (mlyze_decode.py), so the answer does not lean on the analyzers."""
import json
import os
import sys

from harness import PROGRAMS, PYTHON, PYTHONS, TESTS, case, clean_env, record, run, same, tool

sys.path.insert(0, TESTS)
from mlyze_decode import EVENTS, Trace, decode_classes  # noqa: E402

BYTES = 33  # of a bytes object beside its content
OBJ = 2


class Stacks:
    """The classes of a trace with their stacks in words."""

    def __init__(self, path='trace.mlyze'):
        with open(path, 'rb') as f:
            self.trace = Trace(f.read())

    def classes(self):
        """(size, truncated, [[function, line], ...]) of each class of blocks of the obj domain, chunk by chunk."""
        t = self.trace
        for at, _, _ in t.events:
            chunk = t.chunk(at)
            assert chunk is not None and chunk[0] == EVENTS, 'a damaged chunk'
            for stack, size, domain, _ in decode_classes(chunk[5]):
                if domain == OBJ:
                    truncated, frames = t.stacks[stack]
                    yield size, truncated, [[t.strings[t.frames[f][0]], t.frames[f][3]] for f in frames]


def lines_are_right(python, arguments=(), variables=None, depth=10):
    made = record([python, *arguments, os.path.join(PROGRAMS, 'lines.py'), '25'], '--max-stack-depth', depth, env=clean_env(**(variables or {})))
    base, found, wrong = 200000 + BYTES, set(), []
    for size, _, frames in Stacks().classes():
        if base <= size < base + 400:
            found.add(size - base)
            if not frames or frames[0][1] != size - base:
                wrong.append('line %d blamed on %r' % (size - base, frames[:1]))
    assert not wrong, '%d wrong, such as %s' % (len(wrong), wrong[0])
    assert int(made.stdout) > 2500 and len(found) > 60, '%s blocks, %d lines' % (made.stdout, len(found))


@case(each=PYTHONS)
def each_allocation_has_its_own_line(python):
    lines_are_right(python)


@case(each=[('PYTHONMALLOC=malloc', [], {'PYTHONMALLOC': 'malloc'}), ('PYTHONMALLOC=debug', [], {'PYTHONMALLOC': 'debug'}),
            ('-X dev', ['-X', 'dev'], {}), ('-X tracemalloc', ['-X', 'tracemalloc=3'], {})])
def and_with_other_allocators(arguments, variables):
    lines_are_right(PYTHON, arguments, variables)


@case(each=[('%s, %d frames' % (label, depth), python, depth) for label, python in PYTHONS for depth in (1, 4, 10, 300)])
def every_frame_of_the_stack(python, depth):
    record([python, os.path.join(PROGRAMS, 'stacks.py'), 'stops.json', '12'], '--max-stack-depth', depth)
    with open('stops.json', encoding='utf-8') as f:
        stops = json.load(f)
    base, checked, wrong = 1000000 + BYTES, set(), []
    for size, truncated, frames in Stacks().classes():
        stop = size - base
        if not 0 <= stop < len(stops):
            continue
        checked.add(stop)
        if depth <= 64 or len(stops[stop]) < 64:  # the program remembers 64 frames
            if frames != stops[stop][:depth] or bool(truncated) != (len(stops[stop]) > depth):
                wrong.append('stop %d: got %r, wanted %r' % (stop, frames, stops[stop][:depth]))
    assert not wrong, '%d of %d wrong, such as %s' % (len(wrong), len(stops), wrong[0])
    same('stops found', len(checked), len(stops))


CELLS = '''
import _thread, time
done = []
def f():
    cell = 1
    def inner():
        return cell
    done.append(inner())
for n in range(50):
    _thread.start_new_thread(f, ())
while len(done) < 50:
    time.sleep(0.001)
print(sum(done))
'''


@case(each=[('%s, rate %s' % (label, rate), python, rate) for label, python in PYTHONS for rate in ('1', '0.3')])
def a_threads_only_frame_has_not_begun(python, rate):
    """The frame makes its cells first: what is allocated then has no stack at all."""
    same('output', record([python, '-c', CELLS], '--sample-rate', rate).stdout, '50\n')


@case
def without_frames():
    record([PYTHON, os.path.join(PROGRAMS, 'lines.py'), '2'], '--max-stack-depth', 0)
    assert all(not frames for _, _, frames in Stacks().classes())


KEEPS = '''
keep = []
def f():
    for i in range(100):
        keep.append(bytearray(100000))
f()
'''


@case(each=PYTHONS)
def the_c_library_alone_has_python_stacks(python):
    with open('keeps.py', 'w') as f:
        f.write(KEEPS)
    record([python, 'keeps.py'], '--no-python')
    site = tool('top')['sites'][0]
    same('the largest site', [site['function'], os.path.basename(site['file']), site['line']], ['f', 'keeps.py', 5])
    same('blocks, all kept to the end', [site['alloc_count'] >= 100, site['live_count'] >= 100, site['live_bytes'] >= 100 * 100000], [True] * 3)
    same('domains', {d['name'] for d in tool('top', '--group', 'domain')['sites']} & {'raw', 'mem', 'obj'}, set())


@case(each=[('no frames', ['--max-stack-depth', '0']), ('the interpreter alone', ['--no-malloc']), ('one frame', ['--max-stack-depth', '1'])])
def the_end_is_before_the_teardown(options):
    with open('keeps.py', 'w') as f:
        f.write(KEEPS)
    record([PYTHON, 'keeps.py'], *options)
    live = tool('stats')['bytes']['live_at_end']
    assert live >= 100 * 100000, 'live at the end: %d bytes' % live


run(__name__)
