"""A merchant's freeze on the real stack, asked for and looked at with `tradewind merchant`: how long until all stand still.

TRADEWIND_TEST_FREEZE=10000 takes ten thousand open orders (the suite: 200) and holds them to a second; it also tells how long it
takes until all go on after the freeze was lifted, and until all are paid back after one was upheld.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from schemas.topics import ORDER, PAYMENT, SHIPMENT
from services.auditor.audit import audit
from services.cli import exits
from services.cli.demo import TERMS
from services.cli.rest import at_rest, stocked
from services.runtime.settings import SERVICES, Settings
from services.simulators.demo_orders import demo_orders
from services.simulators.edge import Publisher, client_journal, inbound_for, place_record
from tests.tally import content, until
from tests.test_order_cli import Run, tradewind  # noqa: F401  (a fixture)

COUNT = int(os.environ.get("TRADEWIND_TEST_FREEZE", 200))
ID = "orchard"


def orders_of(settings: Settings) -> list:
    from services.cli.order_state import running_clock

    # Into China nothing is packed before customs has answered, and here is no world to answer.
    made = demo_orders(1, 2 * COUNT, vault_key=settings.vault_key_bytes(), placed_at=running_clock(settings).now(), exits_permille=0,
                       forced=False, prefix="freeze")
    own = [order.model_copy(update={"merchant_id": ID}) for order in made if order.destination != "CN"]
    return own[:COUNT]


async def place(settings: Settings, orders: list) -> None:
    async with Publisher(settings.bootstrap, client_journal(settings)) as publisher:
        await stocked(settings, await publisher.send(inbound_for(orders, batch="freeze", time=orders[0].placed_at)))
        await publisher.send(map(place_record, orders))


async def count(settings: Settings, service: str, where: str) -> int:
    connection = await asyncpg.connect(settings.dsn(service))
    try:
        return await connection.fetchval(f"SELECT count(*) FROM orders WHERE merchant = '{ID}' AND {where}")
    finally:
        await connection.close()


async def is_(settings: Settings, service: str, where: str, number: int) -> bool:
    return await count(settings, service, where) == number


async def recorded(settings: Settings, topic: str, *types: str) -> dict[str, list[int]]:
    """Type -> the broker's times (ms) of its records."""
    found: dict[str, list[int]] = {name: [] for name in types}
    for record in await content(settings.bootstrap, topic, settings.partitions):
        name = dict(record.headers)["ce_type"].decode()
        if name in found:
            found[name].append(record.timestamp)
    return found


async def told_of(settings: Settings, topic: str, type_: str) -> bool:
    """Whether there is one such event an order at least."""
    return len((await recorded(settings, topic, type_))[type_]) >= COUNT


async def in_force(settings: Settings, status: str) -> float:
    """Wait until this is how the merchant stands with all three services; the real time then."""
    for service in SERVICES:
        connection = await asyncpg.connect(settings.dsn(service))
        while await connection.fetchval("SELECT status FROM merchants WHERE merchant_id = $1", ID) != status:
            await asyncio.sleep(0.002)
        await connection.close()
    return time.time()


def test_ten_thousand_orders_stand_still_within_a_second_and_go_on_or_are_undone(tradewind: Run, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
                                                                                tmp_path: Path) -> None:
    for name, value in {"SPEED": "1", "PROVIDER": "inprocess", "REGISTERED_ONLY": "1", "TERMS_FILE": str(TERMS)}.items():
        monkeypatch.setenv(f"TRADEWIND_{name}", value)
    code, _, error = tradewind("up", "--detach", "--no-world")
    assert code == exits.OK, error
    settings = Settings()
    _onboard(tradewind, tmp_path)
    orders = orders_of(settings)
    asyncio.run(place(settings, orders))
    requested = "state::text LIKE '%\"requested\"%'"
    asyncio.run(until(lambda: is_(settings, "shipping", requested, COUNT), within_s=60 + COUNT / 50, every_s=0.5))

    async def freeze() -> tuple[float, float]:
        stands = asyncio.create_task(in_force(settings, "frozen"))
        await asyncio.sleep(0.1)
        code, line, error = await asyncio.to_thread(tradewind, "merchant", "freeze", ID, "--reason", "counterfeit")
        assert (code, line["status"]) == (exits.OK, "accepted"), error
        forced = await stands
        await until(lambda: is_(settings, "orders", "state::text LIKE '%merchant_frozen%' AND NOT closed", COUNT), within_s=60, every_s=0.02)
        await until(lambda: is_(settings, "shipping", "state::text LIKE '%merchant_frozen%'", COUNT), within_s=60, every_s=0.02)
        return forced, time.time()

    forced, _ = asyncio.run(freeze())
    for topic, name in ((ORDER.name, "OrderHeld"), (SHIPMENT.name, "ParcelStopped")):  # committed is not yet published
        asyncio.run(until(lambda: told_of(settings, topic, name), within_s=60, every_s=0.2))
    told = asyncio.run(recorded(settings, ORDER.name, "MerchantFrozen", "OrderHeld"))
    stopped = asyncio.run(recorded(settings, SHIPMENT.name, "ParcelStopped"))["ParcelStopped"]
    [decided] = told["MerchantFrozen"]
    figures = {"orders": COUNT, "in force everywhere, ms": round(forced * 1000 - decided),
               "last OrderHeld, ms": max(told["OrderHeld"]) - decided, "last ParcelStopped, ms": max(stopped) - decided}
    print(figures, file=sys.__stderr__)
    assert len(told["OrderHeld"]) == COUNT <= len(stopped)
    if COUNT >= 1000:
        assert figures["in force everywhere, ms"] < 1000, figures
    shown = tradewind("merchant", "show", ID)[1]
    assert shown["status"] == "frozen" and shown["services"]["orders"]["held"] == shown["services"]["shipping"]["held"] == COUNT
    _decide(tradewind, settings)


