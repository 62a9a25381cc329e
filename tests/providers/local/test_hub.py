"""Models from a hub: the hub's own client fetches them from a loopback server."""

import hashlib
import json
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="it needs a newer anyio than our lowest")

from providers.local.hub_server import COMMIT, Hub

from llm_council import Council
from llm_council.errors import CommandFailed, ConfigurationError, InvalidOption, MissingDependency
from llm_council.providers._local import engine as local_engine
from llm_council.providers._local import hub as hub
from llm_council.providers._local import weights as weights
from llm_council.providers.local import LocalProvider

CONTENT = b"GGUF" + bytes(range(256)) * 2000
ROW = {
    "name": "tiny",
    "license": "MIT",
    "repository": "me/tiny",
    "file": "tiny.gguf",
    "size_bytes": 500_000,
    "layers": 2,
    "kv_heads": 3,
    "head_size": 5,
    "template": {"enable_thinking": False},
}


@pytest.fixture
def server():
    with Hub("me/tiny", {"tiny.gguf": CONTENT}) as made:
        yield made


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, server):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr(local_engine, "installed", lambda: "/nowhere")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_HUB_CACHE", "HF_TOKEN", weights.ENV):
        monkeypatch.delenv(name, raising=False)
    package, *_ = weights._rows()
    monkeypatch.setattr(weights, "_rows", lambda: (package, ROW))
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Let the client write pieces of 64 KiB instead of 10 MiB, and not wait for a second before it goes on."""
    import huggingface_hub.file_download

    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 65536)
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda _: None)


def record():
    return json.loads((weights.cache_folder() / "tiny.json").read_text())


def test_the_first_pull_records_commit_and_hash(home, server):
    known = weights.model("tiny")
    assert (known.path, known.sha256, known.revision, known.size_bytes) == (None, "", "", 500_000)
    assert known.memory_bytes == 500_000 + 4 * 2 * 3 * 5 * 16384
    told, said = [], []
    pulled = weights.pull("tiny", progress=lambda done, whole: told.append((done, whole)), say=said.append)
    assert Path(pulled.path).read_bytes() == CONTENT
    assert Path(pulled.path).is_relative_to(home / "hf" / "hub")
    assert pulled.revision == COMMIT
    assert pulled.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (pulled.size_bytes, pulled.license, pulled.repository, pulled.file) == (
        len(CONTENT),
        "MIT",
        "me/tiny",
        "tiny.gguf",
    )
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert said == ["checking the hash"]
    assert weights.model_path("tiny") == Path(pulled.path)
    asked = len(server.asked)
    assert weights.pull("tiny") == pulled
    assert len(server.asked) == asked


def test_a_broken_connection_goes_on_where_it_broke(server, quick):
    server.breaks = 2
    pulled = weights.pull("tiny", say=[].append)
    assert Path(pulled.path).read_bytes() == CONTENT
    ranges = [asked for command, _, asked in server.asked if command == "GET"]
    assert ranges[0] is None
    assert len(ranges) == 3
    assert all(asked.startswith("bytes=") for asked in ranges[1:])


def test_a_later_pull_asks_for_the_first_commit_and_compares_the_hash(server):
    pulled = weights.pull("tiny", say=[].append)
    Path(pulled.path).resolve().unlink()
    Path(pulled.path).unlink()
    assert weights.model("tiny").path is None
    server.asked.clear()
    assert weights.pull("tiny", say=[].append).path == pulled.path
    assert {path.split("/")[4] for _, path, _ in server.asked} == {COMMIT}

    Path(pulled.path).resolve().unlink()
    Path(pulled.path).unlink()
    server.files["tiny.gguf"] = CONTENT[:-1] + b"?"
    with pytest.raises(CommandFailed, match=r"that of the first pull was .*; if that is meant to be so, delete .*json"):
        weights.pull("tiny", say=[].append)
    assert weights.model("tiny").path is None
    assert not list(Path(pulled.path).parent.iterdir())
    assert record()["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_a_commit_that_is_gone_is_reported(server):
    pulled = weights.pull("tiny", say=[].append)
    Path(pulled.path).unlink()
    server.commit = "f" * 40
    with pytest.raises(CommandFailed, match="does not have the commit of the first pull any more"):
        weights.pull("tiny", say=[].append)


def test_a_use_computes_the_hash_only_if_the_file_changed(monkeypatch):
    pulled = weights.pull("tiny", say=[].append)
    computed, compute = [], hub._hash
    monkeypatch.setattr(hub, "_hash", lambda path: computed.append(path) or compute(path))
    weights.verify(pulled)
    assert computed == []
    blob = Path(pulled.path).resolve()
    blob.touch()
    weights.verify(pulled)
    weights.verify(pulled)
    assert len(computed) == 1
    assert record()["changed_ns"] == blob.stat().st_mtime_ns


def test_a_changed_file_is_refused_when_it_is_used_and_when_it_is_pulled():
    pulled = weights.pull("tiny", say=[].append)
    blob = Path(pulled.path).resolve()
    blob.write_bytes(CONTENT[:-1] + b"?")
    for check in (lambda: weights.verify(pulled), lambda: weights.pull("tiny", say=[].append)):
        with pytest.raises(
            CommandFailed, match=r"was changed: .*; delete the file, then run: council models pull tiny"
        ):
            check()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"<html>", "it is not a GGUF file"), (b"", "it is not a GGUF file")],
)
def test_what_is_no_model_is_removed_again(server, content, words):
    server.files["tiny.gguf"] = content
    with pytest.raises(CommandFailed, match=words):
        weights.pull("tiny", say=[].append)
    assert weights.model("tiny").path is None
    assert not (weights.cache_folder() / "tiny.json").exists()


def test_a_small_file_has_no_hash_of_the_hub(server):
    server.large.clear()
    assert weights.pull("tiny", say=[].append).sha256 == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repository": "me/other"}, "there is no repository me/other on http"),
        ({"file": "other.gguf"}, r"has no file other\.gguf"),
    ],
)
def test_what_the_hub_does_not_have_is_named(monkeypatch, change, words):
    monkeypatch.setattr(weights, "_rows", lambda: ({**ROW, **change},))
    with pytest.raises(CommandFailed, match=f"tiny could not be fetched: .*{words}"):
        weights.pull("tiny", say=[].append)


def test_a_hub_that_does_not_answer_is_named_with_the_remedy(monkeypatch, quick):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CommandFailed, match="cannot be reached; check the network, HTTPS_PROXY and HF_ENDPOINT"):
        weights.pull("tiny", say=[].append)


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match=r"pip install 'llm-council-sdk\[local\]'"):
        weights.pull("tiny", say=[].append)


@pytest.mark.slow
def test_a_pull_after_a_killed_one_starts_again_and_says_so(home, server):
    server.stall = threading.Event()
    code = """
        from llm_council.providers._local import weights
        import json, sys
        row = json.loads(sys.argv[1])
        weights._rows = lambda: (row,)
        weights.pull("tiny")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), json.dumps(ROW)], stderr=subprocess.DEVNULL
    )
    assert server.half_sent.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    server.stall.set()
    server.stall = None
    server.asked.clear()
    said = []
    assert Path(weights.pull("tiny", say=said.append).path).read_bytes() == CONTENT
    assert "an earlier pull of tiny was interrupted; the file starts again" in said
    assert {asked for command, _, asked in server.asked if command == "GET"} == {None}  # from the first byte
    said.clear()
    weights.pull("tiny", say=said.append)
    assert said == []


