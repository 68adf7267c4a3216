"""`tradewind quote`: what a consignment costs its buyer at the door, with the rule behind every charge."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.text import Text

from schemas.quotes import Quote, QuoteRequest
from services.cli import exits
from services.cli.duties import charges_of, customs_rate_of
from services.cli.order_place import WrongInput, first_of
from services.cli.output import Output
from services.orders.landed_cost import Refusal, landed_cost
from services.orders.rulebook import RulesError, load
from services.runtime.settings import Settings

_FILE_MAX_BYTES = 5_000_000
_SHAPE = "A request is one JSON object of QuoteRequest (schemas/quotes.py)."
_LINE = "Example: --line 9503008900:CN:2:19990, amount in minor units for the whole line; :GRAMS may follow."


def quote(
    to: Annotated[str | None, typer.Option(metavar="COUNTRY", help="Destination, ISO 3166.", show_default=False)] = None,
    import_date: Annotated[str | None, typer.Option(metavar="DATE", help="When it is expected at customs, YYYY-MM-DD.",
                                                    show_default=False)] = None,
    currency: Annotated[str, typer.Option(help="What the buyer pays in, ISO 4217.")] = "EUR",
    line: Annotated[list[str] | None, typer.Option(metavar="HS:ORIGIN:QTY:AMOUNT[:GRAMS]", show_default=False,
                                                   help="A line; AMOUNT: all of it, in minor units.")] = None,
    freight: Annotated[int, typer.Option(help="Minor units.")] = 0,
    insurance: Annotated[int, typer.Option(help="Minor units.")] = 0,
    channel: Annotated[str, typer.Option(help="b2c, post or express.")] = "b2c",
    mode: Annotated[str | None, typer.Option(help="9610, 1210, ioss, standard, marketplace, direct; usual one if left out.",
                                             show_default=False)] = None,
    used_this_year: Annotated[int | None, typer.Option(help="Of the buyer's yearly limit, in customs' minor units.",
                                                       show_default=False)] = None,
    from_: Annotated[Path | None, typer.Option("--from", metavar="FILE.json", show_default=False,
                                               help="The request as JSON instead of options; - is stdin.")] = None,
    rates: Annotated[Path | None, typer.Option(metavar="FILE.toml", show_default=False,
                                               help="Your own exchange, duty and tax rates and fees.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Quote the landed cost: every charge in minor units, who levies it, by which rule, and how sure that rule is.

    Refused with a named reason (exit code 6) where no rule or rate of the import date fits: nothing is guessed.
    The rules are in docs/trade.md.

    Example:  tradewind quote --to DE --import-date 2026-07-01 --line 950300:CN:2:4000 --line 610910:CN:1:1500 --freight 500

    Example:  tradewind quote --to CN --import-date 2026-11-25 --currency CNY --line 9503008900:US:1:19990 --json
    """
    with Output(as_json) as out:
        options = {"destination": to, "import_date": import_date, "currency": currency, "channel": channel, "mode": mode,
                   "freight": freight, "insurance": insurance, "used_this_year": used_this_year}
        try:
            asked = _from_file(from_, to, import_date, line) if from_ is not None else _from_options(options, line or [])
            settings = Settings()
            answer = landed_cost(asked, load(rates or settings.rates_file, settings.tax_rounding))
        except (WrongInput, RulesError) as wrong:
            _complain(out, exits.USAGE, what=wrong.what, where=wrong.where, remedy=wrong.remedy)
            return
        if isinstance(answer, Refusal):
            _complain(out, exits.REFUSED, reason=answer.reason, what=answer.what, where=answer.where, remedy=answer.remedy)
            return
        _say(out, answer)
        out.result({"quote": answer.model_dump(mode="json")})


def _complain(out: Output, code: int, **told: str) -> None:
    named = f"{told['reason']}: " if "reason" in told else ""
    print(f"tradewind: {named}{told['what']}\n  where:  {told['where']}\n  remedy: {told['remedy']}", file=sys.stderr)
    out.result({"error": told, "exit": code}, code)


def _from_options(options: dict[str, Any], lines: list[str]) -> QuoteRequest:
    for name, option in (("destination", "--to"), ("import_date", "--import-date")):
        if options[name] is None:
            raise WrongInput(f"{option} is missing", "options", "See `tradewind quote --help` for an example.")
    if not lines:
        raise WrongInput("there is no line", "--line", _LINE)
    given = {name: value for name, value in options.items() if value is not None}
    return _checked("options", json.dumps(given | {"lines": [_line(n, text) for n, text in enumerate(lines, 1)]}))


def _line(number: int, text: str) -> dict[str, Any]:
    hs_code, origin, *numbers = [*text.split(":"), ""][:-1] if text.count(":") in (3, 4) else ("", "")
    if not numbers or not all(n.isascii() and n.isdecimal() for n in numbers):
        raise WrongInput(f"{text!r} is not HS:ORIGIN:QTY:AMOUNT[:GRAMS]", "--line", _LINE)
    quantity, amount, *grams = map(int, numbers)
    line = {"line_no": number, "hs_code": hs_code, "origin": origin, "quantity": quantity, "amount": amount}
    return line | ({"net_grams": grams[0]} if grams else {})


def _from_file(path: Path, *others: Any) -> QuoteRequest:
    if any(others):
        raise WrongInput("the file says what is asked", "--from", "Leave out --to, --import-date and --line.")
    where = "stdin" if str(path) == "-" else str(path)
    try:
        raw = sys.stdin.buffer.read(_FILE_MAX_BYTES + 1) if where == "stdin" else path.read_bytes()
    except OSError as error:
        raise WrongInput(f"the file cannot be read: {error.strerror}", where, "Check the path.") from error
    if len(raw) > _FILE_MAX_BYTES:
        raise WrongInput(f"more than {_FILE_MAX_BYTES:,} bytes", where, "One request a file.")
    return _checked(where, raw)


def _checked(where: str, raw: str | bytes) -> QuoteRequest:
    try:
        return QuoteRequest.model_validate_json(raw)
    except ValidationError as wrong:
        remedy = "See `tradewind quote --help`." if where == "options" else _SHAPE
        raise WrongInput(first_of(wrong), where, remedy) from wrong


def _say(out: Output, answer: Quote) -> None:
    mode = f", mode {answer.mode}" if answer.mode else ""
    out.say(f"landed cost into {answer.destination}, {answer.channel}{mode}, import on {answer.import_date}")
    out.say(f"rule {answer.rule_id}, declaration {answer.declaration}, certainty {answer.certainty}")
    if answer.customs_rate:
        out.say(customs_rate_of(answer))
    out.say()
    out.say(charges_of(answer))
    for note in answer.notes:
        out.say(f"note: {note}")
    for each in answer.not_charged:  # a source may hold what rich would take for markup
        out.say(Text(f"not charged: {each.id}, {each.title} (certainty {each.certainty}: {each.source})"))
    if answer.required_data:
        out.say(f"customs needs: {', '.join(answer.required_data)}")
