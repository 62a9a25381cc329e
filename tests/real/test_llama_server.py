"""llama.cpp's server in xllamacpp, with random weights: three dialects, streams, and its check of keys."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_council import _runtime, get_provider
from llm_council.errors import AuthenticationFailed
from llm_council.models import GenerateRequest, StructuredOutput
from llm_council.providers._local.engine import Engine
from llm_council.providers._local.weights import ENV
from llm_council.providers.base import ProviderAdapter
from llm_council.providers.local import LocalProvider

WIRES: list[tuple[str, str, dict[str, Any]]] = [
    ("openai-compatible", "/v1", {"extra_body": {"seed": 1}}),
    ("openai", "/v1", {"api": "responses"}),
    ("anthropic", "", {}),
]
ASK = GenerateRequest(prompt="Say it.", max_tokens=16)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str], None]) -> Iterator[Engine]:
    """Run the server; its process ends with the fixture."""
    if importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("gguf") is None:
        missing("xllamacpp with gguf")
    sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
    try:
        import tiny_model
    finally:
        sys.path.pop(0)
    weights = tiny_model.write(tmp_path_factory.mktemp("weights") / "tiny.gguf", 0)
    with pytest.MonkeyPatch.context() as patch, LocalProvider() as provider:
        patch.setenv(ENV, str(weights))
        yield _runtime.call(provider._engine, None)


def adapter(engine: Engine, wire: tuple[str, str, dict[str, Any]], key: str) -> ProviderAdapter:
    name, path, options = wire
    return get_provider(name, base_url=engine.address + path, api_key=key, default_model=engine.spec.alias, **options)


@pytest.mark.parametrize("wire", WIRES, ids=[name for name, _, _ in WIRES])
def test_it_answers_streams_and_lists_its_models(engine: Engine, wire: tuple[str, str, dict[str, Any]]) -> None:
    with adapter(engine, wire, engine.key.reveal()) as made:
        response = made.generate_sync(ASK)
        assert response.text
        assert response.model == engine.spec.alias
        assert response.usage is not None
        assert response.usage.input_tokens
        assert 1 <= (response.usage.output_tokens or 0) <= 16
        assert response.finish_reason in ("length", "stop")
        pieces = list(made.stream_sync(ASK))
        assert any(piece.text for piece in pieces)
        assert any(piece.finish_reason for piece in pieces)
        assert made.doctor_sync().details["models"] == [engine.spec.alias]


@pytest.mark.parametrize("wire", WIRES, ids=[name for name, _, _ in WIRES])
def test_a_wrong_key_is_refused(engine: Engine, wire: tuple[str, str, dict[str, Any]]) -> None:
    with adapter(engine, wire, "another-key-0123456789") as made:
        with pytest.raises(AuthenticationFailed) as caught:
            made.generate_sync(ASK)
        assert "another-key" not in str(caught.value)
        assert not made.doctor_sync().ok or wire[0] == "openai-compatible"  # the list of models is for everyone


def test_an_answer_follows_its_schema(engine: Engine) -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    wanted = StructuredOutput(json_schema={**schema, "additionalProperties": False})
    with adapter(engine, WIRES[0], engine.key.reveal()) as made:
        response = made.generate_sync(GenerateRequest(prompt="Yes?", structured_output=wanted, max_tokens=60))
    assert response.text is not None
    assert response.text.strip().startswith("{")
