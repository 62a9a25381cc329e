"""``council serve`` and ``council mcp``: a council behind OpenAI's Chat Completions, and behind tools for agents."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from llm_council.cli import _output
from llm_council.cli._run_options import check_store, seat_options, seats_of, strategy_of
from llm_council.errors import InvalidOption, MissingDependency
from llm_council.errors._secrets import hide_password

if TYPE_CHECKING:
    from llm_council.council import Council

__all__ = ["mcp", "serve"]

_EXAMPLES = """\b
Examples:
  council serve -p openai/gpt-5.4,anthropic/claude-sonnet-5,gemini
  council serve --keys keys.toml --host 0.0.0.0 --behind-proxy --allow-host council.example.com
"""

_MCP_EXAMPLES = """\b
Examples:
  claude mcp add council -- council mcp -p openai/gpt-5.4,gemini
  council mcp --http -p openai/gpt-5.4,gemini
"""

F = TypeVar("F", bound=Callable[..., Any])
_file = click.Path(dir_okay=False, path_type=Path)


def _address_options(port: int) -> Callable[[F], F]:
    """Return a decorator that adds the options of a server that listens."""

    def add(command: F) -> F:
        for option in (
            click.option(
                "--grace",
                type=click.FloatRange(min=0),
                default=30.0,
                show_default=True,
                help="Seconds for running requests to end once the server is told to stop.",
            ),
            click.option("--behind-proxy", is_flag=True, help="A proxy ends TLS, and alone can reach this server."),
            click.option("--private-key", type=_file, help="Its private key."),
            click.option("--certificate", type=_file, help="Certificate for TLS, in PEM."),
            click.option(
                "--allow-host", multiple=True, metavar="NAME", help="A further name of this server; repeat for more."
            ),
            click.option(
                "--keys",
                type=_file,
                help="TOML file with the keys of clients: [keys.NAME] key, usd, per_minute, at_once.",
            ),
            click.option(
                "--port",
                type=click.IntRange(0, 65535),
                default=port,
                show_default=True,
                help="The port; 0 is a free one.",
            ),
            click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on."),
        ):
            command = option(command)  # the last one added is the first in --help
        return command

    return add


def _store_options(command: F) -> F:
    for option in (
        click.option("--otel", is_flag=True, help="Trace every run with OpenTelemetry; needs the extra otel."),
        click.option("--no-store", is_flag=True, help="Store nothing."),
        click.option(
            "--store", type=click.Path(), help="The run store; default: the configuration's, else in the data folder."
        ),
    ):
        command = option(command)
    return command


@click.command("serve", epilog=_EXAMPLES)
@seat_options
@_address_options(8642)
@_store_options
@click.option("--no-page", is_flag=True, help="Serve programs alone, without the page for browsers.")
@click.option(
    "--evaluations",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Show the reports that council eval wrote into this folder, and into the folders in it.",
)
def serve(*, no_page: bool, evaluations: Path | None, **flags: Any) -> int:
    """Serve a council to programs that speak OpenAI's Chat Completions, and to people as a page.

    The models are "council" and "council/STRATEGY". The server listens on this machine alone, and prints an address
    and a token for the client's base_url and api_key, and the address of the page with the token in it. Runs are
    stored unless --no-store is given.
    """
    if no_page and evaluations is not None:
        raise click.UsageError("--evaluations shows reports on the page: leave --no-page out")
    server = _import("server", "serve")
    app = _import("app", "serve")
    serving, keys = _serving(server, flags)
    council = _council(flags)
    listening = server.bind(serving)
    hosts = server.hosts_of(serving, listening.getsockname()[1])
    _output.print_line(f"base_url  {_address(serving, listening)}/v1", indent=0)
    _output.print_line(f"api_key   {keys[0].secret}", indent=0)
    page = None
    if not no_page:
        page_of = _import("page.site", "serve").Page.of_server
        page = page_of(council, keys[0], serving, listening.getsockname()[1], evaluations)
        _output.print_line(f"page      {_address(serving, listening)}/?token={quote(keys[0].secret)}", indent=0)
    made = app.make_app(council, server.Access(keys), hosts, serving.grace, page)
    server.serve(made, serving, listening, made.state.shutdown.begin)
    return 0


@click.command("mcp", epilog=_MCP_EXAMPLES)
@seat_options
@click.option("--http", is_flag=True, help="Serve over HTTP, in place of standard input and output.")
@_address_options(8643)
@_store_options
def mcp(*, http: bool, **flags: Any) -> int:
    """Serve a council to agents, through the Model Context Protocol.

    The tools are convene, follow_up, get_run, list_roles and list_councils; stored runs are resources. Without --http,
    an agent starts this command and talks to it over standard input and output.
    """
    tools = _import("tools", "mcp")
    if not http:
        council = _council(flags)
        # The SDK reads standard input in a thread that no cancellation ends: after a Ctrl-C, asyncio would wait for it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with council:
            tools.make_server(council).run("stdio")
        return 0
    server = _import("server", "serve")
    serving, keys = _serving(server, flags)
    council = _council(flags)
    listening = server.bind(serving)
    _output.print_line(f"url    {_address(serving, listening)}/mcp", indent=0)
    _output.print_line(f"token  {keys[0].secret}", indent=0)
    with council:
        app = server.guarded(tools.http_app(tools.make_server(council)), serving, listening, keys)
        server.serve(app, serving, listening)
    return 0


def _import(module: str, extra: str) -> Any:
    """Return a module of the server, whose packages are an extra."""
    try:
        return import_module(f"llm_council.serve.{module}")
    except ImportError as error:
        raise MissingDependency(f"{error.name} is not installed: pip install 'llm-council-sdk[{extra}]'") from None


def _serving(server: Any, flags: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return how to serve, and the keys."""
    names = ("host", "port", "keys", "certificate", "private_key", "behind_proxy", "grace")
    serving = server.Serving(**{name: flags[name] for name in names}, allow_hosts=flags["allow_host"])
    return serving, server.all_keys(serving)


def _address(serving: Any, listening: Any) -> str:
    host = f"[{serving.host}]" if ":" in serving.host else serving.host
    return f"{serving.scheme}://{host}:{listening.getsockname()[1]}"


def _council(flags: Mapping[str, Any]) -> Council:
    """Return the council to serve, and say on standard error who sits in it and where its runs are stored."""
    import attrs

    from llm_council.config import CouncilConfig
    from llm_council.council import Council

    if flags["store"] and flags["no_store"]:
        raise click.UsageError("--store and --no-store exclude each other: leave one out")
    config = CouncilConfig.discover()
    path = None if flags["no_store"] else flags["store"] or config.store or str(default_store())
    check_store(path)
    config = attrs.evolve(config, store=path, strategy=flags["strategy"] or config.strategy)
    listeners = []
    if flags["otel"]:
        from llm_council.observers import trace_runs

        listeners.append(trace_runs())
    council = Council(
        seats_of(config, flags),
        config=config,
        chair=flags["chair"],
        strategy=strategy_of(config, flags["strategy_option"]),
        listeners=listeners,
    )
    council._seating.check()
    _output.print_note(f"council: seats: {', '.join(council.providers)}")
    place = None if path is None else hide_password(path)
    _output.print_note("council: nothing is stored" if place is None else f"council: runs are stored in {place}")
    return council


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
