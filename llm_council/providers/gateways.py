"""Gateways that differ in facts alone: each row of ``gateways.toml`` becomes a class, created on first use.

``python -m llm_council.providers.gateways --write`` writes the rows' entry points into pyproject.toml; ``--check``
exits with 1 if they are out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import attrs

from llm_council._wire.openai_chat import ChatOptions
from llm_council._wire.responses import ResponsesOptions
from llm_council.models._attrs import as_tuple
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.profiles import Api, ModelProfile, api_for_tools
from llm_council.providers.compatible import OpenAICompatibleProvider

if TYPE_CHECKING:
    from llm_council.providers.batch_jobs import BatchJobs

__all__ = ["Gateway", "Row", "entry_points", "rows"]

_MODULE = f"{__package__}.gateways"
_SECTION = '[project.entry-points."llm_council.providers"]'
_OURS = re.compile(rf'^[\w-]+ = "{re.escape(_MODULE)}:')


@attrs.frozen(kw_only=True)
class Row:
    """The facts about one gateway.

    Attributes:
        class_name: the name of its class; the key in the file is ``class``.
        doc: the docstring of its class: which variables it reads, how its models are named.
        since: the day on which the facts were last checked, ``YYYY-MM-DD``.
        base_url: its address; empty if every customer has a different one.
        base_url_env: the environment variable of its address.
        path: the path for an address without one.
        api_key_env: the environment variable of its key.
        key_header: the header that carries the key; None is ``Authorization``, with ``Bearer`` before the key.
        needs_key: True refuses a call without a key before it is sent.
        serves_what_it_lists: True if its list of models is exactly what it serves; the first is the default.
        family: the provider name whose profiles describe its models; None is its own, else any compatible server's.
        without: capabilities that it lacks.
        developer_role: see ``ChatOptions``, as the following.
        echo: the key under which reasoning is sent back.
        seed: the key of the seed; None for a server that documents none.
        stream_usage: request the usage of a stream.
        think_tags: models may write their reasoning into the answer.
        tools_need_responses: it serves OpenAI's models, some of which take tools and an effort by the Responses API
            alone.
        cache_key: it takes ``prompt_cache_key``.
        longest_call_id: the most characters of the id of a call; None is unlimited.
        call_id_length: the number of letters and digits that the id of a call must have; None is any.
        batch_jobs: the wire of its batch jobs, ``"mistral"``; None if it has none that are known here.
    """

    class_name: str
    doc: str
    since: str
    base_url: str = ""
    base_url_env: str | None = None
    path: str = ""
    api_key_env: str
    key_header: str | None = None
    needs_key: bool = True
    serves_what_it_lists: bool = False
    family: str | None = None
    without: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    developer_role: str = "system"
    echo: str | None = None
    seed: str | None = None
    stream_usage: bool = True
    think_tags: bool = False
    tools_need_responses: bool = False
    cache_key: bool = False
    longest_call_id: int | None = None
    call_id_length: int | None = None
    batch_jobs: str | None = None


class Gateway(OpenAICompatibleProvider):
    """Base class of the rows' classes; arguments are those of ``OpenAICompatibleProvider``.

    Attributes:
        ROW: the facts.
    """

    ROW: ClassVar[Row]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.base_url = _with_path(self.base_url, self.ROW.path)
        self._family = self.ROW.family or self._family

    def headers(self) -> dict[str, str]:
        """Return the headers of every request, with the key in the header that the gateway reads."""
        headers = super().headers()
        if self.ROW.key_header and self._key and headers.get("Authorization") == f"Bearer {self._key.reveal()}":
            del headers["Authorization"]  # at Azure, the header of an Entra token
            headers[self.ROW.key_header] = self._key.reveal()
        return headers

    def batch_jobs(self) -> BatchJobs | None:
        """Return the gateway's batch jobs; None if it has none that are known here."""
        if self.ROW.batch_jobs != "mistral":
            return None
        from llm_council.providers._mistral.batch_jobs import MistralBatchJobs

        return MistralBatchJobs(self)

    def _api_for(self, request: GenerateRequest) -> Api:
        api = super()._api_for(request)
        return api_for_tools(request, api, chosen=self._api) if self.ROW.tools_need_responses else api

    def _responses_options(self, profile: ModelProfile) -> ResponsesOptions:
        return attrs.evolve(super()._responses_options(profile), cache_key=self.ROW.cache_key)


