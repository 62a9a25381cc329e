"""A council as a function over batches of rows: containers, columns, failures, pickles, worker processes."""

from __future__ import annotations

import json
import pickle
from typing import Any

import attrs
import pytest

from llm_council import Budget, Council, CouncilConfig, CouncilMapper, errors
from llm_council.batch import _worker_councils as worker_councils
from llm_council.models import GenerateRequest, RetryPolicy
from llm_council.testing.fakes import ScriptedProvider

CANARY = "canary-in-the-coal-mine"


def reply(request: GenerateRequest) -> str | Exception:
    """Answer with JSON; a task with the word "broken" fails."""
    if "broken" in str(request.messages):
        return ValueError("it broke")
    return json.dumps({"answer": "Paris", "reasoning": "known"})


class Ready(ScriptedProvider):
    """A provider that its class can seat."""

    name = "ready"

    def __init__(self) -> None:
        super().__init__(reply)


def council(**options: Any) -> Council:
    return Council([Ready], config=CouncilConfig(), strategy="single", **options)


COLUMNS = {"answer": "output.answer", "fine": "success", "tokens": "usage.total_tokens"}


@pytest.fixture
def mapper() -> CouncilMapper:
    return CouncilMapper(council(), "question", columns=COLUMNS)


def test_rows_come_back_with_new_columns_and_are_not_changed(mapper: CouncilMapper) -> None:
    rows = [{"question": "Capital of France?", "id": 7}, {"question": "And of Italy?", "id": 8}]
    first, second = mapper(rows)
    assert (first["id"], first["answer"], first["fine"], first["status"], first["error"]) == (
        *(7, "Paris", True),
        *("completed", ""),
    )
    assert first["tokens"] > 0
    assert second["id"] == 8
    assert rows[0] == {"question": "Capital of France?", "id": 7}


def test_columns_come_back_as_columns(mapper: CouncilMapper) -> None:
    out = mapper({"question": ["a", "b"], "id": (1, 2)})
    assert out["id"] == (1, 2)
    assert out["answer"] == ["Paris", "Paris"]
    assert list(out) == ["question", "id", "answer", "fine", "tokens", "status", "error"]


@pytest.mark.parametrize("rows", [[], {}, {"question": []}])
def test_an_empty_batch_stays_empty(mapper: CouncilMapper, rows: Any) -> None:
    out = mapper(rows)
    assert type(out) is type(rows)
    assert all(values == [] for values in out.values()) if isinstance(out, dict) else out == []


def test_a_run_that_failed_is_a_row_with_its_error(mapper: CouncilMapper) -> None:
    good, bad = mapper([{"question": "fine"}, {"question": "broken"}])
    assert good["status"] == "completed"
    assert (bad["answer"], bad["fine"], bad["tokens"], bad["status"]) == (None, False, None, "failed")
    assert bad["error"].startswith("QuorumLost: ")
    assert "it broke" in bad["error"]


@pytest.mark.parametrize("task", [None, float("nan"), 3, "", "   "])
def test_a_task_that_is_no_text_fails_alone(mapper: CouncilMapper, task: object) -> None:
    bad, good = mapper([{"question": task}, {"question": "fine"}])
    assert (bad["status"], good["status"]) == ("failed", "completed")
    assert bad["error"].startswith("InvalidOption: ")


def test_a_key_that_is_missing_fails_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (row,) = CouncilMapper(Council(["openai/gpt-5"], config=CouncilConfig()), "q")([{"q": "a"}])
    assert row["status"] == "failed"
    assert "OPENAI_API_KEY" in row["error"]


def test_the_output_is_a_column_by_default() -> None:
    (row,) = CouncilMapper(council(), "q")([{"q": "a"}])
    assert json.loads(row["output"])["answer"] == "Paris"
    (row,) = CouncilMapper(council(), "q", output_type=str)([{"q": "a"}])
    assert "Paris" in row["output"]


