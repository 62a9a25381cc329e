"""What mypy --strict and pyright infer of ``output_type``. Nothing here runs."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar, assert_type

import attrs
import pydantic

from llm_council import Budget, Council, CouncilMap, CouncilResult, CouncilStream, Plan, RunOptions, Task

T = TypeVar("T")


class Colour(Enum):
    RED = "red"


@attrs.frozen
class Report:
    title: str


@dataclasses.dataclass
class Note(Generic[T]):
    text: T


class Table(TypedDict):
    rows: list[int]


class Point(NamedTuple):
    x: int


class Model(pydantic.BaseModel):
    size: int


def blocking(council: Council) -> None:
    assert_type(council.run("Report", output_type=Report), CouncilResult[Report])
    assert_type(council.run("Report", output_type=Report).output, Report | None)
    assert_type(council.run("Report", "reviewer", output_type=Report, temperature=0.1), CouncilResult[Report])
    assert_type(council.run_sync("Report", output_type=Report), CouncilResult[Report])
    assert_type(council.run("Report", output_type=Report).raise_for_failure(), CouncilResult[Report])
    with council.stream("Report", output_type=Report) as stream:
        assert_type(stream, CouncilStream[Report])
    assert_type(stream.result, CouncilResult[Report])
    assert_type(council.plan("Report", output_type=Report), Plan)
    assert_type(council.replay("0f3a", output_type=Report), CouncilResult[Report])
    assert_type(council.replay_sync("0f3a", output_type=Report), CouncilResult[Report])
    assert_type(council.resume("0f3a", output_type=Report, store="runs.db"), CouncilResult[Report])
    assert_type(council.resume_sync("0f3a", output_type=list[Report]), CouncilResult[list[Report]])


async def awaited(council: Council) -> None:
    assert_type(await council.run("Report", output_type=Report), CouncilResult[Report])
    assert_type(await council.arun("Report", output_type=Report), CouncilResult[Report])
    assert_type(await council.areplay("0f3a", output_type=Report), CouncilResult[Report])
    assert_type(await council.aresume("0f3a", output_type=Report), CouncilResult[Report])
    async with council.stream("Report", output_type=Report) as stream:
        assert_type(stream.result, CouncilResult[Report])


def many(council: Council, options: RunOptions) -> None:
    with council.map(["a", Task("b", id="2"), {"task": "c"}], output_type=Report) as mapped:
        assert_type(mapped, CouncilMap[Report])
        for result in mapped:
            assert_type(result, CouncilResult[Report])
            assert_type(result.output, Report | None)
            assert_type(result.task_id, str | None)
    assert_type(council.map(iter("ab")), CouncilMap[Any])
    assert_type(council.map(["a"], output_type=Literal["a", "b"], ordered=False), CouncilMap[Literal["a", "b"]])
    assert_type(council.map(["a"], output_type=list[int], concurrency=3, **options), CouncilMap[list[int]])
    assert_type(council.map(["a"], subagent="reviewer", budget=Budget(usd=3)), CouncilMap)
    _ = council.map([3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    _ = council.map(["a"], ordred=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def many_awaited(council: Council, tasks: AsyncIterator[str]) -> None:
    async with council.map(tasks, output_type=int) as mapped:
        async for result in mapped:
            assert_type(result, CouncilResult[int])


def kinds(council: Council) -> None:
    assert_type(council.run("?", output_type=bool).output, bool | None)
    assert_type(council.run("?", output_type=int).output, int | None)
    assert_type(council.run("?", output_type=float).output, float | None)
    assert_type(council.run("?", output_type=str).output, str | None)
    assert_type(council.run("?", output_type=Colour).output, Colour | None)
    assert_type(council.run("?", output_type=datetime).output, datetime | None)
    assert_type(council.run("?", output_type=Decimal).output, Decimal | None)
    assert_type(council.run("?", output_type=Table).output, Table | None)
    assert_type(council.run("?", output_type=Point).output, Point | None)
    assert_type(council.run("?", output_type=Model).output, Model | None)
    assert_type(council.run("?", output_type=Note[int]).output, Note[int] | None)
    assert_type(council.run("?", output_type=list[Report]).output, list[Report] | None)
    assert_type(council.run("?", output_type=dict[str, Report]).output, dict[str, Report] | None)
    assert_type(council.run("?", output_type=Mapping[str, int]).output, Mapping[str, int] | None)
    assert_type(council.run("?", output_type=Report | Table).output, Report | Table | None)
    assert_type(council.run("?", output_type=Literal["a", "b"]).output, Literal["a", "b"] | None)


def untyped(council: Council, result: CouncilResult, options: RunOptions) -> CouncilResult:
    assert_type(council.run("?"), CouncilResult[Any])
    assert_type(council.run("?", output_type=None), CouncilResult)
    assert_type(council.run("?", **options), CouncilResult[Any])
    assert_type(council.run("?", output_type=Report, **options), CouncilResult[Report])
    assert_type(result.output, Any | None)
    return council.run("?", output_type=Report)


def refused(council: Council) -> None:
    _ = council.run("?", output_type=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    wrong: CouncilResult[int] = council.run("?", output_type=Report)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    print(wrong)
