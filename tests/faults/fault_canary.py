"""The search for the planted keys in everything that a test made the library show or write."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from fault_keys import KEY, TOKEN

from llm_council import events
from llm_council._engine import run
from llm_council.errors import CouncilError

__all__ = ["OutputCollector", "assert_no_keys", "collectors", "texts_of_error"]

HERE = str(Path(__file__).parent)
collectors: list[OutputCollector] = []  # that of the test that runs
MOST = 60  # of each kind that a test made are looked at, the newest: a loop makes many alike


class OutputCollector:
    """Errors, events, results, logs and files of one test, and the debug output of libraries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        collectors[:] = [self]
        self.errors: list[CouncilError] = []
        self.published: list[Any] = []
        self.logs = io.StringIO()
        self.folder = folder
        self._handler = logging.StreamHandler(self.logs)
        initialise, emit, publish = CouncilError.__init__, events.emit, run._publish

        def collect_error(error: CouncilError, *args: Any, **facts: Any) -> None:
            initialise(error, *args, **facts)
            self.errors.append(error)

        def collect_result(state: Any, result: Any, on_result: Any) -> None:
            self.published.append(result)
            publish(state, result, on_result)

        monkeypatch.setattr(CouncilError, "__init__", collect_error)
        monkeypatch.setattr(run, "_publish", collect_result)
        for name, module in list(sys.modules.items()):
            if name.startswith("llm_council.") and vars(module).get("emit") is emit:
                monkeypatch.setattr(module, "emit", lambda event: (self.published.append(event), emit(event))[1])
        monkeypatch.setattr(HTTPConnection, "debuglevel", 1)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        root = logging.getLogger()
        monkeypatch.setattr(root, "level", logging.DEBUG)
        root.manager._clear_cache()  # type: ignore[attr-defined]  # of which levels are enabled
        for logger in list(root.manager.loggerDict.values()):
            if isinstance(logger, logging.Logger) and logger.level > logging.DEBUG:
                monkeypatch.setattr(logger, "level", logging.DEBUG)
        root.addHandler(self._handler)

    def forget(self) -> None:
        """Drop the collected texts, for a test of references."""
        self.errors.clear()
        self.published.clear()

    def close(self) -> None:
        """Stop collecting."""
        collectors.clear()
        logging.getLogger().removeHandler(self._handler)

    def shown_texts(self) -> Iterator[tuple[str, str]]:
        """Yield every collected text, with its place."""
        yield "the logs", self.logs.getvalue()
        for error in self.errors[-MOST:]:
            yield from texts_of_error(error)
        for published in self.published[-MOST:]:
            yield f"a {type(published).__name__}", _shown(published)
            if hasattr(published, "to_dict"):
                yield "a result or an event as data", json.dumps(published.to_dict(), default=repr)
            if hasattr(published, "to_markdown"):
                yield "a report", published.to_markdown()
            with suppress(TypeError, AttributeError, pickle.PicklingError):  # it may hold an error of a test's own
                yield "a pickle", pickle.dumps(published).decode("latin-1")
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield f"the file {path.name}", path.read_bytes().decode("latin-1")


def texts_of_error(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield every text that an error shows, with its place."""
    with suppress(TypeError, AttributeError, pickle.PicklingError):  # its cause may be an exception of a test's own
        yield "a pickled error", pickle.dumps(error).decode("latin-1")
        yield "a copied error", repr(vars(copy.deepcopy(error)))
    seen: list[BaseException | None] = [None]
    trace = error.__traceback__
    left = trace is not None and HERE in trace.tb_frame.f_code.co_filename  # else it never left the library
    while error not in seen:
        yield "an error and its causes", f"{_shown(error)} {_shown(vars(error))} {_shown(error.args)}"
        for frame, line in traceback.walk_tb(error.__traceback__) if left else ():
            if HERE not in frame.f_code.co_filename:
                where = f"{frame.f_code.co_filename}:{line}"
                yield f"a local of {where}", " ".join(f"{name}={_shown(it)}" for name, it in frame.f_locals.items())
        seen.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)  # type: ignore[assignment]


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return ""


def assert_no_keys(shown: Iterator[tuple[str, str]]) -> None:
    """Assert that no text contains one of the keys."""
    for where, text in shown:
        for key in (KEY, TOKEN):
            assert key not in text, f"the key is in {where}: {text[max(0, text.index(key) - 300) :][:600]}"
