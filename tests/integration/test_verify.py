"""memlyze verify on recorded traces: whole ones, a recorder that was killed, damage in the middle; and what every tool says of a repaired trace."""
import json
import os
import shutil
import signal
import struct
import subprocess
import time

from harness import MEMLYZE, PYTHON, SLOW, case, clean_env, execute, record, run, same, tool

PROGRAM = '''
import gc
kept = []
def keep(n):
    kept.append('x' * 200 + str(n))
def churn(n):
    return [bytes(50) for _ in range(20)]
for n in range(20000):
    keep(n)
    churn(n)
kept.clear()
gc.collect()
'''
TOOLS = (('stats',), ('top',), ('leaks',), ('gc',), ('flame',), ('check', '--no-config', '--max-peak', '1TB'))
EVENTS = 7


def serve(*options, trace='trace.mlyze'):
    with open('program.py', 'w') as file:
        file.write(PROGRAM)
    record([PYTHON, 'program.py'], *options, trace=trace)


def verify(*arguments, trace='trace.mlyze', status=0):
    result = execute([MEMLYZE, 'verify', '--json', trace, *arguments])
    same('exit status of verify: ' + result.stderr, result.returncode, status)
    answer = json.loads(result.stdout)
    same('first key', next(iter(answer)), 'schema')
    same('ok', answer['ok'], status == 0)
    same('ok is no damage', answer['ok'], not answer['damage'])
    return answer


def chunks(path='trace.mlyze'):
    """[(offset, bytes, kind, count)]"""
    with open(path, 'rb') as file:
        data = file.read()
    at, found = 64, []
    while at < len(data):
        kind, _, stored, _, count, _ = struct.unpack_from('<HHIIQQ', data, at + 4)
        found.append((at, 32 + stored, kind, count))
        at += 32 + stored
    same('the last chunk ends with the file', at, len(data))
    return found


def damage(at, path='trace.mlyze'):
    with open(path, 'r+b') as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x5a]))


def every_tool_takes(path):
    """Only that it was repaired."""
    for command in TOOLS:
        result = execute([MEMLYZE, command[0], path, *command[1:]])
        assert result.returncode in (0, 1) and (result.returncode == 0 or command[0] == 'check'), (command, result)
        said = [line for line in result.stderr.splitlines() if 'repaired' not in line]
        same('warnings of %s' % command[0], said, [])
        assert 'repaired' in result.stderr, (command, result.stderr)


@case
def whole_traces():
    serve()
    answer = verify()
    stats = tool('stats')
    same('events', (answer['events']['allocs'], answer['events']['frees']), (stats['events']['allocs'], stats['events']['frees']))
    same('bytes', answer['bytes'], {'file': os.path.getsize('trace.mlyze'), 'damaged': 0})
    text = execute([MEMLYZE, 'verify', 'trace.mlyze'])
    same('text', (text.returncode, text.stdout.splitlines()[0], text.stderr), (0, 'trace.mlyze: whole', ''))
    serve('--snapshots-only', '--snapshot-every', '50ms', '--sample-rate', '0.5', trace='totals.mlyze')
    verify(trace='totals.mlyze')


@case
def a_lost_chunk_of_events():
    serve()
    before = tool('stats')
    events = [c for c in chunks() if c[2] == EVENTS]
    assert len(events) >= 3, 'a longer program is needed: %r' % events
    at, size, _, count = events[1]
    damage(at + 100)
    answer = verify(status=1)
    same('places', len(answer['damage']), 1)
    place = answer['damage'][0]
    same('the place', (place['what'], place['offset'], place['bytes'], place['chunk'], place['count']), ('bytes', at, size, 'EVENTS', count))
    assert 0 <= place['from_ns'] < place['to_ns'] <= before['duration_ns'], place
    same('lost', (answer['events']['lost'], answer['events']['lost_known']), (count, True))
    with open('trace.mlyze', 'rb') as file:
        original = file.read()
    repaired = verify('--repair', 'saved.mlyze', status=1)
    with open('trace.mlyze', 'rb') as file:
        assert file.read() == original, 'the input was changed'
    same('mode', os.stat('saved.mlyze').st_mode & 0o777, 0o600)
    same('events of both', repaired['repair']['events'], repaired['events']['read'])
    assert repaired['repair']['frees_of_lost_blocks'] > 0, 'the blocks of the lost chunk are freed in later ones'
    verify(trace='saved.mlyze')
    every_tool_takes('saved.mlyze')
    damaged, saved = tool('stats', trace='trace.mlyze'), tool('stats', trace='saved.mlyze')
    same('allocations', saved['events']['allocs'], damaged['events']['allocs'])
    same('bytes allocated', saved['bytes']['allocated'], damaged['bytes']['allocated'])
    same('complete', saved['complete'], False)
    assert saved['bytes']['live_at_end'] >= 0, saved['bytes']


