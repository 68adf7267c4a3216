"""`tradewind order`: place an order, look at it, and ask for what buyers, merchants and arbiters may ask for."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from schemas import orders_intake as intake
from schemas.model import LineQuantity
from services.cli import exits, timeline
from services.cli.order_place import Wish, WrongInput, first_of, order_from, order_id_for, order_of
from services.cli.output import NotRunning, Output
from services.cli.state import Folder, read_state, supervisor_of
from services.runtime.clock import ClockNotSet
from services.runtime.settings import Settings

app = typer.Typer(no_args_is_help=True)
T = TypeVar("T")
_START = "Start it with `tradewind up --detach`."

OrderId = Annotated[str, typer.Argument(metavar="ID", help="The order's id.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")]
Key = Annotated[str | None, typer.Option(help="The same key again is the same wish: nothing happens twice.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Real seconds to wait for the answer.")]
Parcel = Annotated[str, typer.Option(help="The parcel: its id, or P1 for the order's first.", show_default=False)]
AParcel = Annotated[str | None, typer.Option(help="Only this parcel: its id, or P1 for the order's first.")]
Lines = Annotated[list[str] | None, typer.Option("--line", metavar="N:QTY", help="So many units of line N; may be repeated.")]
Reason = Annotated[str, typer.Option(help="In the asker's own words.")]


class Until(str, Enum):
    """How far `order place` follows the order."""

    accepted = "accepted"
    completed = "completed"


class Outcome(str, Enum):
    won = "won"
    lost = "lost"


class RealName(str, Enum):
    match = "match"
    mismatch = "mismatch"


class Screening(str, Enum):
    clear = "clear"
    block = "block"


@contextmanager
def speaking(as_json: bool) -> Iterator[Output]:
    """Output, which also knows wrong input (exit code 2) and a clock that was never started (4)."""
    with Output(as_json) as out:
        try:
            yield out
        except WrongInput as wrong:
            _complain(wrong)
            told = {"what": wrong.what, "where": wrong.where, "remedy": wrong.remedy}
            out.result({"error": told, "exit": exits.USAGE}, exits.USAGE)
        except ClockNotSet as error:
            raise NotRunning(f"the trade clock is not known: {error}", "clock.json", _START) from error


def _complain(error: WrongInput) -> None:
    print(f"tradewind: {error.what}\n  where:  {error.where}\n  remedy: {error.remedy}", file=sys.stderr)


@app.command()
def place(
    from_: Annotated[Path | None, typer.Option("--from", metavar="FILE.json", help="An order as JSON; persons in clear.")] = None,
    merchant: Annotated[str, typer.Option(help="Who sells.")] = Wish.merchant,
    sku: Annotated[list[str] | None, typer.Option(metavar="SKU:QTY:AMOUNT", help="A line; AMOUNT: all of it.")] = None,
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = Wish.currency,
    origin: Annotated[str, typer.Option(help="ISO 3166 country.")] = Wish.origin,
    destination: Annotated[str, typer.Option(help="ISO 3166 country.")] = Wish.destination,
    freight: Annotated[int, typer.Option(help="Minor units.")] = 0,
    tax: Annotated[int, typer.Option(help="Minor units.")] = 0,
    ddp: Annotated[bool, typer.Option("--ddp", help="Duty and taxes, as `tradewind quote` gives them, are paid with it.")] = False,
    buyer: Annotated[str, typer.Option(help="The buyer's name; it is sealed before it leaves.")] = Wish.buyer,
    on_shortage: Annotated[str | None, typer.Option(help="ship_available or wait.")] = None,
    backorder: Annotated[bool, typer.Option("--backorder", help="What is missing follows later, in parcels of its own.")] = False,
    scenario: Annotated[str | None, typer.Option(help="What happens in the simulated world; `list` names them all.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="The order's id; the same order under it is placed once.")] = None,
    key: Key = None,
    stock: Annotated[bool, typer.Option("--stock", help="First bring what it needs to the warehouses.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is accepted or rejected.")] = False,
    until: Annotated[Until | None, typer.Option(help="Wait that long; `completed`: until it ends, however.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.1, help="Real seconds to wait: 10, or 600 until completed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Place an order and print its id. Exit code 6 with the named reason when it is rejected (and was waited for).

    Example:  tradewind order place --stock --scenario customs_held --until completed
    Example:  tradewind order place --sku MAPLE-1S:2:6800 --destination CN --currency CNY --key basket-17 --wait
    Example:  tradewind order place --stock --sku MAPLE-1S:2:6800 --currency EUR --ddp --wait
    """
    with speaking(as_json) as out:
        if scenario == "list":
            _scenarios(out)
            return
        settings, tail = _settings(), _tail("place", "", key)
        target = until.value if until else "accepted" if wait else "sent"
        wish = Wish(merchant, sku or [], currency, origin, destination, freight, tax, buyer, on_shortage, scenario, backorder=backorder)
        if from_ is not None and (sku or scenario):
            raise WrongInput("the file says what is ordered", "--from", "Leave out --sku and --scenario.")
        if ddp and tax:
            raise WrongInput("the tax follows from the quote", "--tax", "Leave it out, or --ddp.")
        placed, order = _run(_place(settings, out, from_, wish, id, tail, stock, bool(id or key or from_), target,
                                    timeout or (600 if target == "completed" else 10), ddp))
        note = {"sent": "", "accepted": "accepted"}.get(placed.status, f"{placed.status} {placed.reason}".strip())
        if note or placed.repeated:
            out.say("  " + ", ".join(filter(None, [note, "placed before, nothing was sent" if placed.repeated else ""])))
        if placed.reason == "no_stock" and not stock:
            out.say("  hint: --stock brings the goods to the warehouses first")
        out.result({"order": order.order_id, "status": placed.status, "reason": placed.reason, "repeated": placed.repeated})


