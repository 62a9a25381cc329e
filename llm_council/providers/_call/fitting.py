"""Fit a request to a provider and a model: drop, lower or rename what they do not take, and record each change."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import attrs

from llm_council._runtime.large_work import run_large
from llm_council._schema import Projection
from llm_council._schema import compile as compile_schema
from llm_council._wire.history import InstructionPlace, is_instruction, move_instructions
from llm_council.errors import CapabilityMissing, InvalidOption
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.messages import AudioPart, DocumentPart, ImagePart, Message, Role, TextPart
from llm_council.models.reply import Adjustment, FinishReason, GenerateResponse
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool
from llm_council.providers._call.profiles import ModelProfile, Sampling
from llm_council.providers._call.projecting import project_schemas, subset_of

__all__ = [
    "emulate_schema",
    "find_violations",
    "fit",
    "fit_to_adapter",
    "fit_unless_marked",
    "fits_itself",
    "fits_requests",
    "is_emulated",
    "may_be_ignored",
    "schema_violations",
    "unreported_violations",
]

_GO_ON = "Continue exactly where your last message ends."
_HAVE_READ = "I have read the result."

F = TypeVar("F", bound=Callable[..., Any])


def fit(
    request: GenerateRequest, capabilities: ProviderCapabilities, profile: ModelProfile | None = None
) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Fit a request to what a provider can do and a model takes.

    The function is pure and idempotent: a fitted request fits without a further change.

    Args:
        request: the request.
        capabilities: what the provider can do.
        profile: what the model takes; None leaves the parameters as they are.

    Returns:
        The request to send, which is the same object if it fits, and the changes.

    Raises:
        CapabilityMissing: the request has tools, images, documents or sound, and the provider or the model takes none.
        InvalidOption: the schema of the answer is not a JSON Schema.
    """
    if profile is None:
        profile = _UNKNOWN
    _require(request, capabilities, profile)
    fitting = _Fitting(request, capabilities, profile)
    for step in _STEPS:
        step(fitting)
    if not fitting.changes:
        return request, ()
    return attrs.evolve(request, **fitting.changes), tuple(fitting.adjustments)


def fits_requests(method: F) -> F:
    """Mark a ``generate`` or ``stream`` that fits its request itself, or passes it on to adapters that do."""
    vars(method)["_fits_requests"] = True
    return method


def fits_itself(method: Callable[..., Any]) -> bool:
    """Return True for a method that is marked with ``fits_requests``."""
    return getattr(method, "_fits_requests", False) is True


def fit_unless_marked(
    adapter: Any, method: Callable[..., Any], request: GenerateRequest
) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Fit a request for the method of an adapter that is about to be called.

    A method marked with ``fits_requests`` gets the request as it is: a request is fitted once per adapter.

    Raises:
        InvalidOption: the adapter has no ``capabilities``.
    """
    if fits_itself(method):
        return request, ()
    return fit_to_adapter(adapter, request)


def fit_to_adapter(adapter: Any, request: Any) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Fit a request to an adapter; see ``fit``.

    Raises:
        InvalidOption: the adapter has no ``capabilities``.
    """
    capabilities = getattr(adapter, "capabilities", None)
    if not isinstance(capabilities, ProviderCapabilities):
        raise InvalidOption(f"{type(adapter).__qualname__} does not say what it can do: set capabilities on the class")
    return fit(request, capabilities, adapter._profile_of(request.model))


