#!/usr/bin/env python3
"""Every golden trace read twice: by formats/ and by tests/mlyze_decode.py, which shares nothing with it but docs/format.md.

    test_golden.py DUMP MAKE_GOLDEN GOLDEN_DIR

The committed traces must read as the committed text; freshly written ones must read the same in both readers.
"""
import glob
import os
import subprocess
import sys
import tempfile


def output(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    return done.stdout.decode('utf-8', 'replace') if done.returncode == 0 else 'exit %d: %s' % (done.returncode, done.stdout)


def difference(a, b):
    for i, (x, y) in enumerate(zip(a.splitlines(), b.splitlines())):
        if x != y:
            return 'line %d: %r, not %r' % (i + 1, x, y)
    return None if a == b else 'one ends early'


def main():
    dump, make_golden, golden = sys.argv[1:]
    decoder = [sys.executable, os.path.join(golden, '..', 'mlyze_decode.py')]
    cases = []
    for path in sorted(glob.glob(os.path.join(golden, '*.mlyze'))):
        name = os.path.basename(path)
        with open(path[:-len('.mlyze')] + '.txt', encoding='utf-8') as f:
            expected = f.read()
        cases.append((name + ' read by formats', difference(output(dump, path), expected)))
        cases.append((name + ' read by mlyze_decode.py', difference(output(*decoder, path), expected)))
    with tempfile.TemporaryDirectory() as fresh:
        subprocess.run([make_golden, fresh], check=True, timeout=120)
        for path in sorted(glob.glob(os.path.join(fresh, '*.mlyze'))):
            cases.append((os.path.basename(path) + ' written now, both readers', difference(output(dump, path), output(*decoder, path))))
    print('1..%d' % len(cases))
    for i, (name, wrong) in enumerate(cases):
        print('%s %d - %s' % ('not ok' if wrong else 'ok', i + 1, name))
        if wrong:
            print('# ' + wrong)
    return 0 if len(cases) >= 15 and not any(wrong for _, wrong in cases) else 1


if __name__ == '__main__':
    sys.exit(main())
