#!/usr/bin/env python3
"""Packages with memory, stacks or processes of their own: numpy, greenlet, gevent, a Cython module, gunicorn. Known lines must carry their blocks exactly.

    extensions.py --memlyze PATH/TO/memlyze --python VENV/bin/python3 [numpy|greenlet|gevent|cython|gunicorn|embed ...]

The environment has numpy, greenlet, gevent, Cython, setuptools and gunicorn, as far as they are to be tried; embed wants a compiler and the interpreter's headers.
Exit status: 0 all exact, 1 something is not.
"""
import argparse
import collections
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.path.join(HERE, 'programs')
sys.path.insert(0, os.path.dirname(HERE))
from mlyze_decode import ALLOC, EVENTS, FREE_OLD_TEMP, Trace, decode_classes, decode_events  # noqa: E402

FINALIZE, OBJ = 19, 2
ALLOCATORS = [{}, {'PYTHONMALLOC': 'malloc'}, {'PYTHONMALLOC': 'debug'}, {'PYTHONTRACEMALLOC': '2'}]


def markers(program):
    with open(program, encoding='utf-8') as file:
        return {m.group(1): n for n, text in enumerate(file, 1) for m in [re.search(r'# @(\w+)', text)] if m}


def run(command, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=dict(clean, **env))
    if done.returncode:
        raise SystemExit('%s: exit status %d\n%s' % (' '.join(command), done.returncode, done.stderr))
    return done.stdout


