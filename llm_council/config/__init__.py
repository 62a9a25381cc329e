"""The configuration of a council, and the sources it is read from.

Precedence: arguments, environment, the project's file, the user's file, defaults.

A project's file may come from a stranger. Until the user trusts it (``council config trust``), it may set prompts,
models and the quorum, and *lower* the budget; any other setting raises ``UntrustedConfig``. A trusted file may set
everything that the user's file may set, except that it still can only lower the budget.
"""

from __future__ import annotations

import logging
import os
import stat
import tomllib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import attrs

from llm_council.config import _trust
from llm_council.config._environment import STRATEGIES, is_strategy, read_environment, variable_of
from llm_council.config._seats import Seat, as_seats
from llm_council.errors import ConfigurationError, InvalidOption, UnknownOption, UntrustedConfig, near
from llm_council.errors._secrets import Secret, hide_password
from llm_council.models._attrs import (
    as_dict,
    as_tuple,
    from_table,
    must_be,
    non_negative,
    non_negative_int,
    optional,
    positive_int,
    provider_name,
    strict_init,
    string,
)
from llm_council.models._paths import absolute, expand_user
from llm_council.models.limits import Budget, Limits, RetryPolicy
from llm_council.models.request import ReasoningConfig
from llm_council.providers._http.account import sealed

__all__ = [
    "PROJECT_FILE",
    "CouncilConfig",
    "Seat",
    "origin_of",
    "project_file",
    "reaches",
    "trust_project",
    "user_file",
    "variable_of",
]

PROJECT_FILE = "council.toml"
"""Name of the project's file. It is read from the current folder only, not from the folders above."""

_MAX_BYTES = 1 << 20  # of a file
_MAX_UNTRUSTED_SEATS = 12  # each seat of a project's file costs the user money

_names = must_be("a list of provider names", lambda v: all(isinstance(name, str) and name.strip() for name in v))
_paths = must_be("a list of paths", lambda v: all(isinstance(path, str) and path for path in v))
_path = must_be("a path", lambda v: isinstance(v, str) and bool(v.strip()))

_log = logging.getLogger("llm_council")


def _without_password(value: str | None) -> str:
    return repr(value and hide_password(value))  # the address of a store may hold one


