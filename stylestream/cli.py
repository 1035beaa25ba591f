"""The verbs. The only place that reads arguments; a verb's modules are imported when it is called."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True)


def main() -> None:
    """Run the command line."""
    app()
