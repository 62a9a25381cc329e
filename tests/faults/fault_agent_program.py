# A command-line agent that answers, or misbehaves as it is told: `fault_agents.py` puts an interpreter before the first
# line, and values into the one that says what it is told. It starts a hundred times: pathlib would be slow to import.
# ruff: noqa: PTH104, PTH109, PTH123, PTH208

import json
import os
import signal
import sys
import time

AGENT, MODE, RECORD, ANSWER = "", "", "", ""


def events(text):
    """Return the output for an answer, in the format of the agent that this program imitates."""
    if AGENT == "codex":
        return [
            {"type": "thread.started", "thread_id": "t-1"},
            {"type": "item.completed", "item": {"type": "error", "message": "Model metadata not found."}},
            {"type": "item.completed", "item": {"type": "agent_message", "text": text}},
            {"type": "turn.completed", "usage": {"input_tokens": 9, "output_tokens": 3}},
        ]
    if AGENT == "claude":
        facts = {"type": "result", "subtype": "success", "is_error": False, "stop_reason": "end_turn"}
        usage = {"input_tokens": 9, "output_tokens": 3}
        return [
            {"type": "system", "subtype": "init", "session_id": "s-1"},
            {**facts, "result": text, "usage": usage, "total_cost_usd": 0.25},
        ]
    return [
        {"type": "init", "session_id": "s-1", "model": "gemini-x"},
        {"type": "message", "role": "user", "content": "echo of the prompt"},
        {"type": "message", "role": "assistant", "content": text, "delta": True},
        {"type": "result", "status": "success", "stats": {"total_tokens": 12, "input_tokens": 9, "output_tokens": 3}},
    ]


def pieces(text):
    """Return the output for a piece of an answer."""
    if AGENT == "codex":
        return [{"type": "item.completed", "item": {"type": "agent_message", "text": text}}]
    if AGENT == "claude":
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        return [{"type": "stream_event", "event": delta}]
    return [{"type": "message", "role": "assistant", "content": text, "delta": True}]


def refusal(message):
    if AGENT == "codex":
        return {"type": "turn.failed", "error": {"message": message}}
    if AGENT == "claude":
        return {"type": "result", "subtype": "success", "is_error": True, "api_error_status": None, "result": message}
    return {"type": "result", "status": "error", "error": {"message": message}}


def look():
    """Answer questions about the program itself."""
    words = sys.argv[1:]
    if words == ["--version"]:
        print(
            "9.9.9 (fake)"
            if MODE == "version"
            else {"codex": "codex-cli 0.169.0", "claude": "2.1.197", "gemini": "0.61.0"}[AGENT]
        )
    elif words == ["login", "status"]:
        sys.exit(0 if MODE != "signed-out" else 1)
    elif words == ["auth", "status"]:
        print(json.dumps({"loggedIn": MODE != "signed-out", "authMethod": "oauth"}))
    else:
        return
    sys.exit(0)


def write(data):
    data = memoryview(data)
    while data:
        data = data[os.write(1, data) :]


def record(stdin):
    with open(f"{RECORD}.{os.getpid()}", "w") as file:
        json.dump(
            {
                "argv": sys.argv,
                "environment": dict(os.environ),
                "cwd": os.getcwd(),
                "found": os.listdir("."),
                "pid": os.getpid(),
                "stdin": stdin.decode("utf-8", "replace"),
            },
            file,
        )


def misbehave():
    if MODE in ("hang", "ignore-term"):
        if MODE == "ignore-term":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = os.fork()  # goes the same way
        if not child:
            time.sleep(120)
            os._exit(0)
        write(f"pids {os.getpid()} {child}\n".encode())
        with open(f"{RECORD}.pids", "w") as file:
            file.write(f"{os.getpid()} {child}")
        os.rename(f"{RECORD}.pids", f"{RECORD}.hanging")
        time.sleep(120)
    elif MODE == "grandchild":
        if not os.fork():
            os.setsid()  # out of reach, with our stdout in its hands
            time.sleep(20)
            os._exit(0)
    elif MODE in ("flood-err", "deluge-err"):
        for _ in range(100 if MODE == "flood-err" else 3200):
            os.write(2, b"e" * 65536)
    elif MODE == "words":
        flood = b"".join(json.dumps(event).encode() + b"\n" for event in pieces("word " * 500) * 25)
        for _ in range(4000):
            write(flood)
    elif MODE == "flood-out":
        for _ in range(3200):
            write(b"o" * 65535 + b"\n")
    elif MODE == "one-line":
        for _ in range(3200):
            write(b"{" * 65536)
    elif MODE == "tty":
        try:
            open("/dev/tty").close()
        except OSError:
            os.write(2, b"Please log in: no terminal to ask on\n")
            sys.exit(1)


def main():
    look()
    if MODE.endswith("-err"):
        misbehave()
    stdin = b"" if MODE == "no-read" else sys.stdin.buffer.read()
    record(stdin)
    misbehave()
    text = ANSWER or stdin.decode("utf-8", "replace")
    lines = [json.dumps(event) for event in events(text)]
    if MODE in ("error-exit0", "linger-error"):
        lines = [json.dumps(refusal("Quota exceeded. Check your plan and billing details."))]
    elif MODE == "unauthorised":
        lines = [json.dumps(refusal("unexpected status 401 Unauthorized: Not logged in"))]
    elif MODE.startswith("say-"):
        lines = [json.dumps(refusal(f"it went wrong with {MODE[4:]}"))]
    out = "".join(f"{line}\n" for line in lines).encode()
    if MODE == "empty":
        out = b""
    elif MODE == "trunc":
        out = out[:-12]
    elif MODE == "banner":
        out = b"Welcome to the agent!\n[update available] {\n" + out
    elif MODE == "latin1":
        out = b"caf\xe9\n" + out
    elif MODE == "ansi":
        out = b"\x1b[2J\x1b[32m" + out.replace(b"\n", b"\x1b[0m\n")
    elif MODE == "crlf":
        out = out.replace(b"\n", b"\r\n")
    elif MODE == "plain":
        out = text.encode() + b"\n"
    write(out)
    if MODE.startswith("linger"):
        time.sleep(120)
    if MODE == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    if MODE.startswith("exit-say-"):
        os.write(2, f"it went wrong with {MODE[9:]}\n".encode())
        sys.exit(3)
    if MODE.startswith("exit-"):
        os.write(2, b"it went wrong with OWN-KEY-canary-0123456789\n")
        sys.exit(int(MODE.removeprefix("exit-")))


main()
