"""How every command speaks: results on stdout, progress on stderr and only on a terminal, one JSON object at the end.

A command is written as
    with Output(as_json) as out:
        out.progress("…"); out.say("…"); out.result({...}, code)
and leaves the process with `code`; errors become their exit code, with what, where and remedy.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from types import TracebackType
from typing import Any

import typer
from pydantic import ValidationError

from services.cli import exits
from services.cli.pace import TooFast
from services.cli.state import AlreadyRunning
from services.cli.table import UnknownProgram
from services.runtime.processes import StartError


class NotRunning(StartError):
    """The command needs a running Tradewind, and on this data folder there is none."""


class Refused(StartError):
    """The system refused what was asked; `what` is the named reason."""


class BadUsage(StartError):
    """An argument names something that does not exist."""


class Output:
    """The one way to print and to end. Under `--json` stdout holds the JSON line alone."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._line: dict[str, Any] = {}
        self._code = exits.OK
        self._quiet = not sys.stderr.isatty()
        # Libraries warn about each refused connection while a broker starts; what matters we say ourselves.
        logging.getLogger("aiokafka").addHandler(logging.NullHandler())
        logging.getLogger("aiokafka").propagate = False

    @property
    def interactive(self) -> bool:
        """Whether somebody watches: live displays belong on a terminal only."""
        return not self._quiet

    def say(self, what: Any = "") -> None:
        """A text or a rich renderable for people, on stdout; nothing under --json."""
        if not self.as_json:
            _console().print(what)

    def progress(self, text: str) -> None:
        """A passing step, on stderr, only on a terminal."""
        if not self._quiet:
            dim, plain = ("", "") if "NO_COLOR" in os.environ else ("\x1b[2m", "\x1b[0m")
            print(f"{dim}· {text}{plain}", file=sys.stderr, flush=True)

    def result(self, line: dict[str, Any], code: int = exits.OK) -> None:
        """The JSON object of the last line, and the exit code. Printed when the command ends."""
        self._line, self._code = line, code

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._explain(error)
        if self.as_json:
            print(json.dumps(self._line, default=str), flush=True)
        if error is not None or self._code != exits.OK:
            raise typer.Exit(self._code) from error

    def _explain(self, error: BaseException) -> None:
        """Turn an expected error into words and a code; any other is a bug and keeps its trace."""
        codes = {
            AlreadyRunning: exits.ALREADY_RUNNING, NotRunning: exits.NOT_RUNNING, Refused: exits.REFUSED,
            UnknownProgram: exits.USAGE, BadUsage: exits.USAGE, TooFast: exits.USAGE,
        }  # fmt: skip
        if isinstance(error, StartError):
            self._code = codes.get(type(error), exits.ENVIRONMENT)
            self._complain(error.what, error.where, error.remedy)
        elif isinstance(error, ValidationError):
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
            self._code = exits.USAGE
            self._complain(wrong, "settings", "Every setting is TRADEWIND_<NAME>; see `tradewind doctor --help`.")
        elif isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Interrupted":
            self._code = exits.INTERRUPTED
            self._complain("interrupted; everything was stopped", "", "")
        else:
            raise error

    def _complain(self, what: str, where: str, remedy: str) -> None:
        self._line = {"error": {"what": what, "where": where, "remedy": remedy}, "exit": self._code}
        print(f"tradewind: {what}" + (f"\n  where:  {where}" if where else ""), file=sys.stderr)
        if remedy:
            print(f"  remedy: {remedy}", file=sys.stderr)


def _console() -> Any:
    # rich obeys NO_COLOR and leaves colours out where stdout is no terminal.
    from rich.console import Console

    watched = sys.stdout.isatty()
    return Console(highlight=False, soft_wrap=not watched, width=None if watched else 120)