def _with_path(url: str, path: str) -> str:
    """Return an address with the path that the gateway serves, if it has none, or only the beginning of it.

    Azure's portal also shows the address of one deployment, ``/openai/deployments/NAME``, of the older API.
    """
    parts = urlsplit(url)
    if not url or not path:
        return url
    begun = parts.path.rstrip("/")
    if path.startswith(f"{begun}/") or begun.startswith(f"/{path.split('/')[1]}/deployments/"):
        return url[: len(url) - len(parts.path)] + path
    return url


@lru_cache(maxsize=1)
def rows() -> dict[str, Row]:
    """Return every row by the gateway's name."""
    text = resources.files(__package__).joinpath("gateways.toml").read_text(encoding="utf-8")
    return {name: Row(class_name=row.pop("class"), **row) for name, row in tomllib.loads(text).items()}


def __getattr__(name: str) -> type[Gateway]:
    for gateway, row in rows().items():
        if row.class_name == name:
            made = _make(gateway, row)
            globals()[name] = made  # Python calls ``__getattr__`` for missing names only, so the class stays the same
            return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(row.class_name for row in rows().values())})


def _make(name: str, row: Row) -> type[Gateway]:
    body = {
        "__doc__": row.doc,
        "__module__": __name__,  # pickle finds the class by module and name
        "ROW": row,
        "name": name,
        "capabilities": attrs.evolve(Gateway.capabilities, **dict.fromkeys(row.without, False)),
        "BASE_URL": row.base_url,
        "BASE_URL_ENV": row.base_url_env,
        "API_KEY_ENV": row.api_key_env,
        "NEEDS_KEY": row.needs_key,
        "SERVES_WHAT_IT_LISTS": row.serves_what_it_lists,
        "CHAT": ChatOptions(
            vendor=name,
            developer_role=row.developer_role,
            echo=row.echo,
            seed=row.seed,
            stream_usage=row.stream_usage,
            think_tags=row.think_tags,
            longest_call_id=row.longest_call_id,
            call_id_length=row.call_id_length,
            cache_key=row.cache_key,
            parses_arguments=row.family != "openai",
        ),
    }
    return type(row.class_name, (Gateway,), body)


def entry_points(text: str) -> str:
    """Return the text of pyproject.toml with its gateway entry points replaced by one for each row.

    Raises:
        ValueError: the file has no table for providers.
    """
    lines = text.splitlines(keepends=True)
    start = [line.rstrip() for line in lines].index(_SECTION) + 1
    place = next((i for i in range(start, len(lines)) if _OURS.match(lines[i]) or not lines[i].strip()), len(lines))
    written = [f'{name} = "{_MODULE}:{row.class_name}"\n' for name, row in rows().items()]
    return "".join([*lines[:place], *written, *(line for line in lines[place:] if not _OURS.match(line))])


def main(arguments: list[str] | None = None) -> int:
    """Write the entry points, or check that they are up to date; return the exit status."""
    parser = argparse.ArgumentParser(f"python -m {_MODULE}", description="Entry points of the rows of gateways.toml.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit with 1 when they are stale")
    action.add_argument("--write", action="store_true", help="write them")
    parser.add_argument("file", nargs="?", type=Path, default=Path("pyproject.toml"))
    options = parser.parse_args(arguments)
    before = options.file.read_text(encoding="utf-8")
    after = entry_points(before)
    if before == after:
        return 0
    if options.write:
        options.file.write_text(after, encoding="utf-8")
    sys.stdout.write(f"{options.file}: the gateways' entry points {'are stale' if options.check else 'are written'}\n")
    return int(options.check)


if __name__ == "__main__":
    sys.exit(main())
