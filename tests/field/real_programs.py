#!/usr/bin/env python3
"""Programs that nobody here wrote, untraced and traced: same output and status, nothing lost, what it costs.

    real_programs.py --build DIR --venv V [--interpreted VENV] [--pairs 3] [--only NAME] [-o OUT.jsonl] [--keep DIR]

V is a virtual environment with black, mypy, django, flask, numpy, gunicorn; VENV one with mypy and black built without compiled modules. What is not installed is passed
over with a word. One JSON line for each program; --keep keeps the traces.
"""
import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def inputs(work):
    """Large generated inputs for the C programs."""
    r = random.Random(5)
    with open(os.path.join(work, "big.xml"), "w") as f:
        f.write("<?xml version='1.0'?>\n<list>\n")
        for i in range(60000):
            f.write("<item id='%d'><name>n%d</name><price>%.2f</price></item>\n" % (i, r.randrange(10**6), r.random() * 100))
        f.write("</list>\n")
    with open(os.path.join(work, "big.json"), "w") as f:
        json.dump([{"id": i, "name": "n%d" % r.randrange(10**6), "tags": [r.randrange(100) for _ in range(5)]} for i in range(60000)], f)
    with open(os.path.join(work, "big.sql"), "w") as f:
        f.write("create table t(id integer primary key, name text, price real);\nbegin;\n")
        for i in range(60000):
            f.write("insert into t values(%d,'n%d',%.2f);\n" % (i, r.randrange(10**6), r.random() * 100))
        f.write("commit;\ncreate index x on t(name);\nselect count(*), sum(price) from t where name like 'n1%';\n"
                "select a.id, b.id from t a join t b on a.name=b.name and a.id<b.id order by 1,2 limit 20;\n")
    repo = os.path.join(work, "repo")
    os.mkdir(repo)
    stream = ["blob\nmark :1\ndata 1\na\n"]
    for i in range(1500):
        body = "".join("line %d %d\n" % (j, r.randrange(i + 1)) for j in range(200))
        stream.append("commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata %d\nchange %04d\nM 644 inline f%d\ndata %d\n%s\n" % (1600000000 + i, 11, i, i % 20, len(body), body))
    subprocess.run(["git", "init", "-q", "-b", "main", repo], check=True)
    subprocess.run(["git", "-C", repo, "fast-import", "--quiet"], input="".join(stream).encode(), check=True)


def programs(o, work):
    found = {}
    python = os.path.join(o.venv, "bin", "python3") if o.venv else None
    here = os.path.join(HERE, "programs")

    def has(py, module):
        return py and subprocess.call([py, "-c", "import " + module], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0

    stdlib = subprocess.check_output([python, "-c", "import os; print(os.path.dirname(os.__file__))"], universal_newlines=True).strip() if python else ""
    large = os.path.join(stdlib, "_pydecimal.py")
    for name, py in (("interpreted", o.interpreted and os.path.join(o.interpreted, "bin", "python3")), ("compiled", python)):
        if has(py, "black"):
            found["black, " + name] = ["sh", "-c", '"%s" -m black -q - <"%s"' % (py, large)]
        if has(py, "mypy"):
            found["mypy, " + name] = [py, "-m", "mypy", "--cache-dir=/dev/null", "-p", "pathspec"]
    if has(python, "django"):
        found["Django"] = [python, os.path.join(here, "django_loop.py")]
    if has(python, "flask"):
        found["Flask"] = [python, os.path.join(here, "flask_loop.py")]
    if has(python, "numpy"):
        found["numpy"] = [python, os.path.join(here, "numpy_loop.py")]
    if has(python, "gunicorn"):
        found["gunicorn"] = [python, os.path.join(here, "gunicorn_loop.py")]
    if has(python, "sphinx"):
        found["sphinx"] = [python, os.path.join(here, "sphinx_build.py")]
    if shutil.which("git"):
        found["git log --stat"] = ["git", "-C", os.path.join(work, "repo"), "log", "--stat", "-p", "main"]
    if shutil.which("sqlite3"):
        found["sqlite3"] = ["sh", "-c", "sqlite3 :memory: <'%s/big.sql'" % work]
    if shutil.which("xmllint"):
        found["xmllint"] = ["xmllint", "--format", os.path.join(work, "big.xml")]
    if shutil.which("jq"):
        found["jq"] = ["jq", "-c", "group_by(.tags[0]) | map({k: .[0].tags[0], n: length})", os.path.join(work, "big.json")]
    return found


def execute(argv, work, env):
    out, err = os.path.join(work, "out"), os.path.join(work, "err")
    with open(out, "wb") as fo, open(err, "wb") as fe:
        began = time.monotonic()
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=fo, stderr=fe, cwd=work, env=env)
        _, status, used = os.wait4(p.pid, 0)
        wall = time.monotonic() - began
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return {"status": code, "out": open(out, "rb").read(), "err": open(err, "rb").read().decode("utf-8", "replace"), "wall": wall, "cpu": used.ru_utime + used.ru_stime,
            "rss": used.ru_maxrss}


