"""A model from a hub, from the first pull to an answer: the real client, the real engine, generated weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from providers.local.hub_server import COMMIT, Hub

from llm_council.providers._local import weights


@pytest.fixture
def council(tiny_models, tmp_path, monkeypatch):
    """Return a function that runs the command line beside a hub that has generated weights for one listed model."""
    known = next(known for known in weights.list_models() if known.name == "qwen3-1.7b")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LLM_COUNCIL_"))}
    with Hub(known.repository, {known.file: tiny_models().read_bytes()}) as hub:
        environment |= {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "hf"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "NO_PROXY": "127.0.0.1",
        }

        def run(*words):
            command = [sys.executable, "-m", "llm_council", *words]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

        yield run


def test_a_listed_model_is_pulled_and_seated(council):
    name = "qwen3-1.7b"
    refused = council("run", "Which city?", "-p", f"local/{name}:3")
    assert refused.returncode == 2
    assert f"run: council models pull {name}" in refused.stderr

    pulled = council("models", "pull", name)
    assert pulled.returncode == 0, pulled.stderr
    assert "fetching the weights of qwen3-1.7b" in pulled.stderr
    assert f"commit {COMMIT[:12]}" in pulled.stderr
    (listed,) = [known for known in json.loads(council("models", "list", "--json").stdout) if known["name"] == name]
    assert Path(pulled.stdout.strip()) == Path(listed["path"])
    assert (listed["revision"], listed["license"]) == (COMMIT, "Apache-2.0")

    answered = council("run", "Which city?", "-p", f"local/{name}:3", "--json")
    assert answered.returncode == 0, answered.stderr
    result = json.loads(answered.stdout)
    assert result["status"] in ("completed", "degraded")
    assert {seat["model"] for seat in result["seats"]} == {name}
    assert "demonstration" not in answered.stderr

    Path(listed["path"]).resolve().write_bytes(b"GGUF and something else")
    changed = council("run", "Which city?", "-p", f"local/{name}:3", "--json")
    assert changed.returncode == 1
    assert "was changed: its hash is" in changed.stdout


def test_the_template_is_told_not_to_think(tiny_models, monkeypatch, tmp_path):
    """A template that adds a word unless it is told not to: the engine passes ``chat_template_kwargs`` on."""
    import gguf
    import tiny_model

    from llm_council.models import GenerateRequest
    from llm_council.providers.local import LocalProvider

    template = tiny_model.TEMPLATE + "{% if enable_thinking is not defined or enable_thinking %}think{% endif %}"
    monkeypatch.setattr(tiny_model, "TEMPLATE", template)
    path = tiny_model.write(tmp_path / "thinks.gguf")
    assert gguf.GGUFReader(path).fields["tokenizer.chat_template"].contents() == template
    monkeypatch.setenv(weights.ENV, str(path))
    with LocalProvider() as provider:
        told = {"chat_template_kwargs": {"enable_thinking": False}}
        short = provider.generate_sync(GenerateRequest(prompt="x", max_tokens=3, extra=told))
        long = provider.generate_sync(GenerateRequest(prompt="x", max_tokens=3))
    assert long.usage.input_tokens > short.usage.input_tokens
