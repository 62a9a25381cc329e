"""Gateways that differ only in facts: each row of ``gateways.toml`` is a class here, made when it is asked for."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib import resources
from typing import Any

from llm_council._wire.openai import ChatOptions
from llm_council.providers.compatible import OpenAICompatibleProvider

__all__ = ["rows"]


@lru_cache(maxsize=1)
def rows() -> dict[str, dict[str, Any]]:
    """Return every row by the gateway's name."""
    return tomllib.loads(resources.files(__package__).joinpath("gateways.toml").read_text(encoding="utf-8"))


def __getattr__(name: str) -> type[OpenAICompatibleProvider]:
    for gateway, row in rows().items():
        if row["class"] == name:
            made = _make(gateway, row)
            globals()[name] = made
            return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(row["class"] for row in rows().values())})


def _make(name: str, row: dict[str, Any]) -> type[OpenAICompatibleProvider]:
    body = {
        "__doc__": row["doc"],
        "__module__": __name__,
        "name": name,
        "BASE_URL": row["base_url"],
        "BASE_URL_ENV": row.get("base_url_env"),
        "API_KEY_ENV": row.get("api_key_env"),
        "NEEDS_KEY": row.get("needs_key", True),
        "SERVES_WHAT_IT_LISTS": row.get("serves_what_it_lists", False),
        "CHAT": ChatOptions(vendor=name, think_tags=row.get("think_tags", False)),
    }
    return type(row["class"], (OpenAICompatibleProvider,), body)
