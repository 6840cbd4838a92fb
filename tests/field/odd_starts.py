#!/usr/bin/env python3
"""Odd ways to start and odd things to do, untraced and traced: same output, same errors, same exit status, and what the trace holds.

    odd_starts.py --memlyze PATH --stats PATH --python PATH [--only NAME]

Prints a line for each case; exit status 1 if one differs. Cases that need root or a compiler are passed over, with a word, where those are missing.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

PY = "@PY@"

# name -> (argv, in what the output of two runs must agree: o(ut) e(rr) s(tatus))
SNIPPETS = {
    "spawn": "import multiprocessing as m\ndef main():\n  with m.get_context('spawn').Pool(2) as p: print(p.map(abs, range(-5, 5)))\nif __name__=='__main__': main()",
    "fork": "import multiprocessing as m\ndef main():\n  with m.get_context('fork').Pool(2) as p: print(p.map(abs, range(-5, 5)))\nif __name__=='__main__': main()",
    "forkserver": "import multiprocessing as m\ndef main():\n  with m.get_context('forkserver').Pool(2) as p: print(p.map(abs, range(-5, 5)))\nif __name__=='__main__': main()",
    "closerange": "import os\nos.closerange(3, 1000)\nx=[bytes(1000) for i in range(10000)]\nos.write(1, b'%d' % len(x))\nif os.fork()==0:\n  y=[dict() for i in range(1000)]\n  os._exit(3)\nprint(os.wait()[1])",
    "closeall": "import os\nos.closerange(0, 1000)\nx=[bytes(1000) for i in range(10000)]\nos._exit(5)",
    "cwd_gone": "import os, tempfile\nd=tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)\nx=[bytes(1000) for i in range(1000)]\nif os.fork()==0:\n  import json\n  os._exit(0)\nos.wait()\nprint(len(x))",
    "reexec": "import os, sys\nif len(sys.argv)<2: os.execv(sys.executable, [sys.executable, __file__, '1'])\nprint(sys.argv[1:], len([bytes(100) for i in range(1000)]))",
    "reexec_cleared": "import os, sys\nif len(sys.argv)<2: os.execve(sys.executable, [sys.executable, __file__, '1'], {})\nprint(sys.argv[1:], len([bytes(100) for i in range(1000)]))",
    "sigaltstack": "import ctypes, faulthandler, signal, os\nfaulthandler.enable()\nsignal.signal(signal.SIGUSR1, lambda *a: print('handler', len([bytes(64) for i in range(1000)])))\n"
                   "for i in range(20): os.kill(os.getpid(), signal.SIGUSR1)",
    "segv": "import ctypes\nx=[1,2]\nctypes.string_at(0)",
    "segv_fault": "import faulthandler; faulthandler.enable()\nimport ctypes\nctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "term_self": "import os; os.kill(os.getpid(), 15)",
    "kill_self": "import os\nx=[bytes(i) for i in range(10000)]\nos.kill(os.getpid(), 9)",
    "not_dumpable": "import warnings; warnings.simplefilter('ignore')\nimport ctypes, threading\nlibc=ctypes.CDLL(None)\nprint(libc.prctl(4,0,0,0,0))\nt=[threading.Thread(target=lambda: [bytes(100) for i in range(1000)]) for i in range(4)]\n"
                    "[x.start() for x in t]; [x.join() for x in t]\nimport os\nif os.fork()==0: y=[bytes(9) for i in range(999)]; os._exit(0)\nos.wait(); print('done')",
    "setuid_threads": "import os, threading\nif os.getuid()==0: os.setgid(65534); os.setuid(65534)\nt=[threading.Thread(target=lambda: [bytes(100) for i in range(1000)]) for i in range(4)]\n"
                      "[x.start() for x in t]; [x.join() for x in t]\nif os.fork()==0: y=[bytes(9) for i in range(999)]; os._exit(0)\nos.wait(); print('done', os.getuid())",
    "setuid_exec": "import os, sys\nif os.getuid()==0: os.setgid(65534); os.setuid(65534)\nos.execv('/usr/bin/env', ['env', 'true'])",
    "chroot": "import ctypes, os, threading\nctypes.CDLL('libgcc_s.so.1')\nif os.getuid()==0:\n  os.chroot('/tmp'); os.chdir('/')\nt=[threading.Thread(target=lambda: [bytes(100) for i in range(1000)]) for i in range(4)]\n"
              "[x.start() for x in t]; [x.join() for x in t]\nif os.fork()==0: y=[bytes(9) for i in range(999)]; os._exit(0)\nos.wait(); print('done')",
    "seccomp_strict_fs": "import ctypes, struct, os, threading\nctypes.CDLL('libgcc_s.so.1')\nlibc=ctypes.CDLL(None)\n"
                         "def s(c,jt,jf,k): return struct.pack('HBBI',c,jt,jf,k)\n"
                         "# openat and connect answer EPERM from here on\n"
                         "f=s(0x20,0,0,0)+s(0x15,2,0,257)+s(0x15,1,0,42)+s(0x06,0,0,0x7fff0000)+s(0x06,0,0,0x00050001)\n"
                         "b=ctypes.create_string_buffer(f)\np=struct.pack('HxxxxxxQ',5,ctypes.addressof(b))\npb=ctypes.create_string_buffer(p)\n"
                         "print(libc.prctl(38,1,0,0,0), libc.prctl(22,2,pb,0,0))\n"
                         "try: open('/etc/passwd'); print('opened')\nexcept OSError as e: print(e.errno)\n"
                         "t=[threading.Thread(target=lambda: [bytes(100) for i in range(1000)]) for i in range(4)]\n[x.start() for x in t]; [x.join() for x in t]\n"
                         "if os.fork()==0: y=[bytes(9) for i in range(999)]; os._exit(0)\nos.wait(); print('done')",
    "stack_limit": "import resource, sys\nsys.setrecursionlimit(10**6 if sys.version_info < (3,12) else 5000)\ndef f(n): return 0 if n == 0 else 1 + f(n-1)\nprint(f(4000))",
    "rlimit_as": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (900<<20, 900<<20))\ntry:\n  x=bytearray(2<<30)\nexcept MemoryError: print('no memory')\nx=[bytes(1000) for i in range(10000)]\n"
                 "import threading\nt=threading.Thread(target=lambda: [bytes(99) for i in range(100)]); t.start(); t.join(); print(len(x))",
    "rlimit_nofile": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\nimport threading\nr=[]\nt=[threading.Thread(target=lambda: r.append(len([bytes(100) for i in range(1000)]))) for i in range(4)]\n"
                     "[x.start() for x in t]; [x.join() for x in t]; print(r)",
    "daemon_threads": "import threading, time\ndef f():\n  while True: x=[bytes(100) for i in range(100)]\n[threading.Thread(target=f, daemon=True).start() for i in range(3)]\ntime.sleep(.3); print('bye')",
    "fork_in_thread": "import threading, os\ndef f():\n  p=os.fork()\n  if p==0:\n    x=[bytes(9) for i in range(1000)]\n    os._exit(7)\n  print(os.waitpid(p,0)[1])\nt=threading.Thread(target=f); t.start(); t.join()",
    "double_fork": "import os, sys\nif os.fork()==0:\n  os.setsid()\n  if os.fork()==0:\n    x=[bytes(9) for i in range(1000)]\n    os._exit(0)\n  os._exit(0)\nos.wait(); print('ok')",
    "posix_spawn": "import os, sys\np=os.posix_spawn(sys.executable, [sys.executable, '-c', 'print(len([bytes(9) for i in range(1000)]), flush=True)'], {})\nprint(os.waitpid(p,0)[1])",
    "popen_env": "import subprocess, sys, os\nprint(subprocess.check_output([sys.executable, '-c', 'import os; print(sorted(k for k in os.environ if k not in (\"LC_CTYPE\",\"LD_PRELOAD\")))'], env={}))",
    "fds": "import os\nprint(sorted(os.listdir('/proc/self/fd')))",
    "signals_masked": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nx=[bytes(i) for i in range(10000)]\nprint(sorted(map(int,signal.pthread_sigmask(signal.SIG_BLOCK, [])))==sorted(set(range(1,65))-{9,19,32,33}))",
    "stderr_closed": "import os\nos.close(2)\nx=[bytes(i) for i in range(1000)]\nprint(1)",
    "exit_in_atexit": "import atexit, os\natexit.register(os._exit, 4)\nx=[bytes(i) for i in range(1000)]",
    "systemexit": "raise SystemExit(200)",
    "exception": "def f(): 1/0\nf()",
    "no_gil_free": "import ctypes\nlibc=ctypes.CDLL(None); libc.malloc.restype=ctypes.c_void_p; libc.free.argtypes=[ctypes.c_void_p]\nfor i in range(1000): libc.free(libc.malloc(i))\nprint('ok')",
    "vfork_exec": "import subprocess\nprint([subprocess.call(['/bin/true']) for i in range(30)])",
    "setproctitle": "import ctypes\nctypes.CDLL(None).prctl(15, b'another name', 0,0,0)\nprint(open('/proc/self/comm').read())",
    "clone_newns": "import os, ctypes\nprint(ctypes.CDLL(None).unshare(0x20000000) in (0,-1))\nif os.fork()==0: x=[bytes(9) for i in range(100)]; os._exit(0)\nos.wait()",
    "subinterpreter": "try:\n  import _xxsubinterpreters as s\nexcept ImportError: import _interpreters as s\ni=s.create()\n(s.run_string if hasattr(s,'run_string') else s.exec)(i, 'import json; x=[json.dumps([i]) for i in range(999)]')\ns.destroy(i); print('ok')",
    "mlockall": "import ctypes, threading\nlibc=ctypes.CDLL(None)\nr=libc.mlockall(3)\nt=[threading.Thread(target=lambda: [bytes(100) for i in range(1000)]) for i in range(4)]\n[x.start() for x in t]; [x.join() for x in t]; print('done')",
    "tracemalloc": "import tracemalloc\ntracemalloc.start(5)\nx=[bytes(1000) for i in range(1000)]\nprint(tracemalloc.take_snapshot().statistics('lineno')[0].count)\ntracemalloc.stop()",
}


def shells(python, work):
    wrapper = os.path.join(work, "wrapper.sh")
    with open(wrapper, "w") as f:
        f.write('#!/bin/sh\nV=$(echo a | sed s/a/b/ | sort)\nexec "%s" "$@"\n' % python)
    os.chmod(wrapper, 0o755)
    code = "import os; x=[bytes(100) for i in range(5000)]; print(len(x))"
    cases = {
        "sh_exec": ["sh", "-c", 'exec "%s" -c "%s"' % (python, code)],
        "sh_child": ["sh", "-c", '"%s" -c "%s"; exit 9' % (python, code)],
        "sh_pipe": ["sh", "-c", '"%s" -c "%s" | cat | wc -l' % (python, code)],
        "wrapper": [wrapper, "-c", code],
        "env_i": ["env", "-i", python, "-c", code],
        "nohup": ["nohup", python, "-c", code],
        "setsid": ["setsid", "-w", python, "-c", code],
        "timeout": ["timeout", "0.5", python, "-c", "import time; x=[1]; time.sleep(5)"],
        "long_argument": [python, "-c", "import sys; print(len(sys.argv[1]))", "x" * 120000],
        "many_arguments": [python, "-c", "import sys; print(len(sys.argv))"] + ["y" * 20] * 50000,
        "bytes_argument": [python, "-c", "import sys,os; print(os.fsencode(sys.argv[1]))", b"\xff\xfe\x80"],
        "newline_argument": [python, "-c", "import sys,os; print(sys.argv)", "a\nb\"c\\ \x1b[31m"],
        "empty_argument": [python, "-c", "import sys,os; print(sys.argv)", "", "--", "-o"],
        "missing": ["/no/such/program"],
        "ulimit_v": ["sh", "-c", 'ulimit -v 2000000; "%s" -c "%s"' % (python, code)],
        "ulimit_n": ["sh", "-c", 'ulimit -n 8; "%s" -c "%s"' % (python, code)],
        "ulimit_f": ["sh", "-c", 'ulimit -f 1; "%s" -c "%s"' % (python, code)],
        "ulimit_d": ["sh", "-c", 'ulimit -d 300000; "%s" -c "%s"' % (python, code)],
        "ulimit_l": ["sh", "-c", 'ulimit -l 64; "%s" -c "%s"' % (python, code)],
        "ulimit_s": ["sh", "-c", 'ulimit -s 256; "%s" -c "%s"' % (python, code)],
        "ulimit_s_none": ["sh", "-c", 'ulimit -s unlimited; "%s" -c "%s"' % (python, code)],
        "nproc": ["prlimit", "--nproc=200", python, "-c", code],
        "no_aslr": ["setarch", "-R", python, "-c", code],
        "user_namespace": ["unshare", "-Ur", python, "-c", code],
        "pid_namespace": ["unshare", "-Upfr", python, "-c", code],
        "dev_mode": [python, "-X", "dev", "-c", code],
        "isolated": [python, "-I", "-S", "-E", "-c", code],
        "pythonmalloc": ["env", "PYTHONMALLOC=debug", python, "-c", code],
        "stats": ["env", "PYTHONMALLOCSTATS=1", "true"],
        "stdin_program": ["sh", "-c", 'echo "print(1+1)" | "%s"' % python],
        "stdin_closed": ["sh", "-c", '"%s" -c "print(3)" <&-' % python],
        "stdout_closed": ["sh", "-c", '"%s" -c "print(3)" >&-' % python],
        "full_stdout": ["sh", "-c", '"%s" -c "print(3)" >/dev/full' % python],
    }
    if shutil.which("su") and os.getuid() == 0:
        cases["su"] = ["su", "nobody", "-s", "/bin/sh", "-c", "echo hello"]
    for name, argv in (("strace", ["strace", "-f", "-o", "/dev/null"]), ("valgrind", ["valgrind", "-q", "--tool=none"]), ("gdb", ["gdb", "-q", "-batch", "-ex", "run", "--args"])):
        if shutil.which(name):
            cases[name] = argv + [python, "-c", code]
    shim = os.path.expanduser("~/.pyenv/shims/python3")
    if os.path.exists(shim):
        cases["pyenv_shim"] = [shim, "-c", code]
    if shutil.which("go"):
        g = os.path.join(work, "g.go")
        with open(g, "w") as f:
            f.write('package main\nimport "fmt"\nfunc main() { fmt.Println("go") }\n')
        if subprocess.call(["go", "build", "-o", os.path.join(work, "gobin"), g], env=dict(os.environ, GOFLAGS="-mod=mod", CGO_ENABLED="0"), stderr=subprocess.DEVNULL) == 0:
            cases["go"] = [os.path.join(work, "gobin")]
            cases["go_child"] = ["sh", "-c", os.path.join(work, "gobin")]
    if shutil.which("gcc"):
        c = os.path.join(work, "s.c")
        with open(c, "w") as f:
            f.write("#include <stdio.h>\n#include <stdlib.h>\nint main(void){char *p=malloc(100);printf(\"%d\\n\",p!=0);free(p);return 6;}\n")
        if subprocess.call(["gcc", "-static", "-o", os.path.join(work, "static"), c]) == 0:
            cases["static"] = [os.path.join(work, "static")]
        lib = os.path.join(work, "pre.c")
        with open(lib, "w") as f:
            f.write("#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <errno.h>\n#include <stddef.h>\n#include <unistd.h>\nstatic __thread int in;\nstatic long n;\n"
                    "void *malloc(size_t s){static void *(*r)(size_t);if(!r){if(in)return 0;in=1;r=(void *(*)(size_t))dlsym(RTLD_NEXT,\"malloc\");in=0;}n++;return r(s);}\n"
                    "__attribute__((destructor)) static void e(void){extern char *program_invocation_short_name;if(n>10&&program_invocation_short_name[0]=='p')write(1,\"preloaded\\n\",10);}\n")
        if subprocess.call(["gcc", "-shared", "-fPIC", "-o", os.path.join(work, "pre.so"), lib, "-ldl"], stderr=subprocess.DEVNULL) == 0:
            cases["own_preload"] = ["env", "LD_PRELOAD=" + os.path.join(work, "pre.so"), python, "-c", code]
            cases["PRE:preload_set_before"] = [python, "-c", code]
        for name, flags, text in (
            ("cpp", ["-x", "c++"], "#include <vector>\n#include <string>\n#include <thread>\n#include <cstdio>\nint main(){std::vector<std::thread> t;for(int i=0;i<4;i++)t.emplace_back([]{std::vector<std::string> v;"
             "for(int j=0;j<10000;j++)v.push_back(std::string(100,'x'));});for(auto&x:t)x.join();puts(\"ok\");}\n"),
            ("asan", ["-fsanitize=address"], "#include <stdlib.h>\n#include <stdio.h>\nint main(void){char*p=malloc(10);p[3]=1;printf(\"%d\\n\",p[3]);free(p);return 0;}\n"),
            ("tsan", ["-fsanitize=thread"], "#include <stdlib.h>\n#include <stdio.h>\nint main(void){char*p=malloc(10);p[3]=1;printf(\"%d\\n\",p[3]);free(p);return 0;}\n"),
            ("raw_clone", [], "#define _GNU_SOURCE\n#include <stdlib.h>\n#include <unistd.h>\n#include <stdio.h>\n#include <sys/wait.h>\n#include <sys/syscall.h>\n#include <signal.h>\nint main(void){char*a[1000];for(int i=0;i<1000;i++)a[i]=malloc(100);"
             "long p=syscall(SYS_clone,SIGCHLD,0,0,0,0);for(int i=0;i<1000;i++)free(a[i]);for(int i=0;i<1000;i++)a[i]=malloc(50);if(!p)_exit(3);int s;waitpid(p,&s,0);printf(\"%d\\n\",WEXITSTATUS(s));}\n"),
            ("small_stack_threads", ["-pthread"], "#include <pthread.h>\n#include <limits.h>\n#include <stdlib.h>\n#include <stdio.h>\nstatic void*f(void*x){void*p=malloc(100);free(p);return x;}int main(void){pthread_attr_t a;pthread_attr_init(&a);"
             "printf(\"%d\\n\",pthread_attr_setstacksize(&a,16384));int n=0;for(int i=0;i<200;i++){pthread_t t;if(pthread_create(&t,&a,f,0)==0){pthread_join(t,0);n++;}}printf(\"%d\\n\",n);}\n"),
            ("handler_mallocs", [], "#define _GNU_SOURCE\n#include <signal.h>\n#include <stdlib.h>\n#include <stdio.h>\n#include <sys/time.h>\nstatic volatile int n;static char st[65536];static void h(int s){(void)s;n++;}\nint main(void){stack_t a={.ss_sp=st,.ss_size=sizeof st};"
             "sigaltstack(&a,0);struct sigaction x={.sa_handler=h,.sa_flags=SA_ONSTACK};sigaction(SIGALRM,&x,0);struct itimerval i={{0,500},{0,500}};setitimer(ITIMER_REAL,&i,0);for(int k=0;k<3000000;k++)free(malloc(k%500));puts(n>10?\"ok\":\"few\");}\n"),
        ):
            src, out = os.path.join(work, name + ".src"), os.path.join(work, name)
            with open(src, "w") as f:
                f.write(text)
            compiler = "g++" if "-x" in flags else "gcc"
            flags = flags or []
            if subprocess.call([compiler, "-O0", "-w"] + (flags if "-x" in flags else flags + ["-x", "c"]) + [src, "-o", out, "-pthread"]) == 0:
                cases[name] = [out]
    return cases


def execute(argv, work, extra_env, limit=60):
    env = dict(os.environ)
    env.update(extra_env)
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=work, env=env, timeout=limit)
        return p.returncode, p.stdout, p.stderr
    except subprocess.TimeoutExpired:
        return "timeout", b"", b""
    except FileNotFoundError:
        return 127, b"", b""
    except OSError as e:
        return "errno %d" % e.errno, b"", b""


def neutral(text):
    """Without what differs from run to run anyway: addresses, process numbers."""
    return re.sub(r"0x[0-9a-f]{6,}|pid=\d+|process \d+|LWP \d+", "N", text.decode("utf-8", "replace"))


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--memlyze", required=True)
    a.add_argument("--stats", required=True)
    a.add_argument("--python", required=True)
    a.add_argument("--only", action="append")
    a.add_argument("-v", action="store_true")
    o = a.parse_args()
    o.memlyze, o.stats, o.python = os.path.abspath(o.memlyze), os.path.abspath(o.stats), os.path.abspath(o.python)
    differ = 0
    with tempfile.TemporaryDirectory() as work:
        os.chmod(work, 0o755)
        cases = shells(o.python, work)
        for name, code in SNIPPETS.items():
            path = os.path.join(work, name + ".py")
            with open(path, "w") as f:
                f.write(code + "\n")
            cases[name] = [o.python, path]
        for name, argv in cases.items():
            if o.only and name not in o.only:
                continue
            extra = {"LD_PRELOAD": os.path.join(work, "pre.so")} if name.startswith("PRE:") else {}
            trace = os.path.join(work, "t.mlyze")
            if os.path.exists(trace):
                os.unlink(trace)
            plain = execute(argv, work, extra)
            with_us = execute([o.memlyze, "record", "--quiet", "-f", "-o", trace, "--"] + argv, work, extra)
            status = plain[0]
            if isinstance(status, int) and status < 0:
                status = 128 - status
            lines = with_us[2].decode("utf-8", "replace").splitlines(True)
            ours = [l for l in lines if l.startswith("memlyze")]
            rest = "".join(l for l in lines if not l.startswith("memlyze"))
            same = (status == with_us[0], neutral(plain[1]) == neutral(with_us[1]), neutral(plain[2]) == neutral(rest.encode()))
            what = "same" if all(same) else "DIFFERS " + " ".join(w for w, s in zip(("status", "output", "errors"), same) if not s)
            differ += not all(same)
            note = ""
            if os.path.exists(trace):
                s = subprocess.run([o.stats, "--json", "--process", "all", trace], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                try:
                    d = json.loads(s.stdout)
                    note = "processes %d, python %s, allocs %d, dropped %d, complete %s" % (
                        len(d["processes"]), sorted({p["python_version"] or "-" for p in d["processes"]}), d["events"]["allocs"], d["events"]["dropped"], d["complete"])
                except (ValueError, KeyError) as e:
                    note = "stats: exit %d %r %s" % (s.returncode, e, s.stderr.decode("utf-8", "replace").strip())
            else:
                note = "no trace"
            print("%-22s %-8s %s" % (name, what, note), flush=True)
            for l in ours:
                print("    said: " + l.rstrip())
            if not all(same) or o.v:
                print("    untraced: %r %r %r" % (plain[0], plain[1][-300:], plain[2][-600:]))
                print("    traced:   %r %r %r" % (with_us[0], with_us[1][-300:], rest[-600:]))
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
