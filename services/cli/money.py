"""`tradewind money`: what a finance clerk asks of the ledger, and what is booked besides the orders."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from schemas.books import MERCHANT_BOOK, PROVIDER_BOOK, TAX_BOOK, BookProviderFees, CloseStatement, PayMerchant, RecoverTax, RemitTax
from schemas.ledger import ACCOUNTS, account_of
from services.cli import exits, money_books
from services.cli.order_state import running_clock
from services.cli.output import Output, Refused
from services.cli.timeline import money
from services.orders.terms import load
from services.runtime.clock import ClockNotSet
from services.runtime.settings import Settings

app = typer.Typer(no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")]
AMerchant = Annotated[str | None, typer.Option("--merchant", help="Only this one.", show_default=False)]
Until = Annotated[str | None, typer.Option(metavar="PERIOD", help="Up to and with this month; default: those that are over.",
                                            show_default=False)]
_COLUMNS = ("gross", "refunds", "chargebacks", "fee", "withheld", "reserve", "reserve_back", "claims", "net")


def _table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right" if column in numbers else "left", overflow="fold")
    return table


def _now(settings: Settings) -> datetime:
    """Trade time; where nothing runs, ours."""
    try:
        return running_clock(settings).now()
    except ClockNotSet:
        return datetime.now(UTC)


@app.command("trial-balance")
def trial_balance(as_json: AsJson = False) -> None:
    """Every account of the ledger, by currency; each currency adds up to zero. Exit code 1 where one does not.

    Example:  tradewind money trial-balance --json
    """
    with Output(as_json) as out:
        rows = asyncio.run(money_books.balances(Settings()))
        off: dict[str, int] = {}
        table = _table("currency", "account", "balance", "what it is", numbers=("balance",))
        for account, currency, amount in rows:
            off[currency] = off.get(currency, 0) + amount
            table.add_row(currency, account, money(amount, currency).removeprefix(f"{currency} "), ACCOUNTS[account_of(account)])
        out.say(table)
        for currency, amount in off.items():
            out.say(f"{currency}: off by {amount} minor units" if amount else f"{currency}: zero")
        line = {"accounts": [{"account": a, "currency": c, "amount": n} for a, c, n in rows], "off": off}
        out.result(line, exits.VIOLATIONS if any(off.values()) else exits.OK)


@app.command()
def tax(as_json: AsJson = False) -> None:
    """What each authority assessed and what was remitted, what was claimed back for goods returned in time and what it paid back,
    and what is payable, by period (month, UTC).

    Example:  tradewind money tax
    """
    with Output(as_json) as out:
        rows = asyncio.run(money_books.taxes(Settings()))
        columns = ("assessed", "remitted", "claimed", "recovered", "payable")
        table = _table("account", "period", "currency", *columns, numbers=columns)
        for row in rows:
            table.add_row(row.account, row.period, row.currency, *(
                money(getattr(row, name), row.currency).removeprefix(f"{row.currency} ") for name in columns))
        out.say(table)
        out.result({"tax": [{"account": r.account, "period": r.period, "currency": r.currency} | {
            name: getattr(r, name) for name in columns} for r in rows]})


@app.command()
def fx(
    base: Annotated[str, typer.Option(help="What buyers pay in, ISO 4217.")],
    quote: Annotated[str, typer.Option(help="What the merchant is paid in.")],
    as_json: AsJson = False,
) -> None:
    """The exchange quote that an order of this moment is placed on: locked, and until when. Exit code 6 when there is none.

    Example:  tradewind money fx --base GBP --quote USD
    """
    with Output(as_json) as out:
        settings = Settings()
        now = _now(settings)
        found = load(settings.terms_file).quote(base, quote, now.date())
        if found is None:
            raise Refused(f"no_fx_quote: there is no rate from {base} to {quote} on {now:%Y-%m-%d}",
                          str(settings.terms_file or "TRADEWIND_TERMS_FILE"), "Give it a row [[fx]] for this day.")
        out.say(f"{found.id}: 1 {base} = {found.rate} {quote} ({found.side}), locked {found.locked_at:%Y-%m-%d %H:%M}, "
                f"until {found.expires_at:%Y-%m-%d %H:%M} UTC; {found.source}")
        out.result({"fx": found.model_dump(mode="json")})


@app.command()
def remit(
    until: Until = None,
    reference: Annotated[str, typer.Option(help="The bank's reference; the same again remits nothing twice.")] = "",
    as_json: AsJson = False,
) -> None:
    """Book the remittance of what is payable to each authority, period by period.

    Example:  tradewind money remit --until 2026-11 --reference BANK-2026-12-10
    """
    with Output(as_json) as out:
        settings = Settings()
        done = asyncio.run(remitted(settings, until or "", reference))
        for command in done["remitted"]:
            out.say(f"{command['authority']} {command['period']}: {money(command['amount'], command['currency'])} ({command['claim']})")
        out.say(f"{len(done['remitted'])} remittances, {done['new']} of them new")
        out.result(done)


async def remitted(settings: Settings, until: str, reference: str = "") -> dict[str, Any]:
    """Remit what is payable for periods up to `until` (those before this month, if empty)."""
    last = until or _month_before(settings)
    commands, ids, told = [], [], []
    for row in await money_books.taxes(settings):
        if row.owed <= 0 or row.period > last:
            continue
        claim, key = money_books.tax_book(row.account)
        name = reference or f"remit-{row.period}-{row.assessed}"
        commands.append(RemitTax(order_id=key, claim=claim, period=row.period, currency=row.currency, amount=row.owed,
                                 bank_reference=name))
        ids.append(f"remit:{row.account}:{row.period}:{row.currency}:{name}")
        told.append({"claim": claim, "authority": row.account.partition("/")[2], "period": row.period,
                     "currency": row.currency, "amount": row.owed})
    return {"until": last, "remitted": told, "new": await money_books.book(settings, commands, ids)}


def _month_before(settings: Settings) -> str:
    now = _now(settings)
    return f"{now.year - (now.month == 1)}-{(now.month - 2) % 12 + 1:02d}"


@app.command()
def recover(
    until: Until = None,
    reference: Annotated[str, typer.Option(help="The bank's reference; the same again books nothing twice.")] = "",
    as_json: AsJson = False,
) -> None:
    """Book that authorities paid back the tax which was claimed of them for goods returned in time, period by period.

    Example:  tradewind money recover --until 2026-11 --reference BANK-2026-12-12
    """
    with Output(as_json) as out:
        done = asyncio.run(recovered(Settings(), until or "", reference))
        for row in done["recovered"]:
            out.say(f"{row['authority']} {row['period']}: {money(row['amount'], row['currency'])}")
        out.say(f"{len(done['recovered'])} repayments, {done['new']} of them new")
        out.result(done)


async def recovered(settings: Settings, until: str, reference: str = "") -> dict[str, Any]:
    """Book what was claimed in periods up to `until` (those before this month, if empty) as paid back."""
    last = until or _month_before(settings)
    commands, ids, told = [], [], []
    for row in await money_books.taxes(settings):
        if row.claim <= 0 or row.period > last:
            continue
        authority, name = row.account.partition("/")[2], reference or f"back-{row.period}-{row.claimed}"
        commands.append(RecoverTax(order_id=f"{TAX_BOOK}{authority}", period=row.period, currency=row.currency, amount=row.claim,
                                   bank_reference=name))
        ids.append(f"recover:{authority}:{row.period}:{row.currency}:{name}")
        told.append({"authority": authority, "period": row.period, "currency": row.currency, "amount": row.claim})
    return {"until": last, "recovered": told, "new": await money_books.book(settings, commands, ids)}


@app.command()
def reconcile(
    file: Annotated[Path | None, typer.Option(help="A settlement file (CSV); default: the provider is asked for it.",
                                              show_default=False)] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the provider's file there.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Match the provider's settlement file with the ledger, line by line, and list every break. Exit code 1 when there is one.

    Example:  tradewind money reconcile --save settlement.csv
    """
    with Output(as_json) as out:
        found = asyncio.run(reconciled(Settings(), file, save))
        table = _table("break", "payment", "kind", "file", "ledger", "where")
        for each in found["breaks"]:
            table.add_row(each["what"], each["payment_id"], each["kind"], each["file"], each["ledger"], each["where"])
        if found["breaks"]:
            out.say(table)
        out.say(f"{found['lines']} lines, {found['matched']} matched, {found['open']} of the ledger after the file's end, "
                f"{len(found['breaks'])} breaks")
        out.result(found, exits.VIOLATIONS if found["breaks"] else exits.OK)


