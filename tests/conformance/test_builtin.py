"""Every built-in provider keeps every promise. One is also tested under trio: all share their transports."""

import json
import re
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar

import pytest

from llm_council.providers import gateways
from llm_council.providers._local import engine as local_engine
from llm_council.providers._local.weights import ENV
from llm_council.providers.ai21 import AI21Provider
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.cohere import CohereProvider
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.lmstudio import LMStudioProvider
from llm_council.providers.local import LocalProvider
from llm_council.providers.ollama import OllamaProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.providers.openrouter import OpenRouterProvider
from llm_council.providers.replicate import ReplicateProvider
from llm_council.providers.vertex import VertexProvider
from llm_council.providers.vllm import VLLMProvider
from llm_council.testing.conformance import KEY, ProviderConformance, Stage, Verdict, outcomes
from llm_council.testing.servers import FakeVendor

pytestmark = pytest.mark.slow


class TestOpenAI(ProviderConformance):
    provider = OpenAIProvider
    backends = ("asyncio", "trio")


class TestOpenAIResponses(ProviderConformance):
    provider = OpenAIProvider
    speaks = "responses"
    options: ClassVar = {"api": "responses"}


class TestAnthropic(ProviderConformance):
    provider = AnthropicProvider


class TestGemini(ProviderConformance):
    provider = GeminiProvider


class TestCohere(ProviderConformance):
    provider = CohereProvider


class TestAI21(ProviderConformance):
    provider = AI21Provider
    not_kept: ClassVar = {"doctor": "AI21 lists no models: nothing cheaper than a call of one token proves the key"}


class Token:
    """The credentials that google-auth finds on a machine that is signed in."""

    token, valid = KEY, True

    def refresh(self, request):
        """There is no other."""

    def apply(self, headers):
        headers["authorization"] = f"Bearer {self.token}"


class TestVertex(ProviderConformance):
    """Gemini on Vertex AI, by the machine's own credentials."""

    provider = VertexProvider
    options: ClassVar = {"project": "house-1"}

    @pytest.fixture(autouse=True)
    def _signed_in(self, monkeypatch):
        monkeypatch.setattr("google.auth.default", lambda scopes: (Token(), None))


class TestClaudeOnVertex(TestVertex):
    speaks = "vertex-claude"
    model = "claude-opus-4-6"


class TestReplicate(ProviderConformance):
    provider = ReplicateProvider
    model = "house/fake"
    not_kept: ClassVar = {"finish": "Replicate does not say why a model stopped"}


class TestOllama(ProviderConformance):
    provider = OllamaProvider


class TestOpenRouter(ProviderConformance):
    provider = OpenRouterProvider


class TestVLLM(ProviderConformance):
    provider = VLLMProvider


class TestLMStudio(ProviderConformance):
    provider = LMStudioProvider


class TestOpenAICompatible(ProviderConformance):
    provider = OpenAICompatibleProvider
    key_variable = "A_HOUSE_KEY"
    options: ClassVar = {"api_key": "${A_HOUSE_KEY}"}


@pytest.mark.parametrize("gateway", [row.class_name for row in gateways.rows().values()])
@pytest.mark.slow
def test_each_gateway_keeps_the_promises(gateway):
    """Each row of the table is tested, so a new row is too."""
    cls = type("Row", (ProviderConformance,), {"provider": getattr(gateways, gateway)})
    assert [found.line for found in outcomes(cls()) if found.verdict is not Verdict.KEPT] == []


STAND_IN = """
import json, sys
print(json.dumps({"address": ADDRESS, "grammar": "llguidance"}), flush=True)
sys.stdin.read()
"""


class TestLocal(ProviderConformance):
    """The embedded engine, with a fake vendor in place of its process."""

    provider = LocalProvider

    @pytest.fixture(autouse=True)
    def _weights(self, monkeypatch, tmp_path):
        self.folder, self.patch = tmp_path, monkeypatch
        weights = tmp_path / "plain.gguf"
        weights.write_bytes(b"GGUF")
        monkeypatch.setenv(ENV, str(weights))
        monkeypatch.setattr(local_engine, "installed", lambda: "/nowhere")

    @contextmanager
    def playing(self, said):
        vendor = FakeVendor("openai", said)
        with vendor.serve(), self.surroundings():
            server: Path = self.folder / "server.py"
            server.write_text(STAND_IN.replace("ADDRESS", json.dumps(vendor.url.removesuffix("/v1"))))
            self.patch.setattr(local_engine, "_SERVER", server)
            yield Stage(LocalProvider(), vendor)


def test_every_entry_point_has_a_conformance_class():
    """The class is in this file or one beside it, or the provider is a row of the gateways."""
    written = "".join(file.read_text() for file in Path(__file__).parents[1].rglob("test_*.py"))
    proved = set(re.findall(r"^    provider = (\w+)$", written, re.MULTILINE))
    ours = {entry.value.partition(":")[2] for entry in entry_points(group="llm_council.providers") if is_ours(entry)}
    assert ours - {row.class_name for row in gateways.rows().values()} <= proved


def is_ours(entry):
    return entry.dist is not None and entry.dist.name == "llm-council-sdk"
