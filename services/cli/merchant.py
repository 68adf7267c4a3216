"""`tradewind merchant`: register a merchant, keep his catalogue, stop him, hear him, decide."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from schemas import merchants as ask
from schemas.terms import STANDARD
from services.cli import merchant_brand
from services.cli.order import AsJson, Key, Timeout, _ask, _run, _settings, speaking
from services.cli.order_place import WrongInput, first_of
from services.cli.output import Refused

app = typer.Typer(no_args_is_help=True)
app.add_typer(merchant_brand.app, name="brand", help="Protected brands: who may sell them, and where.")

Merchant = Annotated[str, typer.Argument(metavar="MERCHANT", help="The merchant's id, as orders name it.", show_default=False)]
Officer = Annotated[str, typer.Option("--by", help="Who decides.")]


class Reason(str, Enum):
    counterfeit = "counterfeit"
    complaints = "complaints"
    fraud = "fraud"
    sanctions = "sanctions"
    documents = "documents"
    other = "other"


class Outcome(str, Enum):
    lifted = "lifted"
    upheld = "upheld"


@app.command()
def register(
    merchant: Merchant,
    name: Annotated[str, typer.Option(help="Legal name.", show_default=False)],
    country: Annotated[str, typer.Option(help="ISO 3166, two letters.", show_default=False)],
    registration_no: Annotated[str, typer.Option(help="Of the commercial register.", show_default=False)],
    payout_currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    payout_token: Annotated[str, typer.Option(help="Stands for the account.")] = "acct-test",
    fee_plan: Annotated[str, typer.Option(help="What the platform takes: a plan of the terms file.")] = STANDARD,
    vat_no: Annotated[str, typer.Option(help="Its check digits are checked.")] = "",
    key: Key = None, timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Apply to sell. What can be checked is, and refused by name; then an officer decides (`approve`, `refuse`).

    Example:  tradewind merchant register mei --name "Mei GmbH" --country DE --registration-no "HRB 1" --vat-no 136695976
    """
    _tell(ask.RegisterMerchant, merchant, key, timeout, as_json, legal_name=name, country=country, registration_no=registration_no,
          payout_currency=payout_currency, payout_token=payout_token, fee_plan=fee_plan, vat_no=vat_no)


@app.command()
def approve(merchant: Merchant, by: Officer = "officer", key: Key = None, timeout: Timeout = 10, as_json: AsJson = False) -> None:
    """Let an applicant sell.

    Example:  tradewind merchant approve mei --by officer-3
    """
    _tell(ask.ApproveMerchant, merchant, key, timeout, as_json, decided_by=by)


@app.command()
def refuse(merchant: Merchant, reason: Annotated[str, typer.Option(show_default=False)], by: Officer = "officer", key: Key = None,
           timeout: Timeout = 10, as_json: AsJson = False) -> None:
    """Refuse an application; the merchant may apply again.

    Example:  tradewind merchant refuse mei --reason "the account belongs to somebody else"
    """
    _tell(ask.RefuseMerchant, merchant, key, timeout, as_json, decided_by=by, reason=reason)


@app.command()
def terms(
    merchant: Merchant,
    from_: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], metavar="DAY", show_default=False,
                                            help="For orders placed on this day or later; today at the earliest.")],
    fee_plan: Annotated[str | None, typer.Option(help="A plan of the terms file; left out, it stays.")] = None,
    payout_currency: Annotated[str | None, typer.Option(help="ISO 4217; left out, it stays.")] = None,
    by: Officer = "officer", key: Key = None, timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Change by which fee plan and in which currency a merchant is paid. Orders that were accepted keep the terms they have.

    Example:  tradewind merchant terms mei --from 2026-12-01 --payout-currency EUR
    """
    _tell(ask.ChangeTerms, merchant, key, timeout, as_json, valid_from=from_.date(), fee_plan=fee_plan,
          payout_currency=payout_currency, decided_by=by)


@app.command()
def catalogue(
    merchant: Merchant,
    from_: Annotated[Path | None, typer.Option("--from", metavar="FILE.json", help="A list of items: sku, hs_code, origin, brand, "
                                               "band, description.")] = None,
    withdraw: Annotated[list[str] | None, typer.Option(help="A SKU to take out; may be repeated.")] = None,
    key: Key = None, timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Add or replace items of a catalogue, or withdraw some. An order's line that contradicts it is refused.

    Example:  tradewind merchant catalogue mei --from items.json --withdraw OLD-1
    """
    _tell(ask.UpdateCatalogue, merchant, key, timeout, as_json, items=lambda: _items(from_), withdraw=withdraw or [])


