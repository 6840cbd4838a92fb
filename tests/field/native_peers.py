#!/usr/bin/env python3
"""Counts and bytes of native programs beside valgrind's and heaptrack's: the same allocations, the same frees, the same blocks left at exit.

    native_peers.py --memlyze PATH/TO/memlyze [--native] [NAME ...]

Wants valgrind; heaptrack where it is installed; of the programs (git, sqlite3, xmllint, jq, g++, rustc) those that are installed are tried.
memcheck's table is the reference ("total heap usage", "in use at exit"; without what valgrind itself frees at the end). Counts are to be the same. Bytes may differ by what the two ways of preloading change in the program: valgrind adds three variables to the
environment (24 bytes in each copy of `environ`), the agent has thread-local storage (16 bytes in each thread's vector). heaptrack counts a block of the loader's as well, and rounds bytes.
Exit status: 0 all agree with valgrind, 1 something does not, 2 nothing could be tried.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'programs')
ENV = dict(os.environ, LC_ALL='C', PAGER='cat')


def write_inputs():
    with open('document.xml', 'w') as file:
        file.write('<r>%s</r>' % ''.join('<item id="%d" name="n%d"><a>%s</a><b x="%d"/></item>\n' % (i, i % 97, 't' * (i % 50), i) for i in range(4000)))
    with open('document.json', 'w') as file:
        json.dump([{'id': i, 'name': 'n%d' % (i % 97), 'v': [i] * (i % 9)} for i in range(3000)], file)
    with open('queries.sql', 'w') as file:
        file.write('create table t(a integer primary key, b text, c);\n')
        file.writelines("insert into t values(%d, 'text %d', %d);\n" % (i, i, i % 37) for i in range(2000))
        file.write('create index i on t(c); select c, count(*), max(b) from t group by c order by 2 desc;\n')


def git_repository():
    def git(*arguments):
        subprocess.run(['git', '-C', 'repository', '-c', 'user.name=a', '-c', 'user.email=a@b', *arguments], check=True, stdout=subprocess.DEVNULL, env=ENV)
    os.mkdir('repository')
    git('init', '-q')
    for i in range(40):
        with open('repository/file%d' % (i % 7), 'a') as file:
            file.write('line %d\n' % i * (i + 1))
        git('add', '.')
        git('commit', '-q', '-m', 'change %d' % i)


def compiled(compiler, source, *options):
    name = os.path.splitext(source)[0]
    subprocess.run([compiler, os.path.join(PROGRAMS, source), '-o', name, *options], check=True)
    return ['./' + name]


def commands():
    """Name -> (what it needs, a function that gives the command line)."""
    return {
        'xmllint': ('xmllint', lambda: ['xmllint', '--noout', 'document.xml']),
        'sqlite3': ('sqlite3', lambda: ['sqlite3', ':memory:', '.read queries.sql']),
        'jq': ('jq', lambda: ['jq', '[.[]|{name,n:(.v|add)}]|group_by(.name)|map(length)', 'document.json']),
        'git': ('git', lambda: git_repository() or ['git', '-C', 'repository', 'log', '--stat', '-p']),
        'c++': ('g++', lambda: compiled('g++', 'containers.cc', '-O2', '-g')),
        'rust': ('rustc', lambda: compiled('rustc', 'collections.rs', '-O', '-g')),
        'c threads': ('gcc', lambda: compiled('gcc', 'cross_free.c', '-O2', '-g', '-pthread')),
    }


def of_valgrind(command):
    told = subprocess.run(['valgrind', '--run-libc-freeres=no', '--run-cxx-freeres=no', *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=ENV)
    numbers = re.search(r'in use at exit: ([\d,]+) bytes in ([\d,]+) blocks\s.*\s.*total heap usage: ([\d,]+) allocs, ([\d,]+) frees, ([\d,]+) bytes', told.stderr)
    left, blocks, allocs, frees, total = (int(n.replace(',', '')) for n in numbers.groups())
    return {'allocations': allocs, 'bytes': total, 'frees': frees, 'blocks left': blocks, 'bytes left': left}


def of_heaptrack(command):
    subprocess.run(['heaptrack', '-o', 'heap', *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENV)
    files = [name for name in os.listdir('.') if name.startswith('heap.')]
    if not files:
        return {}
    told = subprocess.run(['heaptrack_print', '-f', files[0]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True).stdout
    for name in files:
        os.remove(name)
    calls = re.search(r'calls to allocation functions: (\d+)', told)
    return {'allocations': int(calls.group(1))} if calls else {}


def of_memlyze(memlyze, native, command):
    plain = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV)
    ran = subprocess.run([memlyze, 'record', '--quiet', '-f', *(['--native'] if native else []), '--no-python', '--', *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV)
    assert (ran.returncode, ran.stdout, ran.stderr) == (plain.returncode, plain.stdout, plain.stderr), 'the program did something else: ' + ran.stderr.decode()[:500]

    def ask(tool, *arguments):
        return json.loads(subprocess.run([memlyze, tool, '--json', *arguments, 'trace.mlyze'], stdout=subprocess.PIPE, check=True).stdout)
    top, left, stats = ask('top', '-n', '0'), ask('leaks', '--at-exit', '-n', '0'), ask('stats')
    assert not stats['events']['dropped'], stats['events']
    return {'allocations': top['total']['count'], 'bytes': top['total']['bytes'], 'frees': top['total']['count'] - left['total']['count'],
            'blocks left': left['total']['count'], 'bytes left': left['total']['bytes']}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--memlyze', required=True)
    parser.add_argument('--native', action='store_true', help='record native stacks as well: the counts are the same')
    parser.add_argument('names', nargs='*')
    options = parser.parse_args()
    memlyze = os.path.abspath(options.memlyze)
    tried, wrong = 0, 0
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        write_inputs()
        for name, (needs, command) in commands().items():
            if (options.names and name not in options.names) or not shutil.which(needs) or not shutil.which('valgrind'):
                continue
            command = command()
            known, got = of_valgrind(command), of_memlyze(memlyze, options.native, command)
            peer = of_heaptrack(command) if shutil.which('heaptrack') else {}
            differs = [key for key in known if abs(known[key] - got[key]) > (128 if 'bytes' in key else 0)]
            print('%-4s %-10s %s' % ('NOT' if differs else 'ok', name, ', '.join('%s %d' % item for item in got.items())))
            for key in known:
                if known[key] != got[key]:
                    print('     %s: memlyze %d, valgrind %d (%+d)' % (key, got[key], known[key], got[key] - known[key]))
            if peer and peer['allocations'] != got['allocations']:
                print('     heaptrack: allocations %d (%+d)' % (peer['allocations'], peer['allocations'] - got['allocations']))
            sys.stdout.flush()
            tried, wrong = tried + 1, wrong + bool(differs)
        os.chdir('/')
    if not tried:
        sys.stderr.write('native_peers.py: nothing to try: valgrind and one of the programs are wanted\n')
        return 2
    return 1 if wrong else 0


sys.exit(main())
