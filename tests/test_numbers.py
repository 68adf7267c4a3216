"""Check digits: the numbers of the standards hold, no single wrong digit or swap of neighbours passes, and intake looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.numbers import is_resident_number, resident_check
from schemas.orders_order import OrderPlaced
from schemas.parties import Person, seal
from services.explorer.simulation import KEY, START, EveryQuota, order
from services.orders import machine
from services.runtime.decision import Incoming
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
        (event,) = machine.decide(machine.Order(placed.order_id), None, incoming, KEY, START, shared=EveryQuota()).events
        assert isinstance(event, OrderPlaced) or event.reason == "total_mismatch"
