"""What finance reads of the ledger, and how it puts something into it. SQL and topics; the verbs are in money.py."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any

from pydantic_core import from_json

from schemas.books import MERCHANT_BOOK, TAX_BOOK, CloseStatement, Figures, PayMerchant, RecoverTax, RemitTax, StatementLine
from schemas.topics import PROVIDER_RESULT
from services.cli.order_records import database
from services.cli.order_state import running_clock
from services.orders.terms import load
from services.payments.account import FIGURES
from services.runtime.processes import StartError
from services.runtime.settings import Settings
from services.simulators.edge import Publisher, record_of

ANSWER_WITHIN_S = 15.0

_BALANCE = "SELECT account, currency, sum(amount)::bigint FROM ledger GROUP BY 1, 2 HAVING sum(amount) <> 0 ORDER BY 2, 1"
# Assessed in a month, by the entry's trade time; remitted for it, by the period that the remittance names. And the other way
# round: claimed back in a month, paid back for it.
_TAX = """
SELECT account, currency, period, sum(owed)::bigint AS assessed, sum(paid)::bigint AS remitted, sum(claimed)::bigint AS claimed,
       sum(back)::bigint AS recovered FROM (
    SELECT account, currency, to_char(booked_at AT TIME ZONE 'UTC', 'YYYY-MM') AS period, amount AS owed, 0 AS paid, 0 AS claimed, 0 AS back
      FROM ledger WHERE (account LIKE 'payable/%' OR account LIKE 'withheld/%') AND kind <> 'remit'
    UNION ALL
    SELECT replace(account, 'reclaim/', 'payable/'), currency, to_char(booked_at AT TIME ZONE 'UTC', 'YYYY-MM'), 0, 0, -amount, 0
      FROM ledger WHERE account LIKE 'reclaim/%' AND kind = 'reclaim'
    UNION ALL
    SELECT replace(account, 'reclaim/', 'payable/'), currency, parcel_id, 0, 0, 0, amount
      FROM ledger WHERE account LIKE 'reclaim/%' AND kind = 'tax_back'
    UNION ALL
    SELECT account, currency, parcel_id, 0, -amount, 0, 0 FROM ledger
      WHERE (account LIKE 'payable/%' OR account LIKE 'withheld/%') AND kind = 'remit') rows
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
# Of each merchant, currency and exchange quote, all that was ever booked on his orders up to a moment. A parcel's reserve is
# over so many days after it was kept, whatever a chargeback took of it since; it is not while a bank contests the parcel.
_SALES = """
SELECT merchant, currency, fx::text AS fx, coalesce(payout, currency) AS payout,
       sum(amount) FILTER (WHERE kind = 'release' AND account IN ('merchant', 'fee', 'reserve') OR kind = 'release'
           AND account LIKE 'withheld/%')::bigint AS gross,
       (-sum(amount) FILTER (WHERE account = 'merchant' AND kind IN ('recover_merchant', 'reclaim')))::bigint AS refunds,
       sum(amount) FILTER (WHERE account = 'merchant' AND kind = 'release_claim')::bigint AS claims,
       sum(amount) FILTER (WHERE account = 'fee')::bigint AS fee,
       sum(amount) FILTER (WHERE account LIKE 'withheld/%')::bigint AS withheld,
       sum(amount) FILTER (WHERE account = 'reserve')::bigint AS reserve,
       sum(amount) FILTER (WHERE account = 'reserve' AND kept_at + days * interval '1 day' <= $1
           AND coalesce(status, '') NOT LIKE 'contested%')::bigint AS reserve_back,
       sum(amount) FILTER (WHERE account = 'merchant')::bigint AS net,
       (-sum(amount) FILTER (WHERE kind = 'chargeback_lost'))::bigint AS chargebacks
FROM (SELECT o.state->>'merchant_id' AS merchant, l.currency, o.state->'terms'->'fx' AS fx, o.state->'terms'->>'payout' AS payout,
             coalesce((o.state->'terms'->>'reserve_days')::int, 0) AS days, l.account, l.kind, l.amount,
             min(l.booked_at) FILTER (WHERE l.account = 'reserve') OVER (PARTITION BY l.order_id, l.parcel_id) AS kept_at,
             o.state->'holds'->l.parcel_id->>'status' AS status
        FROM ledger l JOIN orders o USING (order_id)
       WHERE l.booked_at < $1 AND l.order_id NOT LIKE 'books:%'
         AND (l.account IN ('merchant', 'fee', 'reserve') OR l.account LIKE 'withheld/%')) rows
WHERE $2::text IS NULL OR merchant = $2 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3"""


class NotBooked(StartError):
    """A command was published, but payments has not booked it in time; it is not lost."""


