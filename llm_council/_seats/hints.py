"""Read how a seat is written, name it, and suggest how to write one that was written in another way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from difflib import get_close_matches

from llm_council.errors import InvalidOption, UnknownOption, near

__all__ = ["hint_for", "seat_names", "split_count", "split_persona"]

_COUNT = re.compile(r"(?P<name>.+):(?P<count>[0-9]{1,3})")

# What is no count after a colon, and no tag of a model either, such as that of "ollama/llama3.2:1b". Behind a model, a
# number of four digits or with a point may be one.
_NO_COUNT = re.compile(r"(?P<name>.+):(?:|[-+][0-9.]+|x|x[0-9]+|[0-9]+x|0{1,3})")
_NO_COUNT_OF_PROVIDER = re.compile(r"(?P<name>[^/:]+):[0-9.]+")

# The letters that a model's name begins with -> the providers that have such models, and the vendor's name at
# OpenRouter, which puts it before the model (openrouter.ai, "Models").
_FAMILIES = {
    "gpt": (("openai",), "openai"),
    "chatgpt": (("openai",), "openai"),
    "o": (("openai",), "openai"),
    "claude": (("anthropic", "vertex"), "anthropic"),
    "gemini": (("gemini", "vertex"), "google"),
    "command": (("cohere",), "cohere"),
    "jamba": (("ai21",), "ai21"),
    "grok": (("xai",), "x-ai"),
    "deepseek": (("deepseek",), "deepseek"),
    "mistral": (("mistral",), "mistralai"),
    "magistral": (("mistral",), "mistralai"),
    "ministral": (("mistral",), "mistralai"),
    "codestral": (("mistral",), "mistralai"),
}

# Open models, which servers on the user's own machine run.
_OPEN = re.compile(r"llama|qwen|gemma|phi|mistral|mixtral|deepseek|smollm|gpt-oss|granite", re.IGNORECASE)

_TYPING_ERROR = 0.8  # a similarity of difflib; at its usual 0.6, "llama3.2" would be taken for "ollama"


def split_count(seat: str) -> tuple[str, int | None]:
    """Return the name of a seat and its count: ``("local", 3)`` of ``"local:3"``, ``("local", None)`` of ``"local"``.

    Raises:
        InvalidOption: what follows the colon was meant as a count and is none.
    """
    text = seat.strip()
    wrong = _NO_COUNT.fullmatch(text)
    found = None if wrong else _COUNT.fullmatch(text)
    if found:
        return found["name"], int(found["count"])
    wrong = wrong or _NO_COUNT_OF_PROVIDER.fullmatch(text)
    if wrong:
        name = wrong["name"]
        raise InvalidOption(f"providers: {seat!r:.80}: the number of seats after ':' is 1 to 999, such as '{name}:3'")
    return text, None


# What follows "@" in the names of models: a version on Vertex AI, such as "claude-opus-4-1@20250805" or "@default"
# (Google Cloud, "Claude on Vertex AI"), and a preset on OpenRouter, "@preset/NAME" (openrouter.ai, "Presets").
_OF_MODEL = re.compile(r"[0-9].*|default|latest|.*/.*")


def split_persona(seat: str, personas: Collection[str]) -> tuple[str, str | None]:
    """Return a seat without its persona, and the persona: ``("openai/gpt-6", "sceptic")`` of ``openai/gpt-6@sceptic``.

    The persona of a seat without one is None.

    Args:
        seat: an item of ``providers``; the part before ``@`` may be empty.
        personas: the names of the personas that the configuration has.

    Raises:
        UnknownOption: there is no such persona.
    """
    before, at, persona = seat.strip().rpartition("@")
    stem, colon, count = persona.partition(":")
    if at and colon and count.isdecimal() and stem in personas:  # "local@sceptic:3" is "local:3@sceptic"
        before, persona = f"{before}:{count}", stem
    if persona in personas and at:
        return before, persona
    if not at or _OF_MODEL.fullmatch(persona):
        return seat, None
    hint = near(persona, personas)
    known = f" (there are {', '.join(personas)})" if personas else ", a name in [[seats]] of your configuration"
    raise UnknownOption(f"providers: {seat!r:.80}: there is no persona {persona!r:.80}{hint or known}")


def seat_names(name: str, count: int | None, used: Counter[str]) -> list[str]:
    """Return the names of the seats of one item: ``local-1`` and on with a count, else ``local``, then ``local-2``.

    Args:
        name: the item without its count.
        count: its count.
        used: how often each name stood without a count; this one is added.
    """
    if count is not None:
        return [f"{name}-{number}" for number in range(1, count + 1)]
    used[name] += 1
    return [name if used[name] == 1 else f"{name}-{used[name]}"]


def hint_for(seat: str, known: Collection[str]) -> str:
    """Return what was probably meant by a seat whose provider does not exist; empty if there is no idea.

    Args:
        seat: an item of ``providers``, such as ``"openai:gpt-5"`` or ``"gpt-5"``.
        known: the names of all providers.
    """
    before, _, rest = seat.partition(":")
    if rest and not rest.isdecimal() and "/" not in before:
        similar = [before] if before in known else get_close_matches(before, known, n=1, cutoff=_TYPING_ERROR)
        if similar:
            return f"did you mean '{similar[0]}/{rest}'?"
    model = before if rest.isdecimal() else seat
    vendor, slash, _ = model.partition("/")
    if slash:
        similar = get_close_matches(vendor, known, n=1, cutoff=_TYPING_ERROR)
        return "" if similar else f"OpenRouter has models of that form: 'openrouter/{model}'"
    letters = re.match(r"[a-z]*", model.lower())
    word = letters[0] if letters else ""
    providers, at_openrouter = _FAMILIES.get(word, ((), ""))
    if word == model.lower():  # the family alone, such as "claude": the provider's default model will do
        return f"did you mean {' or '.join(map(repr, providers))}?" if len(word) > 1 and providers else ""
    ways = [f"'{provider}/{model}'" for provider in providers]
    if at_openrouter:
        ways.append(f"'openrouter/{at_openrouter}/{model}'")
    if _OPEN.match(model):
        ways.append(f"'ollama/{model}'")
    return f"a model needs its provider: {' or '.join(ways)}" if ways else ""
