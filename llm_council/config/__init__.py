"""The one configuration type, and the sources that it is read from.

Order of the sources, the strongest first: arguments, environment, the project's file, the user's file, defaults.
The project's file is hostile until a person agrees to it (``council config trust``): it may set prompts, models and the
quorum and *lower* the budget; everything else in it is refused with ``UntrustedConfig``. One that was agreed to may set
what a person's own file may, but for the budget, which it can only lower all the same.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from llm_council.config import _trust
from llm_council.errors import ConfigurationError, InvalidOption, UnknownOption, UntrustedConfig, near
from llm_council.errors._secrets import Secret
from llm_council.models._attrs import (
    as_dict,
    as_tuple,
    must_be,
    non_negative,
    non_negative_int,
    optional,
    positive_int,
    strict_init,
    string,
)
from llm_council.models.limits import Budget, Limits, RetryPolicy
from llm_council.models.request import ReasoningConfig
from llm_council.providers._http.account import sealed

__all__ = ["PROJECT_FILE", "CouncilConfig", "project_file", "reaches", "trust_project", "user_file"]

PROJECT_FILE = "council.toml"
"""Name of the project's file; it is looked for in the current folder alone."""

_MOST = 1 << 20  # bytes of a file
_MOST_SEATS = 12  # that a project may ask for untrusted: each of them costs money

_names = must_be("a list of provider names", lambda v: all(isinstance(name, str) and name.strip() for name in v))
_paths = must_be("a list of paths", lambda v: all(isinstance(path, str) and path for path in v))
_path = must_be("a path", lambda v: isinstance(v, str) and bool(v.strip()))


def _tables(value: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    return {name: as_dict(table) for name, table in as_dict(value).items()}


@strict_init
@attrs.frozen(kw_only=True)
class CouncilConfig:
    """How a council works.

    Attributes:
        providers: who sits: ``"name"``, ``"name/model"`` or ``"name:count"``; empty picks those whose keys are set.
        chair: the seat that synthesises; None picks one, see ``Plan.chairs``.
        strategy: how seats deliberate.
        budget: bounds on a run.
        limits: bounds on sizes.
        retry: when a failed call is made again.
        max_repairs: repairs asked for after an answer that does not meet its schema.
        temperature: sampling temperature; None is not sent.
        max_tokens: most tokens of one answer; None is not sent.
        reasoning: how much to think; None is not sent.
        system_context: text for every seat's system turn.
        subagent_paths: files and folders with subagents of your own.
        instances: providers of your own by name: each a ``kind`` (a provider's name) and its options.
        store: path of the run store; None writes nothing.
        seed: seed of shuffles, fences and tie-breaks; None is random, and recorded in the plan.
    """

    providers: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=_names)
    chair: str | None = attrs.field(default=None, validator=optional(string))
    strategy: str = attrs.field(default="synthesize", validator=string)
    budget: Budget = Budget()
    limits: Limits = Limits()
    retry: RetryPolicy = RetryPolicy()
    max_repairs: int = attrs.field(default=2, validator=non_negative_int)
    temperature: float | None = attrs.field(default=None, validator=optional(non_negative))
    max_tokens: int | None = attrs.field(default=None, validator=optional(positive_int))
    reasoning: ReasoningConfig | None = None
    system_context: str | None = attrs.field(default=None, validator=optional(string))
    subagent_paths: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=_paths)
    instances: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, converter=_tables)
    store: str | None = attrs.field(default=None, validator=optional(_path))
    seed: str | None = attrs.field(default=None, validator=optional(string))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read one TOML file, trusting it as a user's own.

        Raises:
            ConfigurationError: the file cannot be read, is no TOML, or holds what no option takes.
        """
        return cls._build(_read(Path(path)), str(path))

    @classmethod
    def from_env(cls) -> Self:
        """Read the ``LLM_COUNCIL_*`` variables over the defaults."""
        return cls._build(_environment(), "environment")

    @classmethod
    def load(cls) -> Self:
        """Read the user's file, if there is one, and the environment over it."""
        return cls._build(_merge(_user(), _environment()), str(user_file()))

    @classmethod
    def discover(cls, folder: str | os.PathLike[str] = ".") -> Self:
        """Read the user's file, the project's file under its restrictions, and the environment.

        Raises:
            UntrustedConfig: the project's file sets what only a trusted source may set.
        """
        path = Path(folder) / PROJECT_FILE
        user = _user()
        if path.is_file():
            data = _bytes(path)
            project = _parsed(data, path)
            if reached := _reached(project, path):
                _require_trust(reached, path, data)
            _only_lower(project, cls._build(user, str(user_file())))
            if isinstance(project.get("subagent_paths"), list):
                project["subagent_paths"] = [str(_placed(path, entry)) for entry in project["subagent_paths"]]
            user = _merge(user, project)
        return cls._build(_merge(user, _environment()), str(path))

    @classmethod
    def _build(cls, values: Mapping[str, Any], source: str) -> Self:
        try:
            built = {name: _NOUNS[name](**value) if name in _NOUNS else value for name, value in values.items()}
            return cls(**built)
        except (InvalidOption, UnknownOption) as error:
            raise type(error)(f"{source}: {error.message}") from None
        except TypeError as error:
            raise InvalidOption(f"{source}: {error}") from None


