"""Money, case by case: every amount below is worked out by hand, none by the code that it judges.

An order of USD 57.00: goods 50.00, freight 7.00, one parcel within a country. A merchant without terms has it all. One with
terms: freight 7.00 to the carrier; of 50.00 a fee of 5 % and 0.30 = 2.80, 1 % withheld = 0.50, 10 % reserve = 5.00 for 90 days;
the rest, 41.70, is his.
"""

from __future__ import annotations

import pytest

from schemas import orders_intake as ask
from tests.test_disputes import delivered, evidence, tell

PLAIN, SPLIT = "m1", "split"
SOLD = {"carrier": 700, "fee": 280, "withheld/US": 50}  # of a merchant with terms, besides reserve and the rest
BACK, AGAIN = "chargeback_reversed", "second_chargeback"


def cb(amount: int = 5700, name: str = "D1", stage: str = "chargeback"):
    return ("bank", stage, amount, name)


def lost(amount: int = 5700, name: str = "D1"):
    return cb(amount, name, "lost")


CASES = [
    # Nothing went wrong.
    ("in escrow", PLAIN, [], {"held": 5700}),
    ("released, no terms", PLAIN, ["confirm"], {"merchant": 5700}),
    ("released, terms", SPLIT, ["confirm"], {**SOLD, "reserve": 500, "merchant": 4170}),
    # The bank asks.
    ("asked", PLAIN, [cb(5700, stage="request_for_information")], {"held": 5700}),
    ("asked, confirmed meanwhile", PLAIN, [cb(5700, stage="request_for_information"), "confirm"], {"held": 5700}),
    ("asked and answered", PLAIN, [cb(5700, stage="request_for_information"), "evidence", cb(5700, stage="inquiry_closed"), "confirm"],
     {"merchant": 5700}),
    ("asked, then taken and lost", PLAIN, [cb(5700, stage="request_for_information"), cb(), lost()], {"charged_back": 5700}),
    # Taken out of escrow.
    ("taken", PLAIN, [cb()], {"charged_back": 5700}),
    ("taken in part", PLAIN, [cb(2000)], {"held": 3700, "charged_back": 2000}),
    ("given back", PLAIN, [cb(), "evidence", cb(stage=BACK)], {"held": 5700}),
    ("given back, then released", SPLIT, [cb(), cb(stage=BACK), "confirm"], {**SOLD, "reserve": 500, "merchant": 4170}),
    ("lost", SPLIT, [cb(), lost()], {"charged_back": 5700}),
    ("lost in part, the rest released", PLAIN, [cb(2000), lost(2000), "confirm"], {"charged_back": 2000, "merchant": 3700}),
    # 37.00 are left: freight 7.00; of 30.00 fee 1.50 + 0.30, withheld 0.30, reserve 3.00.
    ("lost in part, the rest split", SPLIT, [cb(2000), lost(2000), "confirm"],
     {"charged_back": 2000, "carrier": 700, "fee": 180, "withheld/US": 30, "reserve": 300, "merchant": 2490}),
    ("two banks", PLAIN, [cb(2000), lost(2000), cb(3700, "D2"), lost(3700, "D2")], {"charged_back": 5700}),
    ("given back and taken again", PLAIN, [cb(), cb(stage=BACK), cb(stage=AGAIN)], {"charged_back": 5700}),
    ("the last stage is told first", PLAIN, [cb(stage=AGAIN), cb(stage=BACK), cb()], {"charged_back": 5700}),
    ("the last stage is told first, and nothing else", PLAIN, [cb(stage=AGAIN)], {"held": 5700}),
    # Taken after the merchant had it.
    ("taken late", PLAIN, ["confirm", cb()], {"merchant": 5700, "advanced": -5700, "charged_back": 5700}),
    ("taken late, given back", PLAIN, ["confirm", cb(), cb(stage=BACK)], {"merchant": 5700}),
    ("taken late, lost", PLAIN, ["confirm", cb(), lost()], {"charged_back": 5700}),
    ("taken late in part, lost", PLAIN, ["confirm", cb(1000), lost(1000)], {"merchant": 4700, "charged_back": 1000}),
    ("taken late, given back, taken again", PLAIN, ["confirm", cb(), cb(stage=BACK), cb(stage=AGAIN)], {"charged_back": 5700}),
    # The reserve first.
    ("nobody pays before it is lost", SPLIT, ["confirm", cb(300)],
     {**SOLD, "reserve": 500, "merchant": 4170, "advanced": -300, "charged_back": 300}),
    ("less than the reserve", SPLIT, ["confirm", cb(300), lost(300)], {**SOLD, "reserve": 200, "merchant": 4170, "charged_back": 300}),
    ("all of the reserve", SPLIT, ["confirm", cb(500), lost(500)], {**SOLD, "merchant": 4170, "charged_back": 500}),
    ("a cent more", SPLIT, ["confirm", cb(501), lost(501)], {**SOLD, "merchant": 4169, "charged_back": 501}),
    ("all of the order: the merchant owes", SPLIT, ["confirm", cb(), lost()], {**SOLD, "merchant": -1030, "charged_back": 5700}),
    ("a second one has what is left of the reserve", SPLIT, ["confirm", cb(300), lost(300), cb(400, "D2"), lost(400, "D2")],
     {**SOLD, "merchant": 3970, "charged_back": 700}),
    ("on its last day", SPLIT, ["confirm", 89, cb(300), lost(300)], {**SOLD, "reserve": 200, "merchant": 4170, "charged_back": 300}),
    ("its days are over", SPLIT, ["confirm", 90, cb(300), lost(300)], {**SOLD, "reserve": 500, "merchant": 3870, "charged_back": 300}),
    ("they end while the bank thinks", SPLIT, ["confirm", 89, cb(300), 20, lost(300)],
     {**SOLD, "reserve": 200, "merchant": 4170, "charged_back": 300}),
    ("given back: the reserve is whole", SPLIT, ["confirm", cb(), cb(stage=BACK)], {**SOLD, "reserve": 500, "merchant": 4170}),
    # With refunds.
    ("granted before, the rest lost", PLAIN, [("grant", 1000), cb(4700), lost(4700)], {"refunded": 1000, "charged_back": 4700}),
    ("granted after release, the rest lost", PLAIN, ["confirm", ("grant", 1000), cb(4700), lost(4700)],
     {"refunded": 1000, "charged_back": 4700}),
    ("a grant waits", PLAIN, [cb(3000), ("grant", 1000)], {"held": 2700, "charged_back": 3000}),
    ("a grant that fits beside what is lost", PLAIN, [cb(3000), ("grant", 1000), lost(3000)],
     {"held": 1700, "refunded": 1000, "charged_back": 3000}),
    ("a grant of more than is left", PLAIN, [cb(3000), ("grant", 4000), lost(3000)], {"refunded": 2700, "charged_back": 3000}),
    ("a grant, and the bank gives it back", PLAIN, [cb(3000), ("grant", 4000), cb(3000, stage=BACK)], {"held": 1700, "refunded": 4000}),
    ("the same after release, lost", PLAIN, ["confirm", cb(3000), ("grant", 4000), lost(3000)], {"refunded": 2700, "charged_back": 3000}),
    ("the same after release, given back", SPLIT, ["confirm", cb(3000), ("grant", 1000), cb(3000, stage=BACK)],
     {**SOLD, "reserve": 500, "merchant": 3170, "refunded": 1000}),
    ("returned, then the bank takes and gives back", PLAIN, ["return", cb(), cb(stage=BACK)], {"refunded": 5700}),
    ("lost here, then the bank takes and gives back", PLAIN, [("dispute", "lost"), cb(), cb(stage=BACK)], {"charged_back": 5700}),
    ("won here, lost there", PLAIN, [("dispute", "won"), cb(), lost()], {"charged_back": 5700}),
]


@pytest.mark.parametrize("merchant, steps, expected", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_case(merchant, steps, expected):
    world = delivered(merchant)
    for step in steps:
        _take(world, step)
    assert world.accounts() == {"buyer": -5700, **expected}
    assert world.dead == []


def _take(world, step) -> None:
    match step:
        case int(days):
            world.wait(days=days)
        case "confirm":
            world.send(ask.ConfirmReceipt(order_id="A1", parcel_id="A1-P1"))
        case "evidence":
            evidence(world)
        case "return":
            world.send(ask.RequestReturn(order_id="A1"), id="R1")
        case ("grant", amount):
            world.send(ask.GrantRefund(order_id="A1", amount=amount), id=f"G{amount}")
        case ("dispute", outcome):
            world.send(ask.OpenDispute(order_id="A1", parcel_id="A1-P1"))
            world.run()
            world.send(ask.ResolveDispute(order_id="A1", parcel_id="A1-P1", outcome=outcome))
        case ("bank", stage, amount, name):
            tell(world, stage, amount, name, due=None)
    world.run()


def test_there_are_enough_of_them():
    assert len(CASES) >= 30 and len({case[0] for case in CASES}) == len(CASES)