def _copy_tables(value: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    return {provider_name(name): _seal(name, as_dict(table)) for name, table in as_dict(value).items()}


def _seal(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a provider with its credentials as secrets, which are neither shown nor pickled."""
    if isinstance(table.get("headers"), dict):
        try:
            table["headers"] = {header: sealed(header, value) for header, value in table["headers"].items()}
        except ConfigurationError as error:
            raise error._reword(f"[providers.{name}] headers: {error.message}") from None
    for field in ("api_key", "shared"):  # `shared` is a URL that may contain a password
        text = table.get(field)
        if isinstance(text, str) and not text.startswith("${"):
            try:
                table[field] = Secret(text)
            except ValueError as error:
                raise InvalidOption(f"[providers.{name}] {error}") from None
    return table


@strict_init
@attrs.frozen(kw_only=True)
class CouncilConfig:
    """The configuration of a council.

    Attributes:
        providers: the seats: ``"name"``, ``"name/model"`` or ``"name:count"``, each with ``"@NAME"`` for a persona of
            ``seats``; empty selects ``seats``, else those whose keys are set, else those of ``instances``.
        seats: seats with personas. If ``providers`` is empty, they sit; else they sit only where ``providers`` names
            them, as in ``"openai/gpt-6.1@sceptic"``, or ``"@sceptic"`` with the provider of that seat.
        chair: name of the seat that writes the final answer; None selects one, see ``Plan.chairs``.
        strategy: how the seats deliberate: the name of a strategy, or of a table of ``strategies``. The default polls
            answers that can be counted, and lets a chair write others.
        budget: limits of a run.
        limits: limits on sizes.
        retry: when failed calls are retried.
        max_repairs: how often the chair is asked to repair an answer that does not match its schema.
        temperature: sampling temperature; None is not sent.
        max_tokens: maximum tokens of one answer; None is not sent.
        reasoning: how much to think; None is not sent.
        system_context: text for every seat's system message.
        subagent_paths: files and folders with additional subagents.
        instances: additional providers by name: each has a ``kind`` (the name of a provider) and its options.
        strategies: strategies with options by name: each has a ``kind`` (the name of a strategy; without it, the
            table's own name) and its options.
        store: path or address of the run store; None stores nothing.
        seed: seed of shuffles, fences and tie-breaks; None selects a random one, which the plan records.
    """

    providers: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=_names)
    seats: tuple[Seat, ...] = attrs.field(default=(), converter=as_seats)
    chair: str | None = attrs.field(default=None, validator=optional(string))
    strategy: str = attrs.field(default="auto", validator=string)
    budget: Budget = Budget()
    limits: Limits = Limits()
    retry: RetryPolicy = RetryPolicy()
    max_repairs: int = attrs.field(default=2, validator=non_negative_int)
    temperature: float | None = attrs.field(default=None, validator=optional(non_negative))
    max_tokens: int | None = attrs.field(default=None, validator=optional(positive_int))
    reasoning: ReasoningConfig | None = None
    system_context: str | None = attrs.field(default=None, validator=optional(string))
    subagent_paths: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=_paths)
    instances: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, converter=_copy_tables)
    strategies: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, converter=as_dict)
    store: str | None = attrs.field(default=None, validator=optional(_path), repr=_without_password)
    seed: str | None = attrs.field(default=None, validator=optional(string))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read one TOML file with the rights of the user's own file.

        Raises:
            ConfigurationError: the file cannot be read, is not TOML, or has an unknown or invalid entry.
        """
        return cls._build(_read(Path(path)), str(path))

    @classmethod
    def from_env(cls) -> Self:
        """Read the ``LLM_COUNCIL_*`` variables."""
        return cls._build(_with_environment({}), "environment")

    @classmethod
    def load(cls) -> Self:
        """Read the user's file, if it exists, and the environment, which overrides it."""
        return cls._build(_with_environment(_read_user_file()), str(user_file()))

    @classmethod
    def discover(cls, folder: str | os.PathLike[str] = ".") -> Self:
        """Read the user's file, the project's file with its restrictions, and the environment.

        Raises:
            UntrustedConfig: the project's file has a setting for which it must be trusted.
        """
        path = Path(folder) / PROJECT_FILE
        values = _read_user_file()
        if _is_there(path):
            data = _read_bytes(path)  # read once: what is checked for trust must be what is used
            project = _parse(data, path)
            restricted = _restricted(project, path)
            if restricted and not _trust.contains(path, data):
                raise UntrustedConfig(
                    f"{path}: a project's file may not set {restricted[0]} before you trust it: read it, then run"
                    f" `council config trust`; or move that to your own file, {user_file()}",
                    path=str(path),
                    field=restricted[0],
                )
            _lower_limits(project, cls._build(values, str(user_file())))
            if isinstance(project.get("subagent_paths"), list):
                project["subagent_paths"] = [str(_absolute(path, entry)) for entry in project["subagent_paths"]]
            values = _merge(values, project)
        return cls._build(_with_environment(values), str(path))

    @classmethod
    def _build(cls, values: Mapping[str, Any], source: str) -> Self:
        """Make a configuration of the fields of one source; an error names the source and the field."""
        for name in ("providers", "subagent_paths"):
            if not isinstance(values.get(name, ()), list | tuple):
                raise InvalidOption(f"{source}: {name}: expected a list, got {values[name]!r:.80}; put it in a list")
        try:
            built = dict(values)
            for name, table in _TABLES.items():
                if name in values:
                    built[name] = from_table(name, table, values[name])
            return cls(**built)
        except (InvalidOption, UnknownOption) as error:
            raise type(error)(f"{source}: {error.message.removeprefix('CouncilConfig.')}") from None
        except TypeError as error:
            raise InvalidOption(f"{source}: {error}") from None


# Settings that are tables in [council] -> their classes.
_TABLES: dict[str, Callable[..., Any]] = {
    "budget": Budget,
    "limits": Limits,
    "retry": RetryPolicy,
    "reasoning": ReasoningConfig,
}

# What a project's file may set in [council] without trust. A list of what is allowed, so that a new setting needs trust
# until somebody has judged it.
_PROJECT_KEYS = frozenset(
    "providers seats chair strategy budget max_repairs temperature max_tokens reasoning system_context"
    " subagent_paths".split()
)


def user_file() -> Path:
    """Return the user's file: ``LLM_COUNCIL_CONFIG``, else ``config.toml`` in the user's configuration folder."""
    named = os.environ.get("LLM_COUNCIL_CONFIG")
    return Path(named) if named else _trust.folder() / "config.toml"


def _read_user_file() -> dict[str, Any]:
    path = user_file()
    # A file that the variable names must exist; the default one need not.
    named = os.environ.get("LLM_COUNCIL_CONFIG")
    try:
        if _is_there(path):
            return _read(path)
    except ConfigurationError as error:
        raise error._reword(f"LLM_COUNCIL_CONFIG: {error.message}") if named else error from None
    if named:
        raise ConfigurationError(f"LLM_COUNCIL_CONFIG: there is no file {named}; correct or unset the variable")
    return {}


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def _is_there(path: Path) -> bool:
    """Return True if a configuration file exists.

    Raises:
        ConfigurationError: that cannot be found out, or it is no regular file.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if path.parent == Path():
            reason = f"the working directory cannot be read ({error.strerror}): change to another one"
        else:
            reason = f"cannot be read: {error.strerror}"
        raise ConfigurationError(f"{path}: {reason}") from None
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a device")
        raise ConfigurationError(f"{path}: is {kind}, not a file: remove it, or put a file in its place")
    return True


def _read(path: Path) -> dict[str, Any]:
    return _parse(_read_bytes(path), path)


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(
            f"{path}: cannot be read: larger than {_MAX_BYTES >> 20} MiB, which no configuration is: name another file"
        )
    return data


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(content.decode("utf-8-sig"))  # some editors write a byte order mark
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: cannot be read: not UTF-8; save it as UTF-8") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    values = _flatten(data, str(path))
    CouncilConfig._build(values, str(path))  # here, because an error after merging could not name the file
    return values


def _flatten(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the tables of a file as fields of ``CouncilConfig``."""
    known = {field.name for field in attrs.fields(CouncilConfig)} - {"instances", "seats", "strategies"}
    _check_tables(data, source, known)
    values = dict(data.get("council", {}))
    for name in values:
        if name == "seats":
            raise UnknownOption(f"{source}: seats stand beside [council]: write [[seats]] above each")
        if name not in known:
            raise UnknownOption(f"{source}: [council] takes no {name!r}{near(name, known)}")
        if name in _TABLES and not isinstance(values[name], dict):
            raise InvalidOption(f"{source}: {name} must be a table, such as {name} = {{ ... }}")
    values |= _strategies(data.get("strategies", {}), source, values.get("strategy"))
    strategy, tables = values.get("strategy"), values.get("strategies", {})
    if isinstance(strategy, str) and strategy not in tables and not is_strategy(strategy):
        names = (*tables, *STRATEGIES)
        hint = f"{near(strategy, names)} (known: {', '.join(names)})"
        raise InvalidOption(f"{source}: strategy: there is no strategy {strategy!r:.80}{hint}")
    for name, paths in data.get("subagents", {}).items():
        if name != "paths":
            raise UnknownOption(f"{source}: [subagents] takes no {name!r}{near(name, ['paths'])}")
        if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
            raise InvalidOption(f"{source}: [subagents] paths: expected a list of paths, got {paths!r:.80}")
        values["subagent_paths"] = paths
    if "seats" in data:
        try:
            values["seats"] = list(as_seats(data["seats"]))
        except (InvalidOption, UnknownOption) as error:
            raise error._reword(f"{source}: {error.message}") from None
    if data.get("providers"):
        values["instances"] = {name: _instance(name, table, source) for name, table in data["providers"].items()}
    return values


def _strategies(tables: Mapping[str, Any], source: str, chosen: object) -> dict[str, Any]:
    """Return the field ``strategies`` of the tables of a file; their options are checked when a run is planned."""
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise InvalidOption(f"{source}: [strategies.{name}] must be a table of options")
        kind = table.get("kind", name)
        if not isinstance(kind, str) or not is_strategy(kind):
            hint = near(str(kind), STRATEGIES)
            words = f'{source}: [strategies.{name}] needs kind = "...", the name of a strategy{hint}'
            if name == chosen:
                raise InvalidOption(words)
            # Commands that run nothing must work all the same.
            _log.warning("%s; it cannot be used", words)
    return {"strategies": dict(tables)} if tables else {}


def _check_tables(data: Mapping[str, Any], source: str, known: Collection[str]) -> None:
    """Check the names at the top of a file; ``known`` are the fields of [council]."""
    tables = ("council", "providers", "seats", "strategies", "subagents")
    for name, table in data.items():
        if name in known and (name not in tables or not isinstance(table, dict)):
            if name in tables and isinstance(table, list) and any(isinstance(item, dict) for item in table):
                raise InvalidOption(f"{source}: [[{name}]] must be a table of tables: write [{name}.NAME]")
            line = f"[council.{name}]" if isinstance(table, dict) else f"[council], on a line above {name}"
            raise UnknownOption(f"{source}: {name} belongs under [council]: write {line}")
        if name not in tables:
            raise UnknownOption(f"{source}: there is no table [{name}]{near(name, tables)}")
        if not isinstance(table, dict) and name != "seats":
            raise InvalidOption(f"{source}: [{name}] must be a table")


def _instance(name: str, table: Any, source: str) -> dict[str, Any]:
    if not isinstance(table, dict) or not isinstance(table.get("kind"), str):
        raise InvalidOption(f'{source}: [providers.{name}] needs kind = "...", the name of a provider')
    try:
        return _seal(name, dict(table))  # at once: no traceback may show what the file holds
    except ConfigurationError as error:
        raise error._reword(f"{source}: {error.message}") from None


def origin_of(setting: str, value: Any) -> str | None:
    """Return what sets a setting to this value: a variable, or a file and its field; None if nothing does.

    Args:
        setting: the name of the setting; that of a limit follows its table, as in ``"budget.quorum"``.
        value: the value in force.
    """
    variable = variable_of(setting, value)
    if variable is not None:
        return variable
    paths = [Path(PROJECT_FILE)]
    with suppress(ConfigurationError):  # there is no home directory
        paths.append(user_file())
    for path in paths:
        try:
            found: Any = _read(path) if _is_there(path) else {}
        except ConfigurationError:
            continue
        for key in setting.split("."):
            found = found.get(key, {})
        if setting == "subagent_paths" and path.name == PROJECT_FILE:
            found = [str(_absolute(path, entry)) for entry in found]
        if found == (list(value) if isinstance(value, tuple) else value):
            return f"{path}: {'[subagents] paths' if setting == 'subagent_paths' else setting}"
    return None


def _with_environment(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of files overridden by those of the environment."""
    given = read_environment(CouncilConfig._build)
    name, tables = given.get("strategy"), values.get("strategies", {})
    if name is not None and name not in tables and not is_strategy(name):
        known = (*tables, *STRATEGIES)
        hint = f"{near(name, known)} (known: {', '.join(known)})"
        raise InvalidOption(f"LLM_COUNCIL_STRATEGY: there is no strategy {name!r:.80}{hint}")
    return _merge(values, given)


def _merge(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a weak source overridden by a strong one; tables are merged key by key."""
    merged = dict(weak)
    if "seats" in strong and "providers" not in strong:
        merged.pop("providers", None)  # it would keep the seats of the stronger source from sitting
    for name, value in strong.items():
        old = merged.get(name)
        merged[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def project_file(folder: str | os.PathLike[str] = ".") -> Path | None:
    """Return the path of the project's file in a folder; None if there is none."""
    path = Path(folder) / PROJECT_FILE
    return path if _is_there(path) else None


def reaches(path: Path) -> tuple[str, ...]:
    """Return the settings of a project's file for which it must be trusted, in words for people.

    Raises:
        ConfigurationError: the file cannot be read, or has an unknown or invalid entry.
    """
    return tuple(_restricted(_read(path), path))


def trust_project(path: Path) -> None:
    """Trust a project's file with its present content.

    Raises:
        ConfigurationError: the file has an unknown or invalid entry.
    """
    data = _read_bytes(path)
    _parse(data, path)
    _trust.add(path, data)


def _restricted(values: Mapping[str, Any], path: Path) -> list[str]:
    """Return the settings that an untrusted project's file must not have, in words for people."""
    found = [name for name in values if name not in _PROJECT_KEYS and name != "instances"]
    found += [f"[providers.{name}] {', '.join(table)}" for name, table in values.get("instances", {}).items()]
    names = values.get("providers")
    seats = sum(_seat_count(name) for name in names) if isinstance(names, list) else 0
    seats += sum(_seat_count(seat.provider) for seat in values.get("seats") or ())
    if seats > _MAX_UNTRUSTED_SEATS:
        found.append(f"{seats} seats, more than {_MAX_UNTRUSTED_SEATS}")
    # Resolved, so that neither `..` nor a symbolic link leads to files elsewhere.
    folder = path.parent.resolve()
    for entry in values.get("subagent_paths") or ():
        if not _absolute(path, entry).resolve().is_relative_to(folder):
            found.append(f"subagent_paths: {entry!r}, which leads out of the project")
    return found


def _seat_count(name: object) -> int:
    """Return the number of seats that an entry of ``providers`` stands for."""
    _, colon, count = str(name).rpartition(":")
    return int(count) if colon and count.isdecimal() and len(count) <= 3 else 1


def _absolute(path: Path, entry: object) -> Path:
    """Return the absolute path of an entry in a project's file, which is relative to that file."""
    try:
        return absolute(path.parent) / expand_user(str(entry))
    except InvalidOption as error:
        raise error._reword(f"{path}: subagent_paths: {error.message}") from None


def _lower_limits(project: dict[str, Any], mine: CouncilConfig) -> None:
    """Reduce the limits of a project's file to those of the user. The quorum is not a limit on spending."""
    for name, value in (project.get("budget") or {}).items():
        limit = getattr(mine.budget, name, None)
        if name != "quorum" and limit is not None and isinstance(value, int | float):
            project["budget"][name] = min(limit, value)
    if isinstance(project.get("max_repairs"), int):
        project["max_repairs"] = min(mine.max_repairs, project["max_repairs"])
