"""Replicate's two SDKs as judges of our payloads, and the second as a client of our fake vendor.

The first generation (1.x, the released one) types what stands beside a prediction's input, and sends it. The second
(2.x, released as a beta) types the whole request, headers included, and the replies; it is installed into a folder
beside, since both are called ``replicate``. Neither types the input, which every model defines for itself: that is held
against the schema that the model publishes, in ``tests/providers/replicate/test_provider.py``.
"""

import os
import re
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from llm_council.models import GenerateRequest, GenerateResponse, ImagePart, Message, TextPart, Usage
from llm_council.providers.base import call, stream
from llm_council.providers.replicate import ReplicateProvider
from llm_council.testing.servers import FakeVendor, Refuse

pytestmark = [pytest.mark.anyio, pytest.mark.oracles]

NEXT = Path(os.environ.get("LLM_COUNCIL_REPLICATE_NEXT") or "/nowhere")
VERSION = "9dcd6d78e7c6560c340d916fe32e9f24aabfa331e5cce95fe31f77fb03121426"
MODELS = ["house/fake", f"house/fake:{VERSION}", "deployments/house/fake"]
TALK = [Message("system", "Be short."), Message("user", "Hi."), Message("assistant", "Hello."), Message("user", "Bye.")]
HOOK = {"webhook": "https://example.com/hook", "webhook_events_filter": ["start", "completed"]}
REQUESTS = {
    "text": {"prompt": "What is 6 times 7?"},
    "turns": {"messages": TALK},
    "knobs": {"prompt": "x", "max_tokens": 777, "temperature": 0.5, "top_p": 0.5, "stop": ["END", "STOP"]},
    "image": {"messages": [Message("user", [TextPart(text="?"), ImagePart(url="https://example.com/a.png")])]},
    "extra": {"prompt": "x", "extra": {**HOOK, "seed": 7}},
    "deadline": {"prompt": "x", "timeout_seconds": 40.0},
}
CASES = [(model, name) for model in MODELS for name in REQUESTS if (model, name) != (MODELS[2], "image")]  # no schema
PATH = re.compile(r"/v1/(?:(models|deployments)/([^/]+)/([^/]+)/)?predictions")
SAYS = GenerateResponse(text="It is 42,\n naïve or not.", usage=Usage(input_tokens=31, output_tokens=17))


@pytest.fixture
def anyio_backend():
    return "asyncio"


@contextmanager
def second():
    """Import the second generation instead of the first, inside the block."""
    if not (NEXT / "replicate").is_dir():
        why = f"no second generation of replicate in {NEXT}: tox installs it, and sets LLM_COUNCIL_REPLICATE_NEXT"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    before = _taken()
    sys.path.insert(0, str(NEXT))
    try:
        yield import_module("replicate")
    finally:
        sys.path.remove(str(NEXT))
        _taken()
        sys.modules.update(before)


def _taken():
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "replicate"}


@pytest.fixture(scope="module")
def replicate_2():
    with second() as sdk:
        yield sdk


def strict(kind):
    """Return a validator of a TypedDict that takes no key outside of it."""
    import pydantic

    kind.__pydantic_config__ = {"extra": "forbid"}
    return pydantic.TypeAdapter(kind)


async def asked(model, **facts):
    """Return what our provider sends, whole and streamed: the kind of address and its words, the payload, its life."""
    vendor = FakeVendor("replicate", "It is so.")
    async with ReplicateProvider(api_key="k", base_url=vendor.url, transport=vendor.transport()) as provider:
        request = GenerateRequest(model=model, **facts)
        await call(provider, request)
        [piece async for piece in stream(provider, request)]
    made = [one for one in vendor.calls if one.method == "POST"]
    assert len(made) == 2
    return [(*PATH.fullmatch(one.path).groups(), one.json, one.headers.get("cancel-after")) for one in made]


@contextmanager
def served(said="It is so."):
    with FakeVendor("replicate", said).serve() as vendor:
        yield vendor


