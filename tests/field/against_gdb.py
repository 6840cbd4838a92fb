"""Native stacks against gdb's: optimised programs without frame pointers run under `memlyze record --native`, inside gdb, which stops at captures chosen at
random, walks the stack with its own unwinder, lets the capture happen, and reads from the agent's memory what was found: it must be the same stack, frame
by frame (address in the module), 32 frames at most.

    python3 tests/field/against_gdb.py BUILD [STOPS]

Not part of `make test`: gdb takes minutes. A line for each program; exit status 1 if a stack differs.
"""
import os
import shutil
import subprocess
import sys
import tempfile

DEPTH = 32

# Run by gdb's own Python. Frames of the agent are left out on both sides, and those that gdb infers: inlined functions and tail calls are not on the stack.
SCRIPT = r'''
import gdb, os, random
random.seed(int(os.environ['GDB_SEED']))
stops, depth = int(os.environ['GDB_STOPS']), 32
for setting in ('pagination off', 'confirm off', 'debuginfod enabled off', 'backtrace past-main on', 'backtrace past-entry on', 'breakpoint pending on',
                'startup-with-shell off', 'print thread-events off', 'disable-randomization off', 'detach-on-fork on',
                'environment LD_PRELOAD ' + os.environ['GDB_PRELOAD']):
    gdb.execute('set ' + setting, to_string=True)
gdb.execute('handle all nostop noprint pass', to_string=True)
gdb.execute('handle SIGTRAP stop print nopass', to_string=True)
point = gdb.Breakpoint('mlz_native_capture')

def mappings():
    found = []
    for line in open('/proc/%d/maps' % gdb.selected_inferior().pid):
        part = line.split()
        if len(part) >= 6:
            low, high = (int(x, 16) for x in part[0].split('-'))
            found.append((low, high, part[5]))
    return found

kinds = {}
def is_fixed(path):
    if path not in kinds:
        try:
            with open(path, 'rb') as f:
                kinds[path] = f.read(18)[16] == 2
        except OSError:
            kinds[path] = False
    return kinds[path]

def place(pc, maps):
    path = next((p for low, high, p in maps if low <= pc < high), '')
    return path, pc - (0 if is_fixed(path) else next((low for low, high, p in maps if p == path), 0))

def theirs():
    maps, stack, frame = mappings(), [], gdb.newest_frame()
    while frame is not None and len(stack) < depth:
        if frame.type() == gdb.NORMAL_FRAME or frame.type() == gdb.SIGTRAMP_FRAME:
            path, offset = place(frame.pc(), maps)
            if 'libmemlyze' not in path:
                stack.append((os.path.basename(path), offset))
        frame = frame.older()
    return stack, frame is None

def ours(native):
    stack, node = [], int(native['sent']) & 0x7fffffff
    while node and len(stack) < depth:
        x = native['node'][node]
        stack.append(int(x['word']) & (1 << 48) - 1)
        node = int(x['caller'])
    return stack

agree = frames = differ = 0
gdb.execute('set inferior-tty /dev/null')
gdb.execute('run', to_string=True)
while agree + differ < stops and gdb.selected_inferior().pid:
    try:
        t = gdb.parse_and_eval('(struct mlz_tls *)$rdi')
        wanted, whole = theirs()
        gdb.execute('finish', to_string=True)
        got = ours(t['thread']['native'].dereference())
        same = [offset for _, offset in wanted] == got
        if same:
            agree += 1
            frames += len(got)
        else:
            differ += 1
            print('DIFFERENT')
            for i in range(max(len(got), len(wanted))):
                print('  %-40s %s' % ('%s+%#x' % wanted[i] if i < len(wanted) else '-', hex(got[i]) if i < len(got) else '-'))
        point.ignore_count = random.randrange(int(os.environ['GDB_EVERY']))
        gdb.execute('continue', to_string=True)
    except (gdb.error, RuntimeError) as e:
        print('END', e)
        break
print('RESULT %d %d %d' % (agree, frames, differ))
try:
    gdb.execute('kill')
except gdb.error:
    pass
'''


def main():
    build, stops = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 350
    os.chdir(tempfile.mkdtemp(prefix='memlyze-gdb-'))
    with open('script.py', 'w') as f:
        f.write(SCRIPT)
    with open('some.xml', 'w') as f:
        f.write('<r>%s</r>' % ''.join('<a id="%d"><b>text %d</b></a>' % (i, i * i) for i in range(20000)))
    with open('some.sql', 'w') as f:
        f.write('create table t(a,b); with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) insert into t select i, i * 7 from n;\ncreate index i on t(b);\n'
                + 'select count(*) from t where b % 3 = 1;\n' * 50)
    with open('many.c', 'w') as f:
        f.write(''.join('int f%d(int a, int b) { int s = %d; for (int i = 0; i < a; i++) s += i %% 3 == b ? i * b : s >> 1; return s; }\n' % (i, i)
                        for i in range(100)))
    compiler = subprocess.run(['gcc', '-print-prog-name=cc1'], stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
    programs = {
        'git': (['git', '-C', source, 'log', '--stat', '-n', '40'], 20),
        'sqlite3': (['sqlite3', '-init', 'some.sql', ':memory:', '.quit'], 20),
        'xmllint': (['xmllint', '--noout', 'some.xml'], 100),
        'cc1': ([compiler, '-quiet', '-O2', 'many.c', '-o', '/dev/null'], 100),
    }
    wrong = False
    for name, (command, every) in programs.items():
        path = shutil.which(command[0])
        if not path:
            print('%s: not installed' % name)
            continue
        env = dict(os.environ, GDB_STOPS=str(stops), GDB_EVERY=str(every), GDB_SEED='7', GIT_PAGER='cat')
        gdb = 'GDB_PRELOAD="$LD_PRELOAD"; export GDB_PRELOAD; unset LD_PRELOAD; exec gdb -nx -batch -x script.py --args "$@"'
        result = subprocess.run([os.path.join(build, 'tracer', 'recorder', 'memlyze'), 'record', '--native', '--quiet', '-f', '-o', 'trace.mlyze', '--',
                                 'sh', '-c', gdb, 'sh', path, *command[1:]], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                universal_newlines=True, errors='replace', stdin=subprocess.DEVNULL)
        lines = result.stdout.splitlines()
        found = [l.split() for l in lines if l.startswith('RESULT ')]
        if not found:
            print('%s: gdb did not come to an end:\n%s' % (name, '\n'.join(lines[-20:])))
            wrong = True
            continue
        agree, frames, differ = (int(n) for n in found[-1][1:])
        ended = [l for l in lines if l.startswith('END')]
        print('%s: %d stacks agree (%d frames), %d differ' % (name, agree, frames, differ), *ended, flush=True)
        if differ or not agree:
            wrong = True
            print('\n'.join(lines[:60]))
    return wrong


if __name__ == '__main__':
    sys.exit(main())
