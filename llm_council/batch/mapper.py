"""``CouncilMapper``: a council as a function over batches of rows, for the workers of a data engine."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from llm_council import _runtime
from llm_council.batch._columns import Column, check_names, open_batch
from llm_council.batch._fields import fields_for
from llm_council.batch._worker_councils import CouncilRecipe
from llm_council.errors import CouncilError, InvalidOption
from llm_council.models import Plan
from llm_council.models._attrs import is_int
from llm_council.providers._call.pacing import Pacer
from llm_council.results import CouncilResult

if TYPE_CHECKING:
    from llm_council.subagents import Subagent

__all__ = ["CouncilMapper"]

_CONCURRENCY: Final = 16  # runs at once in each batch


class _Council(Protocol):
    """What a mapper uses of a ``Council``."""

    def plan(self, task: str, subagent: str | Subagent = ..., **options: Any) -> Plan: ...

    async def arun(self, task: str, subagent: str | Subagent = ..., **options: Any) -> CouncilResult[Any]: ...

    def close(self) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]: ...


class CouncilMapper:
    """A council as a function over batches of rows, which Dask, Ray Data, datasets and process pools send to workers.

    ::

        mapper = CouncilMapper(Council(["openai", "anthropic"]), task="question", columns={"answer": "output.answer"})
        frame.map_partitions(mapper)             # Dask
        rows.map_batches(mapper, batch_size=64)  # Ray Data
        dataset.map(mapper, batched=True)        # datasets

    A batch is a list of dicts, a dict of columns, a pandas DataFrame or an Arrow table; the same type comes back, with
    every row and the new columns. The pickle of a mapper holds names and settings and no key: each worker process
    reads the keys from its own environment, makes one council for all batches, and closes it at its exit.

    Args:
        council: the council. To be sent to workers it must hold names, not adapter instances.
        task: name of the column with the tasks.
        subagent: the role, as in ``Council.run``.
        columns: the new columns: names of fields of ``CouncilResult``, or column names with fields; parts are named
            with dots (``"output.answer"``, ``"cost.usd"``). None is the output. ``status`` and ``error`` are always
            among them; the error of a run with an answer is an empty text. Types follow the schema of the output;
            what is neither text, number nor bool becomes JSON.
        concurrency: runs at once in each batch; None is 16.
        **options: the options of every run, as in ``Council.run``; ``budget`` limits each run.

    Raises:
        ConfigurationError: an option is wrong, or a result has no such field; nothing was sent.
    """

    def __init__(
        self,
        council: _Council,
        task: str = "task",
        subagent: str | Subagent = "advisor",
        *,
        columns: Mapping[str, str] | Sequence[str] | None = None,
        concurrency: int | None = None,
        **options: Any,
    ) -> None:
        if not hasattr(council, "arun"):
            raise InvalidOption(f"council: expected a Council, as in Council([...]), got {type(council).__name__}")
        if concurrency is not None and (not is_int(concurrency) or concurrency < 1):
            raise InvalidOption(f"concurrency: expected a whole number of 1 or more, got {concurrency!r:.80}")
        plan = council.plan("(a task of the batch)", subagent, **options)
        self._fields = fields_for(columns, plan.schema)
        self._council: _Council | None = council
        self._recipe: CouncilRecipe | None = None
        self._task, self._subagent, self._options = task, subagent, options
        self._concurrency = _CONCURRENCY if concurrency is None else concurrency

    def __call__(self, rows: Any) -> Any:
        """Run the council on every row of a batch. Blocks; an event loop of the library's own does the work.

        A row whose run failed, or whose task is no text, is there with the status "failed" and its error.

        Args:
            rows: a list of dicts, a dict of columns, a pandas DataFrame, or an Arrow table or record batch.

        Raises:
            InvalidOption: the rows lack the column of the tasks, or have one of the new columns already.
            InsideEventLoopError: an event loop runs in this thread; await ``acall`` there.
        """
        _runtime.refuse_inside_loop(self.acall, "CouncilMapper.__call__")
        # Dask calls the function on a few rows to learn its columns: nobody is to pay for those.
        return _runtime.call(self.acall, rows[:0] if _is_dask_guessing() else rows)

    async def acall(self, rows: Any) -> Any:
        """Run the council on every row of a batch; see ``__call__``."""
        batch = open_batch(rows)
        check_names(batch, self._task, [field.name for field in self._fields])
        tasks = batch.read(self._task) if batch.names else []
        outcomes = await self._run(tasks)
        columns = [
            Column(field.name, field.kind, [field.value(outcome) for outcome in outcomes]) for field in self._fields
        ]
        return batch.extended(columns)

    async def _run(self, tasks: Sequence[Any]) -> list[CouncilResult[Any] | CouncilError]:
        """Return the result of each task, or the error of one for which no run started."""
        outcomes: list[CouncilResult[Any] | CouncilError] = [_no_text(task) for task in tasks]
        if not tasks:
            return outcomes
        council, limiter, pacer = self._seated(), anyio.CapacityLimiter(self._concurrency), Pacer()

        async def run(number: int, task: str) -> None:
            async with limiter:
                await pacer.wait_for_room()
                try:
                    with pacer.active():
                        outcomes[number] = await council.arun(task, self._subagent, **self._options)
                except CouncilError as error:
                    outcomes[number] = error

        async with anyio.create_task_group() as group:
            for number, task in enumerate(tasks):
                if isinstance(task, str):
                    group.start_soon(run, number, str(task))
        return outcomes

    def _seated(self) -> _Council:
        """Return the council: the given one where the mapper was made, elsewhere the one of this process."""
        if self._council is not None:
            return self._council
        if self._recipe is None:
            raise LookupError("a mapper from a pickle has a recipe")
        council: _Council = self._recipe.council()
        return council

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the names of the council, its configuration and the options; no key is in the pickle.

        Raises:
            TypeError: the council holds adapter instances, or a key outside the fields for keys.
        """
        if self._recipe is None and self._council is not None:
            self._recipe = CouncilRecipe.of(self._council)
        return _from_pickle, (type(self), {**vars(self), "_council": None})

    def __repr__(self) -> str:
        where = "" if self._council is None else f"{self._council!r}, "
        return f"CouncilMapper({where}task={self._task!r}, columns={[field.name for field in self._fields]!r})"


def _from_pickle(kind: type[CouncilMapper], state: dict[str, Any]) -> CouncilMapper:
    mapper = kind.__new__(kind)
    vars(mapper).update(state)
    return mapper


def _no_text(task: object) -> CouncilError:
    return InvalidOption(f"task: expected a text, got {type(task).__name__}")


def _is_dask_guessing() -> bool:
    """Return True if Dask calls the function to learn the columns that it returns, see ``dask.dataframe``."""
    frame = sys._getframe() if "dask" in sys.modules else None
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("dask.") and frame.f_code.co_name == "emulate":
            return True
        frame = frame.f_back
    return False
