"""Secrets and the one redactor that all outgoing text passes."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import weakref
from collections.abc import Iterator
from typing import Any, NoReturn

__all__ = ["MASK", "Secret", "StreamMask", "clean", "live", "masked", "may_hold_keys", "redact"]

MASK = "***"
"""What stands in place of a secret."""

# By identity: two adapters may hold equal keys, and each must be known for as long as either lives.
_live: weakref.WeakValueDictionary[int, Secret] = weakref.WeakValueDictionary()

# Keys that may come from elsewhere than a Secret of ours: vendors' key shapes, bearer values, keys in URLs. Most texts
# hold nothing of the kind, so a cheap look goes first: for the word beside a pattern, in lower case, or where there is
# none, for one of the words that stand before a sign.
_SIGNED = ("sk", "pk", "rk", "xai", "r8", "hf", "nvapi", "fw", "ghp", "gho", "ghs", "pat")
_LONGEST = max(map(len, _SIGNED))
_PATTERNS = (
    ("", re.compile(r"\b(?:sk|pk|rk|gsk|xai|r8|hf|nvapi|csk|fw)[-_][A-Za-z0-9_\-]{12,}")),
    ("aiza", re.compile(r"\bAIza[A-Za-z0-9_\-]{20,}")),
    ("", re.compile(r"\b(?:ghp|gho|ghs|github_pat)_[A-Za-z0-9_]{16,}")),
    ("bearer ", re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=\-]{8,}")),
    ("key=", re.compile(r"(?i)(?<=[?&]key=)[^&\s\"'<>]+")),
    ("api_key=", re.compile(r"(?i)(?<=[?&]api_key=)[^&\s\"'<>]+")),
    ("access_token=", re.compile(r"(?i)(?<=[?&]access_token=)[^&\s\"'<>]+")),
    ("://", re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)")),
)

# Everything a terminal or a log reader could take as a command: C0 but newline and tab, DEL, C1, bidi controls.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Secret:
    """Hold a credential so that it cannot be shown by accident.

    ``repr``, ``str`` and ``format`` give ``'***'``. Pickling carries the name of the environment variable, never the
    value: the copy reads the variable where it is unpickled, and is empty when there is none.

    Args:
        value: the credential; surrounding whitespace is removed.
        env: the environment variable that it came from, if any.

    Raises:
        ValueError: the value is empty, not ASCII, or has a control character or a space inside. The value is not shown.
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
        """Return the credential itself: for the one place that writes it into a header."""
        if not self._value:
            raise LookupError(f"this key was not carried over by pickling; set {self._env or 'it'} here too")
        return self._value

    def fingerprint(self) -> str:
        """Return twelve hexadecimal digits that tell two credentials apart and reveal neither."""
        return hashlib.blake2b(self._value.encode(), digest_size=6, person=b"llm-council").hexdigest()

    def __repr__(self) -> str:
        return f"'{MASK}'"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self.fingerprint()))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._env,)

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
    """Return the values of all secrets that are held anywhere, the longest first, for one may hold another."""
    held = (reference() for reference in _live.valuerefs())  # a snapshot: other threads make and drop secrets meanwhile
    values = {secret._value for secret in held if secret is not None and len(secret._value) >= 4}
    return sorted(values, key=len, reverse=True)


def masked(text: str) -> str:
    """Replace every live secret by ``***``, and nothing else: for what a model wrote, which may speak of keys."""
    return _without(text, live())


def _without(text: str, values: list[str]) -> str:
    for value in values:
        text = text.replace(value, MASK)
    return text


class StreamMask:
    """Mask live secrets in a text that arrives in pieces: what may be the start of one waits for the next piece."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = ""

    def feed(self, piece: str, values: list[str] | None = None) -> str:
        """Return what can be shown now: no more waits than the longest secret is long.

        Args:
            piece: the next characters.
            values: what ``live`` returns, where it was just asked.
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
        """Return what was kept back: there is no next piece."""
        kept, self._kept = self._kept, ""
        return masked(kept)


def _overlap(text: str, value: str, at: int) -> int:
    """Return how many characters at the text's end, from ``at`` on, may be the start of a value that goes on."""
    while at >= 0:
        if value.startswith(text[at:]):
            return len(text) - at
        at = text.find(value[0], at + 1)
    return 0


def _before_any(text: str, cut: int, values: list[str]) -> int:
    """Return the nearest place at a cut or before it that is inside no value: half of one would be shown."""
    while True:
        found = (text.find(value, max(0, cut - len(value) + 1), cut + len(value) - 1) for value in values)
        inside = min((at for at in found if 0 <= at < cut), default=cut)
        if inside == cut:
            return cut
        cut = inside


def redact(text: str) -> str:
    """Replace every live secret, and whatever looks like a key, by ``***``.

    Args:
        text: any text that is about to leave the library.

    Returns:
        The text without credentials; unchanged when there are none.
    """
    text = masked(text)
    for pattern in _likely(text):
        text = pattern.sub(MASK, text)
    return text


def _likely(text: str) -> Iterator[re.Pattern[str]]:
    """Yield the patterns that may match somewhere in a text."""
    folded = text.casefold()
    signed = _is_signed(folded.replace("_", "-"))
    assigned = "=" in folded
    for word, pattern in _PATTERNS:
        if (assigned or word[-1] != "=") and word in folded if word else signed:
            yield pattern


def _is_signed(dashed: str) -> bool:
    """Tell whether one of the words stands before a dash: few dashes are looked at one by one."""
    if dashed.count("-") * 24 > len(dashed):
        return any(f"{word}-" in dashed for word in _SIGNED)
    *before, _ = dashed.split("-")
    ends = {piece[-_LONGEST:] for piece in before}  # the names in JSON repeat themselves
    return any(end.endswith(_SIGNED) for end in ends)


def may_hold_keys(text: str) -> bool:
    """Tell whether ``redact`` might change a text, or the texts in JSON that was written in ASCII; False is certain."""
    if any(_likely(text)):
        return True
    return any(
        secret is not None and len(secret._value) >= 4 and (secret._value in text or _escaped(secret._value) in text)
        for secret in (reference() for reference in _live.valuerefs())
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def clean(text: str, *, limit: int = 1024) -> str:
    """Make a message for people from foreign text: redacted, no control characters, at most ``limit`` characters."""
    # Redact before cutting, so that a cut cannot leave half a key that no pattern knows; bound the work first.
    text = redact(text[: limit * 64].encode("utf-8", "replace").decode())
    text = _CONTROLS.sub("", text.replace("\r\n", "\n"))
    return text if len(text) <= limit else text[: limit - 1] + "…"