class Field:
    def __init__(self, options):
        self.o = options
        self.wrong = []

    def record(self, *command, options=(), **env):
        return run([self.o.memlyze, 'record', '-f', '--quiet', '-o', 'trace.mlyze', *options, '--', self.o.python, *command], **env)

    def trace(self):
        with open('trace.mlyze', 'rb') as file:
            return Trace(file.read())

    def say(self, what, wrong):
        print('%-4s %s' % ('ok' if not wrong else 'NOT', what))
        for line in wrong[:8]:
            print('     ' + line)
        self.wrong += wrong
        sys.stdout.flush()

    def known_lines(self, what, program, *arguments, **env):
        """The program says: marker -> [bytes of one block, blocks, live blocks]; a line, the program's innermost, must have as many of that size."""
        said = json.loads(self.record(program, *arguments, **env))
        t, found, ended = self.trace(), {}, set()
        for at, _, _ in t.events:
            (process, *_), classes, events = decode_events(t.chunk(at)[5])
            for op, _, _, made in events:
                if op == FINALIZE:
                    ended.add(process)
                if process in ended or op > FREE_OLD_TEMP or made is None:
                    continue
                stack, size = classes[made[0]][:2]
                frames = [t.frames[f] for f in t.stacks[stack][1]]
                line = next((f[3] for f in frames if t.strings[f[1]].endswith(os.path.basename(program))), None)
                if line:
                    row = found.setdefault((line, size), [0, 0])
                    row[0] += op == ALLOC
                    row[1] += 1 if op == ALLOC else -1
        wrong, lines = [], markers(program)
        for name, (size, n, live) in sorted(said.items()):
            got = found.get((lines[name], size), [0, 0])
            if got != [n, live]:
                wrong.append('%s: blocks of %d bytes, live ones: got %r, wanted %r' % (name, size, got, [n, live]))
        self.say('%s %s' % (what, ' '.join('%s=%s' % e for e in env.items())), wrong)

    def numpy(self):
        for env in ALLOCATORS:
            self.known_lines('numpy', os.path.join(PROGRAMS, 'arrays.py'), **env)

    def cython(self):
        build = "from Cython.Build import cythonize; from setuptools import setup; import sys; " \
                "setup(script_args=['build_ext', '--inplace'], ext_modules=cythonize('cython_module.pyx', quiet=True))"
        with open(os.path.join(PROGRAMS, 'cython_module.pyx')) as source, open('cython_module.pyx', 'w') as copy:
            copy.write(source.read())
        run([self.o.python, '-c', build])
        for env in ALLOCATORS:
            self.known_lines('cython', os.path.join(PROGRAMS, 'cython_loop.py'), os.getcwd(), **env)

    def switching(self, kind):
        for depth in (1, 10, 64):
            self.record(os.path.join(PROGRAMS, 'switching.py'), kind, 'stops.json', options=['--max-stack-depth', str(depth)])
            with open('stops.json') as file:
                stops = json.load(file)
            t, head, wrong, checked = self.trace(), b''.__sizeof__(), [], set()
            for at, _, _ in t.events:
                for stack, size, domain, _ in decode_classes(t.chunk(at)[5]):
                    stop = size - head - 1000000
                    if domain != OBJ or not 0 <= stop < len(stops):
                        continue
                    checked.add(stop)
                    frames = [[t.strings[t.frames[f][0]], t.frames[f][3]] for f in t.stacks[stack][1]]
                    if frames != stops[stop][:depth]:
                        wrong.append('stop %d: got %r, wanted %r' % (stop, frames, stops[stop][:depth]))
            if len(checked) != len(stops) or len(stops) < 1000:
                wrong.append('%d of %d stops found' % (len(checked), len(stops)))
            self.say('%s, %d frames, %d stacks' % (kind, depth, len(stops)), wrong)

    def greenlet(self):
        self.switching('greenlet')

    def gevent(self):
        self.switching('gevent')

    def gunicorn(self):
        """Three workers; each has the blocks of its own requests, and what was loaded before the fork is counted once."""
        lines = markers(os.path.join(PROGRAMS, 'gunicorn_known.py'))
        for preload in ([], ['--preload']):
            server = subprocess.Popen([self.o.memlyze, 'record', '-f', '--quiet', '-o', 'trace.mlyze', '--', self.o.python, '-m', 'gunicorn', '-w', '3',
                                       '--chdir', PROGRAMS, '--pid', os.path.abspath('pid'), '-b',
                                       'unix:' + os.path.abspath('socket'), '--log-level', 'error', *preload, 'gunicorn_known:app'])
            answers = collections.Counter()
            for _ in range(600):
                try:
                    with socket.socket(socket.AF_UNIX) as s:
                        s.connect('socket')
                        s.sendall(b'GET / HTTP/1.0\r\n\r\n')
                        answer = b''.join(iter(lambda: s.recv(4096), b''))
                    answers[int(answer.rpartition(b'\r\n')[2])] += 1
                except (OSError, ValueError):
                    time.sleep(0.05)
                if sum(answers.values()) == 200:
                    break
            with open('pid') as file:
                os.kill(int(file.read()), signal.SIGTERM)
            server.wait()

            def at(marker, process):
                sites = json.loads(run([self.o.memlyze, 'top', '--json', '-n', '0', '--group', 'stack', '--process', str(process), 'trace.mlyze']))['sites']
                size = 50033 if marker == 'request' else 60033
                return sum(s['alloc_count'] for s in sites if s['line'] == lines[marker] and s['file'].endswith('gunicorn_known.py') and
                           s['alloc_bytes'] >= size)
            wrong = ['%d requests of %d: %d blocks' % (n, pid, at('request', pid)) for pid, n in answers.items() if at('request', pid) != n]
            wanted = {'request': 200, 'loaded': 20 if preload else 60}
            wrong += ['%s, all: got %d, wanted %d' % (m, at(m, 'all'), n) for m, n in wanted.items() if at(m, 'all') != n]
            self.say('gunicorn %s, %d workers answered' % (' '.join(preload), len(answers)), wrong)

    def embed(self):
        """The interpreter inside a C program, begun and ended five times."""
        where = "import sys, sysconfig as s; v = s.get_config_vars(); print(s.get_paths()['include'], v['LIBDIR'], v['LDVERSION'], sys.base_prefix, sep='\\n')"
        include, library, version, home = run([self.o.python, '-c', where]).split('\n')[:4]
        run(['cc', '-o', 'embed', os.path.join(PROGRAMS, 'embed.c'), '-I' + include, '-L' + library, '-Wl,-rpath,' + library, '-lpython' + version, '-lpthread'])
        home = {'PYTHONHOME': home}
        plain = run(['./embed'], **home)
        for options in ([], ['--no-malloc'], ['--sample-rate', '0.1'], ['--no-python']):
            traced = run([self.o.memlyze, 'record', '-f', '--quiet', '-o', 'trace.mlyze', *options, '--', './embed'], **home)
            sites = json.loads(run([self.o.memlyze, 'top', '--json', 'trace.mlyze']))['sites']
            wrong = [] if traced == plain else ['output: got %r, wanted %r' % (traced, plain)]
            if not any(s['function'] == '<module>' and s['file'] == '<string>' for s in sites):
                wrong.append('no site in the embedded code')
            self.say('embed %s' % ' '.join(options), wrong)


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument('--memlyze', required=True)
    a.add_argument('--python', required=True)
    a.add_argument('what', nargs='*', default=['numpy', 'cython', 'greenlet', 'gevent', 'gunicorn', 'embed'])
    o = a.parse_args()
    o.memlyze, o.python = os.path.abspath(o.memlyze), os.path.abspath(o.python)
    print(run([o.python, '-VV']).strip())
    field = Field(o)
    before = os.getcwd()
    for what in o.what or ['numpy', 'cython', 'greenlet', 'gevent', 'gunicorn', 'embed']:
        with tempfile.TemporaryDirectory() as work:
            os.chdir(work)
            getattr(field, what)()
            os.chdir(before)
    return 1 if field.wrong else 0


if __name__ == '__main__':
    sys.exit(main())
