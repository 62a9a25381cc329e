"""The answer that seats vote on: how they are asked for it, how it is read from a draft, which answers are equal.

Code decides which answers are equal, never a model. A draft whose answer cannot be read votes for no answer; its seat
still counts in the denominator of shares.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any

import attrs

from llm_council import _schema
from llm_council.errors import InvalidOption
from llm_council.models import Answer, AnswerKind, Draft

__all__ = [
    "AnswerForm",
    "canonical",
    "form_of",
    "part_of",
    "path_of",
    "read_number",
    "same_words",
    "with_common_keys",
    "words_key",
]

TOLERANCE = Decimal("1e-6")
"""Numbers are equal if they differ by at most this share of the larger one."""

MOST_SHOWN = 120
"""Characters of an answer that people are shown."""

# "ANSWER: 42", "**Final answer:** 42", "> Answer - 42". Repetitions are bounded, so that reading takes linear time.
_LINE = re.compile(
    r"^[ \t>*_#`\-]{0,20}(?:(?:my|the|final)[ ]){0,2}answer\b[ \t*_`]{0,8}(?:is)?[ \t*_`]{0,8}[:=\-][ \t*_`]{0,8}"
    r"(?P<rest>[^\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[+\-\u2212]?)[ ]?[$\u20ac\u00a3\u00a5]?[ ]?"
    # "1 234.5", or what has other separators of thousands.
    r"(?P<digits>\d{1,3}(?:[ \u2009\u00a0\u202f]\d{3}){1,20}(?:[.,]\d{1,60})?(?![\d'\u2019_])(?![.,]\d)"
    r"|\d[\d,.'\u2019_\u00a0\u202f]{0,60}(?:[eE][+\-]?\d{1,4})?)"
    r"(?:[ ]?/[ ]?(?P<below>\d{1,18}))?[ ]?(?P<percent>%?)"
)
_LABEL = re.compile(r"[\s*_`(\[]{0,8}(?:(?:option|choice)[ ])?([A-Za-z])[\s*_`)\].:]{0,8}", re.IGNORECASE)
_UNIT = re.compile(r"[ \u00a0\u202f]{0,2}([^\W\d_][^\s,.;:()*`]{0,30})")
_YES = frozenset({"yes", "true", "correct", "right"})
_NO = frozenset({"no", "false", "incorrect", "wrong"})
_NEGATIONS = frozenset({"not", "never", "hardly", "cannot", "neither", "nor"})
# Signs that tell answers apart: -5 from 5, C++ and C# from C.
_WORD = re.compile(r"(?:(?<!\w)-(?=\d))?\w+(?:[+#]{1,2}(?!\w))?")
_ARTICLES = frozenset({"a", "an", "the"})


@attrs.frozen(kw_only=True)
class AnswerForm:
    """What the seats vote on.

    Attributes:
        kind: what answers are compared as.
        schema: the schema of the run.
        options: the values of a choice.
        paths: parts of a JSON value, as keys and indices.
        units: units of a number, each with its factor; a number without a unit is taken as it is.
    """

    kind: AnswerKind
    schema: Mapping[str, Any] | None = None
    options: tuple[Any, ...] = ()
    paths: tuple[tuple[str, ...], ...] = ()
    units: Mapping[str, float] = attrs.field(factory=dict)

    @property
    def instruction(self) -> str:
        """What to add to the question, so that the answer can be read; empty if drafts have the form of the schema."""
        match self.kind:
            case AnswerKind.JSON:
                return ""
            case AnswerKind.CHOICE:
                listed = "; ".join(map(_as_word, self.options))
                return f'End with one line: "ANSWER:" and one of these, word for word: {listed}{self._meaning}'
            case AnswerKind.NUMBER if self.units:
                listed = "; ".join(self.units)
                return f'End with one line: "ANSWER:" and the number with its unit, one of these: {listed}'
            case AnswerKind.NUMBER:
                return 'End with one line: "ANSWER:" and the number alone.'
            case AnswerKind.BOOL:
                return 'End with one line: "ANSWER:" and yes or no.'
        return 'End with one line: "ANSWER:" and your answer in as few words as possible.'

    @property
    def _meaning(self) -> str:
        """What the values of a choice mean, where they do not say it themselves."""
        words = (self.schema or {}).get("description")
        is_said = all(isinstance(option, str) for option in self.options)
        return "" if is_said or not isinstance(words, str) else f" ({' '.join(words.split())})"

    @property
    def subject(self) -> str:
        """What the seats vote on, for people."""
        match self.kind:
            case AnswerKind.JSON:
                return " and ".join(map(path_of, self.paths))
            case AnswerKind.CHOICE:
                return f"one of {len(self.options)} values"
            case AnswerKind.NUMBER:
                return "a number"
            case AnswerKind.BOOL:
                return "yes or no"
        return "the line ANSWER of their drafts"

    def read(self, draft: Draft) -> Answer | None:
        """Return the answer of a draft; None if it cannot be read, or is not valid by the schema."""
        return self.read_text(draft.text, draft.response.structured if draft.response is not None else None)

    def read_text(self, text: str, structured: Any = None) -> Answer | None:
        """Return the answer in a model's text; None if it cannot be read, or is not valid by the schema.

        Args:
            text: the text.
            structured: the JSON value that the vendor returned beside the text, if any.
        """
        text = _schema.drop_thinking(text)
        if self.kind == AnswerKind.JSON:
            return self._read_json(text, structured)
        line = _answer_line(text)
        if self.kind == AnswerKind.TEXT:
            shown = line or text.strip()
            return self._answer(shown, words_key(shown), shown) if words_key(shown) else None
        # Without its line, the last line is the likeliest to hold the answer.
        words = line or (text.strip().splitlines() or [""])[-1]
        value: Any = None
        if self.kind == AnswerKind.CHOICE:
            value = _read_choice(words, self.options)
        elif self.kind == AnswerKind.NUMBER:
            value = read_number(words, self.units)
        else:
            value = _read_bool(words)
        if value is None or not self._accepts(value):
            return None
        return self._answer(value, canonical(value), _as_word(value))

    def answer_of(self, value: Any) -> Answer:
        """Return the answer that a value of the schema gives, so that it can be compared with the answers of drafts."""
        if self.kind == AnswerKind.JSON:
            return self._json_answer(value)
        if self.kind == AnswerKind.TEXT:
            shown = value if isinstance(value, str) else canonical(value)
            return self._answer(value, words_key(shown), shown)
        return self._answer(value, canonical(value), _as_word(value))

    def _read_json(self, text: str, structured: Any) -> Answer | None:
        validator = _schema.compile(self.schema or {})
        if structured is not None and validator.accepts(structured):
            value = structured
        else:
            read = validator.read(text)
            if read.problems:
                return None
            value = read.value
        return self._json_answer(value)

    def _json_answer(self, value: Any) -> Answer:
        parts = [part_of(value, path) for path in self.paths]
        shown = ", ".join(part if isinstance(part, str) else canonical(part) for part in parts)
        return self._answer(value, canonical(parts), shown)

    def _accepts(self, value: Any) -> bool:
        return self.schema is None or _schema.compile(self.schema).accepts(value)

    def _answer(self, value: Any, key: str, shown: str) -> Answer:
        return Answer(kind=self.kind, value=value, key=key, shown=" ".join(shown.split())[:MOST_SHOWN])


def form_of(schema: Mapping[str, Any] | None, vote_on: Sequence[str] = ()) -> AnswerForm:
    """Return what seats vote on: the parts ``vote_on`` of a JSON value, else what the schema says, else a line of text.

    Args:
        schema: JSON Schema of the answer; None for free text.
        vote_on: paths of the parts that are compared, such as ``$.verdict``; empty compares the whole answer.

    Raises:
        InvalidOption: ``vote_on`` without a schema, or with a path that the schema does not have.
    """
    if vote_on:
        if schema is None:
            raise InvalidOption("vote_on names parts of an answer with a schema: pass a schema, or leave it out")
        return AnswerForm(kind=AnswerKind.JSON, schema=schema, paths=tuple(_steps(path, schema) for path in vote_on))
    if schema is None:
        return AnswerForm(kind=AnswerKind.TEXT)
    options = schema.get("enum")
    if isinstance(options, list) and options and all(isinstance(one, str | int | float) for one in options):
        return AnswerForm(kind=AnswerKind.CHOICE, schema=schema, options=tuple(options))
    match schema.get("type"):
        case "boolean":
            return AnswerForm(kind=AnswerKind.BOOL, schema=schema)
        case "integer" | "number":
            # An annotation: JSON Schema has no keyword for units, and ignores those that it does not know.
            units = schema.get("units")
            return AnswerForm(
                kind=AnswerKind.NUMBER, schema=schema, units=dict(units) if isinstance(units, Mapping) else {}
            )
    return AnswerForm(kind=AnswerKind.TEXT, schema=schema)


def same_words(text: str, words: str) -> bool:
    """Return True if a text has these words side by side, without case, punctuation and articles."""
    wanted = words_key(words)
    return bool(wanted) and f" {wanted} " in f" {words_key(text)} "


def with_common_keys(answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """Give numbers that are equal within ``TOLERANCE`` the same key; other equal answers have one key already.

    Args:
        answers: the answers, by the name of the draft or seat.

    Returns:
        The same answers by the same names.
    """
    numbers = sorted(
        ((Decimal(str(answer.value)), seat) for seat, answer in answers.items() if answer.kind == AnswerKind.NUMBER)
    )
    common = dict(answers)
    first: tuple[Decimal, str] | None = None
    for number, seat in numbers:
        if first is None or abs(number - first[0]) > TOLERANCE * max(abs(number), abs(first[0])):
            first = number, seat
        key = answers[first[1]].key
        if answers[seat].key != key:
            common[seat] = attrs.evolve(answers[seat], key=key)
    return common


def _steps(path: str, schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a path such as ``$.verdict`` or ``verdict``."""
    if path == "$":
        return ()
    if not isinstance(path, str) or not path.strip("$. "):  # type: ignore[redundant-expr]
        raise InvalidOption(f"vote_on: expected a path such as '$.verdict', got {path!r:.80}")
    steps = tuple(path.strip().removeprefix("$").removeprefix(".").split("."))
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and steps[0] not in properties:
        raise InvalidOption(f"vote_on: the schema has no {path!r:.80}; it has {', '.join(map(str, properties))}")
    return steps