def emulate_schema(request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Move the schema of a fitted request into its prompt, where the vendor cannot enforce this one."""
    fitting = _Fitting(request, ProviderCapabilities(), _UNKNOWN)
    _fit_structured_output(fitting)
    return attrs.evolve(request, **fitting.changes), tuple(fitting.adjustments)


def is_emulated(adjustments: tuple[Adjustment, ...]) -> bool:
    """Return True if the schema stands in the prompt alone, so that only our own check enforces it."""
    return any(
        adjustment.field == "structured_output" and adjustment.action == "emulated" for adjustment in adjustments
    )


def schema_violations(
    request: GenerateRequest, text: str | None, *, structured: Any = None, action: str = "emulated"
) -> tuple[Adjustment, ...]:
    """Return the adjustment that reports where an answer violates its schema; nothing if it meets it.

    Args:
        request: the request.
        text: the answer's text.
        structured: the answer's value, if it stands apart from the text.
        action: ``"ignored"`` for a vendor that was to enforce the schema.
    """
    wanted = request.structured_output
    if wanted is None:
        return ()
    validator = compile_schema(wanted.json_schema)
    if structured is not None and validator.accepts(structured):
        return ()
    problems = validator.read(text or "").problems
    if not problems:
        return ()
    reason = "; ".join(f"{problem.path}: {problem.message}" for problem in problems[:3])
    return (Adjustment(field="structured_output", action=action, reason=f"the answer does not meet it: {reason}"),)


def may_be_ignored(request: GenerateRequest) -> bool:
    """Return True if a request asks for something that ``unreported_violations`` looks for in its answer."""
    return request.structured_output is not None or request.tool_choice not in (None, "auto")


def unreported_violations(
    request: GenerateRequest, response: GenerateResponse, adjustments: tuple[Adjustment, ...] = ()
) -> tuple[Adjustment, ...]:
    """Return adjustments for what an answer ignores of its request: the schema, and the choice of a tool.

    A schema is not looked for in an answer that calls tools, nor in one that was cut or withheld unless the schema
    stands in the prompt alone. What the adapter reported is not repeated.

    Args:
        request: the request as the caller made it.
        response: the response, with the adapter's own adjustments.
        adjustments: the changes that were made before the adapter was called.
    """
    reported = adjustments + response.adjustments
    is_cut = response.finish_reason in (FinishReason.LENGTH, FinishReason.CONTENT_FILTER) or bool(response.refusal)
    found: tuple[Adjustment, ...] = ()
    if not response.tool_calls and is_emulated(reported):
        found = schema_violations(request, response.text, structured=response.structured)
    elif not response.tool_calls and not is_cut:
        found = schema_violations(request, response.text, structured=response.structured, action="ignored")
    if not is_cut:
        found += _ignored_tool_choice(request, response, reported)
    return tuple(adjustment for adjustment in found if adjustment not in response.adjustments)


async def find_violations(request: GenerateRequest, response: GenerateResponse) -> tuple[Adjustment, ...]:
    """Return what ``unreported_violations`` returns; a large answer is read in a worker thread."""
    if not may_be_ignored(request):
        return ()
    size = len(response.text or "") if request.structured_output is not None else 0
    return await run_large(size, partial(unreported_violations, request, response))


def _ignored_tool_choice(
    request: GenerateRequest, response: GenerateResponse, reported: tuple[Adjustment, ...]
) -> tuple[Adjustment, ...]:
    choice = request.tool_choice
    # A tool of the vendor's, named in ``extra``, is called without a trace among the tool calls.
    if choice in (None, "auto") or not request.tools or request.extra.get("tools"):
        return ()
    if any(known.field == "tool_choice" and known.action != "renamed" for known in reported):
        return ()
    names = {call.name for call in response.tool_calls}
    if choice == "none":
        reason = "the answer calls a tool" if names else ""
    elif choice == "required":
        reason = "" if names else "the answer calls no tool"
    else:
        reason = "" if names == {choice} else "the answer calls another tool, or none"
    return (Adjustment(field="tool_choice", action="ignored", asked=choice, reason=reason),) if reason else ()


_UNKNOWN = ModelProfile()


class _Fitting:
    """A request and its changes so far."""

    def __init__(self, request: GenerateRequest, capabilities: ProviderCapabilities, profile: ModelProfile) -> None:
        self.request = request
        self.capabilities = capabilities
        self.profile = profile
        self.schemas = project_schemas(request, capabilities, profile)
        self.changes: dict[str, Any] = {}
        self.adjustments: list[Adjustment] = []

    def change(self, field: str, sent: Any, action: str, reason: str, *, value: Any = None, asked: Any = None) -> None:
        """Change a field, and record the change.

        Args:
            field: the field of the request.
            sent: the new value, as reported.
            action: what was done, a word of ``Adjustment.action``.
            reason: why.
            value: the new value, if it is reported in another form.
            asked: the old value, if it is reported in another form.
        """
        asked = getattr(self.request, field) if asked is None else asked
        self.changes[field] = sent if value is None else value
        self.adjustments.append(Adjustment(field=field, action=action, asked=asked, sent=sent, reason=reason))

    def drop(self, field: str, reason: str) -> None:
        """Remove a field from the request."""
        self.change(field, None, "dropped", reason)

    @property
    def reasoning(self) -> ReasoningConfig | None:
        """The reasoning configuration, as changed so far."""
        config: ReasoningConfig | None = self.changes.get("reasoning", self.request.reasoning)
        return config


_FILES = ((DocumentPart, "documents", "takes no documents"), (AudioPart, "audio", "takes no sound"))


def _require(request: GenerateRequest, capabilities: ProviderCapabilities, profile: ModelProfile) -> None:
    if request.structured_output is not None:
        compile_schema(request.structured_output.json_schema)  # before an answer is paid for that could not be checked
    if request.tools and not (capabilities.tool_use and profile.tools):
        raise _missing("tool_use", "takes no tools", request)
    parts = [part for turn in request.messages if not isinstance(turn.content, str) for part in turn.content]
    images = [part for part in parts if isinstance(part, ImagePart)]
    if images and not (capabilities.multimodal and profile.images):
        raise _missing("multimodal", "takes no images", request)
    for kind, capability, words in _FILES:
        taken = capabilities.has(capability) and getattr(profile, capability)
        if not taken and any(isinstance(part, kind) for part in parts):
            raise _missing(capability, words, request)
    if not profile.image_urls and any(image.url for image in images):
        raise _missing(
            "multimodal", "takes images as data only, no addresses: pass ImagePart(data=..., media_type=...)", request
        )


def _missing(capability: str, what: str, request: GenerateRequest) -> CapabilityMissing:
    who = f"model {request.model!r}" if request.model else "the provider"
    return CapabilityMissing(f"{who} {what}; nothing was sent", capability=capability, model=request.model)


def _fit_max_tokens(fitting: _Fitting) -> None:
    asked = fitting.request.max_tokens
    ceilings = [most for most in (fitting.capabilities.max_tokens, fitting.profile.max_output) if most is not None]
    if asked is not None and ceilings and asked > min(ceilings):
        fitting.change("max_tokens", min(ceilings), "lowered", "the most tokens that an answer of it can have")


def _fit_reasoning(fitting: _Fitting) -> None:
    asked, profile = fitting.request.reasoning, fitting.profile
    if asked is None:
        return
    if not fitting.capabilities.reasoning or not profile.efforts:
        fitting.drop("reasoning", "its reasoning cannot be controlled")
        return
    effort = _nearest_effort(asked.effort, profile)
    budget = asked.budget_tokens if profile.reasoning_budget else None
    if effort is asked.effort and budget == asked.budget_tokens:
        return
    if effort is None and budget is None:
        fitting.drop("reasoning", f"it takes reasoning effort {_listed(profile.efforts)} only")
        return
    if effort is asked.effort:
        action, reason = "lowered", "it takes a word of effort, and no budget of reasoning tokens"
    else:
        order = list(Effort)
        raised = effort is not None and asked.effort is not None and order.index(effort) > order.index(asked.effort)
        action, reason = "raised" if raised else "lowered", f"it takes reasoning effort {_listed(profile.efforts)} only"
    fitting.change("reasoning", ReasoningConfig(effort=effort, budget_tokens=budget), action, reason)


def _nearest_effort(asked: Effort | None, profile: ModelProfile) -> Effort | None:
    """Return the accepted effort nearest to the requested one, a lower one if possible.

    A model that is to reason a little is never told not to reason at all, nor the other way round.
    """
    if asked is None or asked in profile.efforts:
        return asked
    order = list(Effort)
    thinking = [effort for effort in profile.efforts if effort is not Effort.NONE]
    if asked is Effort.NONE or not thinking:
        return None
    lower = [effort for effort in thinking if order.index(effort) < order.index(asked)]
    return max(lower, key=order.index) if lower else min(thinking, key=order.index)


def _listed(efforts: tuple[Effort, ...]) -> str:
    return ", ".join(efforts)


def _accepts(fitting: _Fitting, when: Sampling) -> bool:
    """Return True if the model accepts something with the reasoning that it is asked for."""
    if when is not Sampling.WITHOUT_REASONING:
        return when is Sampling.ALWAYS
    config = fitting.reasoning
    if config is None or (config.effort is None and config.budget_tokens is None):
        return not fitting.profile.reasons
    return config.effort is Effort.NONE


def _fit_sampling(fitting: _Fitting) -> None:
    # Reasoning models answer 400 to temperature and top_p, some of them only while they reason: see profiles.toml.
    request, profile = fitting.request, fitting.profile
    if not _accepts(fitting, profile.sampling):
        for field in ("temperature", "top_p"):
            if getattr(request, field) is not None:
                fitting.drop(field, "it refuses this while it reasons")
        return
    highest = profile.max_temperature
    if request.temperature is not None and highest is not None and request.temperature > highest:
        fitting.change("temperature", highest, "lowered", "the highest temperature that it takes")


def _fit_stop(fitting: _Fitting) -> None:
    stop, profile = fitting.request.stop, fitting.profile
    if stop and not profile.stop:
        fitting.drop("stop", "it takes no stop texts")
    elif profile.max_stops is not None and len(stop) > profile.max_stops:
        fitting.change("stop", stop[: profile.max_stops], "lowered", f"it takes {profile.max_stops} stop texts")


def _fit_tool_choice(fitting: _Fitting) -> None:
    request, profile = fitting.request, fitting.profile
    choice = request.tool_choice
    if choice is None:
        return
    if not profile.tool_choice and choice == "none":
        # Offering no tools is the only way left to forbid them.
        fitting.drop("tools", "it cannot be told not to use them")
        fitting.drop("tool_choice", "no tools are offered instead")
    elif not profile.tool_choice:
        fitting.drop("tool_choice", "it decides about tools by itself")
    elif choice not in ("auto", "none", "required") and not profile.named_tool_choice:
        only = tuple(tool for tool in request.tools if tool.name == choice)
        if only != request.tools:
            fitting.change("tools", only, "lowered", "it cannot be held to one tool by name: only that one is offered")
        fitting.change("tool_choice", "required", "renamed", "it cannot be held to one tool by name")


def _fit_structured_output(fitting: _Fitting) -> None:
    wanted, profile = fitting.request.structured_output, fitting.profile
    if wanted is None:
        return
    if fitting.capabilities.structured_output and profile.structured == "json_schema":
        projection = fitting.schemas.output
        if projection is not None:
            _send_projection(fitting, wanted, projection)
        return
    _write_schema_into_prompt(fitting, wanted)
    if fitting.capabilities.structured_output and profile.structured == "json_object":
        reason = "it can be held to JSON, not to a schema: the schema stands in the prompt"
        fitting.change("structured_output", "json_object", "emulated", reason, asked=wanted.name)
        fitting.changes["response_format"] = {"type": "json_object"}
    else:
        reason = "it cannot be held to a schema: that stands in the prompt"
        fitting.change("structured_output", None, "emulated", reason, asked=wanted.name)
    fitting.changes["structured_output"] = None


def _send_projection(fitting: _Fitting, wanted: StructuredOutput, projection: Projection) -> None:
    """Send what the vendor enforces of a schema, or the whole schema where it does not: loosely, or in the prompt."""
    if projection.strict and projection.schema == wanted.json_schema:
        return
    subset = subset_of(fitting.profile)
    if not projection.strict and subset is not None and not subset.has_loose_mode:
        _write_schema_into_prompt(fitting, wanted)
        reason = "; ".join((*projection.adjustments, "the schema stands in the prompt"))
        fitting.change("structured_output", None, "emulated", reason, asked=wanted.name)
        return
    sent = attrs.evolve(wanted, json_schema=projection.schema, strict=projection.strict)
    reason = "; ".join(projection.adjustments) or "strict mode takes closed objects with every property required"
    action = "projected" if projection.strict else "lowered"
    fitting.change("structured_output", wanted.name, action, reason, value=sent, asked=wanted.name)


def _fit_strict_tools(fitting: _Fitting) -> None:
    """Project the schemas of strict tools as those of answers are; a tool that cannot be strict is offered loosely."""
    tools: tuple[Tool, ...] = fitting.changes.get("tools", fitting.request.tools) or ()
    fitted = []
    for tool in tools:
        projection = fitting.schemas.tools.get(tool.name)
        if projection is None or (projection.strict and projection.schema == tool.parameters):
            fitted.append(tool)
            continue
        words = projection.adjustments
        if projection.strict:
            fitted.append(attrs.evolve(tool, parameters=projection.schema))
            action, words = "projected", words or ("strict tools take closed objects",)
        else:
            fitted.append(attrs.evolve(tool, strict=False))
            action = "lowered"
        reason = "; ".join(words)
        fitting.adjustments.append(
            Adjustment(field="tools", action=action, asked=tool.name, sent=tool.name, reason=reason)
        )
    if tuple(fitted) != tools:
        fitting.changes["tools"] = tuple(fitted)


def _write_schema_into_prompt(fitting: _Fitting, wanted: StructuredOutput) -> None:
    """Append the schema to the last user turn, unless the conversation holds it already."""
    request, messages = fitting.request, fitting.changes.get("messages", fitting.request.messages)
    schema = json.dumps(wanted.json_schema, ensure_ascii=False)
    indented = json.dumps(wanted.json_schema, ensure_ascii=False, indent=2)
    if any(schema in turn.text or indented in turn.text for turn in request.turns()):
        return
    instruction = f"Answer with one JSON value and nothing else. It must validate against this JSON Schema:\n{schema}"
    if not request.messages:
        fitting.changes["prompt"] = f"{request.prompt}\n\n{instruction}"
        return
    *before, last = messages
    if last.role != "user":
        fitting.changes["messages"] = (*messages, Message("user", instruction))
    elif isinstance(last.content, str):
        fitting.changes["messages"] = (*before, attrs.evolve(last, content=f"{last.content}\n\n{instruction}"))
    else:
        fitting.changes["messages"] = (*before, attrs.evolve(last, content=(*last.content, TextPart(text=instruction))))


def _fit_instructions(fitting: _Fitting) -> None:
    place, turns = fitting.profile.instruction_place, fitting.request.messages
    moved = move_instructions(turns, place)
    if moved == turns:
        return
    where = "at the beginning" if place is InstructionPlace.FIRST else "between a user's turn and the answer to it"
    fitting.changes["messages"] = moved
    fitting.adjustments.append(
        Adjustment(field="messages", action="moved", reason=f"it takes system and developer turns {where} only")
    )


def _fit_prefill(fitting: _Fitting) -> None:
    """Ask the model to go on where the conversation ends with its own text and it would refuse such a prefill.

    A turn that ends with a call, or with a block of a tool that the vendor runs, is no prefill.
    """
    messages: tuple[Message, ...] = fitting.changes.get("messages", fitting.request.messages)
    last = next((turn for turn in reversed(messages) if not is_instruction(turn)), None)
    if last is None or last.role != Role.ASSISTANT or last.tool_calls or _accepts(fitting, fitting.profile.prefill):
        return
    parts = (last.content,) if isinstance(last.content, str) else last.content
    if not parts or not (isinstance(parts[-1], str | TextPart)) or not last.text.strip():
        return
    fitting.changes["messages"] = (*messages, Message("user", _GO_ON))
    reason = "it refuses a conversation that ends with its own text: a turn asks it to go on"
    fitting.adjustments.append(Adjustment(field="messages", action="added", sent=_GO_ON, reason=reason))


def _fit_turns_after_tools(fitting: _Fitting) -> None:
    if fitting.profile.user_after_tool:
        return
    messages: tuple[Message, ...] = fitting.changes.get("messages", fitting.request.messages)
    turns: list[Message] = []
    for turn in messages:
        if turn.role == Role.USER and turns and turns[-1].role == Role.TOOL:
            turns.append(Message(Role.ASSISTANT, _HAVE_READ))
        turns.append(turn)
    if len(turns) > len(messages):
        fitting.changes["messages"] = tuple(turns)
        reason = "it refuses a user's turn after the result of a tool: a turn of the model's stands between them"
        fitting.adjustments.append(Adjustment(field="messages", action="added", sent=_HAVE_READ, reason=reason))


def _fit_prompt_cache(fitting: _Fitting) -> None:
    if fitting.request.prompt_cache and fitting.profile.prompt_cache == "none":
        fitting.drop("prompt_cache", "it is not known to cache prompts")


_STEPS: tuple[Callable[[_Fitting], None], ...] = (
    _fit_instructions,
    _fit_max_tokens,
    _fit_reasoning,  # before sampling, which depends on what became of it
    _fit_sampling,
    _fit_stop,
    _fit_tool_choice,
    _fit_strict_tools,
    _fit_structured_output,
    _fit_turns_after_tools,
    _fit_prefill,  # after the schema, which may have become a last turn of the user's
    _fit_prompt_cache,
)
