"""Read the answer of a run while it arrives, for listeners that show it before it is complete."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import attrs

from llm_council import _schema
from llm_council.models import Phase, Plan
from llm_council.models._journal import Call

__all__ = ["NOTHING", "PartialReader", "reader_of"]

NOTHING: Final = object()
"""There is no new value yet."""

# An answer is read again each time it has grown by a sixteenth, and a long one by a half, so that the work grows with
# the length of the answer and not with its square.
_LEAST_STEP = 8
_LONG = 32_768
_MAX_STARTS = 5  # places at which JSON may start, in prose
_START = re.compile(r"\{(?=\s*[\"}])|\[(?=\s*[\[\]{\"\-0-9tfn])")
_GROWING = "0123456789+-.eE"


def reader_of(plan: Plan, call: Call) -> PartialReader | None:
    """Return a reader of the text of a call; None for a call that does not write the answer of the run."""
    if plan.schema is None:
        return None
    by_schema = call.request.structured_output is not None
    is_alone = plan.drafts_by_schema and len(plan.drafters) == 1 and plan.samples == 1
    if call.phase == Phase.DRAFT and not (is_alone and Phase.SYNTHESISE not in plan.phases):
        return None
    if call.phase not in (Phase.DRAFT, Phase.SYNTHESISE, Phase.REPAIR, Phase.VERIFY):
        return None
    if by_schema:
        return PartialReader(_schema.compile(plan.schema), plan.schema.get("type"))
    if plan.headings and call.phase in (Phase.SYNTHESISE, Phase.REPAIR):
        return PartialReader(None, "object", _schema.heading_names(plan.schema))
    return None


@attrs.define
class PartialReader:
    """Reads the JSON value of a text that is still arriving. It never raises: a text that is no JSON has no value.

    Attributes:
        validator: the compiled schema; None for prose under headings.
        root: the type of the value by the schema; None if it may be one of several.
        headings: the properties that the answer has as sections of prose; empty if it is JSON.
    """

    validator: _schema.Validator | None
    root: Any
    headings: Sequence[str] = ()
    _pieces: list[str] = attrs.field(factory=list, init=False)
    _length: int = attrs.field(default=0, init=False)
    _next_look: int = attrs.field(default=1, init=False)
    _last: Any = attrs.field(default=NOTHING, init=False)

    def feed(self, text: str) -> Any:
        """Take the next characters, and return the value so far; NOTHING if it is the same, or it is too early."""
        self._pieces.append(text)
        self._length += len(text)
        if self._length < self._next_look:
            return NOTHING
        self._next_look = self._length + max(_LEAST_STEP, self._length // (16 if self._length < _LONG else 2))
        return self._changed(self._read())

    def finish(self) -> Any:
        """Return the value of the whole text; NOTHING if it is the same as before."""
        return self._changed(self._read())

    def _changed(self, value: Any) -> Any:
        if value is NOTHING or (type(value) is type(self._last) and value == self._last):
            return NOTHING
        self._last = value
        return value

    def _read(self) -> Any:
        whole = "".join(self._pieces)
        self._pieces = [whole]
        try:
            text = _schema.drop_thinking(whole)
            if self.headings:
                return _schema.read_sections(text, self.headings) or NOTHING
            return self._value_in(text)
        except Exception:  # noqa: BLE001 - the answer is read again, strictly, when it is complete
            return NOTHING

    def _value_in(self, text: str) -> Any:
        from jiter import from_json  # on first use: most runs have no listener

        text = text.strip()
        starts = [0] if text[:1] in ("{", "[", '"') else []
        starts += [found.start() for found, _ in zip(_START.finditer(text), range(_MAX_STARTS), strict=False)]
        for start in dict.fromkeys(starts):
            # A number at the end may go on: 12 may become 123.
            data = text[start:].rstrip(_GROWING).encode("utf-8", "replace")
            try:
                value = from_json(data, partial_mode="trailing-strings", allow_inf_nan=False, cache_mode="none")
            except ValueError:
                continue
            restored = value if self.validator is None else self.validator.without_additions(value)
            # The wrapper around an answer that is no object may still be empty.
            is_wrapper = isinstance(restored, dict) and self.root not in (None, "object")
            return NOTHING if is_wrapper else restored
        return NOTHING