def _onboard(tradewind: Run, folder: Path) -> None:  # noqa: F811
    apply = ("merchant", "register", ID, "--name", "Orchard GmbH", "--country", "DE", "--registration-no", "HRB 7")
    code, line, error = tradewind(*apply, "--vat-no", "136695978")
    assert code == exits.REFUSED and line["error"]["what"].startswith("vat_no_invalid") and line["error"]["remedy"], error
    assert tradewind("merchant", "show", "stranger")[0] == exits.REFUSED
    for words, event in ((apply, "MerchantRegistered"), (("merchant", "approve", ID), "MerchantApproved")):
        code, line, error = tradewind(*words)
        assert code == exits.OK and [e["type"] for e in line["events"]] == [event], error
    code, line, _ = tradewind("order", "place", "--merchant", "stranger", "--sku", "A:1:500", "--wait")
    assert code == exits.REFUSED and line["error"]["what"].startswith("merchant_unknown")
    wrong = folder / "items.json"
    wrong.write_text('[{"sku": "TEA-1", "hs_code": "9", "origin": "CN"}]')
    assert tradewind("merchant", "catalogue", ID, "--from", str(wrong))[0] == exits.USAGE
    assert [m["status"] for m in tradewind("merchant", "list")[1]["merchants"]] == ["active"]


def _decide(tradewind: Run, settings: Settings) -> None:  # noqa: F811
    """Lifted, all go on; frozen again and upheld, all are undone, and the audit is clean."""
    assert tradewind("merchant", "appeal", ID, "--statement", "see the invoices")[0] == exits.OK
    assert tradewind("merchant", "decide", ID, "--outcome", "lifted")[0] == exits.OK
    asyncio.run(until(lambda: is_(settings, "orders", "state::text NOT LIKE '%merchant_frozen%' AND NOT closed", COUNT),
                      within_s=60 + COUNT / 50, every_s=0.2))
    asyncio.run(until(lambda: told_of(settings, ORDER.name, "OrderResumed"), within_s=60 + COUNT / 50, every_s=0.5))
    asyncio.run(until(lambda: told_of(settings, SHIPMENT.name, "ParcelCleared"), within_s=60 + COUNT / 50, every_s=0.5))
    goes_on = asyncio.run(recorded(settings, ORDER.name, "FreezeLifted", "OrderResumed"))
    cleared = asyncio.run(recorded(settings, SHIPMENT.name, "ParcelCleared"))["ParcelCleared"]
    [lifted] = goes_on["FreezeLifted"]
    print({"lifted: last OrderResumed, ms": max(goes_on["OrderResumed"]) - lifted, "last ParcelCleared, ms": max(cleared) - lifted},
          file=sys.__stderr__)
    code, line, _ = tradewind("merchant", "decide", ID, "--outcome", "lifted")
    assert code == exits.REFUSED and line["error"]["what"].startswith("merchant_active")
    assert tradewind("merchant", "freeze", ID, "--reason", "fraud")[0] == exits.OK
    assert tradewind("merchant", "decide", ID, "--outcome", "upheld")[0] == exits.OK
    asyncio.run(until(lambda: is_(settings, "orders", "status = 'cancelled'", COUNT), within_s=60 + COUNT / 50, every_s=0.5))
    assert asyncio.run(at_rest(settings, 20 + COUNT / 100)) == []
    undone = asyncio.run(recorded(settings, ORDER.name, "FreezeUpheld", "OrderCancelled"))
    refunds = asyncio.run(recorded(settings, PAYMENT.name, "PaymentRefunded"))["PaymentRefunded"]
    [upheld] = undone["FreezeUpheld"]
    assert len(undone["OrderCancelled"]) == COUNT <= len(refunds)
    print({"upheld: last PaymentRefunded, ms": max(refunds) - upheld, "last OrderCancelled, ms": max(undone["OrderCancelled"]) - upheld},
          file=sys.__stderr__)
    report = asyncio.run(audit(settings))
    assert report.clean, "\n".join(report.lines())
    assert report.exits["cancelled: merchant_closed"] == COUNT
    money = sum((totals["refunded"] for totals in report.money.values()), 0)
    assert money == sum(totals["captured"] for totals in report.money.values()) > 0
