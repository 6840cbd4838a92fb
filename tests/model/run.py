#!/usr/bin/env python3
"""Exhaustive search of tests/model/ring.pml with Spin, as TAP: the ring as designed must hold in each setting, and each seeded
bug must be found (a model that finds nothing in a broken ring proves nothing). Usage: run.py ring.pml"""
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile

# name, defines. Together they cover: all message kinds, side bytes, stop, continue and death of R, death of P, late slot stores.
SOUND = [
    ('block and drop', ['MESSAGES=4']),
    ('four slots', ['MESSAGES=4', 'SLOTS=4']),
    ('two slots, side buffer, recorder stopped', ['MESSAGES=3', 'SLOTS=2', 'WITH_SIDE', 'STOP']),
    ('recorder stopped, continued, killed', ['MESSAGES=3', 'STOP']),
    ('program killed', ['MESSAGES=3', 'KILL']),
    ('program killed, recorder stopped', ['MESSAGES=2', 'STOP', 'KILL']),
    ('side buffer', ['MESSAGES=3', 'WITH_SIDE']),
    ('side buffer, program killed, recorder stopped', ['MESSAGES=2', 'WITH_SIDE', 'STOP', 'KILL']),
    ('slot stores arrive late', ['MESSAGES=3', 'LATE_SLOTS']),
]
BROKEN = [
    ('head stored before the slots', ['MESSAGES=2', 'BUG_HEAD_FIRST']),
    ('head stored without release', ['MESSAGES=2', 'LATE_SLOTS', 'BUG_HEAD_RELAXED']),
    ('a message published in parts', ['MESSAGES=2', 'KILL', 'BUG_PUBLISH_PARTLY']),
    ('room for one slot is enough', ['MESSAGES=3', 'BUG_ROOM_FOR_ONE']),
    ('tail stored before the slots were read', ['MESSAGES=3', 'BUG_TAIL_EARLY']),
    ('P: no fence after waiting', ['MESSAGES=4', 'BUG_NO_FENCE_WAITING']),
    ('P: no look at tail after waiting', ['MESSAGES=4', 'BUG_NO_LOOK_AFTER_WAITING']),
    ('P: waits without a time-out', ['MESSAGES=4', 'STOP', 'BUG_NO_TIMEOUT']),
    ('R: no fence after tail', ['MESSAGES=4', 'BUG_NO_FENCE_TAIL']),
    ('R: wakes without adding to the futex', ['MESSAGES=4', 'BUG_WAKE_WITHOUT_ADD']),
    ('R: no fence after sleeping', ['MESSAGES=4', 'SLOTS=4', 'BUG_NO_FENCE_SLEEPING']),
    ('R: sleeps without the bit in the clock word', ['MESSAGES=4', 'SLOTS=4', 'BUG_NO_BIT']),
    ('P: takes the bit off and wakes nobody', ['MESSAGES=4', 'SLOTS=4', 'BUG_BIT_OFF_WITHOUT_WAKE']),
    ('R: no look at the heads before it sleeps', ['MESSAGES=4', 'SLOTS=4', 'BUG_NO_LOOK_BEFORE_SLEEP']),
    ('side bytes of a message that was given up', ['MESSAGES=3', 'SLOTS=2', 'WITH_SIDE', 'STOP', 'BUG_SIDE_KEPT']),
]


def search(model, defines, directory):
    """('held'|'broken'|'incomplete', text)"""
    flags = ['-D' + d for d in defines]
    subprocess.run(['spin', '-a'] + flags + [model], cwd=directory, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # NOREDUCE: `provided` and partial order reduction do not go together. -E: Env asserts what the end must be.
    subprocess.run(['gcc', '-O2', '-w', '-DSAFETY', '-DNOREDUCE', '-DCOLLAPSE', '-DVECTORSZ=1024', '-DMEMLIM=2500', '-o', 'pan', 'pan.c'],
                   cwd=directory, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    run = subprocess.run(['./pan', '-E', '-n', '-m100000'], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1200,
                         universal_newlines=True)
    out = run.stdout
    errors = re.search(r'errors: (\d+)', out)
    if not errors:
        return 'incomplete', out
    if int(errors.group(1)):
        return 'broken', out
    if 'Search not completed' in out or 'max search depth too small' in out or 'BITSTATE' in out:
        return 'incomplete', out
    return 'held', out


def main():
    model = os.path.abspath(sys.argv[1])
    cases = [('the ring holds: ' + n, d, 'held') for n, d in SOUND] + [('caught: ' + n, d, 'broken') for n, d in BROKEN]

    def one(case):
        name, defines, wanted = case
        with tempfile.TemporaryDirectory() as directory:
            try:
                verdict, out = search(model, defines, directory)
            except (OSError, subprocess.SubprocessError) as error:
                verdict, out = 'incomplete', '%s\n%s' % (error, getattr(error, 'stdout', ''))
        states = re.search(r'(\d+) states, stored', out)
        return name, verdict == wanted, verdict, states.group(1) if states else '?', out

    print('1..%d' % len(cases))
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for number, (name, ok, verdict, states, out) in enumerate(pool.map(one, cases), 1):
            print('%s %d - %s (%s, %s states)' % ('ok' if ok else 'not ok', number, name, verdict, states), flush=True)
            if not ok:
                bad += 1
                print('\n'.join('# ' + line for line in out.splitlines()[-25:]))
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