def part_of(value: Any, path: Sequence[str], missing: Any = None) -> Any:
    """Return the part of a JSON value at a path of keys and indices; ``missing`` if there is none."""
    for step in path:
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return missing
    return value


def path_of(steps: Sequence[str]) -> str:
    """Return keys and indices as a path such as ``$.verdict``."""
    return "$" + "".join(f".{step}" for step in steps)


def _answer_line(text: str) -> str:
    """Return what follows the last ``ANSWER:``, on its line or on the next one; empty if there is none."""
    found = None
    for line in _LINE.finditer(text):
        found = line
    if found is None:
        return ""
    rest = found["rest"].strip(" \t*_`")
    if not rest:
        rest = (text[found.end() :].strip().splitlines() or [""])[0].strip(" \t*_`")
    return rest


def _read_choice(words: str, options: Sequence[Any]) -> Any:
    """Return the option whose text or letter is written; None if none is, or several are."""
    keys = {words_key(_as_word(option)): option for option in options}
    said = words_key(words)
    if said in keys:
        return keys[said]
    named = [key for key in keys if re.search(rf"(?<!\w){re.escape(key)}(?!\w)", said)]
    # "not guilty" names "guilty" too: an option inside of another one that is named does not count.
    named = [key for key in named if not any(key != other and key in other for other in named)]
    if named:
        return keys[named[0]] if len(named) == 1 else None
    label = _LABEL.fullmatch(words)
    if label is None or any(len(key) == 1 for key in keys):  # an option of one letter is a text, not a label
        return None
    index = ord(label[1].upper()) - ord("A")
    return options[index] if index < len(options) else None