@case
def every_kind_of_chunk_may_be_lost():
    serve()
    shutil.copy('trace.mlyze', 'good.mlyze')
    for kind in sorted({c[2] for c in chunks()}):
        shutil.copy('good.mlyze', 'trace.mlyze')
        at, size, _, _ = next(c for c in chunks() if c[2] == kind)
        damage(at + size - 1)
        answer = verify('--repair', 'saved-%d.mlyze' % kind, status=1)
        assert any(d['offset'] == at for d in answer['damage']), (kind, answer['damage'])
        whole = verify(trace='saved-%d.mlyze' % kind)
        same('events after the loss of kind %d' % kind, whole['events']['read'], answer['events']['read'])
        for command in TOOLS:
            result = execute([MEMLYZE, command[0], 'saved-%d.mlyze' % kind, *command[1:]])
            assert result.returncode in (0, 1) and 'damaged' not in result.stderr, (kind, command, result.stderr)


@case
def a_killed_recorder():
    with open('forever.py', 'w') as file:
        file.write('import time\nkept = []\nwhile True:\n    kept.append(str(len(kept)) * 10)\n    time.sleep(0.0001)\n')
    recorder = subprocess.Popen([MEMLYZE, 'record', '--quiet', '-f', '--', PYTHON, 'forever.py'], env=clean_env(), start_new_session=True)
    until = time.monotonic() + 20 * SLOW
    while time.monotonic() < until and not (os.path.exists('trace.mlyze') and os.path.getsize('trace.mlyze') > 3000):
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(recorder.pid, signal.SIGKILL)
    recorder.wait()
    answer = verify(status=1)
    assert any(d['what'] == 'cut' for d in answer['damage']), answer
    same('known', answer['events']['lost_known'], False)
    verify('--repair', 'saved.mlyze', status=1)
    verify(trace='saved.mlyze')
    every_tool_takes('saved.mlyze')


@case
def what_cannot_be_done():
    serve()
    for path, words in (('missing.mlyze', 'no such file'), ('program.py', 'not a .mlyze file'), ('.', 'is a directory')):
        result = execute([MEMLYZE, 'verify', path])
        same('exit status', (result.returncode, result.stdout), (2, ''))
        assert words in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
    os.link('trace.mlyze', 'same.mlyze')
    with open('there.mlyze', 'w') as file:
        file.write('precious')
    for path in ('trace.mlyze', 'same.mlyze', 'there.mlyze', 'no/where.mlyze'):
        result = execute([MEMLYZE, 'verify', 'trace.mlyze', '--repair', path])
        same('exit status for ' + path, result.returncode, 2)
        assert path in result.stderr or 'itself' in result.stderr, result.stderr
    with open('there.mlyze') as file:
        same('a file that was there', file.read(), 'precious')
    verify()
    same('repair of a whole trace', verify('--repair', 'copy.mlyze')['repair']['events'], verify()['events']['read'])
    same('stderr about it', execute([MEMLYZE, 'top', 'copy.mlyze']).stderr, '')
    result = execute([MEMLYZE, 'verify', 'trace.mlyze', '--repair', '/dev/full'])
    same('exit status for /dev/full', result.returncode, 2)


run(__name__)
