"""In what models and servers of OpenAI's Responses dialect differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llm_council.models._attrs import as_dict, strict_init

__all__ = ["DEFAULT", "ResponsesOptions"]


@strict_init
@attrs.frozen(kw_only=True)
class ResponsesOptions:
    """In what one model or server of the dialect differs from another; profiles fill it.

    Attributes:
        vendor: whose reasoning items these are; only items of the same vendor are sent back.
        system_role: the role word of system and developer turns that do not stand at the beginning.
        store: whether the vendor may keep the exchange; None leaves the word out, for servers that do not know it.
        reasons: the model reasons where nothing is said about it. With ``store`` False its reasoning is asked for in
            encrypted form, since it cannot be sent back otherwise.
        effort: send the word of effort; False for servers that take none.
        summary: how readable reasoning comes: ``"auto"``, ``"concise"`` or ``"detailed"``; None asks for none.
        body: keys of one's own that every request carries; the request's own win.
    """

    vendor: str = "openai"
    system_role: str = "developer"
    store: bool | None = None
    reasons: bool = False
    effort: bool = True
    summary: str | None = None
    body: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)


DEFAULT = ResponsesOptions()
"""What every server of the dialect takes."""