def _scenarios(out: Output) -> None:
    from services.simulators.scenario import SCENARIOS

    for each in SCENARIOS.values():
        out.say(f"{each.name:26} {each.text}")
    out.result({"scenarios": {s.name: s.text for s in SCENARIOS.values()}})


async def _place(settings: Settings, out: Output, path: Path | None, wish: Wish, given: str | None, tail: str, stock: bool,
                 given_id: bool, until: str, timeout_s: float, ddp: bool) -> tuple[Any, Any]:
    from services.cli import order_ask
    from services.cli.order_records import not_running
    from services.cli.order_state import running_clock
    from services.runtime.local_kafka import brokers

    if not await brokers(settings.bootstrap):
        raise not_running(settings)
    vault_key, now = settings.vault_key_bytes(), running_clock(settings).now()
    if path is not None:
        order = order_from(path, given, tail, vault_key, now)
    else:
        order = order_of(wish, order_id_for(tail, wish.scenario, given), vault_key, now)
    order = _with_duties(order, settings) if ddp else order
    out.say(order.order_id)  # before anything can go wrong: whoever has the id can look at the order
    seen: list[timeline.Event] = []

    def tell(event: timeline.Event) -> None:
        seen.append(event)
        out.progress(timeline.compact(seen, len(seen) - 1)[0])

    placed = await order_ask.place(settings, order, stock=stock, given_id=given_id, until=until, timeout_s=timeout_s, tell=tell)
    return placed, order


def _with_duties(order: Any, settings: Settings) -> Any:
    from services.cli.duties import duties_paid
    from services.cli.output import Refused
    from services.orders.landed_cost import Refusal
    from services.orders.rulebook import load

    paid = duties_paid(order, load(settings.rates_file, settings.tax_rounding))
    if isinstance(paid, Refusal):
        raise Refused(f"{paid.reason}: {paid.what}", paid.where, paid.remedy)
    return paid


@app.command()
def show(order_id: OrderId, as_json: AsJson = False) -> None:
    """What the three services know of an order, side by side, and why it is where it is. Exit code 6 for an unknown id.

    Example:  tradewind order show try.customs_held.cli-1 --json
    """
    from services.cli import order_ask, order_show, order_state

    with speaking(as_json) as out:
        settings = _settings()
        seen = _run(order_state.look(settings, order_id))
        if not seen.known:
            seen = replace(seen, records=len(_run(timeline.story(settings, order_id))))
            if not seen.records:
                raise order_ask.unknown(order_id)
        out.say(order_show.Show(seen))
        out.result(order_show.as_json(seen))


