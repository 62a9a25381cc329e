"""Laws of batch jobs for generated data: what is sent and answered survives, and junk is read or refused by type."""

import json
from functools import cache

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from wire_laws import lookalikes, split

from llm_council._wire.payloads import dumps, loads
from llm_council.errors import MalformedReply, ProviderError
from llm_council.models import GenerateRequest, Limits
from llm_council.providers._anthropic import batch_jobs as anthropic
from llm_council.providers._google import batch_jobs as google
from llm_council.providers._http.batch_jobs import EncodedCall, Job, ResultLine, _Lines
from llm_council.providers._mistral import batch_jobs as mistral
from llm_council.providers._openai import batch_jobs as openai
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.batch_jobs import JobState
from llm_council.providers.gateways import MistralProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.testing._mirrors import batch_jobs as mirror

pytestmark = pytest.mark.slow

VENDORS = ["anthropic", "gemini", "mistral", "openai"]
PROVIDERS = [AnthropicProvider, GeminiProvider, MistralProvider, OpenAIProvider]
READ_JOB = {
    "anthropic": anthropic.read_job,
    "gemini": google.read_job,
    "mistral": mistral.read_job,
    "openai": openai.read_job,
}
KEYS = (
    "id custom_id key result response error errors data body status_code request_id type message code status state "
    "name metadata output responsesFile request_counts processing_status batchStats created_at createTime output_file "
    "output_file_id error_file total"
)
LEAVES = ["succeeded", "errored", "expired", "canceled", "batch_expired", "completed", "SUCCESS", "failed", "ended"]
LEAVES += ["BATCH_STATE_SUCCEEDED", "BATCH_STATE_FAILED", "batches/1", "files/1", "", 0, 200, 400, 5, True, None, "7"]

ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
payloads = st.dictionaries(st.text(max_size=5), strategies.json_values(leaves=5), max_size=3)
junk = strategies.json_values(leaves=8) | lookalikes(KEYS, LEAVES)


@cache
def jobs_of(vendor):
    cls = PROVIDERS[VENDORS.index(vendor)]
    return cls(api_key="house-key-123456789", default_model="house").batch_jobs()


def decoded(vendor, lines):
    if vendor == "anthropic":
        return mirror.decode_anthropic(loads(b'{"requests":[%b]}' % b",".join(lines)))
    data = b"\n".join(lines)
    if vendor == "gemini":
        return mirror.decode_gemini(data, "models/house")
    return mirror.decode_openai(data) if vendor == "openai" else mirror.decode_mistral(data, "/v1/chat/completions")


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_call_arrives_as_it_was_encoded(vendor):
    @examples(30)
    @given(st.dictionaries(ids, payloads, max_size=4))
    def check(calls):
        path = "/models/house:generateContent" if vendor == "gemini" else "/chat/completions"
        asked = GenerateRequest(prompt="x", model="house")
        encoded = {custom: EncodedCall(asked=asked, path=path, payload=body) for custom, body in calls.items()}
        lines = [jobs_of(vendor)._encoded_line(custom, call) for custom, call in encoded.items()]
        assert all(len(line.decode().splitlines()) == 1 for line in lines)
        found = {custom: body for custom, (_, body) in decoded(vendor, lines).items()}
        assert found == {custom: loads(dumps(body)) for custom, body in calls.items()}

    check()


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_answer_arrives_as_it_was_written_however_the_file_is_cut(vendor):
    written = {
        "anthropic": mirror.anthropic_succeeded,
        "gemini": mirror.gemini_succeeded,
        "mistral": mirror.openai_succeeded,
        "openai": mirror.openai_succeeded,
    }[vendor]

    @examples(30)
    @given(st.dictionaries(ids, payloads, max_size=4), st.lists(st.integers(0, 10_000), max_size=5), st.booleans())
    def check(answers, cuts, is_ended):
        body = b"\n".join(dumps(written(custom, answer)) for custom, answer in answers.items())
        if is_ended:
            body += b"\n\n"
        lines, reader = [], _Lines(Limits())
        for piece in split(body, cuts):
            lines += reader.feed(piece)
        lines += reader.finish()
        read = [jobs_of(vendor)._read_line(loads(line)) for line in lines]
        expected = {custom: loads(dumps(answer)) for custom, answer in answers.items()}
        assert {line.custom_id: line.body for line in read} == expected
        assert all(line.error is None and line.gave_up is None for line in read)

    check()


@pytest.mark.parametrize("vendor", VENDORS)
def test_any_line_is_read_or_malformed(vendor):
    @examples(100)
    @given(st.dictionaries(st.sampled_from(KEYS.split()), junk, max_size=6))
    def check(line):
        try:
            found = jobs_of(vendor)._read_line(loads(dumps(line)))
        except MalformedReply:
            return
        assert isinstance(found, ResultLine)
        assert isinstance(found.custom_id, str)
        assert found.error is None or isinstance(found.error, ProviderError)
        assert found.gave_up in (None, "expired", "cancelled", "missing")

    check()


@pytest.mark.parametrize("vendor", VENDORS)
def test_any_job_is_read_or_malformed(vendor):
    @examples(100)
    @given(st.dictionaries(st.sampled_from(KEYS.split()), junk, max_size=8))
    def check(data):
        try:
            found = READ_JOB[vendor](loads(dumps(data)))
        except MalformedReply:
            return
        assert isinstance(found, Job)
        assert all(isinstance(result, str) and result for result in found.results)
        assert (found.failure is not None) == (found.status.state is JobState.FAILED)
        assert found.failure is None or isinstance(found.failure(), ProviderError)
        json.dumps([found.status.total, found.status.done, found.status.failed, found.created])

    check()
