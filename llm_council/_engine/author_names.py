"""Hide the words by which a text says which model, or whose, has written it.

Reviewers must not learn the authors of drafts, and models say their names in their own spelling: "I am Claude, made by
Anthropic". A name alone says nothing: Claude Monet, the constellation Gemini and "Windows is developed by Microsoft"
stay, because they may be the answer. A name is hidden where its sentence speaks of the author.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["hide_authors", "hide_speaker", "spelled_freely"]

_MARK = "[seat]"

# Names of model families and of their makers, as the models write them (the vendors' model pages, read 2026-11-30).
_NAMES = (
    r"Claude", r"Anthropic", r"Chat ?GPT", r"GPT", r"Open ?AI", r"Codex", r"Gemini", r"Gemma", r"Bard",
    r"Google DeepMind", r"DeepMind", r"Google", r"Grok", r"xAI", r"x\.AI", r"Llama", r"Meta AI", r"Meta",
    r"Mistral AI", r"Mistral", r"Mixtral", r"Ministral", r"Magistral", r"Codestral", r"Devstral", r"Le Chat",
    r"Qwen", r"QwQ", r"Tongyi(?: Qianwen)?", r"Alibaba Cloud", r"Alibaba", r"DeepSeek", r"Command[- ][AR]\b\+?",
    r"Cohere", r"Aya", r"Kimi", r"Moonshot AI", r"Moonshot", r"ChatGLM", r"GLM", r"Zhipu(?: AI)?", r"Z\.ai",
    r"Phi(?=-\d)", r"Microsoft", r"Copilot", r"Amazon Nova", r"Amazon", r"Granite", r"IBM", r"MiniMax", r"Nemotron",
    r"NVIDIA", r"Jamba", r"AI21(?: Labs)?", r"ERNIE(?: Bot)?", r"Baidu", r"Doubao", r"ByteDance", r"Hunyuan",
    r"Tencent", r"SmolLM2?", r"Hugging Face", r"Perplexity", r"OLMo", r"Ai2", r"o[134](?:-mini|-pro)?",
)  # fmt: skip
_VERSION = (
    r"(?:[ \-]?v?\d+(?:\.\d+)*[a-z]?\b|[ \-](?:Opus|Sonnet|Haiku|Fable|Mythos|mini|nano|pro|ultra|flash|lite|turbo"
    r"|large|medium|small|max|plus|coder|codex|instruct|chat|thinking|preview|scout|maverick)\b)*"
)
# A version may follow at once, as in "Qwen2.5".
_NAME = rf"(?P<name>(?:{'|'.join(sorted(_NAMES, key=len, reverse=True))})(?![a-z_]){_VERSION})"
# Repetitions are bounded: a text of a hundred thousand spaces or lines must not take seconds.
_SPACE, _SPACES, _SIGNS = r"\s{1,4}", r"\s{0,4}", r"\W{0,8}"
_KIND = (
    r"(?:(?:an?|the)\s{1,4})?(?:(?:large|helpful|AI|artificial intelligence|language|general|virtual)[ \-]{1,4}){0,8}"
    r"(?:model|assistant|AI|LLM|chatbot)"
)
_MADE = (
    r"(?:made|trained|created|developed|built|designed|provided|offered|powered|fine-tuned|entwickelt|trainiert"
    r"|entra\u00een\u00e9e?|d\u00e9velopp\u00e9e?|cr\u00e9\u00e9e?|creado|entrenado|desarrollado)"
    r"\s{1,4}(?:by|at|with|von|par|por)"
)
_OF = rf"(?:{_MADE}|by|of|from|at|von|de)"
_GAP = r"[\s,:*_\"'`(\[]{0,8}(?:the\s{1,4})?"
_I_AM = (
    r"(?:\b(?:I am|I'm|I\u2019m|this is|my name is|call me|here is|ich bin|mein Name ist|je suis|je m['\u2019]appelle"
    r"|soy|me llamo|sou|sono|mi chiamo|ik ben)\b|\u6211\u662f|\u79c1\u306f)"
)
_AS = r"(?:^|[.!?]\s{1,4})\W{0,8}(?:as|als|en tant que|como)"
_NO_REPORT = r"(?!\s{1,4}(?:says|said|puts|states|notes|does|did|has|shows)\b)"  # of "As Google says, ..."
_SIGNED = r"(?:\u2014|\u2013|--|~|\b(?:signed|sincerely|regards|yours|wishes|author|model)\b[:,]?)"
_ME = r"\b(?:I|me|my|myself|we)\b"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        rf"{_I_AM}{_GAP}(?:{_KIND},?{_SPACE}(?:named|called|{_OF}){_GAP})?{_NAME}",  # I am Claude; I'm an AI by OpenAI
        rf"{_AS}{_GAP}(?:{_KIND},?{_SPACE}(?:named|called|{_OF}){_GAP})?{_NAME}{_NO_REPORT}",  # As Gemini, I say
        rf"{_ME}(?:(?!{_ME})[^.!?\n]){{0,80}}?\b{_MADE}{_GAP}{_NAME}",  # I was trained by OpenAI
        rf"\bmy{_SPACE}(?:maker|creator|developer|training|company|vendor)s?\b{_SIGNS}(?:is|are|at|by)?{_GAP}{_NAME}",
        rf"\b(?:answer|response|draft|reply|text|output)\b[^.!?\n]{{0,30}}?\b(?:by|from){_GAP}{_NAME}",
        rf"\A{_SIGNS}{_NAME}(?={_SIGNS}:)",  # "Claude: It is 4."
        rf"(?:^|[.!?]{_SPACE}|,{_SPACE}){_NAME}(?={_SPACE}(?:here|speaking)\b)",
        rf"{_NAME}(?=['\u2019]s{_SPACE}(?:answer|response|draft|reply|polic(?:y|ies)|guidelines)\b)",
        # A signature: "-- Claude", "Signed, Grok", "Best regards,\nGemini", "Model: GPT-5", "(Claude Sonnet 4.6)".
        rf"{_SIGNED}{_GAP}{_NAME}(?={_SIGNS}$)",
        rf"[(\[]{_SPACES}{_NAME}{_SPACES}(?=[)\]]{_SIGNS}\Z)",
    )
)
_HIDDEN = rf"{re.escape(_MARK)}[\s,*_]{{0,8}}"
# Beside a name that is hidden already: "[seat] (Anthropic)", "[seat], a model of Google", "OpenAI's [seat]".
_BESIDE = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_HIDDEN}(?:\(|(?:{_KIND}{_SPACES},?{_SPACE})?{_OF}){_GAP}{_NAME}",
        rf"{_HIDDEN}{_KIND}{_SPACES},?{_SPACE}(?:that|which|who){_SPACE}[^.!?\n]{{0,30}}?{_MADE}{_GAP}{_NAME}",
        rf"{_NAME}(?=(?:['\u2019]s)?{_SPACE}{re.escape(_MARK)})",
    )
)
# Most texts hold no name. Python searches a text in lower case six times faster than it ignores the case of one.
_ANY_NAME = re.compile("|".join(_NAMES), re.IGNORECASE)
_ANY_LOWER_NAME = re.compile("|".join(_NAMES).lower())


def hide_authors(text: str, keep: str = "") -> str:
    """Replace the names by which a text speaks of its own author.

    Args:
        text: the text.
        keep: names that this text holds, such as the task, are not replaced.
    """
    # Letters such as the dotless i match without their case, and are other letters in lower case.
    found = _ANY_LOWER_NAME.search(text.lower()) if text.isascii() else _ANY_NAME.search(text)
    if found is None:
        return text
    kept = keep.lower()

    def hide(found: re.Match[str]) -> str:
        if found["name"].lower() in kept:
            return found[0]
        before = found[0][: found.start("name") - found.start()]
        after = found[0][found.end("name") - found.start() :]
        return f"{before}{_MARK}{after}"

    for pattern in _PATTERNS:
        text = pattern.sub(hide, text)
    if _MARK in text:
        for pattern in _BESIDE:
            text = pattern.sub(hide, text)
    return text


def hide_speaker(text: str, names: tuple[str, ...]) -> str:
    """Replace names that are also words, such as "pro", where a text says that its author is called so.

    Args:
        text: the text.
        names: the names.
    """
    for pattern in _speaker_patterns(names) if names else ():
        text = pattern.sub(lambda found: found[0][: found.start("name") - found.start()] + _MARK, text)
    return text


@lru_cache(maxsize=32)
def _speaker_patterns(names: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    name = rf"(?:an?\s{{1,4}})?(?P<name>{'|'.join(map(re.escape, names))})(?!\w)"
    return tuple(
        re.compile(pattern, re.IGNORECASE | re.MULTILINE)
        for pattern in (
            rf"{_I_AM}{_GAP}{name}",
            rf"{_AS}{_GAP}{name}{_NO_REPORT}",
            rf"^{_SIGNS}{name}(?={_SIGNS}:)",  # "Pro: It is 4."
            rf"{_SIGNED}{_GAP}{name}(?={_SIGNS}$)",
        )
    )


def spelled_freely(model: str) -> str | None:
    """Return a pattern for a model's name as models spell it: "Claude Sonnet 4.6" for ``claude-sonnet-4-6-20260115``.

    Args:
        model: the vendor's name of the model.

    Returns:
        None for a name without two parts, which is matched as it is.
    """
    name = model.rpartition("/")[2].partition(":")[0].partition("@")[0]
    name = re.sub(r"[-_.](?:\d{8}|\d{4}-\d{2}-\d{2}|latest|preview|exp|it|instruct)$", "", name)
    parts = [re.escape(part) for part in re.split(r"[-_.\s]+", name) if part]
    return r"[-_.\s]{0,2}".join(parts) if len(parts) > 1 else None
