"""A stand-in for the engine's process: the same handshake, fixed answers. The model's alias names its behaviour."""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

settings = json.loads(sys.stdin.readline())
alias = settings["alias"]
FENCE = "[[[ 0123456789abcdef Draft A\n"
answered = []


class Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != f"Bearer {settings['api_key']}":
            self.answer(401, b'{"error":{"message":"Invalid API Key"}}')
            return
        if alias == "dies":
            os._exit(7)
        if alias == "freezes":
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(60)  # a thread may go on for a moment
        print(json.dumps(body), file=sys.stderr, flush=True)
        grammar = body.get("grammar", "")
        text = json.dumps({"answer": "Paris"}) if grammar or "response_format" in body else "It is Paris."
        if text == "It is Paris." and "repeats" in alias:
            text = f"{FENCE}Assistant: {text}"
        if text == "It is Paris." and "only-fence" in alias and not answered:
            text = FENCE
        if "quotes" in alias and text == "It is Paris.":
            text = 'It is "Paris".'
        answered.append(text)
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        reply = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "model": alias, "usage": usage}
        if not body.get("stream"):
            self.answer(200, json.dumps(reply).encode())
            return
        chunks = [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text[:4]}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {"content": text[4:]}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
        ]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        self.answer(200, "".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")


print("this engine chats", file=sys.stderr, flush=True)
if alias == "refuses":
    print("no such tensor", file=sys.stderr, flush=True)
    print(json.dumps({"error": "RuntimeError: it cannot"}), flush=True)
    sys.exit(1)
if alias == "crashes":
    os.abort()
if alias == "hangs":
    time.sleep(60)
if alias == "floods":
    sys.stderr.write("x" * 300_000 + "\nthe end\n")
    sys.stderr.flush()
server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_address[1]}"
facts = {"grammar": "gbnf" if alias == "old" else "llguidance", "environment": dict(os.environ), "cwd": str(Path.cwd())}
print(json.dumps({"address": address, **facts}), flush=True)
if "PROBE" in alias:
    print(json.dumps(facts), file=sys.stderr, flush=True)
sys.stdin.read()
os._exit(0)
