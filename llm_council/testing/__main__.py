"""Test a provider from the command line: ``python -m llm_council.testing my_package:MyProvider``.

Prints one line for each promise. The exit status is 0 if no promise is broken, 1 if one is, and 2 if the provider or
a promise does not exist.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Any, NoReturn

from llm_council.providers.base import ProviderAdapter
from llm_council.testing.conformance import ProviderConformance, Verdict, outcomes
from llm_council.testing.conformance._promises import promises
from llm_council.testing.servers import dialects

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Check the promises of one provider, and return the exit status."""
    options = _parser().parse_args(arguments)
    stand = _load(options.target, {"speaks": options.speaks, "key_variable": options.key_variable})
    known = [promise.name for promise in promises(stand)]
    wrong = [name for name in options.only if name not in known]
    if wrong:
        _refuse(f"no promise is called {wrong[0]!r}; there are {', '.join(known)}")
    counted = dict.fromkeys(Verdict, 0)
    for outcome in outcomes(stand, tuple(options.only)):
        counted[outcome.verdict] += 1
        sys.stdout.write(f"{outcome.verdict:<8} {outcome.line}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{', '.join(f'{count} {verdict}' for verdict, count in counted.items() if count)}\n")
    return 1 if counted[Verdict.BROKEN] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m llm_council.testing", description="Check whether a provider does what every provider must."
    )
    parser.add_argument("target", metavar="MODULE:CLASS", help="a provider, or a subclass of ProviderConformance")
    parser.add_argument("--speaks", choices=dialects(), help="the dialect of the fake vendor; openai by default")
    parser.add_argument("--key-variable", metavar="NAME", help="the environment variable that its key is read from")
    parser.add_argument("--only", action="append", default=[], metavar="PROMISE", help="check this one; repeatable")
    return parser


def _load(target: str, attributes: dict[str, str | None]) -> ProviderConformance:
    """Return the conformance class of a provider, with the attributes from the command line set."""
    module, _, name = target.partition(":")
    if not name:
        _refuse(f"{target!r} names no class: write MODULE:CLASS")
    try:
        found: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        _refuse(f"{target}: {error}")
    # A subclass of ``ProviderConformance`` has settings of its own; for a provider the defaults hold.
    if isinstance(found, type) and issubclass(found, ProviderConformance):
        stand = found
    elif isinstance(found, type) and issubclass(found, ProviderAdapter):
        stand = type(found.__name__, (ProviderConformance,), {"provider": found})
    else:
        _refuse(f"{target} is neither a provider's class nor a subclass of ProviderConformance")
    given = {name: value for name, value in attributes.items() if value is not None}
    configured: type[ProviderConformance] = type(stand.__name__, (stand,), given)
    return configured()


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    sys.exit(main())