SUMMARY = re.compile(r"^  (\w[\w ]*?)\s{2,}(.*)$", re.M)


def seconds(text):
    n, unit = text.split()
    return float(n) * {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60}[unit]


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--build", required=True)
    a.add_argument("--venv")
    a.add_argument("--interpreted")
    a.add_argument("--pairs", type=int, default=3)
    a.add_argument("--only", action="append")
    a.add_argument("--keep")
    a.add_argument("-o", "--out", default="-")
    o = a.parse_args()
    o.build = os.path.abspath(o.build)
    o.venv, o.interpreted, o.keep = (p and os.path.abspath(p) for p in (o.venv, o.interpreted, o.keep))
    report = sys.stdout if o.out == "-" else open(o.out, "a")
    record = [os.path.join(o.build, "tracer/recorder/memlyze"), "record", "-f", "-o"]
    tool = lambda name: os.path.join(o.build, "analyzer", "memlyze-" + name)  # noqa: E731
    bad = 0
    env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PYTHONHASHSEED="1", GIT_PAGER="cat", LC_ALL="C.UTF-8")
    with tempfile.TemporaryDirectory() as work:
        inputs(work)
        for name, argv in programs(o, work).items():
            if o.only and not any(w in name for w in o.only):
                continue
            keep = os.path.join(o.keep or work, re.sub(r"\W+", "-", name) + ".mlyze")
            walls, cpus, plain, traced, problems = [], [], None, None, []
            execute(argv, work, env)  # warm
            for _ in range(o.pairs):
                plain = execute(argv, work, env)
                traced = execute(record + [keep, "--"] + argv, work, env)
                if (plain["status"], plain["out"]) != (traced["status"], traced["out"]):
                    problems.append("status %s, %s; output %d, %d bytes" % (plain["status"], traced["status"], len(plain["out"]), len(traced["out"])))
                summary = dict(SUMMARY.findall(traced["err"]))
                rest = "".join(l for l in traced["err"].splitlines(True) if not l.startswith("memlyze") and not SUMMARY.match(l))
                if rest.strip() != plain["err"].strip():
                    problems.append("errors: %r, %r" % (plain["err"][-300:], rest[-300:]))
                problems += [l for l in traced["err"].splitlines() if "warning" in l and l.startswith("memlyze")]
                if summary.get("events_dropped") != "0":
                    problems.append("dropped " + str(summary.get("events_dropped")))
                walls.append(traced["wall"] / plain["wall"])
                cpus.append((traced["cpu"] - seconds(summary["recorder CPU"])) / plain["cpu"] if "recorder CPU" in summary else 0)
            line = {"program": name, "untraced_seconds": round(plain["wall"], 2), "wall_ratio": round(statistics.median(walls), 3), "walls": [round(w, 3) for w in walls],
                    "cpu_ratio": round(statistics.median(cpus), 3), "cpus": [round(c, 3) for c in cpus], "summary": summary, "trace_bytes": os.path.getsize(keep), "problems": sorted(set(problems))}
            for t, extra in (("stats", ["--process", "all"]), ("top", ["-n", "5"]), ("leaks", []), ("gc", []), ("flame", [])):
                if not os.path.exists(tool(t)):
                    continue
                began = time.monotonic()
                p = subprocess.run([tool(t)] + (["--json"] if t != "flame" else []) + extra + [keep], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                line.setdefault("tool_seconds", {})[t] = round(time.monotonic() - began, 2)
                if p.returncode:
                    problems.append("%s: exit %d: %s" % (t, p.returncode, p.stderr.decode("utf-8", "replace")[-300:]))
                elif t == "stats":
                    d = json.loads(p.stdout)
                    line["stats"] = {"events": d["events"], "bytes": d["bytes"], "processes": len(d["processes"]), "threads": len(d["threads"]), "complete": d["complete"]}
                    line["bytes_an_event"] = round(line["trace_bytes"] / max(1, d["events"]["written"]), 3)
                elif t == "top":
                    d = json.loads(p.stdout)
                    line["top"] = ["%s %s:%s %d %d" % (s["function"], os.path.basename(s["file"] or "-"), s["line"], s["alloc_count"], s["alloc_bytes"]) for s in d["sites"][:5]]
                elif t == "leaks":
                    d = json.loads(p.stdout)
                    line["leaks"] = [d["total"]] + ["%s %s %s:%s %d %d" % (s["grade"], s["function"], os.path.basename(s["file"] or "-"), s["line"], s["count"], s["bytes"]) for s in d["leaks"][:6]]
                elif t == "gc":
                    line["gc"] = [[g["generation"], g["count"], g["collected"], g["pause_ns"]["total"]] for g in json.loads(p.stdout)["generations"]]
                said = p.stderr.decode("utf-8", "replace").strip()
                if said:
                    line.setdefault("tools_said", {})[t] = said[-400:]
            line["problems"] = sorted(set(problems))
            bad += bool(problems)
            report.write(json.dumps(line) + "\n")
            report.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
