"""Check digits: the numbers of the standards hold, no single wrong digit or swap of neighbours passes, and intake looks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.numbers import (SERIALS, gs1_check, is_gtin, is_resident_number, is_s10, is_sscc, resident_check, s10, s10_check,
                             sscc)
from schemas.orders_order import OrderPlaced
from schemas.parties import Person, seal
from services.explorer.simulation import KEY, START, EveryQuota, order
from services.orders import machine
from services.orders.screening import screen
from services.runtime.decision import Incoming, SharedMissing
from services.shipping import storage
from services.simulators.demo_orders import demo_orders

seventeen = st.text("0123456789", min_size=17, max_size=17)


@pytest.mark.parametrize(("number", "holds"), [
    ("11010519491231002X", True), ("440524188001010014", True),  # the standard's own examples
    ("11010519491231002x", False), ("110105194912310021", False), ("11010519491231002", False), ("11010519491231002XX", False),
    ("", False), ("TEST00000000000001", False), ("１１０１０５１９４９１２３１００２X", False), ("11010519491231002X\n", False)])
def test_resident_numbers(number, holds):
    assert is_resident_number(number) is holds


@given(seventeen, st.integers(0, 16), st.integers(1, 9))
def test_a_wrong_digit_is_found(first, at, more):
    number = first + resident_check(first)
    wrong = f"{number[:at]}{(int(number[at]) + more) % 10}{number[at + 1:]}"
    assert is_resident_number(number) and not is_resident_number(wrong)


@given(seventeen, st.integers(0, 15))
def test_swapped_neighbours_are_found(first, at):
    number = first + resident_check(first)
    swapped = number[:at] + number[at + 1] + number[at] + number[at + 2:]
    assert is_resident_number(swapped) == (swapped == number)


@pytest.mark.parametrize(("destination", "number", "reason"), [
    ("CN", "11010519491231002X", None), ("CN", "110105194912310021", "identity_invalid"), ("CN", "", None),
    ("DE", "110105194912310021", None)])
def test_a_miswritten_identity_number_is_refused_into_china_and_never_told(destination, number, reason):
    buyer = seal(Person(name="Mei Lin", identity_no=number), KEY)
    incoming = Incoming("PlaceOrder", "e", "/storefront", 0, START, order(destination=destination, buyer=buyer))
    (event,) = machine.decide(machine.Order("A1"), None, incoming, KEY, START, shared=EveryQuota()).events
    assert isinstance(event, OrderPlaced) if reason is None else event.reason == reason
    assert not number or number not in event.model_dump_json()


def test_the_demos_buyers_in_china_have_well_written_numbers():
    for placed in demo_orders(5, 100, vault_key=KEY, placed_at=START):
        incoming = Incoming("PlaceOrder", "e", "/storefront", 0, START, placed)
        event, *_ = machine.decide(machine.Order(placed.order_id), None, incoming, KEY, START, shared=EveryQuota()).events
        assert isinstance(event, OrderPlaced) or event.reason in ("total_mismatch", "denied_party", "dangerous_goods")


# -- GS1 and UPU ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("holds", "number", "right"), [
    (is_sscc, "106141412345678908", True), (is_sscc, "340123450000000000", True), (is_sscc, "106141412345678909", False),
    (is_sscc, "10614141234567890", False), (is_sscc, "１06141412345678908", False),
    (is_gtin, "614141123452", True), (is_gtin, "00614141123452", True), (is_gtin, "4006381333931", True),
    (is_gtin, "96385074", True), (is_gtin, "4006381333932", False), (is_gtin, "", False), (is_gtin, "4006381333931\n", False),
    (is_s10, "RA473124829US", True), (is_s10, "RA473124828US", False), (is_s10, "RA473124829us", False), (is_s10, "", False)])
def test_numbers_of_gs1_and_upu(holds, number, right):
    assert holds(number) is right


def test_the_standards_check_digits():
    assert s10_check("47312482") == "9" and gs1_check("10614141234567890") == "8"
    assert {s10_check(f"{n:08d}") for n in range(200)} == set("0123456789"), "10 is written 0, 11 is written 5"


@given(st.integers(0, SERIALS - 1), st.integers(0, SERIALS - 1))
def test_each_serial_is_two_valid_numbers_of_its_own(one, other):
    assert is_sscc(sscc(one)) and is_s10(s10(one, "US"))
    assert (sscc(one) == sscc(other)) == (s10(one, "US") == s10(other, "US")) == (one == other)


@given(st.integers(0, SERIALS - 1), st.integers(0, 16), st.integers(1, 9))
def test_one_wrong_digit_of_a_parcels_number_is_found(serial, at, more):
    number = sscc(serial)
    assert not is_sscc(number[:at] + str((int(number[at]) + more) % 10) + number[at + 1:])
    waybill, at = s10(serial, "US"), 2 + at % 8
    wrong = waybill[:at] + str((int(waybill[at]) + more) % 10) + waybill[at + 1:]
    assert not is_s10(wrong) or waybill[10] == "5", "the standard writes two of eleven remainders as 5, and no others alike"


async def test_blocks_of_serials_are_given_out_once(postgres):
    """Two processes at once, one of whose transactions fails: no number comes twice."""
    dsn = await postgres("parcel_serials")
    seen: list[int] = []
    conn = await asyncpg.connect(dsn)
    await conn.execute(Path(storage.__file__).with_name("schema.sql").read_text())
    await conn.close()

    async def process(fails: bool) -> None:
        conn, serials = await asyncpg.connect(dsn), storage.Serials()
        try:
            for _ in range(4):
                transaction = conn.transaction()
                await transaction.start()
                await serials.fill(conn)
                seen.extend(next(serials) for _ in range(3_500))
                await (transaction.rollback() if fails else transaction.commit())
        finally:
            await conn.close()

    await asyncio.gather(process(False), process(True), process(False))
    assert len(seen) == len(set(seen)) == 42_000
    spent = storage.Serials()
    with pytest.raises(SharedMissing):
        next(spent)


def test_a_line_whose_gtin_is_miswritten_is_refused():
    placed = order()
    for gtin, right in (("00614141123452", True), ("4006381333931", True), ("4006381333932", False)):
        line = placed.lines[0].model_copy(update={"gtin": gtin})
        refused = screen(placed.model_copy(update={"lines": [line]}), KEY)
        assert refused is None if right else refused[0] == "gtin_invalid" and "line 1" in refused[1]
