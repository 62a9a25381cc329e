"""What a subagent is, and how its TOML file is read. Every mistake in a file is reported with file and line."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Any

import attrs

from llm_council import _schema
from llm_council.errors import ConfigurationError, CouncilError, InvalidOption, UnknownOption, UnknownSubagent, near
from llm_council.models._attrs import as_dict, as_tuple, non_negative, optional, positive_int, strict_init
from llm_council.models.deliberation import RolePrompts

__all__ = ["MAX_BYTES", "NAME", "Definition", "Preferences", "Subagent", "SubagentInfo", "is_other_toml", "read"]

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A valid name of a subagent or a mode."""


def _name(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidOption(f"Subagent.{attribute.name}: 1 to 64 letters, digits, '-' or '_', got {value!r:.80}")


def _headings(instance: Subagent, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidOption(f"Subagent.headings: expected True or False, got {value!r:.80}")
    if value and not _schema.heading_names(instance.schema):
        raise InvalidOption(
            "Subagent.headings: every property of the schema must be of type string; leave headings out, or change it"
        )


@strict_init
@attrs.frozen(kw_only=True)
class Preferences:
    """Defaults of a subagent; the caller and the configuration override them.

    Attributes:
        temperature: sampling temperature; None leaves it to the model.
        max_tokens: maximum tokens of one answer; None leaves it to the model.
        critique: True if the seats criticise the drafts before the chair writes the answer.
    """

    temperature: float | None = attrs.field(default=None, validator=optional(non_negative))
    max_tokens: int | None = attrs.field(default=None, validator=optional(positive_int))
    critique: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))


@strict_init
@attrs.frozen(kw_only=True)
class Subagent:
    """A role for one run: prompts, schema of the answer, preferences.

    Attributes:
        name: canonical name, such as ``drafter`` for the alias ``implementer``.
        mode: the mode; None if it has none.
        title: the name for people.
        description: what it is for, in one sentence.
        prompts: its prompts for each phase, without the parts that all subagents share.
        schema: JSON Schema of the answer; None for free text.
        headings: True if the models write prose under a heading for each property of the schema, which must all be
            text, and code builds the object. False if they write JSON.
        preferences: defaults of the run.
        source: ``"built-in"``, the path of a file or the name of a distribution.
    """

    name: str = attrs.field(validator=_name)
    mode: str | None = attrs.field(default=None, validator=optional(_name))
    title: str = ""
    description: str = ""
    prompts: RolePrompts = RolePrompts()
    schema: Mapping[str, Any] | None = attrs.field(default=None, converter=attrs.converters.optional(as_dict))
    headings: bool = attrs.field(default=False, validator=_headings)
    preferences: Preferences = Preferences()
    source: str = ""


@strict_init
@attrs.frozen(kw_only=True)
class SubagentInfo:
    """An entry of the list of subagents.

    Attributes:
        name: canonical name.
        description: what it is for, in one sentence.
        modes: its modes, the default first; empty if it has none.
        aliases: other names, each with its mode.
        source: ``"built-in"``, the path of a file or the name of a distribution.
        error: why it cannot be loaded; None if it can.
    """

    name: str
    description: str = ""
    modes: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    aliases: Mapping[str, str | None] = attrs.field(factory=dict, converter=as_dict)
    source: str = ""
    error: str | None = None


# Files

MAX_BYTES = 256 * 1024
"""Maximum size of a subagent's file and of a schema file."""

_WORDS = ("title", "description", "system", "critique", "synthesise", "brief")
_SHARED = (*_WORDS, "instructions", "schema", "headings", "preferences")
_TOP = (*_SHARED, "default_mode", "modes")


@attrs.frozen(kw_only=True)
class Definition:
    """The content of a file: one subagent with all its modes.

    Attributes:
        name: the subagent's name.
        source: the path of the file, or ``"built-in"``.
        title: the name for people.
        description: what it is for, in one sentence.
        modes: its modes, the default first.
    """

    name: str
    source: str
    title: str
    description: str
    modes: tuple[str, ...]
    _tables: Mapping[str | None, Mapping[str, Any]] = attrs.field(repr=False, alias="tables")
    _schemas: Mapping[str | None, str | None] = attrs.field(repr=False, alias="schemas")

    def subagent(self, mode: str | None = None) -> Subagent:
        """Return the subagent in one of its modes; None selects the default mode.

        Raises:
            UnknownSubagent: it has no such mode.
        """
        if mode is None and self.modes:
            mode = self.modes[0]
        if mode not in self._tables:
            if not self.modes:
                raise UnknownSubagent(f"{self.name} has no modes; leave out mode={mode!r:.80}")
            hint = f"{near(str(mode), self.modes)} (it has: {', '.join(self.modes)})"
            raise UnknownSubagent(f"{self.name} has no mode {mode!r:.80}{hint}")
        table, schema = self._tables[mode], self._schemas[mode]
        system, instructions, critique, synthesise, brief = (
            table.get(key, "").strip() for key in ("system", "instructions", "critique", "synthesise", "brief")
        )
        return Subagent(
            name=self.name,
            mode=mode,
            title=table.get("title") or self.name,
            description=table.get("description", ""),
            prompts=RolePrompts(
                system="\n\n".join(filter(None, (system, instructions))),
                critique=critique,
                synthesise=synthesise,
                brief=brief,
            ),
            schema=None if schema is None else json.loads(schema),
            headings=table.get("headings", False),
            preferences=Preferences(**table.get("preferences", {})),
            source=self.source,
        )


