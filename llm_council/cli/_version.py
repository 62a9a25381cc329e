"""``council version``."""

from __future__ import annotations

import click

__all__ = ["version"]


@click.command()
def version() -> None:
    """Show the version."""
    from llm_council import __version__

    click.echo(f"llm-council-sdk {__version__}")
