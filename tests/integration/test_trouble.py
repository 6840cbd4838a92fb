"""What goes wrong around a recording: commands that cannot run, disks that are full, memory that is short."""
import os
import resource
import shutil
import stat
import subprocess

from harness import BUILD, MEMLYZE, PROGRAMS, PYTHON, SLOW, Skip, TOOLS, case, clean_env, every_tool_reads, execute, record, run, same, tool

STEADY = os.path.join(PROGRAMS, 'steady.py')
STATIC = os.path.join(BUILD, 'tests', 'integration', 'malloc_static')


def one_line(result, *words):
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, 'not one line: %r' % result.stderr
    for word in words:
        assert word in lines[0], '%r is not in %r' % (word, lines[0])


@case
def missing_command():
    one_line(record(['no-such-command-here'], status=127), 'no-such-command-here')
    assert not os.path.exists('trace.mlyze'), 'a trace of nothing'


@case
def command_that_is_not_executable():
    with open('plain', 'w') as file:
        file.write('text\n')
    one_line(record(['./plain'], status=126), './plain')
    os.mkdir('folder')
    one_line(record(['./folder'], status=126), './folder')


@case
def no_command():
    result = execute([MEMLYZE, 'record'])
    same('exit status', result.returncode, 2)
    assert result.stderr.strip(), 'says nothing'


@case(each=[('unwritable directory', '/nonexistent/t.mlyze'), ('a directory', '.'), ('no place', '')])
def output_that_cannot_be_written(path):
    result = record([PYTHON, '-c', 'open("ran", "w")'], trace=path, status=None)
    assert result.returncode in (2, 125), result.returncode
    one_line(result)
    assert not os.path.exists('ran'), 'the command ran all the same'


@case
def existing_output_is_kept():
    for n in (1, 2):
        execute([MEMLYZE, 'record', '--quiet', '-o', 't.mlyze', '--', '/bin/echo', str(n)])
    assert os.path.exists('t.mlyze.old') and os.path.exists('t.mlyze'), os.listdir('.')
    same('mode', stat.S_IMODE(os.stat('t.mlyze').st_mode), 0o600)
    same('command of the old one', tool('stats', trace='t.mlyze.old')['command'], tool('stats', trace='t.mlyze.old')['command'])
    assert '1' in str(tool('stats', trace='t.mlyze.old')['command']) and '2' in str(tool('stats', trace='t.mlyze')['command'])


def with_limits(command, **limits):
    def limit():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))
    return execute(command, preexec_fn=limit)


@case
def full_disk():
    # A small file system, in a mount namespace of our own where we are not root.
    wanted = execute([PYTHON, STEADY, '0', '20000']).stdout
    os.mkdir('small')
    inner = 'mount -t tmpfs -o size=256k tmpfs small && "%s" record -f -o small/t.mlyze "%s" "%s" 0 20000; s=$?; cp small/t.mlyze t.mlyze; exit $s' % (
        MEMLYZE, PYTHON, STEADY)
    result = execute(['unshare', '-rm', '/bin/sh', '-c', inner])
    if 'unshare' in result.stderr or 'mount' in result.stderr:
        raise Skip('no mount namespace here: ' + result.stderr.strip().splitlines()[0])
    same('result of the program', result.stdout, wanted)
    assert 'small/t.mlyze' in result.stderr and 'No space' in result.stderr, result.stderr
    same('exit status: the program\'s', result.returncode, 0)
    every_tool_reads('t.mlyze')
    same('complete', tool('stats', trace='t.mlyze')['complete'], False)


@case
def static_binary():
    result = record([STATIC, 'functions'], status=None, quiet=False)
    same('exit status and output', (result.returncode, result.stdout), (0, execute([STATIC, 'functions']).stdout))
    assert 'static' in result.stderr, 'record does not say why nothing was traced: %r' % result.stderr
    for name in ('stats', 'top', 'leaks'):
        text = execute([MEMLYZE, name, 'trace.mlyze'])
        assert 'empty' in (text.stdout + text.stderr) or 'nothing' in (text.stdout + text.stderr).lower(), '%s: %r' % (name, text)


@case
def cleared_environment():
    # env -i takes LD_PRELOAD away: the child is not traced, and the shell before it is.
    record(['/bin/sh', '-c', 'exec env -i %s -c "print(1)"' % PYTHON])
    every_tool_reads()


@case(each=[('%d MB' % n, n) for n in (200, 400, 1500)])
def little_address_space(megabytes):
    limit = megabytes << 20
    program = 'kept = [bytes(3000) for _ in range(5000)]\nprint(len(kept))'
    plain = with_limits([PYTHON, '-c', program], RLIMIT_AS=limit)
    traced = record(['/bin/sh', '-c', 'ulimit -v %d; exec "%s" -c "%s"' % (limit >> 10, PYTHON, program)])
    same('result', (traced.returncode, traced.stdout, traced.stderr), (plain.returncode, plain.stdout, plain.stderr))
    every_tool_reads()
    assert tool('stats')['events']['allocs'] > 5000, tool('stats')['events']


