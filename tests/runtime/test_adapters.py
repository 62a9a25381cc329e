"""Adapters as strangers write them, called from both worlds, over real connections."""

import asyncio
import contextlib
import contextvars
import copy
import gc
import http.server
import inspect
import json
import pickle
import threading
import time
import traceback

import anyio
import anyio.to_thread
import attrs
import pytest
import trio

from llm_council import _runtime, errors
from llm_council.providers.base import (
    DoctorResult,
    GenerateRequest,
    GenerateResponse,
    ProviderAdapter,
    ProviderCapabilities,
    call,
    stream,
)

word = contextvars.ContextVar("word", default="unset")
REQUEST = GenerateRequest(prompt="question")


class Server(http.server.ThreadingHTTPServer):
    """Answers JSON, keeps connections alive, counts them, and notes those that were cut while it was writing."""

    daemon_threads = True
    request_queue_size = 128  # a burst of connections must not overflow it: the kernel would cut some

    def __init__(self):
        self.connections = 0
        self.cut = threading.Event()
        self.asked = threading.Event()
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.connections += 1

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.set()
        if self.path == "/endless":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"5\r\nword \r\n")
                    time.sleep(0.01)
            self.server.cut.set()
            self.close_connection = True
            return
        reply = json.dumps({"text": json.loads(body)["prompt"].upper()}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


class Remote(ProviderAdapter):
    """An author's adapter: its own ``__init__``, no call of the base's."""

    name = "remote"
    capabilities = ProviderCapabilities(streaming=True)

    def __init__(self, url="http://127.0.0.1:1"):
        self.url = url

    async def generate(self, request):
        client = await self._get_client()
        reply = await client.post(f"{self.url}/answer", json={"prompt": request.prompt})
        return GenerateResponse(text=reply.json()["text"])


class Endless(Remote):
    async def stream(self, request):
        client = await self._get_client()
        async with client.stream("POST", f"{self.url}/endless", json={"prompt": "x"}) as reply:
            async for text in reply.aiter_text():
                yield GenerateResponse(text=text)


@attrs.frozen
class Frozen(ProviderAdapter):
    name = "frozen"
    capabilities = ProviderCapabilities()
    url: str

    async def generate(self, request):
        return await Remote.generate(self, request)


class Local(ProviderAdapter):
    """Answers without a server."""

    name = "local-toy"
    capabilities = ProviderCapabilities(streaming=True)

    def __init__(self, answer="answer"):
        self.answer = answer

    async def generate(self, request):
        await anyio.sleep(0)
        return GenerateResponse(text=f"{self.answer} {request.prompt} {word.get()}")


def test_twenty_blocking_calls_open_one_connection(server):
    with Remote(server.url) as adapter:
        answers = [adapter.generate_sync(REQUEST).text for _ in range(20)]
    assert answers == ["QUESTION"] * 20
    assert server.connections == 1


def test_a_closed_adapter_can_be_used_again(server):
    adapter = Remote(server.url)
    for _ in range(2):
        assert adapter.generate_sync(REQUEST).text == "QUESTION"
        adapter.close()
        adapter.close()
    assert server.connections == 2


def test_one_adapter_works_in_four_loops(server):
    adapter = Remote(server.url)

    async def ask():
        return (await call(adapter, REQUEST)).text

    seen = [adapter.generate_sync(REQUEST).text, asyncio.run(ask()), asyncio.run(ask()), trio.run(ask)]
    seen.append(adapter.generate_sync(REQUEST).text)
    assert seen == ["QUESTION"] * 5
    assert server.connections == 4
    adapter.close()


def test_eight_threads_with_twenty_calls_each_get_their_own_answers():
    adapter, wrong = Local(), []

    def work(number):
        for turn in range(20):
            text = adapter.generate_sync(GenerateRequest(prompt=f"{number}-{turn}")).text
            if text != f"answer {number}-{turn} unset":
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_thirty_adapters_share_one_thread(server):
    before = threading.active_count()
    for _ in range(30):
        with Remote(server.url) as adapter:
            adapter.generate_sync(REQUEST)
    loops = [thread for thread in threading.enumerate() if thread.name == "llm-council"]
    assert len(loops) == 1
    assert (
        threading.active_count() <= before + 1 + 2
    )  # the loop's thread, and the server's for a connection that closes


def test_frozen_classes_copies_and_pickles_work_after_use(server):
    first = Frozen(server.url)
    first.generate_sync(REQUEST)
    for adapter in (first, copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert adapter == first
        assert adapter.generate_sync(REQUEST).text == "QUESTION"
        adapter.close()


def test_a_dropped_adapter_closes_its_connection(server):
    adapter = Endless(server.url)
    chunks = adapter.stream_sync(REQUEST)
    next(chunks)
    del adapter, chunks
    gc.collect()
    assert server.cut.wait(20)


@pytest.mark.parametrize("twin", ["generate", "stream", "supports", "doctor"])
def test_a_twin_has_the_signature_of_its_core(twin):
    core, blocking = getattr(ProviderAdapter, twin), getattr(ProviderAdapter, f"{twin}_sync")
    assert inspect.signature(blocking).parameters == inspect.signature(core).parameters
    assert not inspect.iscoroutinefunction(blocking)
    assert blocking.__doc__
    assert not getattr(blocking, "__isabstractmethod__", False)


def test_wrong_arguments_are_refused_at_the_call():
    with pytest.raises(TypeError, match=r"generate_sync\(\) missing 1 required positional argument: 'request'"):
        Local().generate_sync()
    with pytest.raises(TypeError, match="surprise"):
        Local().doctor_sync(surprise=True)


def test_a_twin_runs_the_overridden_core():
    class Own(Local):
        async def supports(self, capability):
            return capability == "singing"

        async def doctor(self):
            return DoctorResult(ok=True, message="mine")

        async def stream(self, request):
            yield GenerateResponse(text="one ")
            yield GenerateResponse(text="two")

    adapter = Own()
    assert adapter.supports_sync("singing")
    assert not adapter.supports_sync("streaming")
    assert adapter.doctor_sync().message == "mine"
    assert "".join(chunk.text or "" for chunk in adapter.stream_sync(REQUEST)) == "one two"


class Broken(Local):
    async def generate(self, request):
        raise ValueError("the author's")

    async def stream(self, request):
        yield GenerateResponse(text="one")
        raise ValueError("the author's")


def test_a_traceback_has_six_frames_at_most_and_ends_in_the_authors_code():
    class Refusing(Local):
        async def generate(self, request):
            raise errors.ContentFiltered("the author's")

    with pytest.raises(errors.ContentFiltered) as caught:
        Refusing().generate_sync(REQUEST)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert len(frames) <= 6
    assert frames[-1].line == 'raise errors.ContentFiltered("the author\'s")'


def test_an_error_that_is_not_the_librarys_names_the_authors_line_and_holds_no_frames():
    with pytest.raises(errors.AdapterFailed, match=r"the author's .*test_adapters\.py:\d+") as caught:
        Broken().generate_sync(REQUEST)
    assert len(traceback.extract_tb(caught.value.__traceback__)) <= 6
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__cause__.__traceback__ is None


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_system_exit_in_an_adapter_does_not_end_the_runtime(kind):
    class Leaving(Local):
        async def generate(self, request):
            raise kind("out")

    with pytest.raises((kind, errors.AdapterFailed)):
        Leaving().generate_sync(REQUEST)
    assert Local().generate_sync(REQUEST).text == "answer question unset"


def test_a_blocking_call_of_one_adapter_inside_another_raises():
    class Nested(Local):
        async def generate(self, request):
            return Local().generate_sync(request)

    with pytest.raises(errors.CouncilError) as caught:
        Nested().generate_sync(REQUEST)
    assert "event loop is running" in f"{caught.value} {caught.value.__cause__}"


def test_an_adapter_sees_the_callers_context():
    def run():
        word.set("from the caller")
        return Local().generate_sync(REQUEST).text

    assert contextvars.copy_context().run(run) == "answer question from the caller"


@pytest.mark.anyio
async def test_a_blocking_call_in_a_worker_thread_of_an_async_program_works():
    response = await anyio.to_thread.run_sync(Local().generate_sync, REQUEST)
    assert response.text == "answer question unset"
    with pytest.raises(errors.InsideEventLoopError, match="generate"):
        Local().generate_sync(REQUEST)


def test_a_stream_yields_the_same_blocking_on_asyncio_and_on_trio():
    class Words(Local):
        async def stream(self, request):
            for piece in ("a ", "b ", "c"):
                await anyio.sleep(0)
                yield GenerateResponse(text=piece)

    async def read():
        return [chunk.text async for chunk in stream(Words(), REQUEST)]

    blocking = [chunk.text for chunk in Words().stream_sync(REQUEST)]
    assert blocking == asyncio.run(read()) == trio.run(read)
    assert "".join(text or "" for text in blocking) == "a b c"


def test_leaving_the_with_block_of_a_stream_aborts_the_request(server):
    with Endless(server.url) as adapter:
        with adapter.stream_sync(REQUEST) as chunks:
            for _ in chunks:
                break
        assert server.cut.wait(20)


def test_a_break_without_a_with_block_aborts_the_request(server):
    with Endless(server.url) as adapter:
        for _ in adapter.stream_sync(REQUEST):
            break
        assert server.cut.wait(20)


def test_an_error_mid_stream_follows_the_pieces_that_had_arrived():
    chunks = Broken().stream_sync(REQUEST)
    assert next(chunks).text == "one"
    with pytest.raises(errors.ProviderError):
        for _ in chunks:
            pass


def test_sync_views_in_a_thread_pool_and_async_views_share_an_adapter(server):
    """The shape of a Django project under ASGI: async views in one loop, sync ones in threads, one adapter for all."""
    adapter = Remote(server.url)

    def sync_view():
        return adapter.generate_sync(REQUEST).text

    async def async_view():
        return (await call(adapter, REQUEST)).text

    async def serve():
        views = [asyncio.to_thread(sync_view) if number % 2 else async_view() for number in range(20)]
        return await asyncio.gather(*views)

    assert asyncio.run(serve()) == ["QUESTION"] * 20
    adapter.close()


def test_in_a_notebook_awaiting_works_and_blocking_is_refused(server):
    """Cells of a notebook run inside one loop that never ends between them; awaiting works, blocking is refused."""
    adapter = Remote(server.url)
    loop = asyncio.new_event_loop()

    async def cell():
        with pytest.raises(errors.InsideEventLoopError):
            adapter.generate_sync(REQUEST)
        return (await call(adapter, REQUEST)).text

    try:
        assert [loop.run_until_complete(cell()) for _ in range(3)] == ["QUESTION"] * 3
        assert server.connections == 1
        loop.run_until_complete(loop.shutdown_asyncgens())  # what ends with a notebook's kernel
    finally:
        loop.close()


def test_calls_after_a_shutdown_work(server):
    adapter = Remote(server.url)
    adapter.generate_sync(REQUEST)
    assert _runtime.shutdown()
    adapter.generate_sync(REQUEST)
    adapter.close()
    assert server.connections == 2
