#!/usr/bin/env python3
"""Runs the tests of a build directory and sums up every single case; the last line is `N passed, N failed`.

Usage: run.py BUILD [--suite NAME]... [--test NAME]... [--verbose]

Cases are counted by their TAP lines where a test prints TAP (Criterion, integration, model); any other test is one case.
A test that ends badly without a failed case (a crash, a time-out, a sanitizer's report) is one failed case.
Exit status: 0 when at least one case passed and none failed.
"""
import argparse
import json
import os
import re
import subprocess
import sys

CASE = re.compile(r'^\s*(not ok|ok)\b(?:\s+\d+)?(?:\s*-)?\s*(.*)$')
SKIP = re.compile(r'#\s*skip\b:?\s*(.*)$', re.I)
PLAN_SKIP = re.compile(r'^1\.\.0\s*#\s*skip\b:?\s*(.*)$', re.I)


def cases_of(stdout):
    """(passed, [failed cases with what they say], [skipped]) of a TAP stream."""
    passed, failed, skipped, verdict = 0, [], [], ''
    for line in stdout.splitlines():
        if failed and verdict == 'not ok' and line.lstrip().startswith('#'):
            failed[-1] += '\n    ' + line.strip()
            continue
        plan = PLAN_SKIP.match(line.strip())
        if plan:
            skipped.append(plan.group(1))
            continue
        case = CASE.match(line)
        if not case:
            continue
        verdict, name = case.groups()
        skip = SKIP.search(name)
        if verdict == 'not ok':
            failed.append(name)
        elif skip:
            skipped.append(name)
        else:
            passed += 1
    return passed, failed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('build')
    parser.add_argument('--suite', action='append', default=[])
    parser.add_argument('--test', action='append', default=[])
    parser.add_argument('--verbose', action='store_true', help="show every test's output")
    args = parser.parse_args()

    log = os.path.join(args.build, 'meson-logs', 'testlog.json')
    if os.path.exists(log):
        os.unlink(log)
    command = ['meson', 'test', '-C', args.build, '--no-rebuild', '--print-errorlogs']
    for suite in args.suite:
        command += ['--suite', suite]
    status = subprocess.run(command + args.test).returncode

    passed = 0
    failed, skipped = [], []
    if os.path.exists(log):
        with open(log, encoding='utf-8', errors='replace') as lines:
            for line in lines:
                test = json.loads(line)
                name, result, stdout = test['name'], test['result'], test.get('stdout') or ''
                ok, bad, skip = cases_of(stdout)
                speaks_tap = re.search(r'^1\.\.\d+', stdout, re.M) is not None
                if args.verbose:
                    print(stdout)
                if speaks_tap:
                    passed += ok
                    failed += ['%s: %s' % (name, case) for case in bad]
                    skipped += ['%s: %s' % (name, case) for case in skip]
                    if result not in ('OK', 'SKIP') and not bad:
                        failed.append('%s: %s' % (name, result.lower()))
                    elif result == 'OK' and not ok and not skip:
                        failed.append('%s: no case ran' % name)
                elif result == 'OK':
                    passed += 1
                elif result == 'SKIP':
                    skipped.append(name)
                else:
                    failed.append('%s: %s' % (name, result.lower()))
    if status != 0 and not failed:
        failed.append('meson test: exit status %d' % status)

    for case in skipped:
        print('skipped: %s' % case)
    for case in failed:
        print('FAILED: %s' % case)
    print('%d passed, %d failed' % (passed, len(failed)))
    return 0 if passed and not failed else 1


if __name__ == '__main__':
    sys.exit(main())
