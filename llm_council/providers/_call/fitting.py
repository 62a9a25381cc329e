"""What a request becomes for a provider and a model: knobs are dropped, lowered or renamed, and each change is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import attrs

from llm_council._schema import Projection, project_strict
from llm_council._schema import compile as compile_schema
from llm_council.errors import CapabilityMissing, InvalidOption
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.messages import ImagePart, Message, TextPart
from llm_council.models.reply import Adjustment, GenerateResponse
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput
from llm_council.providers._call.bounded import is_own_middleware
from llm_council.providers._call.profiles import ModelProfile, Sampling

__all__ = ["emulate_schema", "fit", "fit_for", "fits_requests", "fitted", "is_emulated", "missed", "unmet"]

F = TypeVar("F", bound=Callable[..., Any])


def fit(
    request: GenerateRequest, capabilities: ProviderCapabilities, profile: ModelProfile | None = None
) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Fit a request to what a provider can do and a model takes.

    Pure, and a fixed point: what it returns fits without a further change.

    Args:
        request: what is asked.
        capabilities: what the provider can do.
        profile: what the model takes; None knows nothing of it, and leaves its knobs as asked.

    Returns:
        The request to send, the very same where it fits, and what was changed in it.

    Raises:
        CapabilityMissing: the request needs tools or images where there are none; nothing can stand in for them.
    """
    if profile is None:
        profile = _UNKNOWN
    _require(request, capabilities, profile)
    bargain = _Bargain(request, capabilities, profile)
    for step in _STEPS:
        step(bargain)
    if not bargain.changes:
        return request, ()
    return attrs.evolve(request, **bargain.changes), tuple(bargain.adjustments)


def fits_requests(method: F) -> F:
    """Mark a ``generate`` or ``stream`` that fits its request itself, or passes it on to adapters that do."""
    vars(method)["_fits_requests"] = True
    return method


def fit_for(
    adapter: Any, method: Callable[..., Any], request: GenerateRequest
) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Fit a request for the method of an adapter that is about to be called.

    A method marked with ``fits_requests`` gets the request as it is, and so does a middleware of ours: a request is
    fitted once per adapter.

    Raises:
        InvalidOption: the adapter has no ``capabilities``.
    """
    if getattr(method, "_fits_requests", False) or is_own_middleware(adapter):
        return request, ()
    return fitted(adapter, request)


def fitted(adapter: Any, request: Any) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
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
    fitting = _Bargain(request, ProviderCapabilities(), _UNKNOWN)
    _fit_structured_output(fitting)
    return attrs.evolve(request, **fitting.changes), tuple(fitting.adjustments)


def is_emulated(adjustments: tuple[Adjustment, ...]) -> bool:
    """Tell whether the answer's schema stands in the prompt alone, so that nothing but our own check enforces it."""
    return any(
        adjustment.field == "structured_output" and adjustment.action == "emulated" for adjustment in adjustments
    )


def unmet(request: GenerateRequest, text: str | None) -> tuple[Adjustment, ...]:
    """Say where an answer misses the schema that could only be asked for in the prompt; nothing where it meets it."""
    wanted = request.structured_output
    if wanted is None:
        return ()
    problems = compile_schema(wanted.json_schema).read(text or "").problems
    if not problems:
        return ()
    reason = "; ".join(f"{problem.path}: {problem.message}" for problem in problems[:3])
    return (Adjustment(field="structured_output", action="emulated", reason=f"the answer does not meet it: {reason}"),)


def missed(
    request: GenerateRequest, response: GenerateResponse, adjustments: tuple[Adjustment, ...] = ()
) -> tuple[Adjustment, ...]:
    """Say where an answer misses the schema that stands in the prompt alone; one that calls tools is no answer yet.

    Nothing is said twice.

    Args:
        request: what was asked.
        response: what came back, with the adapter's own adjustments.
        adjustments: those that were made before the adapter was asked.
    """
    if response.tool_calls or not is_emulated(adjustments + response.adjustments):
        return ()
    return tuple(found for found in unmet(request, response.text) if found not in response.adjustments)


_UNKNOWN = ModelProfile()


