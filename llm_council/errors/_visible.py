"""Make control characters visible, so that a terminal or a page shows foreign text and does not obey it."""

from __future__ import annotations

import re

__all__ = ["CONTROLS", "visible"]

CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""C0 except newline and tab, DEL, C1, and the Unicode controls that change the direction of text; for ``[...]``."""

_UNSAFE = re.compile(f"[{CONTROLS}\u2028\u2029]")  # with the separators of lines and paragraphs


def visible(text: str) -> str:
    """Replace control characters by visible ones: ESC becomes ``␛``, a right-to-left override ``<U+202E>``.

    Args:
        text: text from a model, a file or a server. It may contain terminal commands.

    Returns:
        The text without terminal commands; line ends become newlines.
    """
    text = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    return _UNSAFE.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the block "Control Pictures" has one for each C0 control, in the same order
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"