def test_what_a_killed_pull_left_is_removed_once_it_is_old(monkeypatch):
    pulled = weights.pull("tiny", say=[].append)
    blobs = Path(pulled.path).resolve().parent
    Path(pulled.path).resolve().unlink()
    Path(pulled.path).unlink()
    (blobs / "abc.12345678.incomplete").write_bytes(b"half")
    monkeypatch.setattr(hub, "STALE_SECONDS", -10.0)
    weights.pull("tiny", say=[].append)
    assert not list(blobs.glob("*.incomplete"))


def test_a_seat_of_a_model_that_is_not_fetched_is_refused_before_a_call(server):
    with (
        Council(["local/tiny:2"]) as council,
        pytest.raises(ConfigurationError, match=r"tiny is not fetched .*run: council models pull tiny"),
    ):
        council.run("What?")
    assert server.asked == []
    with pytest.raises(InvalidOption, match="no local model is called 'tyny'; did you mean 'tiny'"):
        Council(["local/tyny"])


def test_the_doctor_says_that_a_model_is_not_fetched():
    with Council(["local/tiny:2", "local"]) as council:
        found = council.doctor()["local"]
        assert not found.ok
        assert "run: council models pull tiny" in found.message
        weights.pull("tiny", say=[].append)
        assert "council models pull tiny" not in council.doctor()["local"].message


def test_the_doctor_of_a_provider_names_the_command():
    with LocalProvider(default_model="tiny") as provider:
        assert "run: council models pull tiny" in provider.doctor_sync().message


def test_a_request_tells_the_template_not_to_think():
    assert weights.request_defaults("tiny") == {"chat_template_kwargs": {"enable_thinking": False}}
    assert LocalProvider()._profile_of("tiny").prose_first is False


def test_a_damaged_record_counts_as_none(home):
    weights.pull("tiny", say=[].append)
    (weights.cache_folder() / "tiny.json").write_text("{")
    assert weights.model("tiny").path is None
