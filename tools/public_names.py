"""Describe the public names of llm_council: modules, classes, functions, constants and type aliases.

Annotations are written without the modules that their names come from, so a private module may be renamed freely.
"""

from __future__ import annotations

import builtins
import enum
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_origin

import attrs

import llm_council

Described = dict[str, Any]

_MODULE_PREFIX = re.compile(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])")
_STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
_PROTOCOLS = (
    "__add__ __aenter__ __aiter__ __anext__ __await__ __call__ __contains__ __enter__ __eq__ __getitem__ __hash__"
    " __iter__ __len__ __next__"
).split()


def all_modules(known: Mapping[str, Iterable[str]]) -> dict[str, Described]:
    """Describe every public module, and those of ``known`` that can still be imported.

    Args:
        known: names by module that an older version had. They are described as well wherever they still exist, so that
            a deprecated alias that is no longer listed counts as present.
    """
    modules: dict[str, Described] = {}
    for name in sorted({*module_names(), *known}):
        described = describe_module(name, known.get(name, ()))
        if described is not None:
            modules[name] = described
    public = {name for names in modules.values() for name in names}
    for names in modules.values():
        for described in names.values():
            if "bases" in described:  # which private class a public one inherits from is no promise
                described["bases"] = [base for base in described["bases"] if base in public or hasattr(builtins, base)]
    return modules


def module_names() -> Iterator[str]:
    """Yield every module whose dotted name has no component that starts with an underscore."""
    yield "llm_council"
    for found in pkgutil.walk_packages(llm_council.__path__, "llm_council."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield found.name


def describe_module(name: str, known: Iterable[str]) -> Described | None:
    """Describe the public names of a module, and the known ones that it still has; None if it cannot be imported."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    names = {one for one in known if hasattr(module, one)}
    if hasattr(module, "__all__"):
        names.update(module.__all__)
    else:
        defined = {one for one, value in vars(module).items() if getattr(value, "__module__", None) == name}
        names.update(one for one in defined if not one.startswith("_"))
    return {one: describe(getattr(module, one)) for one in sorted(names)}


def describe(value: Any) -> Described:
    """Describe a public object: its kind, and what a caller can rely on."""
    if isinstance(value, type):
        return describe_class(value)
    if inspect.isroutine(value):
        return describe_function(value)
    if get_origin(value) is not None:
        return {"kind": "type alias", "value": annotation_text(value)}
    described: Described = {"kind": "constant", "type": type(value).__name__}
    if isinstance(value, str) and value != llm_council.__version__:
        described["value"] = value
    elif isinstance(value, tuple | frozenset | Mapping) and all(isinstance(one, str) for one in value):
        described["holds"] = sorted(value)
    return described


def describe_function(function: Callable[..., Any]) -> Described:
    """Describe a function: its parameters by name, and what it returns."""
    plain = inspect.unwrap(function)
    is_async = inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain)
    signature = inspect.signature(function)
    return {
        "kind": "async function" if is_async else "function",
        "parameters": dict(_parameters(signature)),
        "returns": annotation_text(signature.return_annotation),
    }


def _parameters(signature: inspect.Signature) -> Iterator[tuple[str, str]]:
    """Yield each parameter as ``place: type = default``, the place being a position, ``keyword`` or ``rest``."""
    for position, parameter in enumerate(signature.parameters.values()):
        stars = _STARS.get(parameter.kind, "")
        place = "rest" if stars else "keyword" if parameter.kind is parameter.KEYWORD_ONLY else str(position)
        text = f"{place}: {annotation_text(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {default_text(parameter.default)}"
        yield stars + parameter.name, text


def describe_class(cls: type) -> Described:
    """Describe a class: its bases, how it is made, and its public members."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("llm_council")]
    described: Described = {"kind": "class", "bases": [base.__name__ for base in cls.__mro__[1:] if base is not object]}
    made: dict[str, str] = {}
    if issubclass(cls, enum.Enum):
        described["values"] = {name: repr(member.value) for name, member in cls.__members__.items()}
    elif attrs.has(cls):
        made = described["fields"] = dict(_fields(cls))
    elif any("__init__" in vars(base) for base in ours):
        described["parameters"] = dict(_parameters(inspect.signature(cls)))
    members = {name: member for base in reversed(ours) for name, member in _members(base) if name not in made}
    described["members"] = dict(sorted(members.items()))
    described["protocols"] = [name for name in _PROTOCOLS if any(name in vars(base) for base in ours)]
    return described


def _fields(cls: Any) -> Iterator[tuple[str, str]]:
    for position, field in enumerate(attrs.fields(cls)):
        name = field.alias if field.init else field.name
        if name.startswith("_"):
            continue
        text = f"{'keyword' if field.kw_only else position}: {annotation_text(field.type)}"
        if field.default is not attrs.NOTHING:
            text += f" = {default_text(field.default)}"
        yield name, text


def _members(cls: type) -> Iterator[tuple[str, Described]]:
    """Yield the public attributes, properties and methods that a class itself has."""
    if issubclass(cls, enum.Enum):
        return
    for name, written in inspect.get_annotations(cls).items():
        if not name.startswith("_"):
            yield name, {"kind": "attribute", "type": annotation_text(written)}
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(value, classmethod | staticmethod):
            yield name, {**describe_function(value.__func__), "kind": type(value).__name__}
        elif isinstance(value, property) and value.fget is not None:
            returns = inspect.signature(value.fget).return_annotation
            yield name, {"kind": "property", "returns": annotation_text(returns)}
        elif inspect.isfunction(value):
            yield name, describe_function(value)
        elif not inspect.isdatadescriptor(value) and name not in inspect.get_annotations(cls):
            yield name, {"kind": "attribute", "type": type(value).__name__}


def annotation_text(written: Any) -> str:
    """Return an annotation as text, without quotes and without the modules that its names come from."""
    if written is inspect.Signature.empty:
        return "Any"
    text = written if isinstance(written, str) else inspect.formatannotation(written)
    text = re.sub(r"ForwardRef\(('[^']*')\)", r"\1", text).replace("NoneType", "None")
    return _MODULE_PREFIX.sub("", text).replace("'", "").replace('"', "")


def default_text(value: Any) -> str:
    """Return a default as text that is the same in every process."""
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]  # a class, which its stub calls a function
        return f"{value.factory.__name__}()"
    if attrs.has(type(value)) and all(field.default is not attrs.NOTHING for field in attrs.fields(type(value))):
        return f"{type(value).__name__}({'' if value == type(value)() else '...'})"
    if callable(value):
        return str(getattr(value, "__qualname__", type(value).__name__))
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text