def read_number(words: str, units: Mapping[str, float] = MappingProxyType({})) -> int | float | None:
    """Return the last number of a line: thousands separators, currency, per cent, fractions and units are resolved.

    Args:
        words: the line.
        units: known units, each with its factor. If there are any, a number with another unit is not read.
    """
    found = None
    for number in _NUMBER.finditer(words):
        found = number
    if found is None:
        return None
    digits = re.sub(r"['\u2019_\u00a0\u202f\u2009 ]", "", found["digits"]).rstrip(".,")
    # "1,000" and "1,000.5" are English; "3,14" is not a group of thousands, so its comma is a decimal point.
    digits = re.sub(r",(?=\d{3}(?!\d))", "", digits).replace(",", ".")
    factor = _factor(words[found.end() :], units)
    if factor is None:
        return None
    try:
        value = Decimal(digits) * factor
        if found["below"]:
            value /= Decimal(found["below"])
    except (InvalidOperation, ZeroDivisionError):
        return None
    if found["percent"]:
        value /= 100
    if found["sign"] in ("-", "\u2212"):
        value = -value
    if abs(value.adjusted()) > 300:
        return None
    return int(value) if value == value.to_integral_value() else float(value)


def _factor(rest: str, units: Mapping[str, float]) -> Decimal | None:
    """Return the factor of the unit at the start of a text; 1 without a unit, None for an unknown one."""
    unit = _UNIT.match(rest)
    if not units or unit is None:
        return Decimal(1)
    # Case matters first: "m" is not "M".
    same = [factor for name, factor in units.items() if name == unit[1]]
    same = same or [factor for name, factor in units.items() if name.casefold() == unit[1].casefold()]
    return Decimal(str(same[0])) if same else None


def _read_bool(words: str) -> bool | None:
    """Return yes or no; None if a line says neither or both, or denies it from afar: "not the case that it is true"."""
    said: set[bool] = set()
    for clause in re.split(r"[.,;:!?()]", words.casefold().replace("\u2019", "'")):
        is_denied = is_next = False
        for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", clause):
            if word in _YES or word in _NO:
                if is_denied and not is_next:
                    return None
                said.add((word in _YES) != is_denied)
            is_next = word in _NEGATIONS or word.endswith("n't")
            is_denied = is_denied or is_next
    return said.pop() if len(said) == 1 else None


def words_key(text: str) -> str:
    """Return a text without case, punctuation and articles; texts with the same key are the same answer.

    A minus before a number stays, and so do ``+`` and ``#`` at the end of a word.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).replace("\u2212", "-").casefold())
    return " ".join(word for word in words if word not in _ARTICLES) or " ".join(words)


def canonical(value: Any) -> str:
    """Return a JSON value as text that is the same for equal values: 1.0 is 1, and the order of keys does not count."""
    return json.dumps(_with_integers(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _with_integers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _with_integers(item) for key, item in value.items()}
    return [_with_integers(item) for item in value] if isinstance(value, list) else value


def _as_word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else canonical(value)
