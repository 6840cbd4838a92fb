#!/usr/bin/env python3
"""The tables of a report that run.py kept with --json. Usage: tables.py REPORT [--markdown | --refill DOCUMENT]

Without an option they are printed as run.py prints them; --markdown prints all blocks for documents; --refill renews, in DOCUMENT (docs/performance.md), what stands
between `<!-- bench NAME -->` and `<!-- end -->`.
"""
import argparse
import json
import signal
import sys

sys.dont_write_bytecode = True

from harness import markdown, tables  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('report')
    parser.add_argument('--markdown', action='store_true')
    parser.add_argument('--refill', metavar='DOCUMENT')
    args = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    with open(args.report) as file:
        report = json.load(file)
    if args.refill:
        with open(args.refill, encoding='utf-8') as file:
            text = file.read()
        text, unknown, kept = markdown.refill(report, text)
        if unknown:
            raise SystemExit('tables.py: %s: no block is called %s' % (args.refill, ', '.join(unknown)))
        with open(args.refill, 'w', encoding='utf-8') as file:
            file.write(text)
        if kept:
            print('left as they were, not in the report: ' + ', '.join(kept))
    elif args.markdown:
        print(markdown.everything(report))
    else:
        tables.print_all(report)


if __name__ == '__main__':
    main()
