"""Secrets, and the redactor for all text that leaves the library."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, Self, overload

from llm_council.errors._visible import CONTROLS

__all__ = ["MASK", "Secret", "StreamMask", "clean", "hide_password", "live", "masked", "may_hold_keys", "redact"]

MASK = "***"
"""The text that replaces a secret."""

# By identity: two adapters may hold equal keys, and the value must stay known while either of them lives.
_live: weakref.WeakValueDictionary[int, Secret] = weakref.WeakValueDictionary()

# Keys that no Secret of ours holds: the shapes of vendors' keys, bearer values, keys in URLs. Most texts contain none,
# so a cheap test comes first: for the word beside a pattern, in lower case, or for one of the prefixes if it has none.
_PREFIXES = ("sk", "pk", "rk", "xai", "r8", "hf", "nvapi", "fw", "ghp", "gho", "ghs", "pat")
_PATTERNS = (
    # sk: OpenAI, Anthropic, OpenRouter; gsk: Groq; r8: Replicate; hf: Hugging Face; csk: Cerebras; fw: Fireworks.
    ("", re.compile(r"\b(?:sk|pk|rk|gsk|xai|r8|hf|nvapi|csk|fw)[-_][A-Za-z0-9_\-]{12,}")),
    # Google.
    ("aiza", re.compile(r"\bAIza[A-Za-z0-9_\-]{20,}")),
    # GitHub.
    ("", re.compile(r"\b(?:ghp|gho|ghs|github_pat)_[A-Za-z0-9_]{16,}")),
    ("bearer ", re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=\-]{8,}")),
    ("key=", re.compile(r"(?i)(?<=[?&]key=)[^&\s\"'<>]+")),
    ("api_key=", re.compile(r"(?i)(?<=[?&]api_key=)[^&\s\"'<>]+")),
    ("access_token=", re.compile(r"(?i)(?<=[?&]access_token=)[^&\s\"'<>]+")),
    ("password=", re.compile(r"(?i)(?<=[?&]password=)[^&\s\"'<>]+")),
    # The user and password of an address, such as a proxy's; that of ``hide_password`` shows the user.
    ("://", re.compile(r"(?<=://)[^/\s:@\"']*:(?!\*\*\*@)[^/\s@\"']+(?=@)")),
)

# Up to the last "@": a password in which "@" or "/" is not percent-encoded is hidden, too.
_PASSWORD = re.compile(r"(?<=://)([^:@/?#]*):.*@", re.DOTALL)
_PASSWORD_PARAMETER = re.compile(r"(?i)(?<=[?&])((?:ssl)?password=)[^&]*")

_CONTROLS = re.compile(f"[{CONTROLS}]")


class Secret:
    """A credential that is never shown by accident.

    ``repr``, ``str`` and ``format`` return ``'***'``. A pickle holds the name of the environment variable, never the
    value: the copy reads the variable where it is unpickled, and is empty if that is not set.

    Args:
        value: the credential; surrounding whitespace is removed.
        env: the environment variable that it came from, if any.

    Raises:
        ValueError: the value is empty, not ASCII, or has a control character or a space in it. The message does not
            show the value.
    """

    __slots__ = ("__weakref__", "_env", "_value")

    def __init__(self, value: str, *, env: str | None = None) -> None:
        value = value.strip()
        where = f" in {env}" if env else ""
        if not value:
            raise ValueError(f"the key{where} is empty")
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise ValueError(f"the key{where} has a line break, a space or a character outside ASCII: copy it again")
        self._value = value
        self._env = env
        _live[id(self)] = self

    def reveal(self) -> str:
        """Return the credential itself, to be written into a header."""
        if not self._value:
            raise LookupError(f"a pickle does not contain the key: set {self._env or 'it'} in this process, too")
        return self._value

    def fingerprint(self) -> str:
        """Return twelve hexadecimal digits that differ between credentials and do not reveal them."""
        return hashlib.blake2b(self._value.encode(), digest_size=6, person=b"llm-council").hexdigest()

    @property
    def variable(self) -> str | None:
        """The environment variable that it came from, if any."""
        return self._env

    def __repr__(self) -> str:
        return f"'{MASK}'"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # In constant time: the duration of ``==`` depends on how many characters are equal.
        return hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self.fingerprint()))

    # A Secret is immutable, so that a copy can be the object itself and stays in ``_live``.
    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._env,)

    # A crafted pickle could otherwise set a value that ``__init__`` would refuse.
    def __setstate__(self, state: object) -> NoReturn:
        raise TypeError("a Secret takes no state")


def _restore(env: str | None) -> Secret:
    value = os.environ.get(env, "").strip() if env else ""
    if value:
        return Secret(value, env=env)
    empty = Secret.__new__(Secret)
    empty._value = ""
    empty._env = env
    return empty


def live() -> list[str]:
    """Return the values of all secrets in this process, the longest first because one may contain another."""
    # valuerefs() is a snapshot: other threads make and drop secrets meanwhile.
    held = (reference() for reference in _live.valuerefs())
    # A value of up to three characters would be masked within ordinary words.
    values = {secret._value for secret in held if secret is not None and len(secret._value) >= 4}
    return sorted(values, key=len, reverse=True)


def masked(text: str) -> str:
    """Replace every live secret by ``***`` and change nothing else: for a model's text, which may be about keys."""
    return _without(text, live())


