"""The default model is small, but it knows some facts, and its prose becomes correct JSON."""

import json

import pytest

from llm_council.models import GenerateRequest, StructuredOutput
from llm_council.providers.local import LocalProvider

QUESTION = "What is the capital city of France? Answer in one sentence."


@pytest.fixture
def provider(smollm):
    with LocalProvider() as made:
        yield made


def test_it_knows_a_fact(provider):
    response = provider.generate_sync(GenerateRequest(prompt=QUESTION, temperature=0.0, max_tokens=60))
    assert "Paris" in response.text
    assert response.model == "smollm2-135m-instruct"
    assert response.usage.output_tokens > 3


def test_it_answers_in_prose_and_in_json(provider):
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string"}, "reasoning": {"type": "string"}},
        "required": ["answer", "reasoning"],
        "additionalProperties": False,
    }
    wanted = StructuredOutput(json_schema=schema)
    response = provider.generate_sync(GenerateRequest(prompt=QUESTION, structured_output=wanted, temperature=0.0))
    assert "Paris" in response.text
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(response.text)
    assert "Paris" in response.structured["answer"]
    assert response.structured.keys() == {"answer", "reasoning"}
