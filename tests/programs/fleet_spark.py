"""fleet_spark.py LAKE QUERIES: runs the queries (JSON, a list of [name, SQL]) over the tables of LAKE in a Spark cluster of its own: a master, three workers, each
with an executor process. While the first query is at work, one worker and its executor are killed. Prints one JSON document. Needs pyspark and a JRE.
"""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pyspark
from pyspark.sql import SparkSession

HOME = os.path.dirname(pyspark.__file__)
JAVA = '-XX:+UseSerialGC -XX:TieredStopAtLevel=1'
WORKERS = 3


def start(folder, name, *words):
    """A daemon in a process group of its own, with what it starts."""
    log = open(os.path.join(folder, name + '.log'), 'wb')
    env = dict(os.environ, SPARK_HOME=HOME, SPARK_LOCAL_IP='127.0.0.1', SPARK_NO_DAEMONIZE='1', SPARK_DAEMON_MEMORY='192m', SPARK_DAEMON_JAVA_OPTS=JAVA,
               SPARK_WORKER_DIR=os.path.join(folder, name), PYSPARK_PYTHON=sys.executable)
    return subprocess.Popen([os.path.join(HOME, 'bin', 'spark-class'), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                            start_new_session=True, cwd=folder)


def wait_for(folder, name, pattern, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with open(os.path.join(folder, name + '.log'), encoding='utf-8', errors='replace') as log:
            text = log.read()
        found = re.search(pattern, text)
        if found:
            return found.group(1)
        time.sleep(0.2)
    raise SystemExit('%s did not say %s:\n%s' % (name, pattern, text[-3000:]))


def group_members(group):
    """The processes of a group that live."""
    alive = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/stat' % pid) as stat:
                fields = stat.read().rsplit(')', 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != 'Z':
            alive.append(int(pid))
    return alive


class Killer(threading.Thread):
    """Kills a worker with its executor when some tasks of a stage are done and others are not."""

    def __init__(self, context, victim):
        super().__init__(daemon=True)
        self.tracker, self.victim = context.statusTracker(), victim
        self.seen, self.processes, self.done = None, [], threading.Event()

    def run(self):
        while not self.done.is_set():
            for stage in self.tracker.getActiveStageIds():
                info = self.tracker.getStageInfo(stage)
                if info and 0 < info.numCompletedTasks < info.numTasks and info.numTasks > WORKERS * 2:
                    self.processes = group_members(self.victim.pid)
                    os.killpg(self.victim.pid, signal.SIGKILL)
                    self.seen = (info.numCompletedTasks, info.numTasks)
                    return
            time.sleep(0.01)


def main():
    lake = os.path.abspath(sys.argv[1])
    with open(sys.argv[2], encoding='utf-8') as file:
        queries = json.load(file)
    folder = tempfile.mkdtemp(prefix='spark-', dir=os.getcwd())
    daemons = []
    try:
        daemons.append(start(folder, 'master', 'org.apache.spark.deploy.master.Master', '--host', '127.0.0.1', '--port', '0', '--webui-port', '0'))
        url = wait_for(folder, 'master', r'Starting Spark master at (spark://\S+)')
        for i in range(WORKERS):
            daemons.append(start(folder, 'worker%d' % i, 'org.apache.spark.deploy.worker.Worker', '--host', '127.0.0.1', '-c', '1', '-m', '640m',
                                 '--webui-port', '0', url))
        for i in range(WORKERS):
            wait_for(folder, 'worker%d' % i, r'(Successfully registered with master)')
        settings = {'spark.executor.memory': '512m', 'spark.executor.cores': '1', 'spark.cores.max': str(WORKERS), 'spark.ui.enabled': 'false',
                    'spark.driver.host': '127.0.0.1', 'spark.driver.bindAddress': '127.0.0.1', 'spark.driver.memory': '640m',
                    'spark.executor.extraJavaOptions': JAVA, 'spark.driver.extraJavaOptions': JAVA, 'spark.sql.session.timeZone': 'UTC',
                    'spark.sql.shuffle.partitions': '6', 'spark.sql.files.maxPartitionBytes': '1m', 'spark.sql.files.openCostInBytes': '64k',
                    'spark.scheduler.minRegisteredResourcesRatio': '1.0', 'spark.scheduler.maxRegisteredResourcesWaitingTime': '120s',
                    'spark.local.dir': folder, 'spark.sql.warehouse.dir': os.path.join(folder, 'warehouse')}
        builder = SparkSession.builder.master(url).appName('memlyze')
        for key, value in settings.items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
        spark.sparkContext.setLogLevel('ERROR')
        for table in ('traces', 'totals', 'stacks'):
            spark.read.parquet(os.path.join(lake, table)).createOrReplaceTempView(table)
        executors = spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() - 1
        killer = Killer(spark.sparkContext, daemons[1])
        killer.start()
        answers = {}
        for name, query in queries:
            answers[name] = [list(row) for row in spark.sql(query).collect()]
        killer.done.set()
        killer.join()
        left = [pid for pid in killer.processes if pid in group_members(daemons[1].pid)]
        spark.stop()
        print(json.dumps({'answers': answers, 'executors': executors, 'killed': killer.seen, 'processes': len(killer.processes), 'left': left}))
    finally:
        for daemon in daemons:
            try:
                os.killpg(daemon.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            daemon.wait()


main()
