"""The traced program sees nothing of the tracer: no thread, child, descriptor or variable but LD_PRELOAD; errno, signals, output, status."""
import json
import os
import signal
import subprocess

from harness import MEMLYZE, PROGRAMS, PYTHON, PYTHONS, SLOW, TESTS, Skip, case, clean_env, execute, record, run, same, tool

VISIBLE = os.path.join(PROGRAMS, 'visible.py')


@case(each=PYTHONS)
def what_a_program_sees_of_itself(python):
    traced = record([python, VISIBLE, 'a', 'b c'], status=3)
    plain = execute([python, VISIBLE, 'a', 'b c'])
    same('exit status', traced.returncode, plain.returncode)
    same('stderr', traced.stderr, plain.stderr)
    ours, theirs = json.loads(traced.stdout), json.loads(plain.stdout)
    added = [(k, v) for k, v in ours.pop('environment') if [k, v] not in theirs['environment']]
    theirs.pop('environment')
    same('variables that tracing adds', [k for k, v in added], ['LD_PRELOAD'])
    # The recorder is the parent, in the same group and session as the shell's child would be.
    differ = {k: (ours.get(k), theirs.get(k)) for k in set(ours) | set(theirs) if ours.get(k) != theirs.get(k)}
    same('what else differs', differ, {})


@case
def all_of_the_environment_is_passed_on():
    show = ['/bin/sh', '-c', 'env | sort | grep -v ^LD_PRELOAD | grep -v ^_=']
    env = clean_env(LD_LIBRARY_PATH='/nonexistent', ODD='two\nlines')
    same('environment', record(show, env=env).stdout, execute(show, env=env).stdout)


@case
def an_ld_preload_of_the_user_stays():
    if SLOW > 1:
        raise Skip('the recorder is instrumented: ASan wants to be the first in LD_PRELOAD')
    result = record(['/bin/sh', '-c', 'echo $LD_PRELOAD'], env=clean_env(LD_PRELOAD='libm.so.6'))
    assert 'libm.so.6' in result.stdout and 'memlyze' in result.stdout, result.stdout


@case(each=[('exit %d' % n, ['/bin/sh', '-c', 'exit %d' % n], n) for n in (0, 1, 2, 42, 255)] +
      [('signal %d' % n, ['/bin/sh', '-c', 'kill -%d $$' % n], 128 + n) for n in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV,
                                                                                 signal.SIGABRT, signal.SIGINT)])
def exit_status(command, status):
    record(command, status=status)


@case(each=[(name, s) for name, s in (('SIGTERM', signal.SIGTERM), ('SIGHUP', signal.SIGHUP), ('SIGQUIT', signal.SIGQUIT))])
def signals_are_passed_on(s):
    program = '''
import os, signal, sys, time
def stop(n, f):
    os.write(1, b"got %%d\\n" %% n)
    os._exit(5)
signal.signal(%d, stop)
print("ready", flush=True)
time.sleep(30)
''' % s
    with subprocess.Popen([MEMLYZE, 'record', '--quiet', '-o', 't.mlyze', PYTHON, '-c', program], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=clean_env(), universal_newlines=True) as p:
        same('first line', p.stdout.readline(), 'ready\n')
        p.send_signal(s)
        out, err = p.communicate(timeout=30)
        same('output, stderr, status', (out, err, p.returncode), ('got %d\n' % s, '', 5))


@case
def standard_input_and_output_are_the_program_s():
    result = execute([MEMLYZE, 'record', '--quiet', '-f', '-o', 't.mlyze', '/bin/cat'], stdin=None, input='some text\n' * 1000)
    same('output', (result.returncode, result.stdout, result.stderr), (0, 'some text\n' * 1000, ''))


@case
def closed_standard_descriptors_stay_closed():
    program = 'ls /proc/self/fd 2>/dev/null | wc -l > count; ls -l /proc/self/fd > list'
    for who, start in (('plain', ['/bin/sh', '-c']), ('traced', [MEMLYZE, 'record', '--quiet', '-f', '-o', 't.mlyze', '/bin/sh', '-c'])):
        subprocess.run(['/bin/sh', '-c', 'exec "$@" <&- >&- 2>&-', 'sh'] + start + [program.replace('count', who)], env=clean_env(), timeout=30)
    same('descriptors', open('traced').read(), open('plain').read())


@case(each=PYTHONS)
def a_program_s_own_allocator_tools_work(python):
    program = '''
import tracemalloc
tracemalloc.start(5)
kept = [bytes(1000) for _ in range(1000)]
now, peak = tracemalloc.get_traced_memory()
assert now > 1000000 and peak >= now, now
tracemalloc.stop()
import gc, sys
seen = []
gc.callbacks.append(lambda phase, info: seen.append((phase, sorted(info))))
gc.collect()
assert [p for p, i in seen] == ["start", "stop"], seen
gc.callbacks.clear()
gc.collect()
del kept
assert sys.getallocatedblocks() > 0
print("fine")
'''
    same('output', record([python, '-c', program]).stdout, 'fine\n')


@case(each=PYTHONS)
def collections_at_the_recursion_limit(python):
    program = os.path.join(TESTS, 'field', 'programs', 'deep_gc.py')
    traced, plain = record([python, program], quiet=False), execute([python, program])
    same('output', traced.stdout, plain.stdout)
    assert 'gc.callbacks' not in traced.stderr and 'Exception' not in traced.stderr, traced.stderr
    assert sum(g['count'] for g in tool('gc')['generations']) > 100


@case
def nothing_stays_behind():
    runtime = os.path.abspath('runtime')
    os.mkdir(runtime, 0o700)
    record([PYTHON, '-c', 'import os; print(os.environ["LD_PRELOAD"])'], env=clean_env(TMPDIR=runtime))
    own = 'memlyze-%d' % os.geteuid()
    same('the directory of sessions', os.listdir(runtime), [own])
    same('sessions left in it', os.listdir(os.path.join(runtime, own)), [])


run(__name__)
