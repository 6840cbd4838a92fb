"""docs/fleet.md: its queries, as they stand there, over many traces: 1,000 in DuckDB and in a Spark cluster of several processes that loses a worker on the way; each
answer is held against what the traces' maker says is in them."""
import collections
import glob
import json
import os
import re
import shutil

from harness import BUILD, PROGRAMS, SLOW, TESTS, Skip, case, clean_env, data_python, execute, run, same

ROOT = os.path.dirname(TESTS)
PACKAGE = os.path.join(ROOT, 'tracer', 'python')
MAKE_FLEET = os.path.join(BUILD, 'tests', 'unit', 'analyzer', 'make_fleet')
TRACES = 1000

EXPORT = '''
import glob, json, multiprocessing, sys
import memlyze
known = [json.loads(line) for line in open("fleet.json")]
def export(item):
    path, row = item
    with memlyze.open(path) as trace:
        trace.to_parquet("lake", release=row["release"])
if __name__ == "__main__":
    items = list(zip(sorted(glob.glob("fleet/*.mlyze")), known))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for _ in pool.imap_unordered(export, items, chunksize=25):
            pass
'''

ASK = '''
import json, sys
import duckdb
for table in ("traces", "totals", "stacks"):
    duckdb.sql("CREATE VIEW %s AS FROM read_parquet('lake/%s/*/*/*.parquet', hive_partitioning = true)" % (table, table))
print(json.dumps({name: [list(row) for row in duckdb.sql(query).fetchall()] for name, query in json.load(open("queries.json"))}))
'''


def queries():
    with open(os.path.join(ROOT, 'docs', 'fleet.md'), encoding='utf-8') as file:
        found = re.findall(r'```sql\n-- (.*?)\n(.*?)```', file.read(), re.S)
    same('queries', [name for name, _ in found], ['who grew', 'top stacks', 'leaks on many hosts', 'regression of a release'])
    return found


def lake(interpreter, n):
    """Writes `n` traces and their data set into the current directory; what is in them."""
    if SLOW > 1:
        raise Skip('the library is instrumented, the interpreter is not')
    os.mkdir('fleet')
    with open('fleet.json', 'w') as out:
        execute([MAKE_FLEET, 'fleet', str(n)], stdout=out, check=True)
    with open('export.py', 'w') as file:
        file.write(EXPORT)
    with open('queries.json', 'w') as file:
        json.dump(queries(), file)
    environment = clean_env(MEMLYZE_HOME=BUILD, PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE='1')
    result = execute([interpreter, 'export.py'], env=environment, timeout=600)
    same('export: ' + result.stderr[-2000:], result.returncode, 0)
    for table in ('traces', 'totals', 'stacks', 'frames'):
        same('files of ' + table, len(glob.glob('lake/%s/*/*/*.parquet' % table)), n)
    with open('fleet.json') as file:
        return [json.loads(line) for line in file]


def wanted(known):
    """What the queries must answer, summed up here; floats as they come out of one division."""
    runs = collections.Counter((r['service'], r['day'] >= 7) for r in known)
    live, allocated = collections.Counter(), collections.Counter()
    stacks = collections.defaultdict(lambda: [0, 0, set(), 0])
    leaks = collections.defaultdict(lambda: [set(), 0, 0])
    for r in known:
        for function, n, keep, size in r['sites']:
            live[r['service'], function, r['day'] >= 7] += keep * size
            allocated[r['service'], function, r['day'] >= 7] += n * size
            stack = stacks[function, r['day'] >= 7 and function == 'report']
            stack[0] += n * size
            stack[1] += n
            stack[2].add(r['host'])
            stack[3] += 1
            if keep == n and keep * size >= 65536:
                leak = leaks[r['service'], function]
                leak[0].add(r['host'])
                leak[1] += 1
                leak[2] += keep * size
    pairs = sorted({(service, function) for service, function, _ in live})
    grew, worse = [], []
    for service, function in pairs:
        if not runs[service, False] or not runs[service, True]:
            continue
        before, after = (live[service, function, late] / runs[service, late] for late in (False, True))
        if after > 1.1 * before:
            grew.append([service, 'app', function, before, after, after - before])
        before, after = (allocated[service, function, late] / runs[service, late] for late in (False, True))
        if after > 1.2 * before:
            worse.append([service, 'app', function, before, after])
    return {'who grew': sorted(grew, key=lambda r: (-r[5], r[:3])), 'regression of a release': sorted(worse, key=lambda r: (r[3] - r[4], r[0], r[2])),
            'top stacks': [[b, n, len(hosts), traces] for b, n, hosts, traces in sorted(stacks.values(), key=lambda s: -s[0])][:10],
            'leaks on many hosts': [[service, 'app', function, len(hosts), traces, size] for (service, function), (hosts, traces, size) in sorted(leaks.items()) if len(hosts) > 5]}


def compare(who, answers, known):
    want = wanted(known)
    answers = dict(answers)
    tops = answers['top stacks']
    assert all(re.match(r'main \(/srv/app/main\.py:7\);\w+ \(/srv/app', row[0]) for row in tops), tops
    answers['top stacks'] = [row[1:] for row in tops]
    answers['leaks on many hosts'] = [row[:3] + row[5:] for row in answers['leaks on many hosts']]
    for name, rows in want.items():
        assert rows, name
        same('%s, %s' % (who, name), answers[name], rows)


@case
def the_queries_in_duckdb_over_some_traces():
    interpreter = data_python('pyarrow', 'duckdb')
    known = lake(interpreter, 14 * 4 * 6)
    with open('ask.py', 'w') as file:
        file.write(ASK)
    # As many hosts as there are here: the leak is to be on more than five.
    compare('DuckDB', json.loads(execute([interpreter, 'ask.py'], check=True).stdout), known)


@case
def a_thousand_traces_in_duckdb_and_in_a_spark_cluster():
    interpreter = data_python('pyarrow', 'duckdb', 'pyspark')
    if not shutil.which('java') and not os.environ.get('JAVA_HOME'):
        raise Skip('no JRE here for Spark (Debian: default-jre-headless)')
    known = lake(interpreter, TRACES)
    with open('ask.py', 'w') as file:
        file.write(ASK)
    duck = json.loads(execute([interpreter, 'ask.py'], check=True).stdout)
    compare('DuckDB', duck, known)
    result = execute([interpreter, os.path.join(PROGRAMS, 'fleet_spark.py'), 'lake', 'queries.json'], timeout=600)
    same('Spark: ' + result.stderr[-3000:], result.returncode, 0)
    spark = json.loads(result.stdout)
    same('executors', spark['executors'], 3)
    assert spark['killed'] and 0 < spark['killed'][0] < spark['killed'][1], 'no worker was killed while tasks were left: %r' % (spark['killed'],)
    same('killed processes', (spark['processes'] >= 2, spark['left']), (True, []))
    compare('Spark', spark['answers'], known)
    same('DuckDB and Spark', spark['answers'], duck)


run(__name__)
