"""Images, documents and sound in a run: who sees them, who sits out, and where their bytes are."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from llm_council import Attachment, Budget, Council, CouncilConfig, ProviderCapabilities, StructuredOutput
from llm_council.errors import InvalidOption
from llm_council.middleware import Failover
from llm_council.models import AudioPart, DocumentPart, GenerateRequest, ImagePart, Limits, Message, TextPart
from llm_council.models._convert import dump, load
from llm_council.models.deliberation import Plan
from llm_council.store import Store
from llm_council.testing import ScriptedProvider

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR picture"
PDF = b"%PDF-1.7\n%\xe2\xe3 document"
WAV = b"RIFF\x24\0\0\0WAVEfmt sound"
SEES = attrs.evolve(ScriptedProvider.capabilities, multimodal=True, documents=True, audio=True)
IMAGES = attrs.evolve(ScriptedProvider.capabilities, multimodal=True)


def seat(name: str, capabilities: ProviderCapabilities = SEES, script: Any = "It is red.") -> ScriptedProvider:
    return ScriptedProvider(script, name=name, capabilities=capabilities)


def council(*seats: ScriptedProvider, **options: Any) -> Council:
    return Council(seats, config=CouncilConfig(seed="s"), **options)


def parts_of(request: GenerateRequest) -> list[Any]:
    return [part for turn in request.messages if not isinstance(turn.content, str) for part in turn.content]


def test_every_call_shows_the_files_before_the_text(tmp_path: Path) -> None:
    path = tmp_path / "photo.txt"
    path.write_bytes(PNG)
    ann, bob = seat("ann"), seat("bob")
    files = [path, PDF, Attachment(WAV, name="folder/talk.mp3"), Attachment(b"notes", name="n.txt")]
    result = council(ann, bob).run("What is it?", files=files)
    assert result.success
    assert not result.warnings
    requests = [*ann.requests, *bob.requests]
    assert {request.metadata["phase"] for request in requests} == {"draft", "critique", "synthesise"}
    for request in requests:
        words, *media, text = parts_of(request)
        assert "photo.txt, document.pdf, talk.mp3" in words.text
        assert [type(part) for part in media] == [ImagePart, DocumentPart, AudioPart]
        assert media[1].name == "document.pdf"
        assert text.text.startswith("Task:\nWhat is it?")
        assert "notes" in text.text
    assert [file.kind for file in result.plan.files] == ["image", "document", "audio", "text"]


def test_a_repair_shows_them_too() -> None:
    answers = iter(["no JSON", '{"answer": 1}'])
    ann = seat("ann", script=lambda _: next(answers))
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    result = council(ann).run("x", files=[PNG], schema=schema, strategy="single")
    assert result.output == {"answer": 1}
    assert [request.metadata["phase"] for request in ann.requests] == ["draft", "repair"]
    assert all(any(isinstance(part, ImagePart) for part in parts_of(request)) for request in ann.requests)


def test_a_seat_that_cannot_see_them_is_named_and_sits_out() -> None:
    ann, bob, carl = seat("ann"), seat("bob", IMAGES), seat("carl", ScriptedProvider.capabilities)
    result = council(ann, bob, carl, chair="carl").run("x", files=[PNG, Attachment(PDF, name="report.pdf")])
    assert result.success
    assert (bob.requests, carl.requests) == ([], [])
    said = [
        "bob sits out: it takes no documents (report.pdf)",
        "carl sits out: it takes no images (image.png)",
        "another seat writes the answer, because the chair carl sits out",
    ]
    assert list(result.warnings)[:3] == said
    assert list(result.plan.notes)[:3] == said
    assert result.plan.sitting_out == {
        "bob": "takes no documents (report.pdf)",
        "carl": "takes no images (image.png)",
    }
    assert [spec.name for spec in result.plan.seats] == ["ann"]


def test_the_limit_of_texts_is_none_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    small = Council([seat("ann")], config=CouncilConfig(limits=Limits(body=4)))
    assert small.plan("x", files=[tmp_path / "a.png"]).files[0].data == PNG


def test_a_text_needs_no_eyes() -> None:
    blind = seat("blind", ScriptedProvider.capabilities)
    result = council(blind).run("x", files=[Attachment(b"plain", name="a.png")])
    assert result.success
    assert not result.plan.sitting_out
    assert "plain" in blind.requests[0].messages[-1].text


def test_messages_show_the_names_of_files_in_one_line_without_control_characters(tmp_path: Path) -> None:
    name, shown = "a\nb\u202e\x1b.png", "a\u2424b<U+202E>\u241b.png"
    for files in ([Attachment(PNG, name=name)], [tmp_path / name]):
        with pytest.raises(InvalidOption) as caught:
            council(seat("blind", ScriptedProvider.capabilities)).run("x", files=files)
        assert shown in caught.value.message
    with pytest.raises(InvalidOption) as caught:
        Attachment(b"\xfe", name=name)
    assert f"{shown} is not UTF-8 text" in caught.value.message


def test_an_empty_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    result = council(seat("ann")).run("x", files=[tmp_path / "photo.png", Attachment(b" \n", name="n.txt"), PNG])
    assert list(result.warnings) == [f"the file {tmp_path / 'photo.png'} is empty", "the file n.txt is empty"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "expected a path, got an empty text"),
        (None, "files: expected a path, bytes or an Attachment, got None"),
        ("a\0b", r"'a\x00b' is no path"),
    ],
)
def test_what_can_be_no_path_is_refused_before_anything_is_sent(path: Any, words: str) -> None:
    ann = seat("ann")
    with pytest.raises(InvalidOption) as caught:
        council(ann).run("x", files=[path])
    assert words in caught.value.message
    assert ann.requests == []


@pytest.mark.parametrize("quorum", [None, 2])
def test_a_run_is_refused_before_anything_is_sent_when_fewer_than_the_quorum_are_left(quorum: int | None) -> None:
    seats = [seat("blind", ScriptedProvider.capabilities), seat("deaf", IMAGES)]
    files = [PNG] if quorum else [WAV]
    with pytest.raises(InvalidOption) as caught:
        council(*seats).run("x", files=files, budget=Budget(quorum=quorum) if quorum else None)
    message = caught.value.message
    assert message.startswith("files: ")
    assert "blind takes no" in message
    assert f"the quorum is {quorum or 1}" in message
    assert "leave the file out" in message
    assert not any(one.requests for one in seats)


def test_a_group_of_providers_takes_what_one_of_them_takes() -> None:
    blind, sees = seat("blind", ScriptedProvider.capabilities), seat("sees")
    group = Failover([blind, sees], name="group")
    result = council(group).run("x", files=[PNG])  # type: ignore[arg-type]
    assert result.success
    assert not blind.requests
    assert sees.requests


def test_the_bytes_are_in_no_event_result_or_stored_paper_but_their_own(tmp_path: Path) -> None:
    events: list[Any] = []
    data = Attachment(PNG).part().data or ""
    store = tmp_path / "runs.db"
    result = council(seat("ann"), listeners=[events.append], store=store).run("x", files=[PNG, PNG])
    written = json.dumps([dump(event) for event in events]) + json.dumps(result.to_dict()) + repr((events, result))
    assert result.plan.files[0].sha256 in written
    assert data not in written
    with closing(sqlite3.connect(store)) as connection:
        rows = connection.execute("SELECT kind, text FROM papers").fetchall()
    assert [kind for kind, text in rows if data in text] == [f"file:{result.plan.files[0].sha256}"]
    assert data not in json.dumps(Store(store).export_sync(result.run_id))


def test_a_stored_run_is_replayed_with_its_files_and_resumed(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    answers = iter([RuntimeError("no"), "It is red."])
    ann = seat("ann", script=lambda _: next(answers))
    one = council(ann, store=store)
    failed = one.run("x", files=[PNG, PDF], strategy="single")
    assert not failed.success
    resumed = one.resume(failed.run_id)
    assert resumed.success
    first, again = ann.requests
    assert first.messages == again.messages
    replayed = one.replay(failed.run_id)
    assert replayed.text == resumed.text
    assert len(ann.requests) == 2


def test_a_plan_in_json_holds_the_hash_alone() -> None:
    plan = council(seat("ann")).plan("x", files=[PNG])
    loaded = load(Plan, json.loads(json.dumps(dump(plan))))
    assert loaded == plan
    assert loaded.files[0].data is None
    with pytest.raises(InvalidOption, match="name it anew"):
        council(seat("ann")).plan("x", files=loaded.files)


def test_a_file_is_counted_in_the_estimate() -> None:
    one = council(seat("ann"))
    with pytest.raises(Exception, match="tokens") as caught:
        one.run("x", files=[PNG], budget=Budget(tokens=1500)).raise_for_failure()
    assert "tokens" in str(caught.value)
    assert one.run("x", budget=Budget(tokens=1500), strategy="single").success


def test_a_cached_answer_is_that_of_the_same_picture() -> None:
    from llm_council.middleware.cache import key_of

    def asked(data: bytes) -> GenerateRequest:
        part = Attachment(data).part()
        return GenerateRequest(messages=[Message("user", [part, TextPart(text="What?")])])

    assert key_of(asked(PNG), "a") == key_of(asked(PNG), "a")
    assert key_of(asked(PNG), "a") != key_of(asked(PNG + b"."), "a")
    plain = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema={"type": "object"}))
    assert key_of(plain, "a") is not None