class _Bargain:
    """One request on its way through the steps."""

    def __init__(self, request: GenerateRequest, capabilities: ProviderCapabilities, profile: ModelProfile) -> None:
        self.request = request
        self.capabilities = capabilities
        self.profile = profile
        self.changes: dict[str, Any] = {}
        self.adjustments: list[Adjustment] = []

    def change(self, field: str, sent: Any, action: str, reason: str, *, value: Any = None, asked: Any = None) -> None:
        """Change a field; ``value`` is what it becomes, ``asked`` what it was, where these differ from what is told."""
        asked = getattr(self.request, field) if asked is None else asked
        self.changes[field] = sent if value is None else value
        self.adjustments.append(Adjustment(field=field, action=action, asked=asked, sent=sent, reason=reason))

    def drop(self, field: str, reason: str, *, empty: Any = None) -> None:
        """Leave a field out."""
        self.change(field, None, "dropped", reason, value=empty)

    @property
    def reasoning(self) -> ReasoningConfig | None:
        """The reasoning that will be asked for."""
        config: ReasoningConfig | None = self.changes.get("reasoning", self.request.reasoning)
        return config


def _require(request: GenerateRequest, capabilities: ProviderCapabilities, profile: ModelProfile) -> None:
    if request.tools and not (capabilities.tool_use and profile.tools):
        raise _missing("tool_use", "takes no tools", request)
    images = [part for turn in request.messages if not isinstance(turn.content, str) for part in turn.content]
    images = [part for part in images if isinstance(part, ImagePart)]
    if images and not (capabilities.multimodal and profile.images):
        raise _missing("multimodal", "takes no images", request)
    if not profile.image_urls and any(part.url for part in images if isinstance(part, ImagePart)):
        raise _missing(
            "multimodal", "takes images as data only, no addresses: pass ImagePart(data=..., media_type=...)", request
        )


def _missing(capability: str, what: str, request: GenerateRequest) -> CapabilityMissing:
    who = f"model {request.model!r}" if request.model else "the provider"
    return CapabilityMissing(f"{who} {what}; nothing was sent", capability=capability, model=request.model)


def _fit_max_tokens(bargain: _Bargain) -> None:
    asked = bargain.request.max_tokens
    ceilings = [most for most in (bargain.capabilities.max_tokens, bargain.profile.max_output) if most is not None]
    if asked is not None and ceilings and asked > min(ceilings):
        bargain.change("max_tokens", min(ceilings), "lowered", "the most tokens that an answer of it can have")


def _fit_reasoning(bargain: _Bargain) -> None:
    asked, profile = bargain.request.reasoning, bargain.profile
    if asked is None:
        return
    if not bargain.capabilities.reasoning or not profile.efforts:
        bargain.drop("reasoning", "its reasoning cannot be controlled")
        return
    effort = _nearest(asked.effort, profile)
    budget = asked.budget_tokens if profile.reasoning_budget else None
    if effort is asked.effort and budget == asked.budget_tokens:
        return
    if effort is None and budget is None:
        bargain.drop("reasoning", f"it takes reasoning effort {_words(profile.efforts)} only")
        return
    if effort is asked.effort:
        action, reason = "lowered", "it takes a word of effort, and no budget of reasoning tokens"
    else:
        order = list(Effort)
        raised = effort is not None and asked.effort is not None and order.index(effort) > order.index(asked.effort)
        action, reason = "raised" if raised else "lowered", f"it takes reasoning effort {_words(profile.efforts)} only"
    bargain.change("reasoning", ReasoningConfig(effort=effort, budget_tokens=budget), action, reason)


def _nearest(asked: Effort | None, profile: ModelProfile) -> Effort | None:
    """Return the accepted effort nearest to the asked one, the lower first; to think a little is never not to think."""
    if asked is None or asked in profile.efforts:
        return asked
    order = list(Effort)
    thinking = [effort for effort in profile.efforts if effort is not Effort.NONE]
    if asked is Effort.NONE or not thinking:
        return None
    lower = [effort for effort in thinking if order.index(effort) < order.index(asked)]
    return max(lower, key=order.index) if lower else min(thinking, key=order.index)


def _words(efforts: tuple[Effort, ...]) -> str:
    return ", ".join(efforts)


def _fit_sampling(bargain: _Bargain) -> None:
    request, profile = bargain.request, bargain.profile
    effort = bargain.reasoning.effort if bargain.reasoning else None
    thinks = profile.reasons if effort is None else effort is not Effort.NONE
    if profile.sampling is Sampling.NEVER or (profile.sampling is Sampling.WITHOUT_REASONING and thinks):
        for field in ("temperature", "top_p"):
            if getattr(request, field) is not None:
                bargain.drop(field, "it refuses this while it reasons")
        return
    highest = profile.max_temperature
    if request.temperature is not None and highest is not None and request.temperature > highest:
        bargain.change("temperature", highest, "lowered", "the highest temperature that it takes")


