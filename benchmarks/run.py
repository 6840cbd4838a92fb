#!/usr/bin/env python3
"""What recording costs: the tables of `make bench`.

usage: run.py BUILD [options]

Each program runs untraced and traced in turn, all settings of a program once in each turn, so that what else the machine does meets all of them; a figure
is the median of the ratios of each turn (traced / untraced of the same turn) with its quartiles. The output of both must be the same. benchmarks/README.md
says what is measured and how to read it.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

from harness import catalog, machine, measure, plan, tables, venv  # noqa: E402

PEER_SECONDS = 0.6
GROUPS = ('hot-path', 'peers', 'apps', 'programs')


def say(text=''):
    print(text, flush=True)


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    p.add_argument('build', help='the build directory')
    g = p.add_argument_group('what (all of it, unless something is named here; NAMES: separated by commas)')
    g.add_argument('--programs', nargs='?', const='all', metavar='NAMES', help='allocation-bound programs: ' + ' '.join(catalog.PROGRAMS))
    g.add_argument('--apps', nargs='?', const='all', metavar='NAMES', help='applications: %s (all but the last three when none is named)' % ' '.join(catalog.APPS))
    g.add_argument('--peers', nargs='?', const='all', metavar='NAMES', help='other tools on a few programs: ' + ' '.join(catalog.PEERS))
    g.add_argument('--hot-path', action='store_true', help='nanoseconds of each step of the hot path')
    g.add_argument('--mode', action='append', choices=sorted(catalog.MODES) + [catalog.EMPTY], help='settings of memlyze record, or hooks that do nothing; repeatable. Default: %s for programs, %s for applications'
                   % (' '.join(catalog.MODES_DEFAULT['programs']), ' '.join(catalog.MODES_DEFAULT['apps'])))
    g = p.add_argument_group('how long')
    g.add_argument('--pairs', type=int, help='turns (default 7)')
    g.add_argument('--seconds', type=float, help='length of an untraced run, for which each program is calibrated (default 5)')
    g.add_argument('--minutes', type=float, help='make the runs shorter, then the turns fewer, so that all ends within this time; stops when it is over')
    g.add_argument('--quick', action='store_true', help='a look: 2 turns of runs of half a second')
    g = p.add_argument_group('where')
    g.add_argument('--python', help='the interpreter (default $PYTHON, or python3 on PATH); wrappers are resolved')
    g.add_argument('--venv', metavar='DIR', help='the virtual environment for applications and peers, made if missing (default BUILD/venv-VERSION)')
    g.add_argument('--json', metavar='FILE', help='keep all runs in FILE, written after each one')
    g.add_argument('--resume', action='store_true', help='go on with the runs that the file of --json lacks')
    g.add_argument('--prepare', action='store_true', help='only make the virtual environment')
    args = p.parse_args()
    args.more_pairs = args.pairs
    args.pairs = args.pairs or (2 if args.quick else 7)
    args.seconds = args.seconds or (0.5 if args.quick else plan.STANDARD)
    if args.resume and not args.json:
        p.error('--resume needs --json FILE')
    return args


def chosen(text, known, default):
    """The names of a list given on the command line."""
    if text in (None, 'all'):
        return list(default)
    names = text.split(',')
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit('run.py: %s is none of: %s' % (unknown[0], ' '.join(known)))
    return names


class Bench:
    def __init__(self, args, directory):
        self.args = args
        self.directory = directory
        self.build = os.path.abspath(args.build)
        self.memlyze = os.path.join(self.build, 'tracer', 'recorder', 'memlyze')
        self.usage = os.path.join(self.build, 'benchmarks', 'agent', 'bench_usage')
        self.empty_hooks = os.path.join(self.build, 'benchmarks', 'agent', 'bench_empty_hooks.so')
        for program in (self.memlyze, self.usage, self.empty_hooks):
            if not os.path.exists(program):
                raise SystemExit('run.py: %s is missing: build first (make bench does)' % program)
        self.trace = os.path.join(directory, 't.mlyze')
        self.base = machine.real_python(args.python)
        self.version = machine.python_version(self.base)
        self.python = self.base
        self.began = time.monotonic()
        self.outputs = {}
        self.failed = set()
        named = [g for g in GROUPS if getattr(args, g.replace('-', '_'))]
        self.groups = named or list(GROUPS)
        self.report = {
            'schema': 'memlyze.bench/1', 'machine': machine.describe(), 'python': self.version, 'version': self.text([self.memlyze, '--version']),
            'pairs': args.pairs, 'seconds': args.seconds, 'scales': {}, 'arguments': catalog.MODES, 'modes': {}, 'peers': [], 'memray': {}, 'runs': []}
        if args.resume and os.path.exists(args.json):
            with open(args.json) as file:
                self.report.update(json.load(file))
            self.report['pairs'] = args.more_pairs or self.report['pairs']
        self.done = {(r['group'], r['name'], r['mode'], r['turn']) for r in self.report['runs']}

    @staticmethod
    def text(command):
        return subprocess.run(command, stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()

    def save(self):
        if self.args.json:
            with open(self.args.json + '.new', 'w') as file:
                json.dump(self.report, file, indent=1)
            os.replace(self.args.json + '.new', self.args.json)

    def left(self):
        return self.args.minutes * 60 - (time.monotonic() - self.began) if self.args.minutes else float('inf')

    # -- what is to be run

    def prepare(self):
        """Chooses programs, applications and peers by what is installed."""
        args = self.args
        parts = [part for part in ('apps', 'peers') if part in self.groups]
        if parts:
            where = os.path.abspath(args.venv or os.path.join(self.build, 'venv-' + self.version))
            inside = venv.prepare(self.base, where, parts)
            self.python = inside or self.base
        self.programs = chosen(args.programs, catalog.PROGRAMS, catalog.PROGRAMS) if 'programs' in self.groups else []
        apps = chosen(args.apps, catalog.APPS, catalog.APPS_DEFAULT) if 'apps' in self.groups else []
        self.apps = [a for a in apps if venv.has(self.python, catalog.APPS[a][2])]
        peers = chosen(args.peers, catalog.PEERS, catalog.PEERS) if 'peers' in self.groups else []
        self.peers = [x for x in peers if x not in catalog.PEER_MODULES or venv.has(self.python, catalog.PEER_MODULES[x])]
        for kind, wanted, there in (('applications', apps, self.apps), ('peers', peers, self.peers)):
            missing = [x for x in wanted if x not in there]
            if missing:
                say('%s left out, not installed: %s' % (kind, ', '.join(missing)))
        self.report['peers'] += [x for x in self.peers if x not in self.report['peers']]
        for group in ('programs', 'apps'):
            if group in self.groups or group not in self.report['modes']:
                self.report['modes'][group] = args.mode or catalog.MODES_DEFAULT[group]

    def modes(self, group, name):
        return self.report['modes'][group] + ([] if self.args.mode else catalog.MODES_EXTRA.get(name, []))

    def cells(self):
        return [('apps', name) for name in self.apps] + [('programs', name) for name in self.programs]

    # -- runs

    def target(self, name, scale):
        script, arguments = catalog.script(name)
        return [script] + arguments + [str(scale)]

    def one(self, group, name, mode, turn, scale, timeout=None):
        """Runs one cell, unless it is there already, and keeps it; False where it failed."""
        key = (group, name, mode, turn)
        if key in self.done or (group, name, mode) in self.failed:
            return True
        target = self.target(name, scale)
        prefix, command = (), [self.python] + target
        if mode in catalog.MODES:
            prefix = [self.memlyze, 'record'] + catalog.MODES[mode] + ['-f', '-o', self.trace, '--']
        elif mode not in ('untraced', catalog.EMPTY):
            command = catalog.peer_command(mode, self.python, self.trace, target)
        try:
            figures, out = measure.run(self.usage, self.directory, command, prefix, timeout, self.empty_hooks if mode == catalog.EMPTY else None)
        except measure.Failed as error:
            say('  %s, %s: %s' % (name, mode, str(error).strip()))
            self.failed.add((group, name, mode))
            return False
        # memray and scalene print words of their own.
        if self.outputs.setdefault((name, scale), out) != out and not mode.startswith(('memray', 'scalene')):
            say('  %s, %s: WRONG: the output differs from that of the other modes; no figures of it' % (name, mode))
            self.failed.add((group, name, mode))
            return False
        figures.update(group=group, name=name, mode=mode, turn=turn, scale=scale)
        if mode == 'memray-python' and name not in self.report['memray']:
            self.memray_records(name)
        self.report['runs'].append(figures)
        self.done.add(key)
        self.save()
        return True

    def memray_records(self, name):
        """memray's own count of records in its file, of allocations and frees together."""
        out = os.path.join(self.directory, 'memray.json')
        ran = subprocess.run([self.python, '-m', 'memray', 'stats', '--json', '-f', '-o', out, self.trace], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if ran.returncode == 0:
            with open(out) as file:
                records = json.load(file)['metadata']['total_allocations']
            self.report['memray'][name] = {'records': records, 'bytes': os.path.getsize(self.trace)}

    def calibrate(self, names):
        """A pace for each program, by two or three runs."""
        paces = {}
        say('calibrating %d programs (about %d s)' % (len(names), 5 * len(names)))
        for name in names:
            def wall(scale, name=name):
                return measure.run(self.usage, self.directory, [self.python] + self.target(name, scale))[0]['wall']
            paces[name] = plan.calibrate(wall)
        return paces

    def run_hot_path(self):
        if 'hot-path' not in self.groups or self.report.get('hot_path'):
            return
        rounds = 2 if self.args.quick else 7
        say('hot path: %d rounds, about %d s' % (rounds, 5 * rounds))
        out = os.path.join(self.directory, 'hot.json')
        ran = subprocess.run([sys.executable, os.path.join(catalog.HERE, 'agent', 'hot_path.py'), self.build, '--python', self.base, '--rounds', str(rounds), '--json', out],
                             stdout=subprocess.DEVNULL)
        if ran.returncode == 0:
            with open(out) as file:
                self.report['hot_path'] = json.load(file)
            self.save()

    def run_peers(self, budget):
        """Short runs of a few programs under each peer: factors of 2 to 40 need no long ones. `budget` in seconds; 0: as long as it takes."""
        if not self.peers:
            return
        turn = len(catalog.PEER_PROGRAMS) * min(PEER_SECONDS, self.args.seconds) * (1 + sum(catalog.PEER_FACTORS[p] for p in ['full'] + self.peers))
        pairs = max(1, min(3, self.args.pairs, int(budget / turn) if budget else 3))
        say('peers: %s; turns: %d, about %.1f min' % (', '.join(self.peers), pairs, pairs * turn / 60))
        until = time.monotonic() + 1.3 * budget if budget else float('inf')
        for i in range(pairs):
            for name in catalog.PEER_PROGRAMS:
                if time.monotonic() > until:
                    say('  out of time: the rest of the peers is left out')
                    return
                for mode in ['untraced', 'full'] + self.peers:
                    self.one('peers', name, mode, i, self.report['scales']['peers ' + name], timeout=120)

    def announce(self, cells, paces):
        """What the turns will be, and how long they take."""
        seconds, pairs = self.report['seconds'], self.report['pairs']
        if all(name in paces for name, _ in cells):
            took = plan.total(cells, paces, seconds, pairs)
        else:
            took = pairs * (seconds + 0.05) * sum(plan.turn_factor(modes) for _, modes in cells)
        say('%d turns of %d programs, runs of about %.1f s untraced: about %.0f min' % (pairs, len(cells), seconds, took / 60))
        if seconds < plan.STANDARD or pairs < 7:
            say('(figures to quote take 7 turns of runs of 5 s: give --minutes more, or leave it and --quick out)')
        say('scale: ' + ', '.join('%s %g' % (name, self.report['scales'][name]) for name, _ in cells))

    def run_turns(self):
        cells = self.cells()
        for turn in range(self.report['pairs']):
            began = time.monotonic()
            for i, (group, name) in enumerate(cells):
                if self.left() < 0:
                    say('out of time in turn %d: the tables are of what was done' % (turn + 1))
                    return
                order = ['untraced'] + self.modes(group, name)
                at = (turn + i) % len(order)  # none is always the first, or always behind the same one
                for mode in order[at:] + order[:at]:
                    self.one(group, name, mode, turn, self.report['scales'][name])
            say('turn %d of %d: %.1f min; load %.2f' % (turn + 1, self.report['pairs'], (time.monotonic() - began) / 60, os.getloadavg()[0]))

    def main(self):
        args = self.args
        self.prepare()
        if args.prepare:
            return
        m = self.report['machine']
        say('memlyze %s, CPython %s (%s), %s, %d CPUs, %.0f GB, Linux %s, load %s' % (
            self.report['version'].split()[-1], self.version, self.python, m['cpu'], m['cpus'], m['memory'] / 1e9, m['kernel'],
            ' '.join('%.2f' % x for x in os.getloadavg())))
        if os.getloadavg()[0] > 0.5:
            say('the machine is not idle: figures will be worse and wider than they are')
        scales = self.report['scales']
        cells = [(name, self.modes(group, name)) for group, name in self.cells()]
        new = [name for name, _ in cells if name not in scales]
        short = [name for name in catalog.PEER_PROGRAMS if self.peers and 'peers ' + name not in scales]
        names = list(dict.fromkeys(new + short))
        paces = self.calibrate(names) if names else {}
        for name in short:
            scales['peers ' + name] = paces[name].scale(min(PEER_SECONDS, args.seconds))
        hot = (10 if args.quick else 40) if 'hot-path' in self.groups and not self.report.get('hot_path') else 0
        peers = (0.14 * args.minutes * 60 if cells else self.left() - hot) if args.minutes and self.peers else 0
        if new:
            if args.minutes and len(new) == len(cells):
                length, pairs = plan.fit(cells, paces, args.seconds, args.pairs, self.left() - hot - peers - 20)
                self.report.update(seconds=length, pairs=pairs)
            for name in new:
                scales[name] = paces[name].scale(self.report['seconds'])
        if cells:
            self.announce(cells, paces)
        try:
            self.run_hot_path()
            self.run_peers(peers)
            self.run_turns()
        except KeyboardInterrupt:
            say('\nstopped: the tables are of what was done')
        self.save()
        tables.print_all(self.report)
        say('\n%.1f minutes' % ((time.monotonic() - self.began) / 60))
        if self.failed:
            raise SystemExit('run.py: failed: ' + ', '.join('%s %s' % (name, mode) for _, name, mode in sorted(self.failed)))


def main():
    args = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = tempfile.mkdtemp(prefix='memlyze-bench-')
    try:
        Bench(args, directory).main()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == '__main__':
    main()
