"""A Flask application with a template and JSON, a few thousand requests through the test client."""
import sys

from flask import Flask, jsonify, render_template_string, request

app = Flask(__name__)


@app.route("/")
def index():
    return render_template_string("<ul>{% for n in items %}<li>{{ n }}: {{ n * n }}</li>{% endfor %}</ul>", items=range(50))


@app.route("/echo", methods=["POST"])
def echo():
    body = request.get_json()
    return jsonify(sum=sum(body["values"]), back=body)


total = 0
with app.test_client() as client:
    for i in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        total += len(client.get("/").data)
        total += len(client.post("/echo", json={"values": list(range(i % 100))}).data)
print(total)
