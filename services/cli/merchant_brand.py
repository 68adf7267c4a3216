"""`tradewind merchant brand`: protect a brand, grant and revoke authorisations, see whom a chain covers."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from schemas import brands as ask
from services.cli.order import AsJson, Key, Timeout, _ask, _run, _settings, speaking
from services.cli.order_place import WrongInput
from services.cli.output import Refused

app = typer.Typer(no_args_is_help=True)

Brand = Annotated[str, typer.Argument(metavar="BRAND", help="The brand's name, in any spelling.", show_default=False)]
Officer = Annotated[str, typer.Option("--by", help="Who decides.")]
_UNKNOWN = "`tradewind merchant brand list` shows those that are protected."


@app.command()
def register(brand: Brand, owner: Annotated[str, typer.Option(help="The party whose brand it is: a merchant's id, or another.", show_default=False)],
             by: Officer = "officer", key: Key = None, timeout: Timeout = 10, as_json: AsJson = False) -> None:
    """Protect a brand: from now on its goods are accepted only of its owner, and of whom a chain of authorisations covers.

    Example:  tradewind merchant brand register "ACME Toys" --owner acme-gmbh
    """
    _ask(ask.RegisterBrand, ask.brand_key(brand), key, timeout, as_json, name=brand, owner=owner, decided_by=by)


@app.command()
def grant(
    brand: Brand,
    id_: Annotated[str, typer.Option("--id", help="Of the authorisation.", show_default=False)],
    grantor: Annotated[str, typer.Option(help="Who lets …", show_default=False)],
    grantee: Annotated[str, typer.Option(help="… whom sell it.", show_default=False)],
    territory: Annotated[list[str], typer.Option(help="A country, EU, or * for everywhere; may be repeated.", show_default=False)],
    valid_from: Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="First day.", show_default=False)],
    valid_to: Annotated[str, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day.", show_default=False)],
    document: Annotated[Path, typer.Option(help="The signed document; its SHA-256 is kept, not the document.", show_default=False)],
    by: Officer = "officer", key: Key = None, timeout: Timeout = 10, as_json: AsJson = False,
) -> None:
    """Add a link to the chain. Open orders that it covers again go on at once.

    Example:  tradewind merchant brand grant "ACME Toys" --id A-7 --grantor acme-gmbh --grantee mei --territory EU --from 2026-01-01 --to 2026-12-31 --document contract.pdf
    """
    _ask(ask.GrantAuthorisation, ask.brand_key(brand), key, timeout, as_json, authorisation_id=id_, grantor=grantor, grantee=grantee,
         territory=territory, valid_from=lambda: _day("--from", valid_from), valid_to=lambda: _day("--to", valid_to), doc_hash=lambda: _hash(document), decided_by=by)


@app.command()
def revoke(brand: Brand, id_: Annotated[str, typer.Option("--id", help="Of the authorisation.", show_default=False)],
           reason: Annotated[str, typer.Option(help="In the officer's own words.")] = "", by: Officer = "officer", key: Key = None,
           timeout: Timeout = 10, as_json: AsJson = False) -> None:
    """Take an authorisation back. Open orders that no other chain covers are held; after three days without one they are undone
    as far as their goods have not left.

    Example:  tradewind merchant brand revoke "ACME Toys" --id A-7 --reason "sold outside of the EU"
    """
    _ask(ask.RevokeAuthorisation, ask.brand_key(brand), key, timeout, as_json, authorisation_id=id_, reason=reason, decided_by=by)


@app.command()
def show(
    brand: Brand,
    merchant: Annotated[str | None, typer.Option(help="Whether a chain covers this merchant …", show_default=False)] = None,
    to: Annotated[str, typer.Option(help="… into this country …")] = "",
    on: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="… on this day; default: today.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """A brand's owner and all authorisations; with --merchant and --to: by which chain he may sell it there, or which link is missing
    (exit code 6).

    Example:  tradewind merchant brand show "ACME Toys" --merchant mei --to DE
    """
    with speaking(as_json) as out:
        from services.cli.order_state import running_clock
        from services.orders.brands import Link, chain
        from services.orders.rulebook import load

        if bool(merchant) != bool(to):
            raise WrongInput("--merchant and --to belong together", "--merchant" if to else "--to", "Give both.")
        found = _run(_look(ask.brand_key(brand)))
        if not found:
            raise Refused("unknown_brand: no brand of this name is protected", f"brand {brand}", _UNKNOWN)
        name, facts, held = found[0]
        links = [Link(*link) for link in facts["links"]]
        line: dict[str, Any] = {"brand": facts["name"], "key": facts["key"], "owner": facts["owner"], "held": held,
                                "authorisations": [link._asdict() for link in links]}
        out.say(f"{facts['name']} ({facts['key']}): owner {facts['owner']}, {held} open orders held")
        out.say(_table(links) if links else "no authorisations")
        if merchant:
            day = _day("--on", on) if on else running_clock(_settings()).now().date()
            told = chain(facts, merchant, to, load().territory(to), day)
            line |= {"merchant": merchant, "to": to, "on": day.isoformat(), "chain": told if isinstance(told, list) else None,
                     "missing": told if isinstance(told, str) else None}
            if isinstance(told, str):
                raise Refused(f"brand_not_authorised: there is {told}", f"brand {brand}", "Add the link with `tradewind merchant brand grant`.")
            out.say(f"{merchant} may sell it into {to} on {day}: " + (f"by {' → '.join(told)}" if told else "it is his own"))
        out.result(line)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """The protected brands.

    Example:  tradewind merchant brand list --json
    """
    with speaking(as_json) as out:
        rows = [{"brand": facts["name"], "key": facts["key"], "owner": facts["owner"], "authorisations": len(facts["links"]),
                 "revoked": sum(link[-1] for link in facts["links"]), "held": held} for _, facts, held in _run(_look(None))]
        for row in rows:
            out.say("{brand} ({key}): owner {owner}, {authorisations} authorisations, {revoked} revoked, {held} open orders held".format(**row))
        if not rows:
            out.say("none")
        out.result({"brands": rows})


async def _look(key: str | None) -> list[tuple[str, dict[str, Any], int]]:
    """(row's name, its facts, open orders that are held for it)."""
    from services.cli.order_records import database
    from services.runtime.decision import BRANDED, row_name

    async with database(_settings(), "orders") as connection:
        rows = await connection.fetch(
            "SELECT merchant_id, facts::text, (SELECT count(*) FROM orders o WHERE NOT o.closed"
            " AND o.state->'brands'->'labels'->>m.merchant_id IS NOT NULL AND o.state->>'stops' LIKE '%brand_not_authorised%')"
            " FROM merchants m WHERE merchant_id LIKE $1 AND ($2::text IS NULL OR merchant_id = $2) ORDER BY merchant_id",
            f"{BRANDED}%", row_name(key) if key else None)
    return [(name, json.loads(facts), held) for name, facts, held in rows]


def _table(links: list[Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("authorisation", "grantor", "grantee", "territory", "from", "to", "document", ""):
        table.add_column(column)
    for link in links:
        table.add_row(link.id, link.grantor, link.grantee, ", ".join(link.territory), link.valid_from, link.valid_to, link.doc_hash[:12],
                      "revoked" if link.revoked else "")
    return table


def _day(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as wrong:
        raise WrongInput(f"{text!r} is no day", option, "Example: 2026-12-31.") from wrong


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WrongInput(f"cannot be read: {error.strerror}", str(path), "Give a file that exists.") from error