@attrs.frozen
class City:
    name: str
    inhabitants: int
    density: float | None
    capital: bool
    twins: list[str]


def test_types_of_columns_follow_the_type_of_the_output() -> None:
    value = {"name": "Paris \ud800", "inhabitants": 2**80, "density": 3, "capital": True, "twins": ["Rome"]}
    seat = ScriptedProvider(json.dumps(value))
    columns = {name: f"output.{name}" for name in value}
    cities = CouncilMapper(
        Council([seat], config=CouncilConfig(), strategy="single"), "q", columns=columns, output_type=City
    )
    (row,) = cities([{"q": "a"}])
    assert row["error"] == ""
    assert row["name"].startswith("Paris ")
    row["name"].encode()  # Arrow takes no half of a surrogate pair
    assert (row["inhabitants"], row["density"], row["capital"]) == (None, 3.0, True)  # 2 ** 80 fits into no column
    assert isinstance(row["density"], float)
    assert json.loads(row["twins"]) == ["Rome"]


@pytest.mark.parametrize(
    ("columns", "meant"),
    [
        (["outptu"], "did you mean 'output'"),
        (["output.anser"], "did you mean 'answer'"),
        (["cost.us"], "did you mean 'cost.usd'"),
        ("output", r"columns=\['output'\]"),
        ({"a": 3}, "names of columns"),
    ],
)
def test_a_field_that_does_not_exist_is_refused_when_the_mapper_is_made(columns: Any, meant: str) -> None:
    with pytest.raises(errors.InvalidOption, match=meant):
        CouncilMapper(council(), "q", columns=columns)


def test_options_are_checked_when_the_mapper_is_made() -> None:
    with pytest.raises(errors.UnknownOption, match="did you mean 'strategy'"):
        CouncilMapper(council(), "q", stratgy="poll")
    with pytest.raises(errors.InvalidOption, match="concurrency"):
        CouncilMapper(council(), "q", concurrency=0)
    with pytest.raises(errors.InvalidOption, match=r"expected a Council, as in"):
        CouncilMapper(["ready"], "q")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"question": "one row"}, "batched=True"),
        ([{"questions": "a"}], "did you mean 'questions'"),
        ([{"question": "a", "status": 1}], '"council_status": "status"'),
        ({"question": ["a"], "id": [1, 2]}, "same length"),
        (7, "a pandas DataFrame"),
        (["a"], "list of dicts"),
    ],
)
def test_a_batch_of_another_shape_is_refused_before_anything_is_sent(
    mapper: CouncilMapper, rows: Any, message: str
) -> None:
    with pytest.raises(errors.InvalidOption, match=message):
        mapper(rows)


def test_runs_of_a_batch_are_bounded() -> None:
    seat = ScriptedProvider(reply, delay=0.001)
    bounded = CouncilMapper(
        Council([seat], config=CouncilConfig(), strategy="single"), "q", concurrency=3, budget=Budget(calls=4)
    )
    bounded([{"q": str(number)} for number in range(10)])
    assert seat.most_at_once == 3


def test_a_row_that_a_vendor_refuses_waits_for_its_turn_and_uses_up_no_retry() -> None:
    refusals = [errors.RateLimited("later", retry_after=0.01)] * 5
    provider = ScriptedProvider(lambda request: refusals.pop() if refusals else reply(request))
    config = CouncilConfig(retry=RetryPolicy(max_retries=0))
    mapper = CouncilMapper(Council([provider], config=config, strategy="single"), "question")
    rows = mapper([{"question": f"Capital number {number}?"} for number in range(20)])
    assert {row["status"] for row in rows} == {"completed"}
    assert len(provider.requests) == 25


@pytest.mark.anyio
async def test_a_loop_that_runs_awaits_the_mapper(mapper: CouncilMapper) -> None:
    with pytest.raises(errors.InsideEventLoopError, match=r"CouncilMapper\.acall\(\)"):
        mapper([{"question": "a"}])
    (row,) = await mapper.acall([{"question": "a"}])
    assert row["answer"] == "Paris"


