"""The provider's settlement file against the ledger. `match` is pure.

A movement is found by its payment, kind, amount and currency: the ledger knows no reference of the provider's. What is left
over on both sides of one payment and kind is one break (another amount, another currency); on one side, a line too many
or a line too few. What the ledger booked after the file's last line may come with the next file: it is open, and no break.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import aiohttp

from schemas.provider_api import SETTLED, SETTLEMENT_COLUMNS, SETTLEMENT_END
from schemas.provider_fees import FeeRow, NotAgreed, fee
from services.cli.order_records import database
from services.cli.output import BadUsage, NotRunning
from services.runtime.settings import Settings

BREAKS = {
    "unreadable": "the line is not as agreed", "cut_short": "the file does not end as it says",
    "doubled": "one reference on two lines", "unknown_payment": "the ledger knows no such payment",
    "not_in_ledger": "the provider moved money that we did not book", "not_in_file": "we booked what the provider does not know",
    "fee_differs": "another fee than was agreed", "fee_not_agreed": "a fee for which no terms of that day are known",
    "amount_differs": "another amount", "currency_differs": "another currency",
}
# A payment is captured once for all its parcels, and so taken back by its buyer's bank. What was paid by hand never went
# through the provider.
_MOVEMENTS = """
SELECT payment_id, move, currency, sum(amount)::bigint AS amount, max(booked_at) AS booked_at, min(order_id) AS order_id
FROM (SELECT order_id, payment_id, currency, booked_at, CASE
        WHEN kind IN ('refund', 'charge_back') THEN 'refund' WHEN kind IN ('release', 'release_claim') THEN 'release'
        ELSE kind END AS move,
        abs(amount) AS amount, CASE WHEN kind = 'capture' THEN '' WHEN kind LIKE '%chargeback%' THEN booked_at::text
        ELSE entry::text END AS once
      FROM ledger WHERE account = 'held' AND kind IN ('capture', 'refund', 'charge_back', 'release', 'release_claim',
        'chargeback', 'chargeback_reversed', 'second_chargeback')) rows
GROUP BY payment_id, move, currency, once, order_id ORDER BY payment_id, move"""


class Movement(NamedTuple):
    """One movement of money, as the ledger has it."""

    payment_id: str
    kind: str
    currency: str
    amount: int
    booked_at: datetime
    order_id: str = ""


class Break(NamedTuple):
    """`what`: a key of BREAKS. `file`, `ledger`: what each says; `where`: the line, or the order."""

    what: str
    payment_id: str
    kind: str
    file: str
    ledger: str
    where: str


class _Line(NamedTuple):
    number: int
    reference: str
    kind: str
    payment_id: str
    amount: int
    currency: str
    settled_at: datetime
    fee: int


@dataclass
class Found:
    """`fees`: (month, currency) -> what the provider asks, by the file."""

    lines: int = 0
    matched: int = 0
    open: int = 0
    breaks: list[Break] = field(default_factory=list)
    fees: Counter[tuple[str, str]] = field(default_factory=Counter)


def read(path: Path) -> str:
    """Raises BadUsage."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadUsage(f"the file cannot be read: {error}", str(path), "Check the path.") from error


async def ask(settings: Settings) -> str:
    """The provider's file of this moment. Raises NotRunning."""
    address = f"{settings.provider_address}/v1/settlement"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session, session.get(address) as response:
            response.raise_for_status()
            return await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NotRunning(f"the provider has no file for us: {error}", address, "Name a file with --file.") from error


async def movements(settings: Settings) -> list[Movement]:
    async with database(settings, "payments") as connection:
        return [Movement(row["payment_id"], row["move"], row["currency"], row["amount"], row["booked_at"], row["order_id"])
                for row in await connection.fetch(_MOVEMENTS)]