async def reconciled(settings: Settings, file: Path | None = None, save: Path | None = None) -> dict[str, Any]:
    from services.cli import money_reconcile

    text = money_reconcile.read(file) if file is not None else await money_reconcile.ask(settings)
    if save is not None:
        save.write_text(text)
    found = money_reconcile.match(text, await money_reconcile.movements(settings), load(settings.terms_file).fees)
    return {"lines": found.lines, "matched": found.matched, "open": found.open,
            "breaks": [each._asdict() for each in found.breaks],
            "fees": [{"period": period, "currency": currency, "amount": amount} for (period, currency), amount in sorted(found.fees.items())]}


@app.command()
def fees(
    book: Annotated[bool, typer.Option("--book", help="Post them: what is new since the last time, by month and currency.")] = False,
    file: Annotated[Path | None, typer.Option(help="A settlement file (CSV); default: the provider is asked for it.",
                                              show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """What the payment provider asks for its work, by its settlement file. `reconcile` says where a fee is not as agreed.

    Example:  tradewind money fees --book
    """
    with Output(as_json) as out:
        found = asyncio.run(provider_fees(Settings(), book, file))
        table = _table("month", "currency", "fees", numbers=("fees",))
        for row in found["fees"]:
            table.add_row(row["period"], row["currency"], money(row["amount"], row["currency"]).removeprefix(f"{row['currency']} "))
        out.say(table)
        out.say(f"{found['booked']} new postings" if book else f"{len(found['fees'])} months and currencies")
        out.result(found)


async def provider_fees(settings: Settings, book: bool, file: Path | None = None) -> dict[str, Any]:
    rows = (await reconciled(settings, file))["fees"]
    commands = [BookProviderFees(order_id=f"{PROVIDER_BOOK}payments", period=row["period"], currency=row["currency"], total=row["amount"])
                for row in rows if row["amount"]]
    ids = [f"fees:{c.period}:{c.currency}:{c.total}" for c in commands]
    return {"fees": rows, "booked": await money_books.book(settings, commands, ids) if book else 0}


@app.command()
def disputes(
    merchant: AMerchant = None,
    all_: Annotated[bool, typer.Option("--all", help="Those that are decided too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What buyers' banks ask about or have taken back, how much of it the platform has laid out, and until when to answer.

    Example:  tradewind money disputes --merchant maple-toys
    """
    from services.cli import money_disputes

    with Output(as_json) as out:
        rows = asyncio.run(money_disputes.disputes(Settings(), merchant, all_))
        table = _table("order", "dispute", "merchant", "is", "amount", "laid_out", "evidence", "due", numbers=("amount", "laid_out"))
        for row in rows:
            table.add_row(row.order_id, row.dispute_id, row.merchant, row.status, money(row.amount, row.currency),
                          money(row.laid_out, row.currency), row.evidence or "-", f"{row.due:%Y-%m-%d %H:%M}" if row.due else "-")
        out.say(table)
        out.say(f"{len(rows)} disputes" if all_ else f"{len(rows)} open disputes")
        out.result({"disputes": [asdict(row) | {"due": row.due.isoformat() if row.due else None} for row in rows]})


@app.command()
def evidence(
    order_id: Annotated[str, typer.Argument(help="The order.")],
    document: Annotated[str, typer.Option("--document", help="The reference of the document that is sent.")],
    dispute: Annotated[str | None, typer.Option("--dispute", help="Where the order has several.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Send the merchant's evidence against a dispute; once for each stage that asks for it. Exit code 6 when it is not taken.

    Example:  tradewind money evidence cli-1 --document delivery-receipt.pdf
    """
    from services.cli import money_disputes

    with Output(as_json) as out:
        row = asyncio.run(money_disputes.submit(Settings(), order_id, dispute, document))
        out.say(f"{row.evidence} is with the provider, or on its way there; {row.dispute_id} is {row.status}")
        out.result(asdict(row) | {"due": row.due.isoformat() if row.due else None})


@app.command()
def statement(
    merchant: AMerchant = None,
    close: Annotated[bool, typer.Option("--close", help="Book it: reserves that are over, and the net converted once.")] = False,
    id: Annotated[str | None, typer.Option("--id", help="The statement's name; default: today's date.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """What merchants have coming since their last statement: gross - refunds - chargebacks - fee - tax withheld - reserve.

    Example:  tradewind money statement --merchant maple-toys
    Example:  tradewind money statement --close --id 2026-11
    """
    with Output(as_json) as out:
        settings = Settings()
        found = asyncio.run(statements(settings, merchant, close, id))
        table = _table("merchant", "currency", *_COLUMNS, "paid in", "quote", numbers=_COLUMNS)
        for name, lines in found["statements"].items():
            for line in lines:
                table.add_row(name, line["currency"], *(money(line[c], line["currency"]).removeprefix(f"{line['currency']} ")
                                                        for c in _COLUMNS), line["payout"], line["fx"] or "-")
        out.say(table)
        if close:
            out.say(f"{len(found['statements'])} statements {found['id']} closed")
        out.result(found)


async def statements(settings: Settings, merchant: str | None, close: bool, name: str | None = None) -> dict[str, Any]:
    now = _now(settings)
    lines = await money_books.due_lines(settings, now, merchant)
    name = name or f"statement-{now:%Y-%m-%dT%H%M%S}"
    new = 0
    if close:
        commands = [CloseStatement(order_id=f"{MERCHANT_BOOK}{who}", statement_id=name, lines=own) for who, own in lines.items()]
        new = await money_books.book(settings, commands, [f"statement:{who}:{name}" for who in lines])
    return {"id": name, "closed": new, "statements": {who: [line.model_dump() for line in own] for who, own in lines.items()}}


@app.command()
def payout(
    batch: Annotated[str | None, typer.Option("--batch", help="Its name; the same again pays nobody twice.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Pay every merchant what his statements say is due. Who owes us is left out until he has something coming.

    Example:  tradewind money payout --batch 2026-12-01
    """
    with Output(as_json) as out:
        found = asyncio.run(payouts(Settings(), batch, dry_run))
        table = _table("merchant", "currency", "amount", numbers=("amount",))
        for row in found["payouts"]:
            table.add_row(row["merchant"], row["currency"], money(row["amount"], row["currency"]).removeprefix(f"{row['currency']} "))
        out.say(table)
        totals = ", ".join(money(amount, currency) for currency, amount in found["total"].items()) or "nothing"
        out.say(f"batch {found['batch']}: {totals}" + (" (dry run)" if dry_run else f", {found['new']} paid now"))
        out.result(found)


async def payouts(settings: Settings, batch: str | None, dry_run: bool = False) -> dict[str, Any]:
    batch = batch or f"payout-{_now(settings):%Y-%m-%dT%H%M%S}"
    rows, total = [], {}
    for merchant, book in (await money_books.books(settings)).items():
        for currency, amount in book["due"].items():
            if amount > 0 and f"{batch} {currency}" not in book["done"]:
                rows.append({"merchant": merchant, "currency": currency, "amount": amount})
                total[currency] = total.get(currency, 0) + amount
    commands = [PayMerchant(order_id=f"{MERCHANT_BOOK}{row['merchant']}", batch_id=batch, currency=row["currency"],
                            amount=row["amount"], bank_reference=batch) for row in rows]
    ids = [f"pay:{batch}:{row['merchant']}:{row['currency']}" for row in rows]
    return {"batch": batch, "payouts": rows, "total": total, "new": 0 if dry_run else await money_books.book(settings, commands, ids)}
