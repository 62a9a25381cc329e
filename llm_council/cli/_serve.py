"""``council serve``: a council behind OpenAI's Chat Completions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from llm_council.cli import _output
from llm_council.cli._run_options import check_store, seat_options, seats_of, strategy_of
from llm_council.errors import InvalidOption, MissingDependency

__all__ = ["serve"]

_EXAMPLES = """\b
Examples:
  council serve -p openai/gpt-5.4,anthropic/claude-sonnet-5,gemini
  council serve --keys keys.toml --host 0.0.0.0 --behind-proxy --allow-host council.example.com
"""

_file = click.Path(dir_okay=False, path_type=Path)


@click.command("serve", epilog=_EXAMPLES)
@seat_options
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8642, show_default=True, help="The port; 0 is a free one."
)
@click.option("--keys", type=_file, help="TOML file with the keys of clients: [keys.NAME] key, usd, per_minute.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A further name of this server; repeat for more.")
@click.option("--certificate", type=_file, help="Certificate for TLS, in PEM.")
@click.option("--private-key", type=_file, help="Its private key.")
@click.option("--behind-proxy", is_flag=True, help="A proxy ends TLS, and alone can reach this server.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds for running requests to end once the server is told to stop.",
)
@click.option(
    "--store", type=click.Path(), help="The run store; default: the configuration's, else in the data folder."
)
@click.option("--no-store", is_flag=True, help="Store nothing.")
@click.option("--otel", is_flag=True, help="Trace every run with OpenTelemetry; needs the extra otel.")
def serve(*, store: str | None, no_store: bool, otel: bool, **flags: Any) -> int:
    """Serve a council to programs that speak OpenAI's Chat Completions.

    The models are "council" and "council/STRATEGY". The server listens on this machine alone, and prints an address
    and a token for the client's base_url and api_key. Runs are stored unless --no-store is given.
    """
    import attrs

    from llm_council.config import CouncilConfig
    from llm_council.council import Council

    try:
        from llm_council.serve import server
    except ImportError as error:
        raise MissingDependency(f"{error.name} is not installed: pip install 'llm-council-sdk[serve]'") from None
    if store and no_store:
        raise click.UsageError("--store and --no-store exclude each other: leave one out")
    names = ("host", "port", "keys", "certificate", "private_key", "behind_proxy", "grace")
    serving = server.Serving(**{name: flags[name] for name in names}, allow_hosts=flags["allow_host"])
    keys = server.all_keys(serving)
    config = CouncilConfig.discover()
    path = None if no_store else store or config.store or str(default_store())
    check_store(path)
    config = attrs.evolve(config, store=path)
    if flags["strategy"]:
        config = attrs.evolve(config, strategy=flags["strategy"])
    listeners = []
    if otel:
        from llm_council.observers import trace_runs

        listeners.append(trace_runs())
    strategy = strategy_of(config, flags["strategy_option"])
    council = Council(
        seats_of(config, flags), config=config, chair=flags["chair"], strategy=strategy, listeners=listeners
    )
    council._seating.check()
    listening = server.bind(serving)
    port = listening.getsockname()[1]
    host = f"[{serving.host}]" if ":" in serving.host else serving.host
    _output.print_line(f"base_url  {serving.scheme}://{host}:{port}/v1", indent=0)
    _output.print_line(f"api_key   {keys[0].secret}", indent=0)
    _output.print_note(f"council: seats: {', '.join(council.providers)}")
    _output.print_note("council: nothing is stored" if path is None else f"council: runs are stored in {path}")
    server.serve(council, serving, listening, keys)
    return 0


def default_store() -> Path:
    """Return the store in the user's data folder: ``llm-council/runs.db`` in ``$XDG_DATA_HOME`` or ``~/.local/share``.

    Raises:
        InvalidOption: there is no home directory.
    """
    try:
        folder = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "llm-council"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (RuntimeError, OSError) as error:
        reason = getattr(error, "strerror", None) or "there is no home directory"
        raise InvalidOption(f"the data folder cannot be used: {reason}: name --store FILE, or say --no-store") from None
    return folder / "runs.db"