@app.command()
def freeze(
    merchant: Merchant,
    reason: Annotated[Reason, typer.Option(help="Why.", show_default=False)],
    detail: Annotated[str, typer.Option(help="In the officer's own words.")] = "",
    by: Officer = "officer", key: Key = None, timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Stop a merchant: nothing of his open orders goes forward, new ones are refused, until `decide`.

    Example:  tradewind merchant freeze mei --reason counterfeit --detail "the brand does not know the serial numbers"
    """
    _tell(ask.FreezeMerchant, merchant, key, timeout, as_json, reason=reason.value, detail=detail, decided_by=by)


@app.command()
def appeal(merchant: Merchant, statement: Annotated[str, typer.Option(help="What the merchant says.", show_default=False)],
           key: Key = None, timeout: Timeout = 10, as_json: AsJson = False) -> None:
    """Contest a freeze, as the merchant.

    Example:  tradewind merchant appeal mei --statement "the invoices of the brand are attached"
    """
    _tell(ask.FileAppeal, merchant, key, timeout, as_json, statement=statement)


@app.command()
def decide(
    merchant: Merchant,
    outcome: Annotated[Outcome, typer.Option(help="lifted: all goes on; upheld: all is cancelled and refunded.", show_default=False)],
    detail: Annotated[str, typer.Option(help="In the officer's own words.")] = "",
    by: Officer = "officer", key: Key = None, timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """End a freeze: lift it, or uphold it and close the merchant.

    Example:  tradewind merchant decide mei --outcome lifted
    """
    _tell(ask.DecideAppeal, merchant, key, timeout, as_json, outcome=outcome.value, detail=detail, decided_by=by)


@app.command()
def show(merchant: Merchant, as_json: AsJson = False) -> None:
    """How a merchant stands with each service, and how many of his open orders are held. Exit code 6 for an unknown one.

    Example:  tradewind merchant show mei --json
    """
    from services.cli import merchant_show

    with speaking(as_json) as out:
        found = _run(merchant_show.look(_settings(), merchant))
        if found is None:
            raise Refused("unknown_merchant: nobody of this name has registered, or has an open order", f"merchant {merchant}",
                          "`tradewind merchant list` shows those that there are.")
        out.say(merchant_show.render(found))
        for line in merchant_show.facts(found):
            out.say(line)
        out.result(found)


@app.command()
def complaints(
    merchant: Annotated[str | None, typer.Argument(metavar="MERCHANT", help="Only this one.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many merchants, the most complained about first.")] = 20, as_json: AsJson = False,
) -> None:
    """Complaints per transaction, of each merchant and of all, and how many merchants were frozen this week and in the weeks before.

    A transaction is an accepted order. The trade's reference: one complaint per 860,000 transactions, 10,000 shops frozen a week.

    Example:  tradewind merchant complaints --json
    """
    from services.cli import complaints as told

    with speaking(as_json) as out:
        found = _run(told.look(_settings(), merchant, limit))
        if merchant is not None and not found["merchants"]:
            raise Refused("unknown_merchant: nobody of this name has sold anything, or was complained about", f"merchant {merchant}",
                          "`tradewind merchant complaints` shows all.")
        for line in told.lines(found):
            out.say(line)
        out.result(found)


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only these: applied, active, refused, frozen, closed.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 100, as_json: AsJson = False,
) -> None:
    """Merchants who registered or were ever stopped.

    Example:  tradewind merchant list --status frozen
    """
    from services.cli import merchant_show

    with speaking(as_json) as out:
        rows = _run(merchant_show.every(_settings(), status, limit))
        out.say(merchant_show.render_all(rows) if rows else "none")
        out.result({"merchants": rows})


def _tell(model: type, merchant: str, key: str | None, timeout_s: float, as_json: bool, **fields: Any) -> None:
    _ask(model, f"{ask.MERCHANT}{merchant}", key, timeout_s, as_json, **fields)


def _items(path: Path | None) -> list[ask.CatalogueItem]:
    """Raises WrongInput naming file and field."""
    if path is None:
        return []
    try:
        return TypeAdapter(list[ask.CatalogueItem]).validate_json(path.read_bytes())
    except OSError as error:
        raise WrongInput(f"cannot be read: {error.strerror}", str(path), "Give a file that exists.") from error
    except ValidationError as wrong:
        raise WrongInput(first_of(wrong), str(path), 'Example: [{"sku": "TEA-1", "hs_code": "090210", "origin": "CN"}].') from wrong