def read(folder: Traversable, file: str, *, name: str, source: str) -> Definition:
    """Read a subagent's file.

    Args:
        folder: the folder of the file. Schemas that it names are in this folder or below.
        file: the name of the TOML file.
        name: the name of the subagent.
        source: where the file comes from, for people.

    Returns:
        The definition. It is checked: every mode can be loaded.

    Raises:
        InvalidOption, UnknownOption: the file cannot be read or has an invalid entry; names file and line.
    """
    return _Reader(folder, file, name, source).definition()


def is_other_toml(file: Path) -> bool:
    """Return True for a TOML file without any key of a subagent, such as ``council.toml`` or ``pyproject.toml``."""
    try:
        table = tomllib.loads(_text_of(file))
    except (ConfigurationError, ValueError, RecursionError):
        return False
    # A misspelt key is one of a subagent, too; at 0.6, the usual limit, "project" would be.
    return bool(table) and not any(get_close_matches(key, _TOP, n=1, cutoff=0.8) for key in table)


class _Reader:
    """Reads one file. It keeps the text to find the line of a mistake."""

    def __init__(self, folder: Traversable, file: str, name: str, source: str) -> None:
        self._folder = folder
        self._file = folder.joinpath(file)
        self._name = name
        self._source = source
        self._text = _text_of(self._file)

    def definition(self) -> Definition:
        table = self._parsed()
        self._check_keys(table, _TOP, "")
        modes = self._modes(table)
        shared = {key: table[key] for key in _SHARED if key in table}
        tables: dict[str | None, dict[str, Any]] = {mode: _merge(shared, own) for mode, own in modes.items()}
        if not tables:
            tables = {None: shared}
        # Every mode is checked at once: the file of a mode that is seldom used must not fail later.
        for mode, merged in tables.items():
            self._check_values(merged, mode)
        schemas = {mode: self._schema(merged.get("schema"), mode) for mode, merged in tables.items()}
        for mode, merged in tables.items():
            self._check_headings(merged.get("headings", False), schemas[mode])
        return Definition(
            name=self._name,
            source=self._source,
            title=table.get("title", self._name),
            description=table.get("description", ""),
            modes=tuple(modes),
            tables=tables,
            schemas=schemas,
        )

    def _parsed(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._text.removeprefix("\ufeff"))  # some editors write a byte order mark
        except RecursionError:
            raise InvalidOption(f"{self._file}: nested too deeply") from None
        except ValueError as error:  # TOMLDecodeError, or int() refuses a number with thousands of digits
            found = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
            if found is None:
                raise InvalidOption(f"{self._file}: {error}") from None
            reason = str(error)[: found.start()]
            raise InvalidOption(f"{self._file}, line {found[1]}, column {found[2]}: {reason}") from None

    def _modes(self, table: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the tables of the modes, the default first."""
        modes = table.get("modes", {})
        if not isinstance(modes, dict):
            raise self._wrong("modes", "expected tables such as [modes.fast]")
        for mode, own in modes.items():
            if not NAME.fullmatch(mode):
                raise self._wrong(mode, f"the name of a mode is 1 to 64 letters, digits, '-' or '_', not {mode!r:.80}")
            if not isinstance(own, dict):
                raise self._wrong(mode, f"expected a table [modes.{mode}]")
            self._check_keys(own, _SHARED, f"modes.{mode}.")
        default = table.get("default_mode", next(iter(modes), None))
        if default is not None and (not isinstance(default, str) or default not in modes):
            raise self._wrong("default_mode", f"there is no mode {default!r:.80}{near(str(default), modes)}")
        return {default: modes[default], **modes} if default is not None else {}

    def _check_keys(self, table: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> None:
        for key in table:
            if key not in known:
                remedy = near(key, known)
                if key == "name":
                    remedy = "; the name of a subagent is that of its file: remove the line, or rename the file"
                raise UnknownOption(f"{self._where(key)}: there is no key '{prefix}{key}'{remedy}")

    def _check_values(self, table: Mapping[str, Any], mode: str | None) -> None:
        for key in (*_WORDS, "instructions"):
            if key in table and not isinstance(table[key], str):
                raise self._wrong(key, f"{key} must be text, got {table[key]!r:.80}")
        if not table.get("system", "").strip() and not table.get("instructions", "").strip():
            where = f" of mode {mode}" if mode else ""
            remedy = 'say who the model is, as in system = "You ..."'
            raise InvalidOption(f"{self._file}: system{where} is missing: {remedy}")
        preferences = table.get("preferences", {})
        if not isinstance(preferences, dict):
            raise self._wrong("preferences", "expected a table [preferences]")
        try:
            Preferences(**preferences)
        except UnknownOption as error:
            raise UnknownOption(f"{self._where('preferences')}: {error}") from None
        except (InvalidOption, TypeError) as error:
            raise self._wrong("preferences", str(error)) from None

    def _check_headings(self, headings: object, schema: str | None) -> None:
        if not isinstance(headings, bool):
            raise self._wrong("headings", f"headings must be true or false, got {headings!r:.80}")
        if headings and not _schema.heading_names(json.loads(schema or "{}")):
            raise self._wrong("headings", "headings = true needs a schema whose properties are all of type string")

    def _schema(self, named: object, mode: str | None) -> str | None:
        """Return the schema as JSON text, from a table or from the named file."""
        if named is None:
            return None
        place = self._where("schema")
        schema: Any = named
        if isinstance(named, str):
            file = self._beside(named)
            place = str(file)
            try:
                schema = json.loads(_text_of(file))
            except json.JSONDecodeError as error:
                raise InvalidOption(f"{file}, line {error.lineno}, column {error.colno}: {error.msg}") from None
            except (ValueError, RecursionError) as error:
                raise InvalidOption(f"{file}: {error}") from None
        try:
            _schema.compile(schema)  # compiled once here, so that a wrong schema is reported before a run
        except InvalidOption as error:
            raise InvalidOption(f"{place}: {error}") from None
        # As text: each call of `Definition.subagent` parses a dict of its own, which its caller may change.
        return json.dumps(schema)

    def _beside(self, named: str) -> Traversable:
        """Return the named file, which must be in the folder of this file or below."""
        parts = PurePosixPath(named).parts
        if not named.endswith(".json") or "\\" in named or ".." in parts or PurePosixPath(named).is_absolute():
            raise self._wrong("schema", f"expected a table or a .json file in this folder or below, got {named!r:.80}")
        file = self._folder.joinpath(*parts)
        if isinstance(file, Path) and not file.resolve().is_relative_to(Path(str(self._folder)).resolve()):
            raise self._wrong("schema", f"{named!r:.80} leads out of the folder of this file")
        return file

    def _wrong(self, key: str, reason: str) -> CouncilError:
        return InvalidOption(f"{self._where(key)}: {reason}")

    def _where(self, key: str) -> str:
        """Return the file, and the line of a key if it is found. tomllib does not report lines of keys."""
        name = re.escape(key)
        pattern = rf"""^\s*(?:["']?{name}["']?\s*[.=]|\[[^\]\n]*\b{name}\b)"""
        found = re.search(pattern, self._text, re.MULTILINE)
        if found is None:
            return str(self._file)
        return f"{self._file}, line {self._text.count(chr(10), 0, found.end()) + 1}"


def _merge(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shared entries overridden by those of a mode; preferences are merged key by key."""
    merged = {**shared, **own}
    general, special = shared.get("preferences"), own.get("preferences")
    if isinstance(general, dict) and isinstance(special, dict):
        merged["preferences"] = {**general, **special}
    return merged


def _text_of(file: Traversable) -> str:
    try:
        if not file.is_file():  # reading a pipe or a device would block or never end
            reason = "is a folder" if file.is_dir() else "there is no such file"
            if isinstance(file, Path) and file.exists() and not file.is_dir():
                reason = "is a pipe or a device, and no file"
            raise InvalidOption(f"{file}: {reason}")
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InvalidOption(f"{file}: larger than {MAX_BYTES // 1024} KiB")
        return data.decode("utf-8-sig")  # editors on Windows write a byte order mark
    except OSError as error:
        raise InvalidOption(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InvalidOption(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
