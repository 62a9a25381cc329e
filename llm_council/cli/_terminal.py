"""Making foreign text safe to look at."""

from __future__ import annotations

import re

__all__ = ["visible"]

# C0 but newline and tab, DEL, C1, and the controls that turn text around.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Show control characters in place of obeying them: ESC becomes ``␛``, a right-to-left override ``<U+202E>``.

    Args:
        text: a model's, a file's or a server's words.

    Returns:
        The same text, in which a terminal finds no command; line ends become newlines.
    """
    text = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    return _UNSAFE.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"
