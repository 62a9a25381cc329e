"""The class ``Council``: connects configuration, seats, engine and store. The state of a run is in the engine only."""

from __future__ import annotations

import copy
import inspect
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, TypeAlias, TypedDict, TypeVar, Unpack, cast, overload

import anyio
import attrs

from llm_council import _engine, _runtime, pricing
from llm_council._runtime.live_runs import LiveRuns
from llm_council._seats.attachments import find_empty, read_files
from llm_council._seats.keywords import unknown_keyword
from llm_council._seats.seating import Seating, origin_of_fault
from llm_council._seats.sight import check_sizes, find_blind
from llm_council.config import CouncilConfig, Seat
from llm_council.errors import InvalidOption
from llm_council.errors._secrets import hide_password, redact
from llm_council.events import AnyEvent, Event, Listener, as_listeners, listening
from llm_council.models import Attachment, Budget, DoctorResult, Message, Phase, Plan, SeatSpec, Task
from llm_council.models._attrs import copy_with
from llm_council.models._journal import NO_JOURNAL, Journal
from llm_council.providers.base import ProviderAdapter, examine
from llm_council.results import CouncilResult, OutputT
from llm_council.results._awaitable import AwaitableDict

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from typing_extensions import TypeForm

    from llm_council._engine.budget import Ledger
    from llm_council._engine.history import History
    from llm_council._schema.typed import OutputType
    from llm_council.batch._chunks import CouncilSource
    from llm_council.batch.map import CouncilMap, RunTask, Tasks
    from llm_council.batch.restart import Restart
    from llm_council.batch.shared_budget import SharedBudget
    from llm_council.store import RunStore, Store
    from llm_council.strategies import Strategy
    from llm_council.subagents import Subagent

