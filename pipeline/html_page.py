"""An HTML page in one file that needs no network: its head, colours and policy, and where it may be written. Knows no content."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from schemas.errors import ChartmillError, ConfigurationError
from transforms.private_files import replace_file

_HERE = Path(__file__).parent


def render(command: str, template: Path, **shown: Any) -> str:
    """The page of a command as HTML, from a template that extends html_page.html.

    The style is html_page.css and the template's own .css; its .js, if there is one, is passed as `script`. Everything that is shown is
    escaped, and the page's policy lets only this style and this script in.
    """
    style = (_HERE / "html_page.css").read_text(encoding="utf-8") + template.with_suffix(".css").read_text(encoding="utf-8")
    code = template.with_suffix(".js")
    script = code.read_text(encoding="utf-8") if code.exists() else ""
    policy = f"default-src 'none'; style-src {_digest(style)}; base-uri 'none'; form-action 'none'"
    policy += f"; script-src {_digest(script)}" if script else ""
    found = _environment(template.parent).get_template(template.name)
    return str(found.render(command=command, style=style, script=script, policy=policy, **shown))


def _digest(source: str) -> str:
    """The source expression by which a Content-Security-Policy allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


@cache
def _environment(folder: Path) -> Any:
    import jinja2

    loader = jinja2.FileSystemLoader([folder, _HERE])
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def check_place(command: str, path: Path) -> None:
    """Raise ConfigurationError where there is something else than an earlier page of this command."""
    mark = f'<meta name="generator" content="chartmill {command}">'.encode()
    if path.exists() and (not path.is_file() or mark not in path.read_bytes()[:4096]):
        raise ConfigurationError("--html: something else is there already and is not overwritten; choose another name")


def write_page(command: str, html: str, path: Path, output: str | None = None) -> None:
    """Write the page of a command in one step, mode 0600; an earlier page of this command is replaced.

    `output`: of a page with patient text the output folder, if there is one, in which it must not lie. Raises ConfigurationError where it
    must not be written, ChartmillError where it cannot be.
    """
    if output is not None and _lies_in(path, output):
        raise ConfigurationError("--html: the page holds patient text, so it is not written into the output folder; choose another place")
    try:
        check_place(command, path)
        replace_file(path, lambda file: file.write(html.encode("utf-8", "replace")))
    except OSError as error:
        raise ChartmillError(f"--html: the page cannot be written: {os.strerror(error.errno or 0)}") from None


def _lies_in(path: Path, output: str) -> bool:
    folder = urlparse(output).path if output.startswith("file:") else output
    return not output.startswith("s3://") and path.resolve().is_relative_to(Path(folder).resolve())
