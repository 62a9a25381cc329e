"""List the models that vendors' SDKs name in their types and that no row of ``profiles.toml`` decides.

usage: python tools/undecided_models.py [--rows]

Install the newest SDKs beside the package first: ``openai anthropic google-genai xai-sdk mistralai cohere``. Nothing is
fetched: names are read from the installed types and sources. ``--rows`` lists every name with the row that
decides it, to see where an older family's row decides a newer model. The exit status is 1 if a model is undecided.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from llm_council.providers._call.profiles import _begins, _table

# Provider -> the SDK's package, the folder or file in it that names models, and what a model's name looks like.
SOURCES = {
    "openai": ("openai", "types/shared", r"(?:gpt|o\d|chatgpt|codex|computer-use)[a-z0-9.\-]*"),
    "anthropic": ("anthropic", "types/model_param.py", r"claude-[a-z0-9\-]+"),
    "gemini": ("google.genai", "", r"gemini-\d[a-z0-9.\-]*"),
    "xai": ("xai_sdk", "", r"grok-\d[a-z0-9.\-]*"),
    "mistral": ("mistralai", "", r"(?:mistral|magistral|ministral|codestral|devstral)-[a-z0-9.\-]+"),
    "cohere": ("cohere", "", r"command-[a-z0-9\-]+"),
}
# Models that are no chat models, or that are spoken to another way.
OTHER = re.compile(
    r"audio|realtime|transcribe|tts|image|embed|moderation|search|live|ocr|voice|signature|client|-test$|deep-research"
    r"|computer-use|instruct|nightly|light|imagine|oss|python"
)


def deciding_prefix(provider: str, model: str) -> str | None:
    """Return the longest prefix of a provider's rows that a model's name begins with; None if no row is about it."""
    prefixes = [row.get("prefix", "") for row in _table()["profile"] if row["provider"] == provider]
    found = [prefix for prefix in prefixes if prefix and _begins(model.lower(), prefix)]
    return max(found, key=len, default=None)


def named_models(provider: str) -> Iterator[str]:
    """Yield the models that the installed SDK of a provider names in quotes; nothing if it is not installed."""
    package, place, pattern = SOURCES[provider]
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return
    if spec is None or not spec.submodule_search_locations:
        return
    root = Path(next(iter(spec.submodule_search_locations))) / place
    quoted = re.compile(rf"""["'`]({pattern})["'`]""")
    seen = set()
    for file in [root] if root.is_file() else sorted(root.rglob("*.py")):
        seen.update(quoted.findall(file.read_text(encoding="utf-8", errors="replace")))
    yield from sorted(name for name in seen if not OTHER.search(name))


def main(arguments: list[str] | None = None) -> int:
    """Print the models, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", action="store_true", help="list every model with the row that decides it")
    options = parser.parse_args(arguments)
    undecided = 0
    for provider in SOURCES:
        names = list(named_models(provider))
        if not names:
            print(f"{provider}: its SDK is not installed, or names no models")  # noqa: T201
        for name in names:
            row = deciding_prefix(provider, name)
            undecided += row is None
            if row is None or options.rows:
                print(f"{provider}: {name}: {'no row' if row is None else row}")  # noqa: T201
    return 1 if undecided else 0


if __name__ == "__main__":
    sys.exit(main())
