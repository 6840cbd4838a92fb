"""What a program can see of itself, as JSON: nothing of it may change when it is traced, but for LD_PRELOAD."""
import ctypes
import errno
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import warnings


def look():
    libc = ctypes.CDLL(None, use_errno=True)
    seen = {}
    seen['threads'] = sorted(os.listdir('/proc/self/task')) == [str(os.getpid())]
    seen['thread count'] = len(os.listdir('/proc/self/task'))
    with open('/proc/self/task/%d/children' % os.getpid()) as children:
        seen['children'] = len(children.read().split())
    listing = os.open('/proc/self/fd', os.O_RDONLY)
    fds = {}
    for fd in os.listdir(listing):
        if int(fd) != listing:
            try:
                fds[fd] = os.readlink('/proc/self/fd/' + fd).split(':')[0]
            except OSError:
                pass
    os.close(listing)
    seen['descriptors'] = fds
    seen['lowest free descriptor'] = os.dup(0)
    os.close(seen['lowest free descriptor'])
    seen['environment'] = sorted(os.environ.items())
    seen['signal mask'] = sorted(int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, []))
    seen['signal handlers'] = {n: str(signal.getsignal(n)) for n in range(1, signal.NSIG) if n not in (32, 33)}
    with open('/proc/self/status') as status:
        seen['status'] = {k: v for k, v in (line.split(':', 1) for line in status) if k in (
            'SigBlk', 'SigIgn', 'SigCgt', 'CapEff', 'NoNewPrivs', 'Seccomp', 'Threads', 'Groups', 'Umask')}
    ctypes.set_errno(0)
    libc.close(-1)
    seen['errno after close(-1)'] = ctypes.get_errno()
    for e in (0, 7, 77):
        ctypes.set_errno(e)
        data = [bytes(3000) for _ in range(100)]
        del data
        seen['errno %d after allocations' % e] = ctypes.get_errno()
    seen['arguments'] = sys.argv[1:]
    seen['flags'] = str(sys.flags)
    seen['modules'] = sorted(sys.modules)
    seen['gc'] = [gc.get_threshold(), gc.isenabled(), len(gc.garbage)]
    seen['python threads'] = [t.name for t in threading.enumerate()]
    seen['limits'] = open('/proc/self/limits').read()
    seen['umask'] = os.umask(0o22)
    os.umask(seen['umask'])
    seen['cwd'] = os.getcwd()
    seen['parent group'] = [os.getpgid(0) == os.getpgid(os.getppid()), os.getsid(0) == os.getsid(os.getppid())]
    # An allocation that fails keeps its errno.
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    ctypes.set_errno(0)
    seen['a failing malloc'] = [libc.malloc(1 << 60), ctypes.get_errno() == errno.ENOMEM]
    try:
        bytes(1 << 60)
    except MemoryError:
        seen['MemoryError'] = True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        seen['fork'] = [os.waitpid(pid, 0)[1], [str(w.message) for w in caught]]
    out = subprocess.run([sys.executable, '-c', 'import os; print(len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))'],
                         stdout=subprocess.PIPE)
    seen['child'] = [out.returncode, out.stdout.decode()]
    closed = subprocess.run([sys.executable, '-c', 'print(1)'], stdout=subprocess.PIPE, env={}, close_fds=True)
    seen['child with an empty environment'] = [closed.returncode, closed.stdout.decode()]
    return seen


print(json.dumps(look(), default=str))
sys.stderr.write('a word on stderr\n')
sys.exit(3)