def test_copies_from_pickles_share_one_council_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_councils, "_councils", {})
    written = pickle.dumps(CouncilMapper(council(), "q", columns=COLUMNS))
    other = pickle.dumps(CouncilMapper(council(budget=Budget(calls=9)), "q"))
    for copy in (written, written, other):
        (row,) = pickle.loads(copy)([{"q": "a"}])
        assert row["status"] == "completed"
    assert len(worker_councils._councils) == 2
    worker_councils.close_councils()
    assert worker_councils._councils == {}


def test_a_worker_holds_a_bounded_number_of_councils(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_councils, "_councils", {})
    for calls in range(1, 12):
        pickle.loads(pickle.dumps(CouncilMapper(council(budget=Budget(calls=calls)), "q")))([{"q": "a"}])
    assert len(worker_councils._councils) == worker_councils._MOST


def test_equal_mappers_have_equal_pickles() -> None:
    first, second = (pickle.dumps(CouncilMapper(council(), "q", columns=COLUMNS)) for _ in range(2))
    assert first == second


def test_a_mapper_that_holds_adapters_works_here_and_names_the_remedy_when_it_is_sent() -> None:
    held = CouncilMapper(Council([Ready()], config=CouncilConfig()), "q")
    assert held([{"q": "a"}])[0]["status"] == "completed"
    with pytest.raises(TypeError, match=r"adapter instances \(Ready\): name its providers"):
        pickle.dumps(held)


def test_no_key_is_in_a_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("GATEWAY_KEY", CANARY)
    gateway = {"kind": "openai-compatible", "base_url": "http://127.0.0.1:9/v1", "default_model": "m"}
    for key in ("${GATEWAY_KEY}", CANARY):
        config = CouncilConfig(instances={"gateway": {**gateway, "api_key": key}})
        written = pickle.dumps(CouncilMapper(Council(["openai/gpt-5", "gateway"], config=config), "q"))
        assert CANARY.encode() not in written
    with pytest.raises(errors.MissingCredentials, match=r"\$\{VARIABLE\}"):  # the last one stood in the file itself
        pickle.loads(written)([{"q": "a"}])


WORKERS = """
import json, multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from llm_council import Council, CouncilConfig, CouncilMapper
from llm_council.testing.fakes import ScriptedProvider

class Seat(ScriptedProvider):
    name = "seat"
    def __init__(self):
        key = os.environ.get("SEAT_KEY", "none")
        super().__init__(json.dumps({"answer": f"{os.getpid()} {key}", "reasoning": "x"}))
    async def aclose(self):
        with Path(sys.argv[1], str(os.getpid())).open("a") as file:
            file.write("closed\\n")

def work(mapper, start):
    os.environ["SEAT_KEY"] = start  # the worker's own environment
    return [mapper([{"q": "a"}]), mapper({"q": ["b"]})]

if __name__ == "__main__":
    mapper = CouncilMapper(
        Council([Seat], config=CouncilConfig()), "q", columns={"by": "output.answer"}, strategy="single"
    )
    for start in ("fork", "forkserver", "spawn"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(start)) as pool:
            ((row,), columns), again = (pool.submit(work, mapper, start).result() for _ in range(2))
        pid, key = row["by"].split()
        assert key == start and int(pid) != os.getpid()
        assert columns["by"] == [row["by"]] == again[1]["by"]
        assert Path(sys.argv[1], pid).read_text() == "closed\\n", start
    print("done")
"""


def test_workers_started_in_any_way_make_one_council_from_their_environment_and_close_it(
    python: Any, tmp_path: Any
) -> None:
    (tmp_path / "closed").mkdir()
    done = python(WORKERS, str(tmp_path / "closed"))
    assert (done.stderr, done.stdout) == ("", "done\n")