def _fit_stop(bargain: _Bargain) -> None:
    stop, profile = bargain.request.stop, bargain.profile
    if stop and not profile.stop:
        bargain.drop("stop", "it takes no stop texts", empty=())
    elif profile.max_stops is not None and len(stop) > profile.max_stops:
        bargain.change("stop", stop[: profile.max_stops], "lowered", f"it takes {profile.max_stops} stop texts")


def _fit_tool_choice(bargain: _Bargain) -> None:
    request, profile = bargain.request, bargain.profile
    choice = request.tool_choice
    if choice is None:
        return
    if not profile.tool_choice and choice == "none":
        # To offer no tools is the only way left to forbid them.
        bargain.drop("tools", "it cannot be told not to use them", empty=())
        bargain.drop("tool_choice", "no tools are offered instead")
    elif not profile.tool_choice:
        bargain.drop("tool_choice", "it decides about tools by itself")
    elif choice not in ("auto", "none", "required") and not profile.named_tool_choice:
        only = tuple(tool for tool in request.tools if tool.name == choice)
        if only != request.tools:
            bargain.change("tools", only, "lowered", "it cannot be held to one tool by name: only that one is offered")
        bargain.change("tool_choice", "required", "renamed", "it cannot be held to one tool by name")


def _fit_structured_output(bargain: _Bargain) -> None:
    wanted, profile = bargain.request.structured_output, bargain.profile
    if wanted is None:
        return
    if bargain.capabilities.structured_output and profile.structured == "json_schema":
        if wanted.strict and profile.strict_schema:
            _project(bargain, wanted)
        return
    _say_schema(bargain, wanted)
    if bargain.capabilities.structured_output and profile.structured == "json_object":
        reason = "it can be held to JSON, not to a schema: the schema stands in the prompt"
        bargain.change("structured_output", "json_object", "emulated", reason, asked=wanted.name)
        bargain.changes["response_format"] = {"type": "json_object"}
    else:
        reason = "it cannot be held to a schema: that stands in the prompt"
        bargain.change("structured_output", None, "emulated", reason, asked=wanted.name)
    bargain.changes["structured_output"] = None


def _project(bargain: _Bargain, wanted: StructuredOutput) -> None:
    """Put a schema into the subset that strict mode enforces, or leave strict mode off where it cannot be said."""
    projection = _projected(json.dumps(wanted.json_schema))
    if projection.strict and projection.schema == wanted.json_schema:
        return
    sent = attrs.evolve(wanted, json_schema=projection.schema, strict=projection.strict)
    reason = "; ".join(projection.adjustments) or "strict mode takes closed objects with every property required"
    action = "projected" if projection.strict else "lowered"
    bargain.change("structured_output", wanted.name, action, reason, value=sent, asked=wanted.name)


@lru_cache(maxsize=128)
def _projected(schema: str) -> Projection:
    return project_strict(json.loads(schema))


def _say_schema(bargain: _Bargain, wanted: StructuredOutput) -> None:
    """Write the schema at the end of the last user turn, unless the conversation says it already."""
    request = bargain.request
    said = "\n".join(turn.text for turn in request.turns())
    schema = json.dumps(wanted.json_schema, ensure_ascii=False)
    if schema in said or json.dumps(wanted.json_schema, ensure_ascii=False, indent=2) in said:
        return
    words = f"Answer with one JSON value and nothing else. It must validate against this JSON Schema:\n{schema}"
    if not request.messages:
        bargain.changes["prompt"] = f"{request.prompt}\n\n{words}"
        return
    *before, last = request.messages
    if last.role != "user":
        bargain.changes["messages"] = (*request.messages, Message("user", words))
    elif isinstance(last.content, str):
        bargain.changes["messages"] = (*before, attrs.evolve(last, content=f"{last.content}\n\n{words}"))
    else:
        bargain.changes["messages"] = (*before, attrs.evolve(last, content=(*last.content, TextPart(text=words))))


def _fit_prompt_cache(bargain: _Bargain) -> None:
    if bargain.request.prompt_cache and bargain.profile.prompt_cache == "none":
        bargain.drop("prompt_cache", "it is not known to cache prompts")


_STEPS: tuple[Callable[[_Bargain], None], ...] = (
    _fit_max_tokens,
    _fit_reasoning,  # before sampling, which depends on what became of it
    _fit_sampling,
    _fit_stop,
    _fit_tool_choice,
    _fit_structured_output,
    _fit_prompt_cache,
)
