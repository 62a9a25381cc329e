"""A model provider and a solver for inspect_ai, which loads this module by the entry point ``llm_council``.

``inspect_ai.py`` is the public module, which imports without inspect_ai.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, ModelUsage, modelapi
from inspect_ai.solver import Generate, Solver, TaskState, solver

from llm_council import subagents
from llm_council.council import Council
from llm_council.errors import InvalidOption
from llm_council.models import Budget, Message

if TYPE_CHECKING:
    from llm_council.results import CouncilResult

__all__ = ["CouncilModel", "council", "council_model"]


@modelapi(name="council")
def council_model() -> type[CouncilModel]:
    """Return the class of the provider ``council``."""
    return CouncilModel


class CouncilModel(ModelAPI):
    """A council as a model of inspect_ai.

    Args:
        model_name: the seats, joined with ``+``, such as ``local:3`` or ``openai/gpt-5+anthropic``; ``default`` takes
            those of the configuration.
        base_url: not used; each provider has its own.
        api_key: not used; each provider reads its own.
        api_key_vars: not used.
        config: settings of inspect_ai.
        strategy: how the seats deliberate; ``"poll"`` if left out.
        max_usd: most US dollars of one run.
        council: a council of your own, in place of the seats of the name.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        api_key_vars: Sequence[str] = (),
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - as inspect_ai declares it
        *,
        strategy: str = "poll",
        max_usd: float | None = None,
        council: Council | None = None,
    ) -> None:
        super().__init__(model_name, base_url, api_key, list(api_key_vars), config)
        self._strategy = strategy
        self._council = council if council is not None else _council_of(model_name, max_usd)

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - as inspect_ai names it
        tools: list[Any],
        tool_choice: Any,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Run the council on a conversation, and return its answer as the output of a model.

        Raises:
            InvalidOption: the task has tools, or a message with something else than text.
            RunError: the run failed.
        """
        del tool_choice
        if tools:
            raise InvalidOption("a council calls no tools: take a task without tools, or a model for this one")
        schema = None
        if config.response_schema is not None:
            schema = config.response_schema.json_schema.model_dump(exclude_none=True)
        result = await _run(
            self._council,
            input,
            strategy=self._strategy,
            schema=schema,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
        )
        return _output(self.model_name, result)


@solver
def council(
    seats: str | Sequence[str] = "default", *, strategy: str = "poll", max_usd: float | None = None, own: Any = None
) -> Solver:
    """Return a solver that lets a council answer, in place of ``generate()`` or ``multiple_choice()``.

    Of a task with choices, the seats vote on the choices, and the chosen one is marked for the scorer ``choice()``.

    Args:
        seats: the seats, joined with ``+`` or in a list; ``default`` takes those of the configuration.
        strategy: how they deliberate.
        max_usd: most US dollars of one sample.
        own: a ``Council``, in place of ``seats``.
    """
    convened = own if own is not None else _council_of(seats, max_usd)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        del generate
        choices = [choice.value for choice in state.choices]
        schema = {"type": "string", "enum": choices} if choices else None
        result = await _run(convened, state.messages, strategy=strategy, schema=schema)
        state.output = _output("council", result)
        if choices:
            for place, choice in enumerate(choices):
                state.choices.mark_choice(place, choice == result.output)
            place = choices.index(str(result.output))
            state.output.completion = f"ANSWER: {chr(ord('A') + place)}"
        state.messages.append(state.output.message)
        return state

    return solve


def _council_of(seats: str | Sequence[str], max_usd: float | None) -> Council:
    names = [part.strip() for part in seats.split("+")] if isinstance(seats, str) else list(seats)
    budget = Budget(usd=max_usd) if max_usd is not None else None
    return Council(None if names == ["default"] else names, budget=budget)


async def _run(
    convened: Council,
    messages: Sequence[ChatMessage],
    *,
    strategy: str,
    schema: Mapping[str, Any] | None,
    **options: Any,
) -> CouncilResult[Any]:
    context, history, task = _turns(messages)
    role = attrs.evolve(subagents.load("advisor"), schema=None, headings=False)
    result = await convened.arun(
        task, role, context=context or None, history=history or None, strategy=strategy, schema=schema, **options
    )
    return result.raise_for_failure()


def _turns(messages: Sequence[ChatMessage]) -> tuple[str, list[Message], str]:
    """Return the system's words, the earlier turns and the task, which is what the user says last."""
    context: list[str] = []
    turns: list[Message] = []
    for message in messages:
        parts = message.content if isinstance(message.content, list) else []
        if message.role == "tool" or any(part.type not in ("text", "reasoning") for part in parts):
            raise InvalidOption("a council reads text alone: take a task without tools, images and sound")
        if message.role == "system":
            context.append(message.text)
        elif turns and turns[-1].role == message.role:
            turns[-1] = Message(message.role, f"{turns[-1].text}\n\n{message.text}")
        else:
            turns.append(Message(message.role, message.text))
    if not turns or turns[-1].role != "user":
        raise InvalidOption("the last message must be the user's: a council begins its own answer")
    return "\n\n".join(context), turns[:-1], turns[-1].text


def _output(model: str, result: CouncilResult[Any]) -> ModelOutput:
    output = ModelOutput.from_content(model, result.text or "")
    given, written = result.usage.input_tokens or 0, result.usage.output_tokens or 0
    output.usage = ModelUsage(input_tokens=given, output_tokens=written, total_tokens=given + written)
    if result.cost.usd is not None and "total_cost" in ModelUsage.model_fields:
        output.usage.total_cost = result.cost.usd
    output.time = result.duration
    data = result.to_dict()
    output.metadata = {key: data[key] for key in ("run_id", "status", "tally", "agreement", "dissent", "otherwise")}
    return output
