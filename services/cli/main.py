"""The `tradewind` command. A command is a module of its own, loaded only when it is called, and a line here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer
from typer._click.exceptions import ClickException  # typer gives it no public name; test_order_cli.py notices when it moves
from typer.core import TyperGroup

from services.cli import exits


@dataclass(frozen=True)
class Command:
    """`target` is module:name, a function for typer or a typer.Typer with commands of its own."""

    name: str
    target: str
    help: str


COMMANDS = (
    Command("up", "services.cli.up:up", "Start everything and keep it running."),
    Command("down", "services.cli.up:down", "Stop what runs on the data folder."),
    Command("status", "services.cli.status:status", "What runs, since when, and where it answers."),
    Command("doctor", "services.cli.doctor:doctor", "Find what keeps Tradewind from running, and how to fix it."),
    Command("prepare", "services.cli.prepare_command:prepare", "Topics, tables and keys on servers that already run."),
    Command("demo", "services.cli.demo:demo", "Everything once: real orders from placed to settled, audited."),
    Command("import", "services.cli.import_:import_", "Read orders from a retail CSV file."),
    Command("order", "services.cli.order:app", "Place, show, cancel, confirm, return or dispute an order."),
    Command("inspect", "services.cli.inspections:app", "Hold goods until somebody has looked; serial numbers; complaints."),
    Command("merchant", "services.cli.merchant:app", "Register a merchant, keep the catalogue, freeze, decide."),
    Command("money", "services.cli.money:app", "The ledger: trial balance, tax, statements, payouts, settlement files."),
    Command("quote", "services.cli.quote:quote", "What a consignment costs at the door: freight, duty, taxes, fees."),
    Command("network", "services.cli.network:app", "Places, lanes and routes; how good the plans are."),
    Command("dlq", "services.cli.dlq:app", "What no service could handle: list, show, edit, replay or discard it."),
    Command("topics", "services.cli.topics:topics", "The topics: who writes, who reads, how much is on them."),
    Command("audit", "services.cli.audit:audit", "Check every order's whole story against the rules."),
    Command("bench", "services.cli.bench:bench", "Measure complete lifecycles a second."),
    Command("chaos", "services.cli.chaos:chaos", "Kill services at random under load, then audit."),
    Command("explore", "services.cli.explore:explore", "Try every order of delivery in memory, exhaustively and at random."),
)
EXITS = (
    "Exit codes: 0 ok · 1 the audit found violations · 2 wrong usage or settings · 3 something needed is missing, "
    "taken or unreachable · 4 not running · 5 already running · 6 refused for a named reason · 130 interrupted."
)


class Root(TyperGroup):
    """Whoever asks for JSON gets it of a wrong word on the command line as well."""

    as_json = False

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **named: Any) -> Any:
        self.as_json = "--json" in args
        with self._told():
            return super().make_context(info_name, args, *more, **named)

    def invoke(self, ctx: Any) -> Any:
        with self._told():
            return super().invoke(ctx)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except ClickException as wrong:
            if self.as_json:
                path = wrong.ctx.command_path if getattr(wrong, "ctx", None) else "tradewind"
                error = {"what": wrong.format_message(), "where": "command line", "remedy": f"See `{path} --help`."}
                print(json.dumps({"error": error, "exit": wrong.exit_code}), flush=True)
            raise


def build(wanted: str | None) -> typer.Typer:
    """The application with the command `wanted` loaded; of the others only name and help, so that help is fast."""
    app = typer.Typer(cls=Root, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback(epilog=EXITS)(_root)
    for command in COMMANDS:
        module, _, name = command.target.partition(":")
        if find_spec(module) is None:
            continue
        found = getattr(import_module(module), name) if command.name == wanted else _stub
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=command.name, help=command.help, epilog=EXITS)
        else:
            app.command(command.name, short_help=command.help, epilog=EXITS)(found)
    return app


def _root() -> None:
    """The life of a cross-border order, from placed to settled, on this machine or on servers you name.

    Example:  tradewind up --detach && tradewind status

    Settings are environment variables TRADEWIND_<NAME>; none is needed.
    """


def _stub() -> None:
    raise AssertionError("only the wanted command is called")


def main(arguments: list[str] | None = None) -> None:
    """Entry point; leaves with one of `services.cli.exits`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    try:
        run: Callable[..., None] = build(wanted)
        run(arguments, prog_name="tradewind")
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)  # before anything was started


if __name__ == "__main__":
    main()
