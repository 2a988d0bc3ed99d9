"""A single command of the command line, run in this process."""

from collections.abc import Callable

import typer
from typer.testing import CliRunner


def run_command(register: Callable[[typer.Typer], None], *arguments: object) -> str:
    """What the command that `register` adds prints; its exception where it raises one."""
    app = typer.Typer()
    register(app)
    outcome = CliRunner().invoke(app, [str(each) for each in arguments], standalone_mode=False)
    if outcome.exception:
        raise outcome.exception
    return outcome.stdout