@app.command("timeline")
def timeline_(
    order_id: OrderId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the order has ended, or Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Everything that happened to an order: when, in which service, because of what, and where the record lies.

    Example:  tradewind order timeline try.customs_held.cli-1 --follow
    """
    from services.cli import order_ask

    with speaking(as_json) as out:
        settings = _settings()
        events = _run(timeline.story(settings, order_id))
        if not events and not follow:
            raise order_ask.unknown(order_id)
        out.say(timeline.render(events))
        if follow and not timeline.ended(events):
            try:
                events = _run(timeline.follow(settings, order_id, events, out.say))
            except KeyboardInterrupt:
                pass  # how following is meant to end
        end = timeline.ended(events)
        out.result({"order": order_id, "ended": timeline.ENDS[end.type] if end else None, "events": timeline.as_json(events)})


@app.command()
def cancel(order_id: OrderId, line: Lines = None, reason: Reason = "", key: Key = None, timeout: Timeout = 10,
           as_json: AsJson = False) -> None:
    """Cancel an order, or some units of some lines. After hand-over the carrier is asked, and may decline.

    Example:  tradewind order cancel cli-1 --line 1:2 --reason "one too many"
    """
    _ask(intake.CancelOrder, order_id, key, timeout, as_json, lines=_lines(line), reason=reason)


@app.command()
def confirm(order_id: OrderId, parcel: Parcel, key: Key = None, timeout: Timeout = 10, as_json: AsJson = False) -> None:
    """The buyer has the parcel: its money may go to the merchant.

    Example:  tradewind order confirm cli-1 --parcel P1
    """
    _ask(intake.ConfirmReceipt, order_id, key, timeout, as_json, parcel_id=_parcel(order_id, parcel))


@app.command("return")
def return_(order_id: OrderId, parcel: AParcel = None, line: Lines = None, reason: Reason = "", key: Key = None,
            timeout: Timeout = 10, as_json: AsJson = False) -> None:
    """Send goods back, all or by line, within the market's window (14 days, into China 30).

    Example:  tradewind order return cli-1 --parcel P1 --line 1:1
    """
    _ask(intake.RequestReturn, order_id, key, timeout, as_json, parcel_id=_parcel(order_id, parcel), lines=_lines(line),
         reason=reason)


@app.command()
def supply(
    order_id: OrderId,
    code: Annotated[list[str], typer.Option("--code", help="LINE:HS-CODE; again for more lines.", show_default=False)],
    key: Key = None, timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Supply the customs codes that an order's papers lack, as the merchant; `order timeline` names them (DocumentsMissing).

    Example:  tradewind order supply cli-1 --code 1:950300
    """
    _ask(intake.SupplyDocuments, order_id, key, timeout, as_json, lines=lambda: _codes(code))


@app.command()
def papers(
    order_id: OrderId,
    out_folder: Annotated[Path, typer.Option("--out", help="Where the files go. They hold names and identity numbers in clear.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Write an order's papers for Chinese customs (CEB311, 411, 511, 621) as signed XML, with its persons in clear.

    Example:  tradewind order papers try.china_mismatch.demo-20101201 --out papers
    """
    from services.cli import order_ask, order_papers

    with speaking(as_json) as out:
        settings = _settings()
        events = _run(timeline.story(settings, order_id))
        if not events:
            raise order_ask.unknown(order_id)
        try:
            written = _run(order_papers.write(settings, order_id, events, out_folder))
        except OSError as error:
            raise WrongInput(f"the papers cannot be written: {error.strerror}", str(error.filename), "Name a folder of your own with --out.") from error
        for path in written:
            out.say(str(path))
        out.result({"order": order_id, "files": [str(path) for path in written]})


def _codes(texts: list[str]) -> list[Any]:
    found = []
    for text in texts:
        line, _, hs_code = text.partition(":")
        if not line.isdecimal() or not hs_code:
            raise WrongInput(f"{text!r} is no code of a line", "--code", "Write LINE:HS-CODE, such as 1:950300.")
        found.append({"line_no": int(line), "hs_code": hs_code})
    return found


@app.command()
def dispute(order_id: OrderId, parcel: Parcel, reason: Reason = "", key: Key = None, timeout: Timeout = 10,
            as_json: AsJson = False) -> None:
    """Contest a parcel: its timer and its money stand still until an arbiter decides (`order resolve`).

    Example:  tradewind order dispute cli-1 --parcel P1 --reason "the box was empty"
    """
    _ask(intake.OpenDispute, order_id, key, timeout, as_json, parcel_id=_parcel(order_id, parcel), reason=reason)


@app.command()
def resolve(
    order_id: OrderId, parcel: Parcel,
    outcome: Annotated[Outcome, typer.Option(help="From the merchant's point of view.", show_default=False)],
    key: Key = None, timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Decide a dispute, as the arbiter.

    Example:  tradewind order resolve cli-1 --parcel P1 --outcome won
    """
    _ask(intake.ResolveDispute, order_id, key, timeout, as_json, parcel_id=_parcel(order_id, parcel), outcome=outcome.value)


@app.command()
def screen(
    order_id: OrderId,
    outcome: Annotated[Screening, typer.Option(help="clear: it goes on; block: it is undone.", show_default=False)],
    by: Annotated[str, typer.Option("--by", help="Who decides.")] = "officer", detail: Reason = "", key: Key = None,
    timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Decide, as an officer, about an order whose buyer or consignee is nearly a denied party.

    Example:  tradewind order screen cli-1 --outcome clear --by officer-4
    """
    _ask(intake.DecideScreening, order_id, key, timeout, as_json, outcome=outcome.value, decided_by=by, detail=detail)


@app.command("real-name")
def real_name(
    order_id: OrderId,
    outcome: Annotated[RealName, typer.Option(help="match: the order goes on; mismatch: it is undone.", show_default=False)],
    by: Annotated[str, typer.Option("--by", help="Who has seen the buyer's papers.")] = "officer", detail: Reason = "", key: Key = None,
    timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Say, as an officer, whether the identity number of a buyer into China is his, where the registry cannot.

    Example:  tradewind order real-name cli-1 --outcome match --by officer-4 --detail "passport seen"
    """
    _ask(intake.AnswerRealName, order_id, key, timeout, as_json, outcome=outcome.value, decided_by=by, detail=detail)


@app.command()
def refund(
    order_id: OrderId, parcel: AParcel = None, line: Lines = None,
    amount: Annotated[int | None, typer.Option(help="Minor units; else the value of the lines, or of all of it.")] = None,
    reason: Reason = "", key: Key = None, timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Give money back as the merchant, at any time after delivery; the buyer keeps the goods.

    Example:  tradewind order refund cli-1 --parcel P1 --amount 500 --reason goodwill
    """
    _ask(intake.GrantRefund, order_id, key, timeout, as_json, parcel_id=_parcel(order_id, parcel), lines=_lines(line),
         amount=amount, reason=reason)


def _ask(model: type, order_id: str, key: str | None, timeout_s: float, as_json: bool, **fields: Any) -> None:
    """Publish one command, wait for its answer, tell it."""
    with speaking(as_json) as out:
        from services.cli import order_ask

        try:
            message = model(order_id=order_id, **{name: each() if callable(each) else each for name, each in fields.items()})
        except ValidationError as wrong:
            raise WrongInput(first_of(wrong), f"order {order_id}", "See --help.") from wrong
        id_ = f"cli:{_tail(model.__name__, order_id, key)}"
        answer = _run(order_ask.ask(_settings(), message, id=id_, keyed=key is not None, timeout_s=timeout_s))
        _tell(out, message, answer, id_)


def _tell(out: Output, message: Any, answer: Any, id_: str) -> None:
    name = type(message).__name__
    words = {
        "accepted": f"{name} accepted", "waiting": f"{name} waits: orders keeps it until {answer.detail}",
        "unchanged": f"{name} changed nothing: what it asks for had happened before"}
    out.say(words[answer.status] + (" (sent before; nothing was sent again)" if answer.repeated else ""))
    events = [*answer.events, *answer.then]
    for event in events:
        out.say(f"  {event.lane}: {event.type}  {timeline.facts(event)}")
    declined = [e for e in answer.then if e.type == "CancellationDeclined"]
    line = {"order": message.order_id, "command": name, "command_id": id_, "status": answer.status, "waits_for": answer.detail,
            "repeated": answer.repeated, "events": [{"type": e.type, "id": e.id, "lane": e.lane, "data": e.data} for e in events]}
    if declined and len(declined) == len(answer.then):
        from services.cli import order_ask

        raise order_ask.refused("declined", declined[0].data.get("reason", ""), message.order_id)
    out.result(line)


def _lines(texts: list[str] | None):
    """Deferred, so that a wrong text is told as every other error is."""
    def read() -> list[LineQuantity] | None:
        return [_line(text) for text in texts] if texts else None
    return read


def _line(text: str) -> LineQuantity:
    number, _, quantity = text.partition(":")
    try:
        return LineQuantity(line_no=int(number), quantity=int(quantity))
    except ValueError as wrong:  # also pydantic's
        raise WrongInput(f"{text!r} is not N:QTY with whole numbers above zero", "--line", "Example: --line 1:2.") from wrong


def _parcel(order_id: str, text: str | None) -> str | None:
    """P1 is short for the order's parcel <order>-P1."""
    return f"{order_id}-{text}" if text and text[0] == "P" and text[1:].isdecimal() else text


def _tail(command: str, order_id: str, key: str | None) -> str:
    """What makes an id one of its kind: fixed by the key, else random."""
    if key is None:
        return secrets.token_hex(8)
    return hashlib.blake2b(f"{command}\0{order_id}\0{key}".encode(), digest_size=10).hexdigest()


def _settings() -> Settings:
    """The settings of a Tradewind that runs, as far as its data folder tells: looking there takes no time. Raises NotRunning."""
    settings = Settings()
    if settings.bootstrap_servers is None and supervisor_of(read_state(Folder(settings.data_folder))) is None:
        raise NotRunning("Tradewind does not run here", str(settings.data_folder), _START)
    return settings


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
