"""The program of the engine's process: serve one model on a loopback port until the parent closes stdin.

Run by path with ``python -I``: it imports nothing of this package, and nothing from the folder it runs in. A crash in
native code ends this process and no other. The parent writes the settings to stdin as one line of JSON and keeps the
pipe open. One line of JSON on stdout answers. When the parent ends, in whatever way, the pipe is closed and this
process ends too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

LLGUIDANCE = "llguidance"
GBNF = "gbnf"


def main() -> None:
    """Read the settings, load the model, report the address, and wait for the end of stdin."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # native code prints to stdout, which would corrupt the answer
    _die_with_parent()
    settings = json.loads(sys.stdin.readline() or "null")
    if settings is None:
        return
    sys.path.append(settings["packages"])
    try:
        server, facts = _serve(settings)
    except (ImportError, RuntimeError, ValueError, AttributeError, OSError) as exc:
        server, facts = None, {"error": f"{type(exc).__name__}: {exc}"}
    answers.write(json.dumps(facts) + "\n")
    answers.flush()
    if server is None:
        os._exit(1)
    while sys.stdin.read(4096):
        pass
    # Exit without an orderly shutdown: nothing here needs one, and it would wait for the batch that is computed.
    del server
    os._exit(0)


def _serve(settings: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["api_key"]]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["batch_threads"]
    params.n_threads_http = settings["slots"] + 2
    params.warmup = False
    params.ui = False
    params.endpoint_slots = False  # this endpoint shows the prompts of all slots
    params.cors_origins = ""
    params.cache_ram_mib = 0  # by default up to 8 GiB of old prompts stay in memory
    server = xllamacpp.Server(params)
    # The engine is built with one of two grammar libraries, and aborts on a grammar of the other. The grammar that it
    # writes itself shows which.
    written = xllamacpp.json_schema_to_grammar('{"type":"boolean"}')
    grammar = LLGUIDANCE if written.startswith("%llguidance") else GBNF
    return server, {"address": server.listening_address, "grammar": grammar}


def _die_with_parent() -> None:
    """Ask the kernel, where it can, to kill this process together with the thread that started it."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
