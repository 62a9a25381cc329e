"""Questions of strategies to seats: asked at once, each with a name of its own in the journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import attrs

from llm_council._engine import prompts
from llm_council._engine.budget import quorum_of
from llm_council._engine.calls import ask
from llm_council._engine.phases import QuorumWait, spare_calls
from llm_council._engine.state import CallDeadline, RunState
from llm_council.strategies.base import Ask, Reply

__all__ = ["ask_all"]


async def ask_all(
    state: RunState,
    questions: Sequence[Ask],
    path: tuple[str, ...],
    enough: Callable[[Sequence[Reply]], bool] | None = None,
) -> tuple[Reply, ...]:
    """Ask several seats at once, all in one phase; see ``Table.ask_all``.

    Args:
        state: the run.
        questions: the questions.
        path: names of the tables that the strategy works on; part of the calls' names.
        enough: called with the replies so far; True cancels the other calls.
    """
    if not questions:
        return ()
    phase, end = questions[0].phase, state.ends[questions[0].phase]
    quorum = quorum_of(state.plan, len(questions))
    asking = _Asking(state, enough, QuorumWait(phase, quorum, state.plan.budget.grace, end, end))
    # Named before any is asked: the order in which an event loop starts tasks is not the same in every run.
    named = []
    for question in questions:
        place = "".join(f"{part}." for part in (*path, *([str(question.round)] if question.round else [])))
        named.append((question, state.name_call(phase, question.seat, place)))
    # Likewise: the answers of the first tasks may be enough before the last task has started.
    asking.running = {name: asking.wait.new_deadline() for _, name in named}
    state.open(phase)
    try:
        async with anyio.create_task_group() as group:
            for question, name in named:
                group.start_soon(asking.ask, question, name)
    finally:
        state.close(phase)
    return tuple(asking.replies[name] for _, name in named)


@attrs.define
class _Asking:
    """The calls of one ``ask_all``.

    Attributes:
        state: the run.
        enough: see ``ask_all``.
        wait: the deadlines of the calls.
        replies: replies by name of the call, in the order in which they came.
        running: deadlines of the calls that have not ended, by name; some may not have started.
        unneeded: names of the calls that were cancelled.
    """

    state: RunState
    enough: Callable[[Sequence[Reply]], bool] | None
    wait: QuorumWait
    replies: dict[str, Reply] = attrs.field(factory=dict)
    running: dict[str, CallDeadline] = attrs.field(factory=dict)
    unneeded: set[str] = attrs.field(factory=set)

    async def ask(self, question: Ask, name: str) -> None:
        """Ask one question, and store the reply."""
        state, plan = self.state, self.state.plan
        seat = plan.seat(question.seat)
        shown = prompts.label_texts(plan, name, question.show, in_order=question.in_order)
        request = prompts.question_request(plan, seat, question, shown, name=name, texts=state.texts)
        if question.schema:
            state.asked_by_schema[name] = request
        deadline = self.running[name]
        outcome = await ask(state, question.phase, seat, request, deadline, spare_calls=spare_calls(plan), name=name)
        del self.running[name]
        reply = Reply(
            seat=question.seat,
            call=name,
            labels={label: peer.seat for label, peer in shown.items()},
            response=outcome.response,
            error=outcome.error,
            elapsed=outcome.elapsed,
        )
        self.replies[name] = reply
        if reply.error is None:
            self.wait.answered()
        elif name not in self.unneeded:
            state.degrade(f"{reply.seat} gave no answer in the {question.phase} phase: {reply.error}", reply.seat)
        if not self.unneeded and self.enough is not None and self.enough(tuple(self.replies.values())):
            self.unneeded.update(self.running)
            for other in self.running.values():
                other.cancel("enough seats had answered")