_NOUNS: dict[str, Callable[..., Any]] = {
    "budget": Budget,
    "limits": Limits,
    "retry": RetryPolicy,
    "reasoning": ReasoningConfig,
}

# What a project's file may set, in [council].
_PROJECT_KEYS = frozenset(
    [
        "providers",
        "chair",
        "strategy",
        "budget",
        "max_repairs",
        "temperature",
        "max_tokens",
        "reasoning",
        "system_context",
        "subagent_paths",
    ]
)

# Variable -> where its value goes, and how it is read.
_VARIABLES: dict[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    "LLM_COUNCIL_PROVIDERS": (("providers",), lambda text: [name.strip() for name in text.split(",") if name.strip()]),
    "LLM_COUNCIL_CHAIR": (("chair",), str),
    "LLM_COUNCIL_STRATEGY": (("strategy",), str),
    "LLM_COUNCIL_DEADLINE": (("budget", "deadline"), float),
    "LLM_COUNCIL_QUORUM": (("budget", "quorum"), int),
    "LLM_COUNCIL_BUDGET_USD": (("budget", "usd"), float),
    "LLM_COUNCIL_TEMPERATURE": (("temperature",), float),
    "LLM_COUNCIL_MAX_TOKENS": (("max_tokens",), int),
    "LLM_COUNCIL_SUBAGENT_PATHS": (("subagent_paths",), lambda text: [p for p in text.split(os.pathsep) if p]),
    "LLM_COUNCIL_STORE": (("store",), str),
    "LLM_COUNCIL_SEED": (("seed",), str),
}


def user_file() -> Path:
    """Return the user's file: ``LLM_COUNCIL_CONFIG``, else ``llm-council/config.toml`` in the config home."""
    named = os.environ.get("LLM_COUNCIL_CONFIG")
    if named:
        return Path(named)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return home / "llm-council" / "config.toml"


def _user() -> dict[str, Any]:
    path = user_file()
    if not os.environ.get("LLM_COUNCIL_CONFIG") and not path.is_file():
        return {}
    return _read(path)


def _read(path: Path) -> dict[str, Any]:
    return _parsed(_bytes(path), path)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > _MOST:
        raise ConfigurationError(f"{path}: cannot be read: larger than {_MOST} bytes")
    return data


