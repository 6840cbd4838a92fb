"""A program whose allocations are known line by line is reported exactly, on every interpreter and with each of its allocators."""
import json
import os
import shutil

from harness import PROGRAMS, PYTHONS, case, clean_env, compare_exact, execute, lines_of, record, run, same, sites_of, tool

EXACT = os.path.join(PROGRAMS, 'exact.py')
SETTINGS = [('', [], {}), (', PYTHONMALLOC=malloc', [], {'PYTHONMALLOC': 'malloc'}),
            (', PYTHONMALLOC=pymalloc', [], {'PYTHONMALLOC': 'pymalloc'}), (', PYTHONMALLOC=debug', [], {'PYTHONMALLOC': 'debug'}),
            (', -X dev', ['-X', 'dev'], {}), (', without the C library', ['--'], {})]


def check(python, arguments, variables, program=EXACT):
    options = []
    if arguments == ['--']:
        arguments, options = [], ['--no-malloc']
    result = record([python] + arguments + [program], '--max-stack-depth', '20', *options, env=clean_env(**variables))
    answer = tool('top', '-n', '0')
    peaks = tool('top', '-n', '0', '--by', 'peak-bytes')
    said, lines, sites = compare_exact(program, result, answer, peaks)
    temporary = sites[lines['freed_small']]['temporary_count']
    same('temporary blocks of freed_small', temporary, 200)
    same('temporary blocks of kept_small', sites[lines['kept_small']]['temporary_count'], 0)
    same('functions', [sites[lines['unicode']]['function'], sites[lines['by_lambda']]['function']], ['größe_漢字', '<lambda>'])
    stacks = tool('top', '-n', '0', '--group', 'stack')
    chain = [s for s in stacks['sites'] if s['line'] == lines['chain_1'] and s['file'].endswith(os.path.basename(program))]
    same('stacks of chain_1', len(chain), 1)
    frames = [(f['function'].rpartition('.')[2], f['line']) for f in chain[0]['stack']]
    same('the stack, innermost first', frames[:3], [('inner', lines['chain_1']), ('method', lines['chain_2']), ('<module>', lines['chain_3'])])
    collected = sum(g['collected'] for g in tool('gc')['generations'])
    assert collected >= said['nodes'] and said['collected'] == said['nodes'], 'collected %d, the program says %d' % (collected, said['collected'])


@case(each=[(label + how, python, arguments, variables) for label, python in PYTHONS for how, arguments, variables in SETTINGS])
def exact(python, arguments, variables):
    check(python, arguments, variables)


@case(each=PYTHONS)
def file_name_that_is_not_ascii(python):
    name = 'größe 漢字 \U0001f600.py'
    shutil.copy(EXACT, name)
    check(python, [], {}, os.path.abspath(name))


TRACEMALLOC = '''
import json, sys, tracemalloc
source = open(sys.argv[1], encoding='utf-8').read()
code = compile(source, sys.argv[1], 'exec')
tracemalloc.start(1)
space = {'__name__': '__main__'}
exec(code, space)
snapshot = tracemalloc.take_snapshot()
out = {}
for s in snapshot.statistics('lineno'):
    frame = s.traceback[0]
    if frame.filename == sys.argv[1]:
        out[frame.lineno] = [s.count, s.size]
print(json.dumps(out))
'''
PLAIN = '''
import sys
source = open(sys.argv[1], encoding='utf-8').read()
code = compile(source, sys.argv[1], 'exec')
space = {'__name__': '__main__'}
exec(code, space)
'''


@case(each=PYTHONS)
def live_blocks_by_line_as_tracemalloc_counts_them(python):
    program = os.path.join(PROGRAMS, 'ordinary.py')
    for name, text in (('tracemalloc_run.py', TRACEMALLOC), ('plain_run.py', PLAIN)):
        with open(name, 'w') as file:
            file.write(text)
    env = clean_env(PYTHONHASHSEED=0)
    other = execute([python, '-I', 'tracemalloc_run.py', program], env=env)
    same('status', other.returncode, 0)
    theirs = {int(k): v for k, v in json.loads(other.stdout).items()}
    record([python, '-I', 'plain_run.py', program], '--no-malloc', env=env)
    ours = {}
    for site in tool('top', '-n', '0', '--by', 'live-bytes')['sites']:  # a line may be in two functions: a comprehension and its surroundings
        if site['file'] == program and site['live_count']:
            sums = ours.setdefault(site['line'], [0, 0])
            sums[0] += site['live_count']
            sums[1] += site['live_bytes']
    marked = sorted(lines_of(program).values())
    wrong = ['line %d: tracemalloc %r, ours %r' % (n, theirs.get(n), ours.get(n)) for n in marked if theirs.get(n) != ours.get(n)]
    assert not wrong, '\n'.join(wrong)
    same('marked lines without a live block', [n for n in marked if n not in theirs], [])


run(__name__)
