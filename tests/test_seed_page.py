"""The seed page's own provider, read from the page, works as printed: by name, awaited, and blocking."""

import ast
import json
import os
import pickle
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llm_council import get_provider
from llm_council.errors import AdapterFailed, ApiError
from llm_council.providers.base import GenerateRequest, ProviderAdapter, call, examine, stream
from llm_council.providers.registry import get_class

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[2] / "shared")
PAGE = SHARED / "seed" / "creating-custom-providers.md"

if not PAGE.is_file():
    pytest.skip(f"no seed page at {PAGE}: set LLM_COUNCIL_SHARED", allow_module_level=True)

SOURCE = next(
    block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "import httpx" in block
)
ENTRY = re.search(r'\[project\.entry-points\."llm_council\.providers"\]\n(\w+) = "([\w.]+):(\w+)"', PAGE.read_text())


ANSWER = {
    "implementation_title": "Greeting",
    "summary": "A function that greets.",
    "files": [{"path": "greet.py", "description": "The function.", "content": "def greet(): return 'hello'"}],
    "testing_notes": "Call it.",
    "reasoning": "Nothing simpler greets.",
}


class Vendor(BaseHTTPRequestHandler):
    """What ``https://api.mylllm.com/v1`` would answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200 if self.headers["Authorization"] == "Bearer my-key-123456" else 401, {"data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if self.headers["Authorization"] != "Bearer my-key-123456":
            self.answer(401, {"error": {"message": f"who? {self.headers['Authorization']}"}})
            return
        text = f"echo: {body['messages'][-1]['content']}"
        if "JSON Schema" in text:  # the adapter ignores structured output, as the page's does: the prompt must say it
            text = json.dumps(ANSWER)
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self.answer(200, {"model": body["model"], "choices": [choice]})

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def vendor():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vendor)
    server.daemon_threads = True
    server.bodies = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Install the page's module as the distribution whose pyproject the page prints."""
    name, module, attribute = ENTRY.groups()
    site = tmp_path / "site"
    package = site.joinpath(*module.split("."))
    package.parent.mkdir(parents=True)
    for folder in package.parents:
        if folder == site:
            break
        (folder / "__init__.py").touch()
    package.with_suffix(".py").write_text(SOURCE)
    info = site / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[llm_council.providers]\n{name} = {module}:{attribute}\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("MY_API_KEY", "my-key-123456")
    yield name
    for loaded in [key for key in sys.modules if key.partition(".")[0] == module.partition(".")[0]]:
        del sys.modules[loaded]


ASK = GenerateRequest(prompt="hello", temperature=0.2, max_tokens=9999)


@pytest.mark.anyio
async def test_it_works_through_the_door(page, vendor):
    provider = get_provider(page, base_url=vendor.url)
    assert isinstance(provider, ProviderAdapter)
    async with provider:
        response = await call(provider, ASK)
        assert (response.text, response.model, response.finish_reason) == ("echo: hello", "my-model-v1", "stop")
        assert vendor.bodies[-1]["max_tokens"] == 4096  # what it says that its answers can have
        assert [adjustment.field for adjustment in response.adjustments] == ["max_tokens"]
        assert "".join([chunk.text async for chunk in stream(provider, ASK)]) == "echo: hello"
        assert (await examine(provider)).message == "API accessible"
        assert (await examine(provider, deep=True)).ok
        assert await provider.supports("tool_use")
        assert not await provider.supports("telepathy")


def test_its_blocking_twins_work(page, vendor):
    provider = get_provider(page, base_url=vendor.url)
    with provider:
        assert provider.generate_sync(ASK).text == "echo: hello"
        assert "".join(chunk.text for chunk in provider.stream_sync(ASK)) == "echo: hello"
        assert provider.doctor_sync().ok
        assert provider.supports_sync("streaming")


@pytest.mark.anyio
async def test_its_errors_are_typed_and_keep_its_words(page, vendor, monkeypatch):
    wrong = get_provider(page, base_url=vendor.url, api_key="wrong-key-123")
    async with wrong:
        with pytest.raises(ApiError) as caught:
            await call(wrong, ASK)
        assert caught.value.status == 401
        assert "who? Bearer ***" in caught.value.body  # though the page keeps its key as a plain string
        assert "wrong-key-123" not in f"{caught.value!r} {vars(caught.value)!r} {pickle.dumps(caught.value)!r}"
        assert not (await examine(wrong)).ok
    monkeypatch.delenv("MY_API_KEY")
    keyless = get_provider(page, base_url=vendor.url)
    with pytest.raises(AdapterFailed, match="API key required") as failed:
        await call(keyless, ASK)
    assert not failed.value.retryable
    assert (await examine(keyless)).message == "MY_API_KEY not set"


USE = re.search(r"### 3\. Use Your Provider\n\n```python\n(.+?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def at_the_vendor(page, vendor, monkeypatch):
    """Let the page's class reach the vendor in this process: its third step names no address."""
    monkeypatch.setattr(get_class(page), "BASE_URL", vendor.url)


@pytest.mark.anyio
async def test_the_third_step_works_as_printed_in_a_loop(at_the_vendor):
    space = {}
    code = compile(USE[1], "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, space)
    assert space["result"].output == ANSWER
    assert space["result"].success
    await space["council"].aclose()


def test_the_third_step_works_in_plain_code(at_the_vendor):
    space = {}
    exec(USE[1].replace("await ", ""), space)
    assert space["result"].output == ANSWER
    space["council"].close()
