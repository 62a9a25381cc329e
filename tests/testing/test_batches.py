"""The fake vendors of batch jobs: what a script can make of a job, and what they refuse."""

import json

import httpx
import pytest
import requests

from llm_council.errors import InvalidOption, MalformedReply
from llm_council.testing._mirrors.batch_jobs import decode_anthropic, decode_openai, read_form
from llm_council.testing.servers import Cut, FakeBatchVendor, Hang, Refuse


def line(name, text="Hi.", **changes):
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": {**body, **changes}}


class Client:
    """A client of OpenAI's files and batches that knows nothing of this library."""

    def __init__(self, vendor):
        self.url = vendor.url
        self.http = httpx.Client(transport=vendor.transport())

    def send(self, *lines, data=None):
        data = "\n".join(json.dumps(each) for each in lines) if data is None else data
        file = self.http.post(f"{self.url}/files", data={"purpose": "batch"}, files={"file": ("x.jsonl", data)}).json()
        job = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return self.http.post(f"{self.url}/batches", json=job).json()

    def get(self, path):
        return self.http.get(f"{self.url}/{path}")


def test_a_share_of_the_calls_is_done_at_each_poll():
    vendor = FakeBatchVendor("openai", "Yes.", polls=3)
    client = Client(vendor)
    job = client.send(*[line(str(number)) for number in range(9)])["id"]
    done = [client.get(f"batches/{job}").json() for _ in range(4)]
    assert [found["request_counts"]["completed"] for found in done] == [3, 6, 9, 9]
    assert [found["status"] for found in done] == ["in_progress", "in_progress", "completed", "completed"]
    assert repr(vendor.jobs[job]) == "<FakeJob batch_1 ended, 9 of 9 calls done>"


def test_a_job_expires_by_the_clock():
    now = [0.0]
    vendor = FakeBatchVendor("openai", "Yes.", polls=4, clock=lambda: now[0], seconds=100)
    client = Client(vendor)
    job = client.send(line("a"), line("b"), line("c"), line("d"))["id"]
    assert client.get(f"batches/{job}").json()["status"] == "in_progress"
    now[0] = 101.0
    found = client.get(f"batches/{job}").json()
    assert found["status"] == "expired"
    answers = client.get(f"files/{found['output_file_id']}/content").text.splitlines()
    errors = client.get(f"files/{found['error_file_id']}/content").text.splitlines()
    assert [json.loads(text)["custom_id"] for text in answers] == ["a"]
    assert {json.loads(text)["error"]["code"] for text in errors} == {"batch_expired"}
    assert len(errors) == 3


def test_jobs_are_finished_and_expired_at_once():
    vendor = FakeBatchVendor(
        "openai", lambda request: Hang() if "b" in request.messages[-1].content else "Yes.", polls=99
    )
    client = Client(vendor)
    first, second, third = (client.send(line("1", "a"), line("2", text))["id"] for text in "aba")
    vendor.expire(third)
    vendor.finish(first)
    vendor.finish()
    assert [vendor.jobs[job].state for job in (first, second, third)] == ["ended", "expired", "expired"]
    assert vendor.paid == {"1": 2, "2": 1}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line("a"), line("a")], "stands twice"),
        ([line("a"), line("b", model="other")], "does not match the model"),
        ([line("a", stream=True)], "not streamed"),
        ([{**line("a"), "url": "/v1/embeddings"}], "does not match the endpoint"),
        ([line("a" * 65)], "at most 64"),
    ],
)
def test_a_file_that_is_wrong_fails_as_a_whole(lines, words):
    vendor = FakeBatchVendor("openai", "Yes.")
    found = Client(vendor).send(*lines)
    assert found["status"] == "failed"
    assert words in found["errors"]["data"][0]["message"]
    assert vendor.paid == {}


def test_a_file_that_is_no_json_fails_as_a_whole():
    assert (
        Client(FakeBatchVendor("openai", "Yes.")).send(data="not JSON")["errors"]["data"][0]["code"]
        == "invalid_json_line"
    )


def test_anthropic_refuses_ids_that_its_reference_does_not_allow():
    vendor = FakeBatchVendor("anthropic", "Yes.")
    params = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi."}]}
    with httpx.Client(transport=vendor.transport()) as client:
        reply = client.post(
            f"{vendor.url}/v1/messages/batches", json={"requests": [{"custom_id": "a b", "params": params}]}
        )
    assert reply.status_code == 400
    assert "custom_id" in reply.json()["error"]["message"]


def test_a_wrong_key_an_unknown_job_and_a_spoiled_reply():
    vendor = FakeBatchVendor("openai", "Yes.", key="house-key")
    with httpx.Client(transport=vendor.transport()) as client:
        assert client.get(f"{vendor.url}/batches").status_code == 401
    vendor.key = None
    client = Client(vendor)
    assert client.get("batches/none").status_code == 404
    assert client.http.post(f"{vendor.url}/batches/none").status_code == 404
    vendor.on_created = Refuse(status=502, message="bad gateway")
    assert client.send(line("a"))["error"]["message"] == "bad gateway"
    assert len(vendor.jobs) == 1


def test_direct_calls_are_answered_too_and_counted_apart():
    vendor = FakeBatchVendor("openai", "Yes.")
    client = Client(vendor)
    client.send(line("a"))
    reply = client.http.post(f"{vendor.url}/chat/completions", json=line("a")["body"]).json()
    assert reply["choices"][0]["message"]["content"] == "Yes."
    assert [asked.path for asked in vendor.calls] == ["/v1/chat/completions"]
    assert vendor.strange == []


def test_it_answers_requests_and_sockets_too():
    vendor = FakeBatchVendor("mistral", "Yes.")
    with vendor.mocked(), requests.Session() as session:
        assert session.get(f"{vendor.url}/batch/jobs").json()["data"] == []
    with vendor.serve(), httpx.Client() as client:
        assert client.get(f"{vendor.url}/batch/jobs").json()["total"] == 0


def test_scripts_and_vendors_that_make_no_sense_are_refused():
    with pytest.raises(InvalidOption, match="one of anthropic, gemini, mistral, openai"):
        FakeBatchVendor("cohere")
    client = Client(FakeBatchVendor("openai", Cut("half"), polls=0))
    assert "answered, refused or left undone" in client.send(line("a"))["error"]["message"]


def test_the_mirrors_refuse_what_is_no_job():
    for data in (b"[]", b'{"method": "GET"}', b'{"method": "POST", "url": "/x", "custom_id": 1}'):
        with pytest.raises(MalformedReply, match="expected"):
            decode_openai(data)
    with pytest.raises(MalformedReply, match="expected a form"):
        read_form("text/plain", b"x")
    assert decode_anthropic({"requests": []}) == {}
