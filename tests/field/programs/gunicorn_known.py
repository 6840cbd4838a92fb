"""An application that keeps a known block for each request, and answers with its worker's pid."""
import os

UNIT = b'x'
SIZES = [50000, 60000]
loaded = [None] * 20
for i in range(20):
    loaded[i] = UNIT * SIZES[1]  # @loaded
kept = []


def app(environ, start_response):
    kept.append(None)
    kept[-1] = UNIT * SIZES[0]  # @request
    body = b'%d' % os.getpid()
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