@dataclass(frozen=True, slots=True)
class Tax:
    """What an authority is owed in a period. `account`: payable/<authority> or withheld/<country>. `claimed` of it for goods that
    were returned in time, of which it has paid back `recovered`."""

    account: str
    currency: str
    period: str
    assessed: int
    remitted: int
    claimed: int = 0
    recovered: int = 0

    @property
    def owed(self) -> int:
        return self.assessed - self.remitted

    @property
    def claim(self) -> int:
        return self.claimed - self.recovered

    @property
    def payable(self) -> int:
        return self.owed - self.claim


async def balances(settings: Settings) -> list[tuple[str, str, int]]:
    """(account, currency, sum) of every account that is not even, by currency. Raises NotRunning."""
    async with database(settings, "payments") as connection:
        return [tuple(row) for row in await connection.fetch(_BALANCE)]


async def taxes(settings: Settings) -> list[Tax]:
    async with database(settings, "payments") as connection:
        return [Tax(*row) for row in await connection.fetch(_TAX)]


async def books(settings: Settings) -> dict[str, dict[str, Any]]:
    """merchant -> his book as payments has it."""
    async with database(settings, "payments") as connection:
        rows = await connection.fetch("SELECT order_id, (state->'book')::text FROM orders WHERE order_id LIKE $1", MERCHANT_BOOK + "%")
    return {order_id.removeprefix(MERCHANT_BOOK): from_json(book) for order_id, book in rows}


async def due_lines(settings: Settings, until: datetime, merchant: str | None = None) -> dict[str, list[StatementLine]]:
    """merchant -> what he has coming since his last statement, a line a currency and exchange quote. Raises NotRunning."""
    async with database(settings, "payments") as connection:
        rows = await connection.fetch(_SALES, until, merchant)
    stated = {name: book["stated"] for name, book in (await books(settings)).items()}
    found: dict[str, list[StatementLine]] = defaultdict(list)
    terms = load(settings.terms_file)
    for row in rows:
        fx = from_json(row["fx"]) if row["fx"] else None
        sums = {name: row[name] or 0 for name in FIGURES}
        sums["net"] += sums["reserve_back"]
        before = stated.get(row["merchant"], {}).get(f"{row['currency']} {fx['id'] if fx else ''}".rstrip(), [])
        new = {name: sums[name] - was for name, was in zip_longest(FIGURES, before, fillvalue=0)}
        if not any(new.values()):
            continue
        market = terms.quote(fx["base"], fx["quote"], until.date()) if fx else None
        found[row["merchant"]].append(StatementLine(
            **new, currency=row["currency"], payout=row["payout"] or row["currency"], fx=fx["id"] if fx else "",
            rate=fx["rate"] if fx else "1", market=market.rate if market else fx["rate"] if fx else "1"))
    return dict(found)


def sums_of(lines: Iterable[Figures]) -> dict[str, int]:
    totals = dict.fromkeys(FIGURES, 0)
    for line in lines:
        for name in FIGURES:
            totals[name] += getattr(line, name)
    return totals


async def book(settings: Settings, commands: list[RemitTax | RecoverTax | CloseStatement | PayMerchant], ids: list[str]) -> int:
    """Publish, and wait until payments has booked each or knows of it. Returns how many were new. Raises NotBooked."""
    if not commands:
        return 0
    before = await _events(settings, commands)
    now = running_clock(settings).now()
    async with Publisher(settings.bootstrap) as publisher:
        await publisher.send([record_of(command, id=id_, time=now, merchant="platform", source="/finance")
                              for command, id_ in zip(commands, ids)])
    for _ in range(int(ANSWER_WITHIN_S / 0.1)):
        await asyncio.sleep(0.1)
        if await _settled(settings):
            return await _events(settings, commands) - before
    raise NotBooked("payments has not read all of it in time", PROVIDER_RESULT.name, "See `tradewind status`; then ask again.")


async def _events(settings: Settings, commands: list[Any]) -> int:
    async with database(settings, "payments") as connection:
        return await connection.fetchval("SELECT coalesce(sum(seq), 0)::bigint FROM orders WHERE order_id = ANY($1)",
                                         list({command.order_id for command in commands}))


async def _settled(settings: Settings) -> bool:
    """Whether payments has read everything on the commands' topic."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    async with database(settings, "payments") as connection:
        stored = {partition: from_json(offsets).get(PROVIDER_RESULT.name, 0) for partition, offsets in await connection.fetch(
            "SELECT partition, offsets::text FROM partitions")}
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(PROVIDER_RESULT.name, p) for p in stored])
    finally:
        await consumer.stop()
    return all(stored[tp.partition] >= end for tp, end in ends.items())


def tax_book(account: str) -> tuple[str, str]:
    """(claim, the book's key) of payable/GB."""
    claim, _, authority = account.partition("/")
    return claim, f"{TAX_BOOK}{authority}"

