"""How a command ends: its exit code, and the one JSON line that scripts read. It knows no command."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any, NoReturn

import typer

# Done, failed, bad usage or configuration, finished but held by the gate.
DONE, FAILED, USAGE, HELD = 0, 1, 2, 3

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line last.")]


def finish(code: int, as_json: bool, /, **result: Any) -> NoReturn:
    """End the command with this exit code; with `as_json`, its result is the last line."""
    if as_json:
        print_result(code, **result)
    raise typer.Exit(code)


def print_result(code: int, /, **result: Any) -> None:
    """One JSON object on one line: `exit_code` and the result."""
    print(json.dumps({"exit_code": code, **result}, sort_keys=True, default=os.fspath), flush=True)