def match(text: str, booked: list[Movement], agreed: tuple[FeeRow, ...] = ()) -> Found:
    """Every line of the file against the ledger's movements, and its fee against what is agreed (nothing: fees are not judged)."""
    found = Found()
    lines = _lines(text, found)
    last = max((line.settled_at for line in lines), default=None)
    known = {movement.payment_id for movement in booked}
    left: dict[tuple[str, str], list[Movement]] = defaultdict(list)
    for movement in booked:
        left[movement.payment_id, movement.kind].append(movement)
    references: Counter[str] = Counter()
    odd: dict[tuple[str, str], list[_Line]] = defaultdict(list)
    for line in lines:
        references[line.reference] += 1
        if references[line.reference] > 1:
            found.breaks.append(_break("doubled", line, None))
            continue
        found.fees[f"{line.settled_at:%Y-%m}", line.currency] += line.fee
        if agreed and (wrong := _wrong_fee(line, agreed)):
            found.breaks.append(wrong)
        own = left[line.payment_id, line.kind]
        same = next((m for m in own if (m.amount, m.currency) == (line.amount, line.currency)), None)
        if same is None:
            odd[line.payment_id, line.kind].append(line)
        else:
            own.remove(same)
            found.matched += 1
    for key, lines_left in odd.items():
        for line in lines_left:
            other = left[key].pop(0) if left[key] else None
            what = ("unknown_payment" if line.payment_id not in known else "not_in_ledger") if other is None else (
                "currency_differs" if other.currency != line.currency else "amount_differs")
            found.breaks.append(_break(what, line, other))
    for movement in (m for own in left.values() for m in own):
        if last is None or movement.booked_at > last:
            found.open += 1
        else:
            found.breaks.append(_break("not_in_file", None, movement))
    return found


def _wrong_fee(line: _Line, agreed: tuple[FeeRow, ...]) -> Break | None:
    told, where = f"fee {line.fee} {line.currency}", f"line {line.number}"
    try:
        right = fee(agreed, line.kind, line.amount, line.currency, line.settled_at.astimezone(UTC).date())
    except NotAgreed as why:
        return Break("fee_not_agreed", line.payment_id, line.kind, told, str(why), where)
    return None if right == line.fee else Break("fee_differs", line.payment_id, line.kind, told, f"fee {right} {line.currency}", where)


def _break(what: str, line: _Line | None, movement: Movement | None) -> Break:
    either = line or movement
    return Break(what, either.payment_id, either.kind, f"{line.amount} {line.currency}" if line else "-",
                 f"{movement.amount} {movement.currency}" if movement else "-",
                 f"line {line.number}" if line else f"order {movement.order_id}")


def _lines(text: str, found: Found) -> list[_Line]:
    """Those that can be read; the others are breaks."""
    rows = list(csv.reader(text.splitlines()))
    if not rows or tuple(rows[0]) != SETTLEMENT_COLUMNS:
        found.breaks.append(Break("unreadable", "", "", text[:40], f"the first line is {','.join(SETTLEMENT_COLUMNS)}", "line 1"))
        return []
    lines: list[_Line] = []
    end = rows[-1] if rows[-1] and rows[-1][0] == SETTLEMENT_END else None
    body = rows[1:-1] if end else rows[1:]
    for number, row in enumerate(body, 2):
        try:
            _, reference, kind, payment_id, amount, currency, settled_at, asked = row
            line = _Line(number, reference, kind, payment_id, int(amount), currency, datetime.fromisoformat(settled_at), int(asked))
            if kind not in SETTLED or line.amount <= 0 or line.fee < 0 or line.settled_at.tzinfo is None:
                raise ValueError("a kind, an amount above 0, a fee of 0 or more and a time with its zone are needed")
        except ValueError as why:
            found.breaks.append(Break("unreadable", "", "", ",".join(row)[:60], str(why)[:60], f"line {number}"))
            continue
        lines.append(line)
    found.lines = len(body)
    if end is None or end[1:] != [str(len(body))]:
        found.breaks.append(Break("cut_short", "", "", ",".join(end) if end else "no last line", f"{len(body)} lines",
                                  f"line {len(rows)}"))
    return lines