@pytest.mark.parametrize(("model", "name"), CASES)
async def test_the_first_generation_sends_what_we_send(model, name):
    import replicate
    from replicate.prediction import Predictions

    judge = strict(Predictions.CreatePredictionParams)
    for kind, owner, own, payload, _ in await asked(model, **REQUESTS[name]):
        known = {key: value for key, value in payload.items() if key not in ("input", "version")}
        judge.validate_python(known)
        with served() as vendor:
            client = replicate.Client(api_token="k", base_url=vendor.url)
            with client._client:
                if kind == "models":
                    client.models.predictions.create((owner, own), payload["input"], **known)
                elif kind == "deployments":
                    client.deployments.predictions.create((owner, own), payload["input"], **known)
                else:
                    client.predictions.create(payload["version"], payload["input"], **known)
        assert vendor.calls[0].json == payload


@pytest.mark.parametrize(("model", "name"), CASES)
async def test_the_second_generation_types_and_sends_what_we_send(model, name, replicate_2):
    kinds = {"models": ("model", "models."), "deployments": ("deployment", "deployments."), None: (None, "")}
    for kind, owner, own, payload, life in await asked(model, **REQUESTS[name]):
        word, inside = kinds[kind]
        params = import_module(f"replicate.types.{inside}prediction_create_params").PredictionCreateParams
        named = {} if word is None else {f"{word}_owner": owner, f"{word}_name": own}
        known = {**named, **payload, **({} if life is None else {"cancel_after": life})}
        strict(params).validate_python(known)
        with served() as vendor, replicate_2.Replicate(bearer_token="k", base_url=f"{vendor.url}/v1") as client:
            resource = client if kind is None else getattr(client, kind)
            resource.predictions.create(**known)
        sent = vendor.calls[0]
        assert (PATH.fullmatch(sent.path).groups(), sent.json) == ((kind, owner, own), payload)
        assert sent.headers.get("cancel-after") == life
    assert name != "deadline" or life is not None


async def test_a_field_that_the_vendor_does_not_have_is_found(replicate_2):
    from replicate.types.models.prediction_create_params import PredictionCreateParams

    known = {"model_owner": "house", "model_name": "fake", "input": {}}
    with pytest.raises(ValueError, match="no_such_field"):
        strict(PredictionCreateParams).validate_python({**known, "no_such_field": 7})
    with pytest.raises(ValueError, match="webhook_events_filter"):
        strict(PredictionCreateParams).validate_python({**known, "webhook_events_filter": ["sometimes"]})


def test_the_second_generation_reads_the_fakes_replies(replicate_2):
    with served(SAYS) as vendor:
        made = replicate_2.Replicate(
            bearer_token="k", base_url=f"{vendor.url}/v1", max_retries=0, _strict_response_validation=True
        )
        with made as client:
            whole = client.models.predictions.create(model_owner="house", model_name="fake", input={"prompt": "?"})
            assert ("".join(whole.output), whole.status) == (SAYS.text, "succeeded")
            assert (whole.metrics.input_token_count, whole.metrics.output_token_count) == (31, 17)
            assert client.predictions.get(prediction_id=whole.id).status == "succeeded"
            assert client.predictions.cancel(prediction_id=whole.id).status == "canceled"
            begun = client.models.predictions.create(
                model_owner="house", model_name="fake", input={"prompt": "?"}, stream=True
            )
            assert (begun.status, begun.urls.stream.startswith(vendor.url)) == ("starting", True)
            assert client.account.get().username == "house"
            assert client.models.get(model_owner="house", model_name="fake").name == "fake"


@pytest.mark.parametrize("status", [401, 402, 404, 422, 429, 500])
def test_the_second_generation_reads_the_fakes_refusals(status, replicate_2):
    with served(Refuse(status=status, message="words of the vendor")) as vendor:
        made = replicate_2.Replicate(bearer_token="k", base_url=f"{vendor.url}/v1", max_retries=0)
        with made as client, pytest.raises(replicate_2.APIStatusError) as caught:
            client.models.predictions.create(model_owner="house", model_name="fake", input={"prompt": "?"})
    assert (caught.value.status_code, "words of the vendor" in str(caught.value.body)) == (status, True)
