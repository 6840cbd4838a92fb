#!/usr/bin/env python3
"""CPython's own tests, untraced and traced, compared case by case.

    cpython_suite.py --memlyze PATH/TO/memlyze --python PATH/TO/bin/python3 [-o OUT] TEST...

Each TEST is a module of the interpreter's suite (test_gc). A case whose outcome differs between the two runs is run again --retries times on both sides; it is
reported as a difference only where no outcome of the traced side was ever seen on the other, else as flaky. A module that does not end untraced within --limit is
left out, and the line says so; so is one that is already in OUT, so that a run can be gone on with. Exit status: 0 same, 1 differences.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET


def outcomes(xml_path):
    """{case id: ok|skipped|failure|error|...} out of regrtest's JUnit file; {} where the run left none."""
    found = {}
    try:
        tree = ET.parse(xml_path)
    except (OSError, ET.ParseError):
        return found
    for case in tree.iter("testcase"):
        name = case.get("name") or "(no name)"
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped", "expectedFailure")]
        state = "ok" if case.get("result") == "completed" and not kinds else ",".join(sorted(set(kinds))) or case.get("result") or "?"
        detail = "\n".join((child.get("message") or "") + (child.text or "") for child in case if child.tag in ("failure", "error"))
        found[name] = (state, detail)
    return found


def run(prefix, python, test, match, limit, work):
    xml = os.path.join(work, "out.xml")
    if os.path.exists(xml):
        os.unlink(xml)
    command = prefix + [python, "-m", "test", "-v", "--junit-xml", xml]
    for case in match:
        command += ["-m", case]
    log = os.path.join(work, "log")
    began = time.time()
    with open(log, "wb") as out:
        p = subprocess.Popen(command + [test], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=work, start_new_session=True)
        try:
            status = p.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()
            status = "timeout"
    text = open(log, "rb").read().decode("utf-8", "replace")
    return status, outcomes(xml), text, time.time() - began


def short(case):
    """The last dotted part: what regrtest's -m wants."""
    return case.split(" ")[0].split(".")[-1]


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--memlyze", required=True)
    a.add_argument("--python", required=True)
    a.add_argument("--limit", type=float, default=300, help="seconds for the untraced run of one module; traced it has three times what that took, and a minute")
    a.add_argument("--retries", type=int, default=2)
    a.add_argument("--record-option", action="append", default=[])
    a.add_argument("-o", "--out", default="-")
    a.add_argument("tests", nargs="+")
    o = a.parse_args()
    o.memlyze, o.python = os.path.abspath(o.memlyze), os.path.abspath(o.python)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started this with &; the tests want it as it is at a prompt
    known = set()
    if o.out != "-" and os.path.exists(o.out):
        known = {line["test"] for line in map(json.loads, open(o.out))}
    report = sys.stdout if o.out == "-" else open(o.out, "a")
    version = subprocess.run([o.python, "-V"], stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()
    bad = 0
    with tempfile.TemporaryDirectory() as work:
        trace = os.path.join(work, "t.mlyze")
        traced = [o.memlyze, "record", "-f", "-o", trace] + o.record_option + ["--"]
        for test in o.tests:
            if test in known:
                continue
            plain = run([], o.python, test, [], o.limit, work)
            if plain[0] == "timeout":
                report.write(json.dumps({"python": version, "test": test, "left_out": "untraced: no end within %g s" % o.limit}) + "\n")
                report.flush()
                continue
            limit = 3 * plain[3] + 60
            with_us = run(traced, o.python, test, [], limit, work)
            size = os.path.getsize(trace) if os.path.exists(trace) else 0
            differ = sorted(c for c in set(plain[1]) | set(with_us[1]) if plain[1].get(c, ("absent",))[0] != with_us[1].get(c, ("absent",))[0])
            line = {"python": version, "test": test, "cases": len(plain[1]), "cases_traced": len(with_us[1]), "status": plain[0], "status_traced": with_us[0],
                    "seconds": round(plain[3], 1), "seconds_traced": round(with_us[3], 1), "trace_bytes": size, "differences": {}, "flaky": []}
            if not with_us[1] and plain[1]:
                line["tail"] = with_us[2][-3000:]
                bad += 1
            else:
                for case in differ:
                    seen_plain, seen_traced = [plain[1].get(case, ("absent",))[0]], [with_us[1].get(case, ("absent",))[0]]
                    detail = with_us[1].get(case, ("", ""))[-1]
                    for _ in range(o.retries):
                        if set(seen_plain) & set(seen_traced):
                            break
                        for prefix, seen in (([], seen_plain), (traced, seen_traced)):
                            again = run(prefix, o.python, test, [short(case)], limit, work)
                            seen.append(again[1].get(case, ("absent",))[0])
                    if set(seen_plain) & set(seen_traced):
                        line["flaky"].append(case)
                        continue
                    line["differences"][case] = {"untraced": seen_plain, "traced": seen_traced, "detail": detail[-1500:]}
                    bad += 1
            if plain[0] != with_us[0] and not line["differences"]:
                line["tail"] = with_us[2][-1500:]
                bad += 1
            dropped = re.findall(r"^  events_dropped +(\d+)$", with_us[2], re.M)
            line["dropped"] = int(dropped[-1]) if dropped else None
            warned = [l for l in with_us[2].splitlines() if l.startswith("memlyze") and "warning" in l]
            if warned:
                line["memlyze_said"] = warned[:20]
            report.write(json.dumps(line) + "\n")
            report.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