def _parsed(content: bytes, path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: cannot be read: not UTF-8") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    return _flatten(data, str(path))


def _flatten(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Bring a file's tables into the fields of ``CouncilConfig``."""
    tables = ("council", "providers", "subagents")
    for name, table in data.items():
        if name not in tables:
            raise UnknownOption(f"{source}: no table [{name}]{near(name, tables)}")
        if not isinstance(table, dict):
            raise InvalidOption(f"{source}: [{name}] must be a table")
    values = dict(data.get("council", {}))
    known = {field.name for field in attrs.fields(CouncilConfig)} - {"instances"}
    for name in values:
        if name not in known:
            raise UnknownOption(f"{source}: [council] takes no {name!r}{near(name, known)}")
        if name in _NOUNS and not isinstance(values[name], dict):
            raise InvalidOption(f"{source}: {name} must be a table, such as {name} = {{ ... }}")
    for name in data.get("subagents", {}):
        if name != "paths":
            raise UnknownOption(f"{source}: [subagents] takes no {name!r}{near(name, ['paths'])}")
    if "paths" in data.get("subagents", {}):
        values["subagent_paths"] = data["subagents"]["paths"]
    if data.get("providers"):
        values["instances"] = {name: _instance(name, table, source) for name, table in data["providers"].items()}
    return values


def _instance(name: str, table: Any, source: str) -> dict[str, Any]:
    if not isinstance(table, dict) or not isinstance(table.get("kind"), str):
        raise InvalidOption(f'{source}: [providers.{name}] needs kind = "...", the name of a provider')
    options = dict(table)
    if isinstance(options.get("headers"), dict):
        options["headers"] = {header: sealed(header, value) for header, value in options["headers"].items()}
    for field in ("api_key", "shared"):  # the latter is an address that may hold a password
        text = options.get(field)
        if isinstance(text, str) and not text.startswith("${"):
            try:
                options[field] = Secret(text)
            except ValueError as error:
                raise InvalidOption(f"{source}: [providers.{name}] {error}") from None
    return options


def _environment() -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, (path, read) in _VARIABLES.items():
        text = os.environ.get(variable, "").strip()
        if not text:
            continue
        try:
            value = read(text)
        except ValueError:
            raise InvalidOption(f"{variable}: expected {read.__name__}, got {text!r}") from None
        target = values
        for key in path[:-1]:
            target = target.setdefault(key, {})
        target[path[-1]] = value
    return values


def _merge(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one source over another, table by table and limit by limit."""
    merged = dict(weak)
    for name, value in strong.items():
        old = merged.get(name)
        merged[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def project_file(folder: str | os.PathLike[str] = ".") -> Path | None:
    """Return the project's file of a folder; None where there is none."""
    path = Path(folder) / PROJECT_FILE
    return path if path.is_file() else None


def reaches(path: Path) -> tuple[str, ...]:
    """Return what a project's file sets that only a trusted source may set; nothing for a file that needs no trust.

    Raises:
        ConfigurationError: the file cannot be read, or holds what no option takes.
    """
    return tuple(_reached(_read(path), path))


def trust_project(path: Path) -> None:
    """Trust a project's file as it is now.

    Raises:
        ConfigurationError: the file holds what no option takes: there is nothing to agree to.
    """
    data = _bytes(path)
    CouncilConfig._build(_parsed(data, path), str(path))
    _trust.agree(path, data)


def _reached(values: Mapping[str, Any], path: Path) -> list[str]:
    """Return what a project's file sets beyond what any project may, in words for people."""
    reached = [name for name in values if name not in _PROJECT_KEYS and name != "instances"]
    reached += [f"[providers.{name}] {', '.join(table)}" for name, table in values.get("instances", {}).items()]
    names = values.get("providers")
    seats = sum(_seats(name) for name in names) if isinstance(names, list) else 0
    if seats > _MOST_SEATS:
        reached.append(f"{seats} seats, more than {_MOST_SEATS}")
    folder = path.parent.resolve()
    for entry in values.get("subagent_paths") or ():
        if not _placed(path, entry).resolve().is_relative_to(folder):
            reached.append(f"subagent_paths: {entry!r}, which leads out of the project")
    return reached


def _seats(name: object) -> int:
    """Return how many seats a name of ``providers`` asks for."""
    _, colon, count = str(name).rpartition(":")
    return int(count) if colon and count.isdecimal() and len(count) <= 3 else 1


def _placed(path: Path, entry: object) -> Path:
    """Return where an entry of a project's file leads: from that file on, wherever one stands."""
    try:
        return path.parent.absolute() / Path(str(entry)).expanduser()
    except RuntimeError:  # the home of nobody
        raise InvalidOption(f"{path}: subagent_paths: {entry!r} is nobody's home") from None


def _require_trust(reached: list[str], path: Path, data: bytes) -> None:
    if not _trust.is_agreed(path, data):
        raise UntrustedConfig(
            f"{path}: a project's file may not set {reached[0]} before you trust it: read it, then run"
            f" `council config trust`; or move that to your own file, {user_file()}",
            path=str(path),
            field=reached[0],
        )


def _only_lower(project: dict[str, Any], mine: CouncilConfig) -> None:
    """Keep what a project may spend at or under what its user allows; the quorum is free."""
    for name, value in (project.get("budget") or {}).items():
        limit = getattr(mine.budget, name, None)
        if name != "quorum" and limit is not None and isinstance(value, int | float):
            project["budget"][name] = min(limit, value)
    if isinstance(project.get("max_repairs"), int):
        project["max_repairs"] = min(mine.max_repairs, project["max_repairs"])
