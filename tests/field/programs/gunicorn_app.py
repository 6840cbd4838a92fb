"""What gunicorn_loop.py serves."""
import json


def application(environ, start_response):
    body = json.dumps({"path": environ["PATH_INFO"], "squares": [i * i for i in range(200)]}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