def _without(text: str, values: list[str]) -> str:
    # The caller sorts the values, the longest first: one may contain another.
    for value in values:
        text = text.replace(value, MASK)
    return text


class StreamMask:
    """Mask live secrets in a text that arrives in pieces.

    A possible start of a secret at the end of a piece is held back until the next piece.
    """

    def __init__(self) -> None:
        self._kept = ""

    def feed(self, piece: str, values: list[str] | None = None) -> str:
        """Return the masked text that can be shown now; less than the length of the longest secret is held back.

        Args:
            piece: the next characters.
            values: the result of ``live``, if the caller has it already.
        """
        if values is None:
            values = live()
        text = self._kept + piece if self._kept else piece
        kept = 0
        for value in values:
            if (at := text.find(value[0], -len(value) + 1)) >= 0:
                kept = max(kept, _overlap(text, value, at))
        if not kept:
            self._kept = ""
            return _without(text, values)
        cut = _before_any(text, len(text) - kept, values)
        self._kept = text[cut:]
        return _without(text[:cut], values)

    def rest(self) -> str:
        """Return the text that was held back; there is no next piece."""
        kept, self._kept = self._kept, ""
        return masked(kept)


def _overlap(text: str, value: str, at: int) -> int:
    """Return how many characters at the end of the text, from ``at`` on, may be the start of the value."""
    while at >= 0:
        if value.startswith(text[at:]):
            return len(text) - at
        at = text.find(value[0], at + 1)
    return 0


def _before_any(text: str, cut: int, values: list[str]) -> int:
    """Return the last position up to ``cut`` that is inside no value: a cut value would be shown in part."""
    while True:
        found = (text.find(value, max(0, cut - len(value) + 1), cut + len(value) - 1) for value in values)
        inside = min((at for at in found if 0 <= at < cut), default=cut)
        if inside == cut:
            return cut
        cut = inside


def redact(text: str) -> str:
    """Replace every live secret, and everything that looks like a key, by ``***``.

    Args:
        text: any text that is about to leave the library.
    """
    text = masked(text)
    for pattern in _likely(text):
        text = pattern.sub(MASK, text)
    return text


def hide_password(address: str) -> str:
    """Return the address of a store for people: the password is ``***``, and every secret is."""
    hidden = _PASSWORD.sub(rf"\1:{MASK}@", address)
    return redact(_PASSWORD_PARAMETER.sub(rf"\1{MASK}", hidden))


def _likely(text: str) -> Iterator[re.Pattern[str]]:
    """Yield the patterns that may match in the text."""
    folded = text.casefold()
    dashed = folded.replace("_", "-")
    has_prefix = any(f"{prefix}-" in dashed for prefix in _PREFIXES)
    for word, pattern in _PATTERNS:
        if word in folded if word else has_prefix:
            yield pattern


def may_hold_keys(text: str) -> bool:
    """Return False if ``redact`` would change neither the text nor, if it is JSON in ASCII, any string in it."""
    if any(_likely(text)):
        return True
    for value in live():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        if value in text or escaped in text:
            return True
    return False


def clean(text: str, *, limit: int = 1024) -> str:
    """Return foreign text as a message: redacted, without control characters, at most ``limit`` characters."""
    # Redact before the final cut, which could leave a part of a key that no pattern matches; bound the work first.
    text = redact(text[: limit * 64].encode("utf-8", "replace").decode())
    text = _CONTROLS.sub("", text.replace("\r\n", "\n"))
    return text if len(text) <= limit else text[: limit - 1] + "…"


class MaskedText:
    """A masked text in pieces.

    It is joined on use: the pieces of a long text are still in memory when its call ends, so that joining them then
    would double it.
    """

    def __init__(self, pieces: Iterable[str]) -> None:
        mask = StreamMask()
        self._pieces = [*map(mask.feed, pieces), mask.rest()]

    def __str__(self) -> str:
        return "".join(self._pieces)

    def __bool__(self) -> bool:
        return any(self._pieces)

    def __repr__(self) -> str:
        return repr(str(self))

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class PartialText:
    """The descriptor of an error's ``partial``: a masked string or None; a ``MaskedText`` is joined when it is read."""

    @overload
    def __get__(self, error: None, owner: type) -> Self: ...

    @overload
    def __get__(self, error: Any, owner: type | None = None) -> str | None: ...

    def __get__(self, error: Any, owner: type | None = None) -> Self | str | None:
        if error is None:
            return self
        known: str | MaskedText | None = vars(error).get("partial")
        if isinstance(known, MaskedText):
            known = vars(error)["partial"] = str(known) or None
        return known

    def __set__(self, error: Any, value: str | MaskedText | None) -> None:
        vars(error)["partial"] = masked(value) if isinstance(value, str) and value else value