__all__ = ["Council", "CouncilStream", "RunOptions"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class RunOptions(TypedDict, total=False):
    """The options of ``run``, ``stream`` and ``plan`` in one dict; ``Council.run`` explains each.

    All but ``output_type``, which type checkers must see in the call itself: it is the type of the result's output.
    """

    mode: str | None
    context: str | None
    files: Sequence[str | PathLike[str] | bytes | Attachment]
    history: CouncilResult[Any] | str | Sequence[Message] | None
    schema: Mapping[str, Any] | None
    budget: Budget | None
    strategy: str | Strategy | None
    temperature: float | None
    max_tokens: int | None
    metadata: Mapping[str, Any] | None
    store: str | PathLike[str] | Literal[False] | None


class _AllOptions(RunOptions, total=False):
    output_type: OutputType | None


_Core: TypeAlias = Callable[..., Coroutine[Any, Any, CouncilResult[Any]]]
_RUN_ARGUMENTS = ("task", "subagent", "output_type", *RunOptions.__annotations__)


def _known_options(method: F) -> F:
    """Leave ``**unknown`` out of the signature that ``help()`` shows. It is there to name the option that was meant."""
    shown = inspect.signature(method)
    known = [parameter for parameter in shown.parameters.values() if parameter.name != "unknown"]
    method.__signature__ = shown.replace(parameters=known)  # type: ignore[attr-defined]
    return method


def _options(unknown: Mapping[str, Never], output_type: Any, **options: Unpack[RunOptions]) -> _AllOptions:
    """Return the options of a run in one dict.

    Raises:
        UnknownOption: there is an unknown one; the message names the nearest known one, or where it belongs.
        InvalidOption: the type of the output cannot be described.
    """
    for name in unknown:
        places = {"pass it to the council, as in Council(..., {}=...)": inspect.signature(Council).parameters}
        raise unknown_keyword(name, "a run", _RUN_ARGUMENTS, places)
    return {**options, "output_type": _output_type(output_type)}


def _output_type(kind: Any) -> OutputType | None:
    """Return what a run needs to know of the type of its output; None if there is none."""
    if kind is None:
        return None
    from llm_council._schema.typed import OutputType, output_type_of  # imports cattrs

    return kind if isinstance(kind, OutputType) else output_type_of(kind)


def _check_path(name: str, value: object) -> None:
    if not isinstance(value, str | PathLike):
        raise InvalidOption(f"{name}: expected a path, got {value!r:.80}")


class CouncilStream(_runtime.DualStream[AnyEvent, CouncilResult[OutputT]], Generic[OutputT]):
    """The events of one run, for ``for`` and ``async for``. ``result`` is set once the run has ended."""


def _from_pickle(
    kind: type[Council],
    names: Sequence[str],
    config: CouncilConfig,
    listeners: Sequence[Listener],
    strategy: Strategy | None = None,
) -> Council:
    return kind(names, config=config, listeners=listeners, strategy=strategy)


def _name_of(strategy: str | Strategy) -> str:
    return strategy if isinstance(strategy, str) else strategy.name


def _check_strategy(value: object) -> None:
    """Refuse what is no strategy; whether a name is known, and the options, are checked when a run is planned."""
    if value is None or isinstance(value, str):
        return
    from llm_council.strategies import Strategy  # loads with the first strategy that is no name

    if not isinstance(value, Strategy):
        raise InvalidOption(
            f"strategy: there is no strategy {value!r:.80}: expected a name, or an instance of a Strategy"
        )
    name: object = getattr(value, "name", None)
    if not isinstance(name, str) or not name:
        raise InvalidOption(f"strategy: {type(value).__name__} has no name: set the class attribute 'name'")


class Council(_runtime.Closeable):
    """Several language models that work on one task. One council may serve any number of runs at once.

    Args:
        providers: the seats: names (``"openrouter"``), models (``"openrouter/anthropic/claude-sonnet-4.6"``), counts
            (``"local:3"``), personas of the configuration (``"openai@sceptic"``), a ``Seat`` with a persona of its
            own, adapter instances or classes. None uses the configuration's, else one seat for each provider whose key
            is set, else one for each configured provider; a single one gets three seats.
        config: the configuration; None reads the user's file and the environment.
        chair: name of the seat that writes the final answer; None uses the configuration's, else the plan decides.
        strategy: how the seats deliberate: a name, or a strategy with options, such as one of
            ``llm_council.strategies``. None uses the configuration's, else ``"auto"``: answers that can be counted are
            polled, others are synthesised.
        budget: limits of each run; they override the configuration's one by one.
        listeners: called with every event of every run, in the thread that runs it; not async.
        store: path of the file in which runs are stored, or the address of another store, see ``open_store``; None
            uses the configuration's, else nothing is stored.
        **unknown: there are no further options; any raises ``UnknownOption``.

    Raises:
        ConfigurationError: an unknown provider, no available provider (the message lists the ways on), or an
            unreadable configuration.
    """

    _restart: Restart | None = None

    @_known_options
    def __init__(
        self,
        providers: Sequence[str | Seat | ProviderAdapter | type[ProviderAdapter]] | None = None,
        *,
        config: CouncilConfig | None = None,
        chair: str | None = None,
        strategy: str | Strategy | None = None,
        budget: Budget | None = None,
        listeners: Sequence[Listener] = (),
        store: str | PathLike[str] | None = None,
        **unknown: Never,
    ) -> None:
        for name in unknown:
            places = {"pass it to the run, as in council.run(task, {}=...)": _RUN_ARGUMENTS}
            raise unknown_keyword(name, "Council", inspect.signature(Council).parameters, places)
        if store is not None:
            _check_path("store", store)
        self._listeners = as_listeners(listeners)
        config = CouncilConfig.load() if config is None else config
        if not isinstance(config, CouncilConfig):
            raise InvalidOption(f"config: expected a CouncilConfig, got {type(config).__name__}")
        _check_strategy(strategy)
        self._strategy = None if strategy is None or isinstance(strategy, str) else strategy
        try:
            self._config = attrs.evolve(
                config,
                chair=config.chair if chair is None else chair,
                strategy=config.strategy if strategy is None else _name_of(strategy),
                budget=config.budget.overlaid(budget),
                store=config.store if store is None else fspath(store),
            )
        except InvalidOption as error:  # the caller passed them to this class
            raise error._reword(error.message.removeprefix("CouncilConfig.")) from None
        self._seating = Seating.fill(providers, self._config)
        self._sitters = None if providers is None else tuple(providers)
        self._price = pricing.price_of(self._seating.adapters)
        self._live_runs = LiveRuns()

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the seats, in order."""
        return tuple(spec.name for spec in self._seating.specs)

    @property
    def config(self) -> CouncilConfig:
        """The configuration, overridden by the arguments of this council."""
        return self._config

    @overload
    def run(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: None = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
    ) -> CouncilResult[Any]: ...

    @overload
    def run(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: type[T],
        **options: Unpack[RunOptions],
    ) -> CouncilResult[T]: ...

    @overload
    def run(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: TypeForm[T],
        **options: Unpack[RunOptions],
    ) -> CouncilResult[T]: ...

    @_known_options
    def run(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: Any = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
        **unknown: Never,
    ) -> CouncilResult:
        """Run the council on a task. Blocks in plain code; must be awaited in a running event loop.

        Under IPython, a function that is no coroutine, or a script started with ``%run``, blocks too.

        Args:
            task: the task.
            subagent: the role: a name that ``council subagents`` lists, or a ``Subagent``, such as one of
                ``subagents.from_file``.
            output_type: type of the output: a class of attrs, dataclasses, pydantic or msgspec, a TypedDict,
                NamedTuple, Enum, Literal, union, ``list[...]``, ``dict[str, ...]``, ``int``, ``bool`` and others;
                ``str`` is prose. The schema is made of it, in place of the subagent's. None leaves the output a JSON
                value.
            mode: a mode of the subagent; None selects its default mode.
            context: further text for every seat.
            files: files for every seat: paths, bytes, or ``Attachment`` objects of UTF-8 text, images, PDF and sound,
                told apart by their content. No other file is read, and no address is fetched. A seat that cannot see or
                hear one takes no part in the run.
            history: what the task goes on from: an earlier result, the id of a stored run (the beginning of the id is
                enough; ``"last"`` is the latest run), or turns of user and assistant, the oldest first. The seats see
                the earlier tasks, answers and dissent, but no draft. None is a task of its own.
            schema: JSON Schema of the answer; None uses the subagent's.
            budget: limits of this run; they override the council's one by one.
            strategy: ``"auto"``, ``"synthesize"``, ``"poll"``, ``"rank"``, ``"single"``, the name of another one, or a
                strategy with options; None uses the council's.
            temperature: sampling temperature, 0 or more; None uses the configuration's, then the subagent's.
            max_tokens: maximum tokens of one answer, 1 or more; None likewise.
            metadata: data of the caller, returned as ``CouncilResult.metadata``.
            store: path of the file in which the run is stored; None uses the council's store, False stores nothing.
            **unknown: there are no further options; any raises ``UnknownOption``.

        Returns:
            The result; in a running event loop, one that must be awaited first. A failed run also returns a result, see
            ``CouncilResult.error`` and ``raise_for_failure``.

        Raises:
            ConfigurationError: an argument or a setting is wrong; nothing was sent.
            StoreError: ``history`` names a run that is not stored.
        """
        options = _options(
            unknown,
            output_type,
            mode=mode,
            context=context,
            files=files,
            history=history,
            schema=schema,
            budget=budget,
            strategy=strategy,
            temperature=temperature,
            max_tokens=max_tokens,
            metadata=metadata,
            store=store,
        )
        core = cast(_Core, self.arun)  # whose overloads do not know that a type is described by now
        if _runtime.must_await():
            return CouncilResult.pending(core(task, subagent, **options), anyio.Event)
        return _runtime.call(core, task, subagent, **options)

    @overload
    async def arun(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: None = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
    ) -> CouncilResult[Any]: ...

    @overload
    async def arun(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: type[T],
        **options: Unpack[RunOptions],
    ) -> CouncilResult[T]: ...

    @overload
    async def arun(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: TypeForm[T],
        **options: Unpack[RunOptions],
    ) -> CouncilResult[T]: ...

    @_known_options
    async def arun(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: Any = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
        **unknown: Never,
    ) -> CouncilResult:
        """Run the council on a task; see ``run``."""
        options = _options(
            unknown,
            output_type,
            mode=mode,
            context=context,
            files=files,
            history=history,
            schema=schema,
            budget=budget,
            strategy=strategy,
            temperature=temperature,
            max_tokens=max_tokens,
            metadata=metadata,
            store=store,
        )
        with listening(*self._listeners), self._live_runs.entered():
            return await self._run(await self._prepared(task, subagent, options), options)

    async def _prepare(self, task: str, subagent: str, **options: Any) -> tuple[Plan, _AllOptions]:
        """Return the plan of a run and its options; the server reserves money between this and ``_run``."""
        all_options = _options({}, options.pop("output_type", None), **options)
        plan = await self._prepared(task, subagent, all_options)
        self._store(all_options)  # one that cannot be opened is refused before a reply begins
        return plan, all_options

    async def _run(
        self, plan: Plan, options: _AllOptions, ledger: Ledger | None = None, *, deltas: Collection[Phase] = ()
    ) -> CouncilResult[Any]:
        store = None if self._restart is None else self._store(options)
        if self._restart is not None and store is not None:
            run_id, is_stored = await self._restart.find(store, plan.run_id)
            if is_stored:
                return await self._continue(store, run_id, plan, options, ledger, self._restart)
            plan = copy_with(plan, run_id=run_id)
        return await _engine.run_plan(
            plan,
            self._seating.adapters,
            deltas=deltas,
            price=self._price,
            journal=self._journal(plan, options),
            strategy=self._strategy_object(options),
            output_type=options.get("output_type"),
            ledger=ledger,
        )

    async def _continue(
        self,
        store: Store | RunStore,
        run_id: str,
        plan: Plan,
        options: _AllOptions,
        ledger: Ledger | None,
        restart: Restart,
    ) -> CouncilResult[Any]:
        """Return the result of a run that an earlier process stored, after what is missing of it."""
        from llm_council._engine import resume
        from llm_council.errors import StoreError

        patience = 12  # a store that is busy has been waited for each time
        while True:
            try:
                return await resume.resume(
                    store,
                    run_id,
                    self._reseat,
                    self._strategy_object(options),
                    options.get("output_type"),
                    budget=plan.budget,
                    ledger=ledger,
                    keeps=restart.keeps,
                    turn=restart.turn,
                )
            except StoreError as error:
                patience -= 1
                if error.kind != "locked" or not patience:
                    raise

    @overload
    def stream(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: None = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
    ) -> CouncilStream[Any]: ...

    @overload
    def stream(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: type[T],
        **options: Unpack[RunOptions],
    ) -> CouncilStream[T]: ...

    @overload
    def stream(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: TypeForm[T],
        **options: Unpack[RunOptions],
    ) -> CouncilStream[T]: ...

    @_known_options
    def stream(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: Any = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
        **unknown: Never,
    ) -> CouncilStream:
        """Run the council on a task and yield its events as they happen, including the text of the seats.

        Arguments and errors are those of ``run``. The run starts when the first event is requested. Closing the stream
        cancels the run.
        """
        options = _options(
            unknown,
            output_type,
            mode=mode,
            context=context,
            files=files,
            history=history,
            schema=schema,
            budget=budget,
            strategy=strategy,
            temperature=temperature,
            max_tokens=max_tokens,
            metadata=metadata,
            store=store,
        )
        return CouncilStream(partial(self._events, task, subagent, options))

    async def _events(
        self, task: str, subagent: str | Subagent, options: _AllOptions, keep: Callable[[CouncilResult[Any]], None]
    ) -> AsyncIterator[AnyEvent]:
        plan = await self._prepared(task, subagent, options)
        self._store(options)  # one that cannot be opened is refused here: a task group would wrap the error
        # Without a bound: a slow reader must not delay the run, and an event must not be lost.
        sender, receiver = anyio.create_memory_object_stream[AnyEvent](math.inf)

        def send(event: Event) -> None:
            with suppress(anyio.BrokenResourceError):  # closed early: the cancelled run still emits events
                sender.send_nowait(cast(AnyEvent, event))

        async def work() -> None:
            with sender, listening(*self._listeners, send), self._live_runs.entered():
                await _engine.run_plan(
                    plan,
                    self._seating.adapters,
                    deltas=tuple(Phase),
                    price=self._price,
                    on_result=keep,
                    journal=self._journal(plan, options),
                    strategy=self._strategy_object(options),
                    output_type=options.get("output_type"),
                )

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            try:
                with receiver:
                    async for event in receiver:
                        yield event
            except GeneratorExit:  # the stream was closed: cancel the run
                group.cancel_scope.cancel()

    @overload
    def map(
        self,
        tasks: Tasks,
        *,
        subagent: str | Subagent = "advisor",
        output_type: None = None,
        concurrency: int | None = None,
        ordered: bool = True,
        executor: Executor | None = None,
        chunksize: int | None = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
    ) -> CouncilMap[Any]: ...

    @overload
    def map(
        self,
        tasks: Tasks,
        *,
        subagent: str | Subagent = "advisor",
        output_type: type[T],
        concurrency: int | None = None,
        ordered: bool = True,
        executor: Executor | None = None,
        chunksize: int | None = None,
        **options: Unpack[RunOptions],
    ) -> CouncilMap[T]: ...

    @overload
    def map(
        self,
        tasks: Tasks,
        *,
        subagent: str | Subagent = "advisor",
        output_type: TypeForm[T],
        concurrency: int | None = None,
        ordered: bool = True,
        executor: Executor | None = None,
        chunksize: int | None = None,
        **options: Unpack[RunOptions],
    ) -> CouncilMap[T]: ...

    @_known_options
    def map(
        self,
        tasks: Tasks,
        *,
        subagent: str | Subagent = "advisor",
        output_type: Any = None,
        concurrency: int | None = None,
        ordered: bool = True,
        executor: Executor | None = None,
        chunksize: int | None = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
        **unknown: Never,
    ) -> CouncilMap:
        """Run the council on many tasks, and yield a ``CouncilResult`` for each, for ``for`` and ``async for``.

        The next task is taken when a run may start, so tasks may be a generator without end. At most twice as many
        results as runs may go on wait to be read, and a reader that stops reading stops the map. A failure is a result
        with ``status="failed"``: of a run, and of a task that is malformed, names an unknown subagent or an unreadable
        file (``TaskFailed``, with an empty ``run_id``). What the iterable itself raises is raised here, after the
        results of the tasks before it.

        The options below are those of ``run``, for all tasks. What a task has takes the place of ``subagent`` and
        ``context``, and is added to ``files`` and ``metadata``. A task with a subagent of its own has its default mode.

        Args:
            tasks: an iterable or async iterable of texts, mappings and ``Task`` objects. They are taken in the
                thread of the event loop, and in worker threads once one has taken more than 0.25 s. What may only be
                read in its own thread, such as a cursor of SQLite, goes into a list first.
            subagent: the role of tasks that name none.
            output_type: type of the output.
            concurrency: most runs at the same time; None is what the limits of the providers have room for, at most
                128, or 10,000 if a seat is ``Batched``, whose runs wait together and hold about 100 KB each.
            ordered: True yields the results in the order of the tasks; False yields each as its run ends.
            executor: whose workers run the tasks, in chunks: any ``concurrent.futures.Executor``, such as a
                ``ProcessPoolExecutor`` or ``client.get_executor()`` of Dask. It is not shut down. A worker that is no
                thread of this process gets the names of the council and reads the keys from its own environment.
                Results come when their chunk has ended. A chunk whose worker was lost is run once more, which the
                ``warnings`` of its results say; if that one is lost too, its results are failed ones
                (``WorkerLost``). None runs the tasks here.
            chunksize: tasks of a chunk; None chooses, at most 64 or as many as a worker runs at the same time.
            mode: a mode of ``subagent``.
            context: further text for every seat.
            files: files for every seat, read once.
            history: what each task goes on from.
            schema: JSON Schema of the answer.
            budget: limits on all runs together: ``usd``, ``tokens``, ``calls``, and ``deadline`` in seconds from the
                first result that is asked for, if it is given. Each run has the limits of the council beside. Every
                call reserves its estimate first, so ``calls`` is never exceeded but by retries within an adapter, and
                ``usd`` and ``tokens`` by no more than the answers in flight are longer, or dearer, than estimated.
                Runs begin only while those that go on and one more fit, at the average so far; the deadline ends
                those that go on. Tasks whose runs were not begun have ``BudgetExceeded`` or ``DeadlineExceeded`` as
                their error.
            strategy: how the seats deliberate.
            temperature: sampling temperature.
            max_tokens: maximum tokens of one answer.
            metadata: data of the caller.
            store: where the runs are stored.
            **unknown: there are no further options; any raises ``UnknownOption``.

        Returns:
            The results. Each has the id of its task as ``task_id``; that of a task without an id is its place, from
            ``"0"``. Closing the map cancels the runs that go on.

        Raises:
            ConfigurationError: an argument or a setting is wrong; nothing was sent. Files, a history and a store are
                opened when the first result is asked for.
        """
        from llm_council.batch.concurrency import check_concurrency, default_concurrency
        from llm_council.batch.map import check_tasks, map_tasks
        from llm_council.batch.shared_budget import check_budget

        for name in unknown:
            places = {"pass it to the council, as in Council(..., {}=...)": inspect.signature(Council).parameters}
            raise unknown_keyword(
                name, "a map", (*_RUN_ARGUMENTS, "concurrency", "ordered", "executor", "chunksize"), places
            )
        check_tasks(tasks)
        check_concurrency(concurrency)
        check_budget(budget)
        if not isinstance(ordered, bool):
            raise InvalidOption(f"ordered: True or False, got {ordered!r:.80}")
        if chunksize is not None and executor is None:
            raise InvalidOption("chunksize: only the tasks of an executor go in chunks: pass executor=, too")
        options = _options(
            {},
            output_type,
            mode=mode,
            context=context,
            files=files,
            history=history,
            schema=schema,
            strategy=strategy,
            temperature=temperature,
            max_tokens=max_tokens,
            metadata=metadata,
            store=store,
        )
        if store is not None and store is not False:
            _check_path("store", store)
        source = None if executor is None else self._source_for(executor, chunksize)
        if source is None:
            self._seating.check()  # workers have keys of their own
        # Any text will do: it shows whether the options fit. What has to be read is read later.
        plan = self._plan("task", subagent, {**options, "files": (), "history": None})
        self._seating.check_deadline(plan)
        if concurrency is None:
            deadline = plan.budget.deadline
            concurrency = default_concurrency(self._seating.adapters, calls=plan.most_calls, deadline=deadline)
        if executor is not None and source is not None:
            from llm_council.batch.executors import ChunkSettings, map_in_executor

            return map_in_executor(
                tasks,
                executor,
                partial(self._prepare_chunks, source, subagent, {**options, "output_type": output_type}),
                settings=ChunkSettings.of(executor, concurrency, chunksize, tasks),
                ordered=ordered,
                budget=budget,
                subagent=plan.subagent,
                metadata=plan.metadata,
            )
        return map_tasks(
            tasks,
            partial(self._prepare_map, subagent, options, budget),
            concurrency=concurrency,
            ordered=ordered,
            subagent=plan.subagent,
            metadata=plan.metadata,
            expecting=self._live_runs.expecting,
        )

    async def _prepare_map(
        self, subagent: str | Subagent, options: _AllOptions, budget: Budget | None, account: Ledger | None = None
    ) -> RunTask:
        """Return the function that runs one task of a map."""
        from llm_council.batch.shared_budget import SharedBudget

        plan = await self._prepared("task", subagent, options)
        self._store(options)  # one that cannot be opened is refused here
        shared = None
        if budget is not None:
            account = account or self._account(budget)
            shared = SharedBudget(budget, account)

        async def run_task(task: Task) -> CouncilResult[Any]:
            if shared is not None:
                shared.check()
            own_plan = await self._plan_of_task(task, plan, subagent, options)
            if self._restart is not None:
                own_plan = copy_with(own_plan, run_id=self._restart.run_id(task))
            if shared is None:
                with listening(*self._listeners), self._live_runs.entered():
                    return await self._run(own_plan, options)
            return await self._run_within(shared, account, own_plan, options)

        return run_task

    def _account(self, budget: Budget) -> Ledger:
        from llm_council._engine.budget import Ledger

        return Ledger(budget, self._price, owner="map")

    def _source_for(self, executor: Executor, chunksize: int | None) -> CouncilSource:
        """Return what gives the workers of an executor this council.

        Raises:
            InvalidOption: it is no executor, or the council cannot be sent to another process.
        """
        # Imports multiprocessing.
        from llm_council.batch.executors import check_executor, source_for

        check_executor(executor, chunksize)
        return source_for(self, executor)

    async def _prepare_chunks(
        self, source: CouncilSource, subagent: str | Subagent, options: _AllOptions
    ) -> tuple[CouncilSource, Mapping[str, Any]]:
        """Return what every chunk of a map takes along. Files are read here: workers may be on other machines."""
        files = await anyio.to_thread.run_sync(read_files, options.get("files") or (), self._config.limits)
        return source, {**options, "files": files, "subagent": subagent}

    async def _map_chunk(
        self, tasks: Sequence[Task], settings: Mapping[str, Any], concurrency: int, budget: Budget | None
    ) -> tuple[list[CouncilResult[Any]], dict[str, float]]:
        """Run a chunk of a map in a worker; return the results in order, and what they have spent."""
        from llm_council.batch.map import map_tasks

        options = cast(_AllOptions, dict(settings))
        subagent: str | Subagent = settings["subagent"]
        del options["subagent"]  # type: ignore[typeddict-item]
        options["output_type"] = _output_type(settings["output_type"])
        account = self._account(budget or Budget(deadline=None))
        prepare = partial(self._prepare_map, subagent, options, budget, account)
        chunk = map_tasks(tasks, prepare, concurrency=concurrency, ordered=True, subagent="", metadata={})
        return [result async for result in chunk], account.spent

    async def _plan_of_task(self, task: Task, like: Plan, subagent: str | Subagent, options: _AllOptions) -> Plan:
        """Return the plan of a task of a map; ``like`` is that of another task without a subagent or files."""
        context = options.get("context") if task.context is None else task.context
        if not task.files and task.subagent in (None, subagent):
            return _engine.plan_for(
                task.task, like, context=context, metadata=task.metadata, task_id=task.id, seed=self._config.seed
            )
        own: _AllOptions = {**options, "context": context, "metadata": task.metadata}
        own["files"] = (*like.files, *task.files)
        if task.subagent is not None:
            subagent, own["mode"] = task.subagent, None
        return attrs.evolve(await self._prepared(task.task, subagent, own), task_id=task.id)

    async def _run_within(
        self, shared: SharedBudget, account: Ledger | None, plan: Plan, options: _AllOptions
    ) -> CouncilResult[Any]:
        """Run a task of a map once its budget has room."""
        from llm_council._engine.budget import Ledger
        from llm_council._engine.estimate import needs

        await shared.begin(partial(needs, plan, self._price))
        left = shared.seconds_left()
        if left is not None:
            # Above 0, as every deadline: one that has just passed ends the run with its typed error.
            plan = copy_with(plan, budget=plan.budget.tightest(Budget(deadline=max(left, 0.001))))
        ledger = Ledger(plan.budget, self._price, above=account)
        try:
            with listening(*self._listeners), self._live_runs.entered():
                return await self._run(plan, options, ledger)
        finally:
            shared.end(ledger.spent)

    @_known_options
    def plan(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: Any = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
        **unknown: Never,
    ) -> Plan:
        """Return what a run would do, without sending anything. Arguments and errors are those of ``run``."""
        options = _options(
            unknown,
            output_type,
            mode=mode,
            context=context,
            files=files,
            history=history,
            schema=schema,
            budget=budget,
            strategy=strategy,
            temperature=temperature,
            max_tokens=max_tokens,
            metadata=metadata,
            store=store,
        )
        return self._plan(task, subagent, options)

    def _plan(self, task: str, subagent: str | Subagent, options: _AllOptions) -> Plan:
        rest: dict[str, Any] = dict(options)
        rest.pop("store", None)
        mode = rest.pop("mode", None)
        _check_strategy(rest.get("strategy"))
        if rest.get("strategy") is None:
            rest["strategy"] = self._strategy
        files = read_files(rest.pop("files", None) or (), self._config.limits)
        try:
            blind = find_blind(self._seating.specs, self._seating.adapters, files)
            history = self._history(rest.pop("history", None), options)
            request = _engine.RunRequest(files=files, sitting_out=blind, history=history, **rest)
            role, warnings = self._role(subagent, mode)
            plan = _engine.make_plan(task, role, self._config, self._seating.specs, request)
            check_sizes(plan.seats, self._seating.adapters, files)
        except InvalidOption as error:
            origin = origin_of_fault(self._config, self.providers)
            message = error.message.removeprefix("Plan.").removeprefix("RunRequest.")  # callers know the option only
            raise error._reword(f"{origin}: {message}" if origin else message) from None
        warnings = (*warnings, *find_empty(files))
        return attrs.evolve(plan, warnings=(*warnings, *plan.warnings)) if warnings else plan

    def _history(
        self, given: CouncilResult[Any] | str | Sequence[Message] | None, options: _AllOptions
    ) -> History | None:
        """Return what a run goes on from. Reads the store if a run is named."""
        if given is None:
            return None
        from llm_council._engine import history

        if not isinstance(given, str):
            return history.read_history(given)
        place: _AllOptions = {} if options.get("store") is False else options
        store = self._store(place)
        if store is None:
            raise InvalidOption(
                "history: the id of a run needs the store of that run: pass store=PATH, set LLM_COUNCIL_STORE, or set"
                " store in your own file"
            )
        try:
            stored = store._stored(given)
        except InvalidOption as error:
            raise error._reword(f"history: {error.message}; text of your own goes into a list of Message") from None
        if stored.result is None:
            run_id, status = stored.info.run_id, stored.info.status
            remedy = "wait for its end" if status == "running" else f"`council resume {run_id}` continues it"
            raise InvalidOption(f"history: the run {run_id} has no answer yet, it is {status}: {remedy}")
        return history.read_history(CouncilResult.from_dict(stored.result))

    def _role(self, subagent: str | Subagent, mode: str | None) -> tuple[Subagent, tuple[str, ...]]:
        """Return the role of a run, and what the caller should know about it."""
        # Imported by the first run, like the engine: making a council stays fast.
        from llm_council import subagents
        from llm_council.subagents._find import shadow_warning

        if isinstance(subagent, subagents.Subagent):
            if mode not in (None, subagent.mode):
                raise InvalidOption(
                    f"mode: the Subagent {subagent.name!r} is in mode {subagent.mode!r}, not {mode!r:.80}"
                )
            return subagent, ()
        role = subagents.load(subagent, mode, paths=self._config.subagent_paths)
        warning = shadow_warning(subagent, role.source)
        return role, (warning,) if warning else ()

    async def _prepared(self, task: str, subagent: str | Subagent, options: _AllOptions) -> Plan:
        """Make the plan, and check the providers before anything is sent. Files are read in a worker thread."""
        make_plan = partial(self._plan, task, subagent, options)
        reads = options.get("files") or isinstance(options.get("history"), str)
        plan = await anyio.to_thread.run_sync(make_plan) if reads else make_plan()
        self._seating.check()
        self._seating.check_deadline(plan)
        # Loading the price table takes a moment, which would block the event loop.
        if pricing.must_load(self._seating.providers.values()):
            await anyio.to_thread.run_sync(pricing.load)
        return plan

    def _strategy_object(self, options: _AllOptions) -> Strategy | None:
        """Return the strategy of a run if it was given as an object; the plan names any other."""
        chosen = options.get("strategy")
        if chosen is None:
            return self._strategy
        return None if isinstance(chosen, str) else chosen

    @overload
    def resume(
        self, run_id: str, *, output_type: None = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult[Any]: ...

    @overload
    def resume(
        self, run_id: str, *, output_type: TypeForm[T], store: str | PathLike[str] | None = None
    ) -> CouncilResult[T]: ...

    def resume(
        self, run_id: str, *, output_type: Any = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult:
        """Continue a stored run that was interrupted, cancelled or failed. Blocks, or must be awaited, like ``run``.

        Calls with a stored answer are not repeated. A call that was in flight is repeated with the same idempotency
        key, and the result has a warning about it. The deadline starts again; money, tokens and calls so far count.
        The seats are those of the run: this council's seats of the same names, else the providers that the run named.

        Args:
            run_id: the run's id.
            output_type: type of the output, the same as in ``run``; None leaves the output a JSON value.
            store: path of its store; None uses the council's store.

        Returns:
            The result. If the run already has an answer, its stored result.

        Raises:
            StoreError: there is no such run, it is running elsewhere, or the store cannot be used.
            ConfigurationError: the provider of a seat is not available.
        """
        if _runtime.must_await():
            resumed = self.aresume(run_id, output_type=output_type, store=store)
            return CouncilResult.pending(resumed, anyio.Event, "resume")
        return _runtime.call(self.aresume, run_id, output_type=output_type, store=store)

    @overload
    async def aresume(
        self, run_id: str, *, output_type: None = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult[Any]: ...

    @overload
    async def aresume(
        self, run_id: str, *, output_type: TypeForm[T], store: str | PathLike[str] | None = None
    ) -> CouncilResult[T]: ...

    async def aresume(
        self, run_id: str, *, output_type: Any = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult:
        """Continue a stored run; see ``resume``."""
        from llm_council._engine import resume

        kind = _output_type(output_type)
        with listening(*self._listeners), self._live_runs.entered():
            return await resume.resume(self._required(store), run_id, self._reseat, self._strategy, kind)

    def _reseat(self, plan: Plan) -> Mapping[str, ProviderAdapter]:
        """Return the providers of a stored run's seats, by the seat's name."""
        seating = self._seating.reseat(plan.seats, self._config)
        seating.check()
        seating.check_deadline(plan)
        return seating.adapters

    @overload
    def replay(
        self, run_id: str, *, output_type: None = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult[Any]: ...

    @overload
    def replay(
        self, run_id: str, *, output_type: TypeForm[T], store: str | PathLike[str] | None = None
    ) -> CouncilResult[T]: ...

    def replay(
        self, run_id: str, *, output_type: Any = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult:
        """Return the exact result of a stored run again, without any call. Blocks, or must be awaited, like ``run``.

        Args:
            run_id: the run's id.
            output_type: type of the output, the same as in ``run``; None leaves the output a JSON value.
            store: path of its store; None uses the council's store.

        Raises:
            StoreError: there is no such run, it has no result, or it was recorded by a version with other prompts.
        """
        if _runtime.must_await():
            replayed = self.areplay(run_id, output_type=output_type, store=store)
            return CouncilResult.pending(replayed, anyio.Event, "replay")
        return _runtime.call(self.areplay, run_id, output_type=output_type, store=store)

    @overload
    async def areplay(
        self, run_id: str, *, output_type: None = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult[Any]: ...

    @overload
    async def areplay(
        self, run_id: str, *, output_type: TypeForm[T], store: str | PathLike[str] | None = None
    ) -> CouncilResult[T]: ...

    async def areplay(
        self, run_id: str, *, output_type: Any = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult:
        """Replay a stored run; see ``replay``."""
        from llm_council._engine import resume

        kind = _output_type(output_type)
        with listening(*self._listeners):
            return await resume.replay(self._required(store), run_id, self._strategy, kind)

    def _required(self, named: str | PathLike[str] | None) -> Store | RunStore:
        store = self._store({"store": named})
        if store is None:
            raise InvalidOption("no run store is configured: pass store=PATH, or set store in the configuration")
        return store

    def _store(self, options: _AllOptions) -> Store | RunStore | None:
        named = options.get("store")
        path = self._config.store if named is None else named
        if path is None or path is False:  # False is for one run: do not use the council's store
            return None
        _check_path("store", path)
        from llm_council.store import open_store  # imports SQLite

        return open_store(path)

    def _journal(self, plan: Plan, options: _AllOptions) -> Journal:
        store = self._store(options)
        return NO_JOURNAL if store is None else store._journal(plan)

    def doctor(self, *, deep: bool = False) -> AwaitableDict[str, DoctorResult]:
        """Check the providers. Blocks in plain code; must be awaited in a running event loop.

        Args:
            deep: also make one real call to each provider, which may cost money.

        Returns:
            The results by provider name.
        """
        if _runtime.must_await():
            return AwaitableDict.pending(self.adoctor(deep=deep), anyio.Event, "doctor")  # type: ignore[arg-type]  # a dict will do
        return AwaitableDict(_runtime.call(self.adoctor, deep=deep))

    async def adoctor(self, *, deep: bool = False) -> dict[str, DoctorResult]:
        """Check the providers; see ``doctor``."""
        found: dict[str, DoctorResult] = {}

        async def check(name: str, adapter: ProviderAdapter) -> None:
            fault = self._seating.model_fault(name)
            found[name] = await examine(adapter, deep=deep) if fault is None else DoctorResult(ok=False, message=fault)

        def report() -> dict[str, DoctorResult]:
            blocked = DoctorResult(ok=False, message="no answer: something blocks the event loop")
            return {name: found.get(name, blocked) for name in self._seating.providers}

        # A blocked event loop cannot time out by itself: after the limit, `report` is called in another thread.
        with _runtime.Fallback(120.0 if deep else 15.0, report):
            async with anyio.create_task_group() as group:
                for name, adapter in self._seating.providers.items():
                    group.start_soon(check, name, adapter)
        return report()

    async def aclose(self) -> None:
        """Close the connections of the providers in the running event loop. The council may be used again."""
        for adapter in self._seating.providers.values():
            await adapter.aclose()

    def _reseated(self, specs: Sequence[SeatSpec]) -> Council:
        """Return a copy of this council with the seats of an earlier run; see ``Seating.reseat``."""
        twin = copy.copy(self)
        twin._seating = self._seating.reseat(specs, self._config)
        twin._price = pricing.price_of(twin._seating.adapters)
        return twin

    def _restarting(self, restart: Restart) -> Council:
        """Return a copy of this council whose maps take up what an earlier process stored."""
        twin = copy.copy(self)
        twin._restart = restart
        return twin

    def __repr__(self) -> str:
        return f"Council({list(self.providers)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the names of the seats, the configuration and the listeners; no key is in the pickle.

        Raises:
            TypeError: the council holds adapter instances, or a key outside the fields for keys.
        """
        places = [sitter.provider if isinstance(sitter, Seat) else sitter for sitter in self._sitters or ()]
        held = [type(place).__name__ for place in places if isinstance(place, ProviderAdapter)]
        if held:
            raise TypeError(
                f"cannot pickle a Council that holds adapter instances ({', '.join(held)}): name its providers, from"
                " the configuration or with register_provider, or make the Council where it is used"
            )
        shown = f"{self._config!r} {self._config.store}"
        place = self._config.store or ""
        if redact(shown) != shown or hide_password(place) != place:
            raise TypeError(
                "cannot pickle a Council whose configuration holds a key in plain text: put it into an environment"
                ' variable, and write api_key = "${VARIABLE}"'
            )
        names: Sequence[Any] = self._sitters or self._config.providers or self._config.seats
        if not names:  # chosen by the keys of this process; the copy must get the same seats
            counts = Counter(spec.provider for spec in self._seating.specs)
            names = [name if count == 1 else f"{name}:{count}" for name, count in counts.items()]
        return _from_pickle, (type(self), tuple(names), self._config, self._listeners, self._strategy)

    def __copy__(self) -> Council:
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Council:
        twin = memo[id(self)] = self.__copy__()
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    # --- blocking twins: generated by tools.generate_sync ---
    # keeps: _known_options
    @overload
    def run_sync(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: None = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
    ) -> CouncilResult[Any]: ...

    @overload
    def run_sync(
        self, task: str, subagent: str | Subagent = "advisor", *, output_type: type[T], **options: Unpack[RunOptions]
    ) -> CouncilResult[T]: ...

    @overload
    def run_sync(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: TypeForm[T],
        **options: Unpack[RunOptions],
    ) -> CouncilResult[T]: ...

    @_known_options
    def run_sync(
        self,
        task: str,
        subagent: str | Subagent = "advisor",
        *,
        output_type: Any = None,
        mode: str | None = None,
        context: str | None = None,
        files: Sequence[str | PathLike[str] | bytes | Attachment] = (),
        history: CouncilResult[Any] | str | Sequence[Message] | None = None,
        schema: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        strategy: str | Strategy | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        store: str | PathLike[str] | Literal[False] | None = None,
        **unknown: Never,
    ) -> CouncilResult:
        """Run the council on a task; see ``run``.

        The blocking twin of ``arun``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(
            cast(Any, self.arun),
            task,
            subagent,
            output_type=output_type,
            mode=mode,
            context=context,
            files=files,
            history=history,
            schema=schema,
            budget=budget,
            strategy=strategy,
            temperature=temperature,
            max_tokens=max_tokens,
            metadata=metadata,
            store=store,
            **unknown,
        )

    @overload
    def resume_sync(
        self, run_id: str, *, output_type: None = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult[Any]: ...

    @overload
    def resume_sync(
        self, run_id: str, *, output_type: TypeForm[T], store: str | PathLike[str] | None = None
    ) -> CouncilResult[T]: ...

    def resume_sync(
        self, run_id: str, *, output_type: Any = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult:
        """Continue a stored run; see ``resume``.

        The blocking twin of ``aresume``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(cast(Any, self.aresume), run_id, output_type=output_type, store=store)

    @overload
    def replay_sync(
        self, run_id: str, *, output_type: None = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult[Any]: ...

    @overload
    def replay_sync(
        self, run_id: str, *, output_type: TypeForm[T], store: str | PathLike[str] | None = None
    ) -> CouncilResult[T]: ...

    def replay_sync(
        self, run_id: str, *, output_type: Any = None, store: str | PathLike[str] | None = None
    ) -> CouncilResult:
        """Replay a stored run; see ``replay``.

        The blocking twin of ``areplay``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(cast(Any, self.areplay), run_id, output_type=output_type, store=store)

    def doctor_sync(self, *, deep: bool = False) -> dict[str, DoctorResult]:
        """Check the providers; see ``doctor``.

        The blocking twin of ``adoctor``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.adoctor, deep=deep)

    def close(self) -> None:
        """Close what blocking calls opened.

        The blocking twin of ``aclose``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        if _runtime.is_started():
            _runtime.call(self.aclose)

    # --- end of blocking twins ---
