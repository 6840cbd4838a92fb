"""gunicorn with two workers on loopback, some hundred requests, then SIGTERM. The master and its workers are the traced program's children."""
import http.client
import signal
import socket
import subprocess
import sys
import time

n = int(sys.argv[1]) if len(sys.argv) > 1 else 300
s = socket.socket()
s.bind(("127.0.0.1", 0))
port = s.getsockname()[1]
s.close()
server = subprocess.Popen([sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:%d" % port, "--log-level", "error",
                           "gunicorn_app:application"], cwd=sys.path[0])
for _ in range(300):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        break
    except OSError:
        time.sleep(0.1)
total = 0
for i in range(n):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    c.request("GET", "/%d" % i)
    r = c.getresponse()
    total += len(r.read())
    c.close()
server.send_signal(signal.SIGTERM)
print(total, server.wait(30))
