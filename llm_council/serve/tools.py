"""The tools that agents call through the Model Context Protocol: convene a council, follow up, and read stored runs.

The shapes of results are dataclasses, of which the SDK makes schemas.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.server.transport_security import TransportSecuritySettings

from llm_council import __version__, subagents
from llm_council.council import Council
from llm_council.errors import CouncilError, StoreError
from llm_council.errors._secrets import redact
from llm_council.events import PhaseFinished, PhaseStarted, RunStarted
from llm_council.models import Budget, Phase
from llm_council.results import CouncilResult
from llm_council.results.plain import vote_line
from llm_council.serve.chat import answer_text, lower_limit
from llm_council.store import RunStore, Store, open_store
from llm_council.strategies import list_strategies

__all__ = ["Answer", "http_app", "make_server"]

_NO_STORE = "no run is stored: start the server with --store FILE"
_MOST_LISTED = 50  # stored runs in the list

_INSTRUCTIONS = (
    "Ask several language models at once: they answer apart, vote or criticise each other, and one answer comes back"
    " with how far they agree. It costs several calls, so ask what is worth it."
)


@dataclass
class Answer:
    """The answer of a council.

    Attributes:
        run: id of the run, for follow_up and get_run if it is stored.
        status: completed, degraded, abstained or failed.
        answer: the answer as text; why there is none, if there is none.
        output: the answer as a JSON value, where the role or the strategy gives one.
        agreement: how the vote went, in a sentence; null without a vote.
        seats: the seats that answered.
        usd: what it cost in US dollars; null if a price is unknown.
        warnings: what the reader should know.
    """

    run: str
    status: str
    answer: str
    output: Any
    agreement: str | None
    seats: list[str]
    usd: float | None
    warnings: list[str]


@dataclass
class Role:
    """A role that a council can take.

    Attributes:
        name: its name.
        description: what it is for.
    """

    name: str
    description: str


@dataclass
class Councils:
    """The council behind this server.

    Attributes:
        seats: names of the seats.
        strategies: the ways to deliberate.
        default: the one that is used if none is named.
    """

    seats: list[str]
    strategies: list[str]
    default: str


@dataclass
class ListedRun:
    """A stored run.

    Attributes:
        run: its id.
        started: the time in UTC.
        status: its status.
        task: the beginning of the task.
    """

    run: str
    started: str
    status: str
    task: str


def make_server(council: Council) -> MCPServer:
    """Return the server, with the tools and resources of a council. It does not close the council."""
    server: MCPServer = MCPServer("llm_council", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING")

    @server.tool(title="Ask a council", structured_output=True)
    async def convene(  # noqa: D417 - the SDK passes ctx itself, and shows the docstring to models
        task: str,
        ctx: Context,
        role: str = "advisor",
        strategy: str | None = None,
        context: str | None = None,
        deadline: float | None = None,
        usd: float | None = None,
    ) -> Answer:
        """Ask several language models the same, and get one answer with how far they agree.

        Args:
            task: the question or task, with everything that the models need to know.
            role: one of list_roles; advisor answers questions.
            strategy: one of list_councils; leave it out for the default.
            context: further text for every model, such as a document.
            deadline: seconds for the whole run.
            usd: the most that it may cost, in US dollars.
        """
        return await _run(
            council, ctx, task, role, strategy=strategy, context=context, budget=_budget(council, deadline, usd)
        )

    @server.tool(title="Go on from an answer", structured_output=True)
    async def follow_up(  # noqa: D417 - likewise
        run: str, task: str, ctx: Context, deadline: float | None = None, usd: float | None = None
    ) -> Answer:
        """Ask the council a further question about an earlier answer, which it then knows.

        Args:
            run: the run of the earlier answer, or "last".
            task: the further question.
            deadline: seconds for the whole run.
            usd: the most that it may cost, in US dollars.
        """
        if council.config.store is None:
            raise ToolError(_NO_STORE)
        return await _run(council, ctx, task, "advisor", history=run, budget=_budget(council, deadline, usd))

    @server.tool(title="List roles", structured_output=True)
    def list_roles() -> list[Role]:
        """List the roles that the council can take: advisor, critic and others."""
        found = subagents.names(council.config.subagent_paths)
        return [Role(name=one.name, description=one.description) for one in found if one.error is None]

    @server.tool(title="List seats and strategies", structured_output=True)
    def list_councils() -> Councils:
        """List the models that answer, and the ways in which they can deliberate."""
        names = [strategy.name for strategy in list_strategies()]
        return Councils(
            seats=list(council.providers),
            strategies=list(dict.fromkeys([*names, *council.config.strategies])),
            default=council.config.strategy,
        )

    _add_runs(server, council)
    return server


def _add_runs(server: MCPServer, council: Council) -> None:
    """Add the tool and the resources that read stored runs."""

    @server.tool(title="Read a stored run", structured_output=True)
    async def get_run(run: str) -> Answer:
        """Return the answer of a stored run.

        Args:
            run: its id, the beginning of it, or "last".
        """
        try:
            store = _store(council)
            stored = await store.show(await store.find(run))
        except CouncilError as error:
            raise ToolError(redact(str(error))) from None
        if stored.result is None:
            raise ToolError(
                f"run {stored.info.run_id} is {stored.info.status} and has no answer: council resume can end it"
            )
        return _answer(CouncilResult.from_dict(stored.result))

    @server.resource("council://runs", title="Stored runs", mime_type="application/json")
    async def list_runs() -> str:
        """The latest stored runs, the newest first."""
        try:
            found = await _store(council).runs(limit=_MOST_LISTED)
        except CouncilError as error:
            raise ResourceError(redact(str(error))) from None
        rows = [ListedRun(run.run_id, run.started.isoformat(), run.status, run.task) for run in found]
        return json.dumps([asdict(row) for row in rows], ensure_ascii=False)

    @server.resource("council://runs/{run}", title="A stored run", mime_type="application/json")
    async def read_run(run: str) -> str:
        """A stored run with its plan, its calls and its result, as "council runs export" prints it."""
        try:
            store = _store(council)
            return json.dumps(await store.export(await store.find(run)), ensure_ascii=False)
        except CouncilError as error:
            raise ResourceError(redact(str(error))) from None


def http_app(server: MCPServer) -> Any:
    """Return the application that speaks streamable HTTP at ``/mcp``. Host, origin and key are checked before it."""
    return server.streamable_http_app(
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False)
    )


async def _run(council: Council, ctx: Context, task: str, role: str, **options: Any) -> Answer:
    """Run the council, and tell the client about each phase. A cancelled call cancels the run.

    Raises:
        ToolError: the run failed, or an argument is wrong; with the words for people.
    """
    # A role elsewhere may be the path of a file, and a client must not name files of this machine.
    if role not in {one.name for one in subagents.names(council.config.subagent_paths)}:
        raise ToolError(f"there is no role {role!r:.80}: list_roles names them")
    if role == "advisor":
        options["output_type"] = str  # prose
    done, total = 0, 1
    try:
        async with council.stream(task, role, **options) as events:
            async for event in events:
                if isinstance(event, RunStarted):
                    total = max(1, len([phase for phase in event.plan.phases if phase != Phase.REPAIR]))
                elif isinstance(event, PhaseStarted):
                    await ctx.report_progress(done, total, str(event.phase))
                elif isinstance(event, PhaseFinished):
                    done = min(done + 1, total)
                    await ctx.report_progress(done, total, f"{event.phase} ended after {event.elapsed:.1f} s")
        result: CouncilResult[Any] = events.result
        await ctx.report_progress(total, total, str(result.status))
    except CouncilError as error:
        raise ToolError(redact(str(error))) from None
    if result.error is not None and not result.success and result.status != "abstained":
        raise ToolError(redact(str(result.error)))
    return _answer(result)


def _answer(result: CouncilResult[Any]) -> Answer:
    data = result.to_dict()
    words = answer_text(result) if result.success else str(result.error)
    return Answer(
        run=result.run_id,
        status=str(result.status),
        answer=words,
        output=data["output"],
        agreement=vote_line(result),
        seats=[seat.name for seat in result.seats if seat.error is None],
        usd=result.cost.usd,
        warnings=list(result.warnings),
    )


def _budget(council: Council, deadline: float | None, usd: float | None) -> Budget | None:
    usd = lower_limit(usd, council.config.budget.usd)
    if deadline is None and usd is None:
        return None
    try:
        return Budget(usd=usd) if deadline is None else Budget(deadline=deadline, usd=usd)
    except CouncilError as error:
        raise ToolError(str(error)) from None


def _store(council: Council) -> Store | RunStore:
    if council.config.store is None:
        raise StoreError(_NO_STORE)
    return open_store(council.config.store)
