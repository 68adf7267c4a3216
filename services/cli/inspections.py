"""`tradewind inspect`: goods that somebody has to look at, serial numbers, and complaints about them."""

from __future__ import annotations

import re
import secrets
from enum import Enum
from typing import Annotated, Any

import typer

from schemas import orders_intake as intake
from schemas import shipping_report as report
from services.cli.order import AsJson, Key, OrderId, Timeout, _ask, _parcel, _run, _settings, speaking
from services.cli.order_place import WrongInput
from services.cli.output import Refused

app = typer.Typer(no_args_is_help=True)

Parcel = Annotated[str, typer.Argument(metavar="PARCEL", help="P1, or the parcel's whole id.", show_default=False)]
By = Annotated[str, typer.Option("--by", help="Who.")]
Detail = Annotated[str, typer.Option(help="In one's own words.")]
_ELEMENTS = re.compile(r"\(01\)(?P<gtin>\d{14})\(21\)(?P<serial>[^()]{1,20})(\(10\)[^()]{1,20})?", re.ASCII)


class Why(str, Enum):
    random = "random"
    risk = "risk"
    brand_complaint = "brand_complaint"


class Result(str, Enum):
    genuine = "genuine"
    counterfeit = "counterfeit"


class Who(str, Enum):
    buyer = "buyer"
    brand = "brand"
    authority = "authority"


class What(str, Enum):
    counterfeit = "counterfeit"
    not_as_described = "not_as_described"
    damaged = "damaged"
    not_received = "not_received"
    other = "other"


@app.command("open")
def open_(
    order_id: OrderId, parcel: Parcel, reason: Annotated[Why, typer.Option(help="Why.", show_default=False)],
    id_: Annotated[str | None, typer.Option("--id", help="Of the inspection; default: a new one.", show_default=False)] = None,
    detail: Detail = "", timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Hold a parcel until somebody has looked at the goods. One that is not packed yet is held as soon as it is; one that has left
    cannot be (exit code 6).

    Example:  tradewind inspect open cli-1 P1 --reason risk --detail "the label looks odd"
    """
    _report(report.OpenInspection, order_id, parcel, timeout, as_json, inspection_id=id_ or f"cli-{secrets.token_hex(4)}",
            reason=reason.value, detail=detail)


@app.command()
def result(
    order_id: OrderId, parcel: Parcel, id_: Annotated[str, typer.Option("--id", help="Of the inspection, as its InspectionHeld says.", show_default=False)],
    found: Annotated[Result,  typer.Option("--result", help="genuine: it goes on; counterfeit: the buyer gets the money, the merchant a complaint.", show_default=False)],
    by: By = "inspector", detail: Detail = "", timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Tell what an inspection found.

    Example:  tradewind inspect result cli-1 P1 --id alert/cli-1-P1 --result genuine
    """
    _report(report.RecordInspection, order_id, parcel, timeout, as_json, inspection_id=id_, result=found.value, decided_by=by, detail=detail)


@app.command()
def scan(
    code: Annotated[str, typer.Argument(metavar="(01)GTIN(21)SERIAL", help="As it is written beside the code on the unit.", show_default=False)],
    place: Annotated[str, typer.Option(help="Where: a place of the network.", show_default=False)],
    by: By = "brand-app", timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Tell that a unit with this serial number was seen somewhere, now. When nothing travels so fast, the parcel that it was packed
    into is held for an inspection, if it is still there.

    Example:  tradewind inspect scan "(01)04006381333931(21)A7Q-000193" --place DEBER
    """
    from services.shipping.network.geography import places

    found = _ELEMENTS.fullmatch(code)
    with speaking(as_json):
        if found is None:
            raise WrongInput(f"{code!r} is not (01), 14 digits, (21) and a serial number", "CODE", 'Example: "(01)04006381333931(21)A7Q-000193".')
        if place not in places():
            raise WrongInput(f"no place is called {place!r}", "--place", "`tradewind network --country ISO` lists a country's places.")
        known = _run(_packed_in(found["gtin"], found["serial"]))
        if known is None:
            raise Refused("unknown_unit: no unit with this serial number was ever packed", code, "Check the number; brands have the list.")
        at = _run(_now())
    _report(report.SerialScanReported, *known, timeout, as_json, gtin=found["gtin"], serial=found["serial"], place=place, at=at, scanned_by=by)


@app.command()
def complain(
    order_id: OrderId, by: Annotated[Who, typer.Option("--by", help="Who complains.", show_default=False)],
    reason: Annotated[What, typer.Option(help="About what.", show_default=False)],
    parcel: Annotated[str | None, typer.Option(help="P1, or the parcel's whole id.", show_default=False)] = None,
    detail: Detail = "", key: Key = None, timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Complain about an order. It is counted against its merchant (`tradewind merchant complaints`); what a brand complains about
    is held for an inspection as far as it has not left.

    Example:  tradewind inspect complain cli-1 --by brand --reason counterfeit --detail "never made by us"
    """
    _ask(intake.FileComplaint, order_id, key, timeout, as_json, by=by.value, reason=reason.value, parcel_id=_parcel(order_id, parcel), detail=detail)


async def _packed_in(gtin: str, serial: str) -> tuple[str, str] | None:
    from services.cli.order_records import database
    from services.shipping.serials import key_of

    async with database(_settings(), "shipping") as connection:
        row = await connection.fetchrow("SELECT order_id, parcel_id FROM units WHERE key = $1 AND parcel_id <> ''", key_of(gtin, serial))
    return tuple(row) if row else None


async def _now() -> Any:
    from services.cli.order_state import running_clock

    return running_clock(_settings()).now()


def _report(model: type, order_id: str, parcel: str, timeout: float, as_json: bool, **fields: Any) -> None:
    """Publish a report about a parcel, and tell what shipping makes of it."""
    from services.cli import inspection_ask

    with speaking(as_json) as out:
        message = model(order_id=order_id, parcel_id=_parcel(order_id, parcel), **fields)
        events = _run(inspection_ask.report(_settings(), message, timeout))
        from services.cli import timeline
        for event in events:
            out.say(f"{event.type}  {timeline.facts(event)}")
        if not events:
            out.say("it changed nothing yet: the parcel is not packed, or nothing is unusual")
        out.result({"order": order_id, "parcel": message.parcel_id, "events": [{"type": e.type, "id": e.id, "data": e.data} for e in events]})