@case
def memory_error_is_the_program_s():
    program = '''
data = []
try:
    while True:
        data.append(bytes(10000000))
except MemoryError:
    n = len(data)
    data = None
    print("MemoryError", n > 3)
'''
    traced = record(['/bin/sh', '-c', 'ulimit -v 600000; exec "%s" -c \'%s\'' % (PYTHON, program)])
    same('output', traced.stdout, 'MemoryError True\n')


@case(each=[(n, n) for n in ('1', '100', '2000000')])
def ring_sizes(records):
    wanted = execute([PYTHON, STEADY, '0', '300']).stdout
    same('result', record([PYTHON, STEADY, '0', '300'], '--max-events', records).stdout, wanted)
    stats = tool('stats')
    same('dropped while blocking', stats['events']['dropped'], 0)
    every_tool_reads()


@case
def dropping_is_counted_and_fakes_no_leak():
    with open('busy.py', 'w') as file:
        file.write('''
import threading
UNIT = b'x'
def work():
    for i in range(60000):
        UNIT * 600
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
''')
    record([PYTHON, 'busy.py'], '--on-full', 'drop', '--max-events', '64')
    stats = tool('stats')
    site = [s for s in tool('top', '-n', '0')['sites'] if (s['file'] or '').endswith('busy.py') and s['line'] == 6][0]
    same('live', site['live_count'], 0)
    if stats['events']['dropped']:
        same('counted', stats['events']['dropped'] > 0 and site['alloc_count'] <= 240000, True)
    else:
        same('all are there', site['alloc_count'], 240000)


@case
def every_report_shows_what_was_dropped():
    """The recorder is stopped meanwhile, so that the rings must run over."""
    program = '''
import itertools, os, signal, threading
kept = []
def work(n):
    for _ in itertools.repeat(None, n):
        kept.append(bytes(1000))
os.kill(os.getppid(), signal.SIGSTOP)
threads = [threading.Thread(target=work, args=(n,)) for n in (7000, 5000)]
for t in threads: t.start()
for t in threads: t.join()
os.kill(os.getppid(), signal.SIGCONT)
'''
    result = record([PYTHON, '-c', program], '--on-full', 'drop', '--max-events', '1000', quiet=False)
    figures = {line.split()[0]: line.split()[1] for line in result.stderr.splitlines() if len(line.split()) > 1}
    seen, traced, dropped = (int(figures[word]) for word in ('allocations_seen', 'allocations_traced', 'events_dropped'))
    stats = tool('stats')
    same('dropped, stats', stats['events']['dropped'], dropped)
    same('dropped, all threads', sum(thread['dropped'] for thread in stats['threads']), dropped)
    workers = [thread['dropped'] for thread in stats['threads'] if thread['tid'] != stats['pid']]
    same('threads', len(workers), 2)
    for n, lost in zip((7000, 5000), workers):
        assert n - 1000 < lost < n + 1000, 'a thread of %d allocations lost %d' % (n, lost)
    assert seen >= 12000 and dropped >= seen - traced > 10000, (seen, traced, dropped)
    for name in TOOLS:
        answer = execute([MEMLYZE, name, 'trace.mlyze'])
        same('exit status, ' + name, answer.returncode, 0)
        assert '%d records were lost' % dropped in answer.stderr, '%s: %r' % (name, answer.stderr)


@case
def more_threads_than_rings_run_untraced():
    program = '''
import threading
go = threading.Event()
def work():
    go.wait()
    [bytes(1000) for _ in range(10)]
threads = [threading.Thread(target=work) for _ in range(1500)]
for t in threads: t.start()
go.set()
for t in threads: t.join()
print("done")
'''
    same('output', record([PYTHON, '-c', program], '--max-events', '100').stdout, 'done\n')
    every_tool_reads()


@case
def no_shared_memory_to_be_had():
    # Files may not grow beyond the arena's size either: the recorder cannot make the arena, and says so before the command runs.
    result = with_limits([MEMLYZE, 'record', '--quiet', '-f', '-o', 't.mlyze', PYTHON, '-c', 'print(5)'], RLIMIT_FSIZE=0)
    assert result.returncode in (0, 125), (result.returncode, result.stderr)
    if result.returncode == 125:
        same('lines on stderr', len(result.stderr.strip().splitlines()), 1)


@case
def a_setuid_program_is_said_to_be_untraced():
    su = shutil.which('su')
    if not su or not os.stat(su).st_mode & stat.S_ISUID or os.getuid() == 0:
        raise Skip('no setuid program, or root, whom it does not change')
    result = record([su, '--version'], status=None, quiet=False)
    assert 'traced' in result.stderr, result.stderr


@case
def a_runtime_directory_of_somebody_else_is_refused():
    runtime = os.path.abspath('open')
    os.mkdir(runtime)
    os.mkdir(os.path.join(runtime, 'memlyze'))
    os.chmod(os.path.join(runtime, 'memlyze'), 0o777)
    result = record([PYTHON, '-c', 'print(1)'], status=None, env=clean_env(XDG_RUNTIME_DIR=runtime))
    if result.returncode == 0:
        mode = stat.S_IMODE(os.stat(os.path.join(runtime, 'memlyze')).st_mode)
        used = os.listdir(os.path.join(runtime, 'memlyze'))
        assert mode == 0o700 or not used, 'a directory open to all was used (mode %o)' % mode
    else:
        one_line(result)


run(__name__)
