"""What happens to an order in the outside world: one scenario each, chosen by its id and a seed.

Nobody tells a warehouse, a carrier or a buyer which scenario an order has: each computes it, so that they agree without
talking. An order whose id starts with `try.<scenario>.` has that scenario; all others draw one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from schemas.cold_chain import AskedBand
from schemas.orders_intake import Season

FORCED = "try."
EXITS_PERMILLE = 50
TOKEN = "tok_test_ok"
NO_PAPERS_HS_CODE = "000000"
# An SKU with the first prefix is in no warehouse; one with the second is stocked with one unit less than was ordered.
SKU_NOWHERE, SKU_PART, SKU_SEASON, SKU_BOND = "NONE-", "PART-", "SEASON-", "BOND-"
FULL_DECLARATION = ["DE", "GB"]  # they ask for more than six digits above a value
WAREHOUSES = ("SEA1", "PVD1")
BONDED_WAREHOUSE = "CNSHA"


@dataclass(frozen=True)
class Scenario:
    """`weight`: of a thousand orders that leave the normal way, how many go this one.

    `fast`: it ends without a deadline of the trade and without a misbehaving provider, so that a benchmark, whose clock
    does not run ahead, can contain it. `token`: what the buyer pays with, which is how the provider knows what to do.
    """

    name: str
    weight: int
    text: str
    fast: bool = True
    token: str = TOKEN


SCENARIOS = {s.name: s for s in (
    Scenario("normal", 0, "packed, carried, cleared, delivered, confirmed by the buyer"),
    Scenario("refused", 0, "the total does not add up: refused at intake, with the sum in the answer"),
    Scenario("cancel_before_payment", 60, "the buyer cancels as soon as the parcels are planned"),
    Scenario("cancel_whole", 60, "cancelled after the money is held, before hand-over"),
    Scenario("cancel_line", 60, "one unit of one line is cancelled before hand-over"),
    Scenario("cancel_too_late_accepted", 30, "cancelled after hand-over; the carrier stops the parcel"),
    Scenario("cancel_too_late_declined", 30, "cancelled after hand-over; the carrier goes on"),
    Scenario("cancel_begun_accepted", 0, "cancelled when the warehouse has begun to pack, which agrees"),
    Scenario("cancel_begun_declined", 0, "the same; it declines, and the parcel goes on"),
    Scenario("cancel_begun_line", 0, "one unit is cancelled when the warehouse has begun, which agrees"),
    Scenario("cancel_begun_silent", 0, "cancelled when the warehouse has begun, which does not answer: paid back", fast=False),
    Scenario("short_pick", 60, "one unit of a parcel's first line is not on the shelf"),
    Scenario("parcel_split", 0, "the goods do not go into one box: the warehouse puts one unit of each line into another"),
    Scenario("parcel_split_ready", 0, "one line is ready and the others are not: it goes on at once in a parcel of its own"),
    Scenario("china_split_refused", 0, "into China, where a parcel has one payment and one list: what does not go into one box is refused, and packed all the same"),
    Scenario("packing_rejected", 30, "the warehouse cannot pack the parcel"),
    Scenario("warehouse_hold", 0, "the warehouse holds the parcel up, then packs it"),
    Scenario("warehouse_hold_expires", 0, "the warehouse holds the parcel up and never goes on", fast=False),
    Scenario("customs_held", 60, "customs holds the parcel, then releases it"),
    Scenario("china_receipts", 0, "Chinese customs tells in its receipts that it reviews, inspects, detains and releases the parcel: "
             "late, twice, and with a rejection that comes too late (elsewhere: as normal)", fast=False),
    Scenario("china_over_limit", 0, "Chinese customs finds the buyer above the year's limit (-621018): paid back (elsewhere: as normal)",
             fast=False),
    Scenario("china_mismatch", 0, "the papers into China disagree on a customs code, which the merchant corrects", fast=False),
    Scenario("china_mismatch_kept", 0, "the same, and the merchant corrects it wrongly each time: paid back", fast=False),
    Scenario("china_revoked", 0, "cancelled when Chinese customs has the import list, which is revoked", fast=False),
    Scenario("china_returned", 0, "sent back from China in time: the list is returned, the tax claimed back, the buyer's year given back", fast=False),
    Scenario("china_return_kept", 0, "sent back from China, and customs does not take the list back: tax and year stay as they are", fast=False),
    Scenario("china_bonded", 0, "sold from a bonded warehouse in China: packed when customs has inspected and released it", fast=False),
    Scenario("china_bonded_short", 0, "the same, and a unit is not on the shelf: declared and released anew", fast=False),
    Scenario("china_bonded_refused", 0, "the same, and customs sends it back (700): paid back", fast=False),
    Scenario("china_name_wrong", 0, "the buyer's identity number is another's, says the registry: undone before any money moved"),
    Scenario("china_name_unknown", 0, "the registry does not know the number; an officer has seen the buyer's papers", fast=False),
    Scenario("china_list_rejected", 0, "Chinese customs rejects the import list; corrected and sent again", fast=False),
    Scenario("assessed_more", 0, "customs assesses more tax than was quoted; the platform bears it"),
    Scenario("assessed_less", 0, "customs assesses less tax than was quoted; the platform keeps it"),
    Scenario("customs_refused", 30, "customs refuses the parcel; it goes back"),
    Scenario("delivery_pickup", 40, "three attempts fail; collected at the pickup point"),
    Scenario("delivery_return", 20, "three attempts fail and nobody collects; it goes back", fast=False),
    Scenario("lost_silent", 20, "no scan after hand-over; shipping finds it lost", fast=False),
    Scenario("pickup_point", 0, "the carrier leaves it at a pickup point at once"),
    Scenario("scans_upu", 0, "a post's scans (UPU codes) come late, twice and in the wrong order", fast=False),
    Scenario("scans_cainiao", 0, "the same in Cainiao's codes", fast=False),
    Scenario("scans_gs1", 0, "the same in GS1's business steps", fast=False),
    Scenario("destroyed", 0, "the carrier destroys the parcel"),
    Scenario("season_kept", 0, "cherries sold before their harvest, which comes in time", fast=False),
    Scenario("season_missed", 0, "cherries sold before their harvest, which never comes", fast=False),
    Scenario("season_too_late", 0, "the harvest comes, the warehouse is too slow: paid back when the season closes", fast=False),
    Scenario("season_sold_out", 0, "more was ordered than is announced", fast=False),
    Scenario("cold_kept", 0, "cold goods, too warm for less long than they tolerate", fast=False),
    Scenario("cold_released", 0, "too warm for too long; the warehouse finds them fit", fast=False),
    Scenario("cold_reshipped", 0, "too warm for too long; sent once more (into China: paid back)", fast=False),
    Scenario("cold_refunded", 0, "too warm for too long; paid back", fast=False),
    Scenario("cold_undecided", 0, "too warm for too long, and nobody decides: paid back", fast=False),
    Scenario("cold_silent", 0, "its temperature logger falls silent on the way; the warehouse finds the goods fit", fast=False),
    Scenario("buyer_absent", 0, "nobody at home; the promise's clock stands still until the next day, when somebody is"),
    Scenario("lane_closed", 0, "a lane ahead of the parcel is closed: it goes another way", fast=False),
    Scenario("leg_late", 0, "the carrier leaves the parcel behind for two days: told as a risk, then as a broken promise",
             fast=False),
    Scenario("lost_reported", 30, "the carrier reports the loss and pays the claim"),
    Scenario("return_whole", 50, "the buyer sends everything back within the window"),
    Scenario("return_line", 50, "the buyer sends one unit back and keeps the rest"),
    Scenario("return_after_settlement", 30, "confirmed and settled, then sent back: clawed back from the merchant"),
    Scenario("dispute_won", 30, "the buyer disputes; the merchant is right"),
    Scenario("dispute_lost", 30, "the buyer disputes; the buyer is right"),
    Scenario("grant_refund", 40, "the merchant grants part of the money back after settlement"),
    Scenario("bank_inquiry", 0, "the buyer's bank asks, the merchant answers; timer and money stand still meanwhile", fast=False,
             token="tok_test_inquiry"),
    Scenario("bank_won", 0, "the bank asks, then takes the money back; it gives it back for the merchant's evidence", fast=False,
             token="tok_test_bank_won"),
    Scenario("bank_lost", 0, "the bank takes the money back, and nobody answers", fast=False, token="tok_test_bank_lost"),
    Scenario("bank_late", 0, "the same after settlement: out of the merchant's reserve, then from him", fast=False,
             token="tok_test_bank_late"),
    Scenario("bank_late_won", 0, "taken back after settlement; evidence brings it back", fast=False,
             token="tok_test_bank_late_won"),
    Scenario("bank_twice", 0, "taken back, given back, taken back for good; told late, twice and in the wrong order", fast=False,
             token="tok_test_bank_twice"),
    Scenario("merchant_frozen_lifted", 0, "the merchant is frozen while it is packed; the appeal succeeds", fast=False),
    Scenario("merchant_frozen_upheld", 0, "the merchant is frozen when it has arrived; the freeze is upheld", fast=False),
    Scenario("terms_changed", 0, "its merchant's terms change while it is packed: it is paid out by those it was accepted with", fast=False),
    Scenario("serial_twice", 0, "two units have one serial number: inspected, counterfeit, paid back", fast=False),
    Scenario("serial_far", 0, "a serial number is seen far away while it lies packed: inspected, genuine", fast=False),
    Scenario("inspection_random", 0, "somebody looks at the goods before they leave, and they are genuine", fast=False),
    Scenario("inspection_undecided", 0, "nobody looks at them in time: paid back", fast=False),
    Scenario("brand_complaint", 0, "the brand complains, the goods are counterfeit: paid back, and the merchant frozen", fast=False),
    Scenario("battery_missing", 0, "telephones whose lithium cells nobody declared: refused at intake, with what is missing"),
    Scenario("brand_refused", 0, "goods of a protected brand that nobody authorised the merchant to sell: refused at intake"),
    Scenario("brand_revoked", 0, "its brand's authorisation is revoked while it is packed, and nobody closes the gap", fast=False),
    Scenario("brand_covered", 0, "its brand's authorisation is revoked; another one lets it go on", fast=False),
    Scenario("denied_party", 0, "the buyer stands on the list of denied parties: refused at intake"),
    Scenario("denied_later", 0, "the buyer comes onto the list the day after: undone before hand-over", fast=False),
    Scenario("screening_cleared", 0, "the buyer's name is nearly on the list; an officer clears it", fast=False),
    Scenario("screening_blocked", 0, "the buyer's name is nearly on the list; an officer blocks the order", fast=False),
    Scenario("never_confirmed", 40, "the buyer says nothing; the confirmation timer does", fast=False),
    Scenario("declined", 40, "the payment is declined", token="tok_test_declined"),
    Scenario("payment_pending", 20, "the payment stays pending for a while", fast=False, token="tok_test_pending"),
    Scenario("payment_abandoned", 10, "the buyer never finishes paying; the reservation expires", fast=False,
             token="tok_test_abandoned"),
    Scenario("provider_timeout", 20, "the provider does the work, and its answer is lost", fast=False,
             token="tok_test_timeout"),
    Scenario("provider_500", 20, "the provider fails, then works", fast=False, token="tok_test_500"),
    Scenario("refund_fails", 10, "cancelled after the hold, and the refund fails: paid by hand", fast=False,
             token="tok_test_refund_fails"),
    Scenario("documents_missing", 10, "the customs papers are never complete; the authorisation expires", fast=False),
    Scenario("documents_supplied", 0, "a customs code is missing; the merchant supplies it"),
    Scenario("documents_code_short", 0, "a code has six digits, where the full declaration of its value asks for more"),
    Scenario("no_stock", 20, "no warehouse has it; no money moves"),
    Scenario("part_stock_ship", 30, "part of it is there: ship that, cancel the rest"),
    Scenario("part_stock_wait", 20, "part of it is there: wait for the rest", fast=False),
    Scenario("part_stock_follows", 0, "part of it is there and is sent, the rest follows when it has come", fast=False),
    Scenario("part_stock_expires", 0, "part of it is there and is sent, the rest never comes and is paid back", fast=False),
)}

LISTED_LATER = "Severin Halloway-Pike"  # on a list of the demo's own, from the day after it begins
TERMS_CHANGED, SILENT = "terms_changed", "cold_silent"
TAX_BACK = frozenset({"china_returned", "china_return_kept"})  # goods whose tax into China is known without their weight
BRANDED = frozenset({"brand_refused", "brand_revoked", "brand_covered"})
SERIALS = frozenset({"serial_twice", "serial_far"})
INSPECTED = SERIALS | {"inspection_random", "brand_complaint"}
SEASONS = frozenset(name for name in SCENARIOS if name.startswith("season_"))
OPENS_AFTER, CLOSES_AFTER = timedelta(days=3), timedelta(days=6)  # from the order on
SPLIT = frozenset({"parcel_split", "parcel_split_ready", "china_split_refused"})  # whose warehouse puts part of it into another box
BEGUN = frozenset(name for name in SCENARIOS if name.startswith("cancel_begun_"))  # whose warehouse tells that it begins
# Nobody notices that these are too warm where the cold-chain view does not run.
COLD = frozenset(name for name in SCENARIOS if name.startswith("cold_"))

DISPUTED_BY_THE_BANK = frozenset(name for name in SCENARIOS if name.startswith("bank_"))
ANSWERED = frozenset({"bank_inquiry", "bank_won", "bank_late_won"})  # with evidence

# Their ends wait for a deadline of the trade, which a short run at a slow clock has no time for.
WAIT_A_DAY = frozenset({"cancel_begun_silent", "payment_abandoned", "payment_pending", "part_stock_wait", "part_stock_follows"})
WAIT_LONGER = SEASONS | DISPUTED_BY_THE_BANK | {"part_stock_expires", "lost_silent", "never_confirmed", "delivery_return", "documents_missing", "warehouse_hold_expires",
                         "leg_late", "brand_revoked", "inspection_undecided"}
assert SCENARIOS.keys() >= WAIT_A_DAY | WAIT_LONGER and not any(SCENARIOS[n].fast for n in WAIT_A_DAY | WAIT_LONGER)

assert sum(s.weight for s in SCENARIOS.values()) == 1000, "the weights are per mille of the exits"


def _draw(fast: bool) -> tuple[str, ...]:
    """One name a share: an index into it is a draw."""
    return tuple(s.name for s in SCENARIOS.values() if s.fast or not fast for _ in range(s.weight))


_DRAWS = {fast: _draw(fast) for fast in (False, True)}


@lru_cache(maxsize=16_384)
def scenario_of(order_id: str, seed: int, exits_permille: int = EXITS_PERMILLE, fast: bool = False) -> str:
    """The name of an order's scenario: always the same for the same arguments.

    `exits_permille`: of a thousand orders, how many leave the normal way. `fast`: only scenarios that end without a
    deadline of the trade are drawn (a forced one is what it says). An unknown forced name draws like any other id.
    """
    if order_id.startswith(FORCED):
        name = order_id[len(FORCED):].partition(".")[0]
        if name in SCENARIOS:
            return name
    digest = hashlib.blake2b(f"{seed}:{order_id}".encode(), digest_size=8).digest()
    if int.from_bytes(digest[:4], "big") % 1000 >= exits_permille:
        return "normal"
    draw = _DRAWS[fast]
    return draw[int.from_bytes(digest[4:], "big") % len(draw)]


def forced_id(scenario: str, tail: str) -> str:
    """An order id that has this scenario; `tail` keeps it apart from others (letters, digits, . _ : -)."""
    return f"{FORCED}{SCENARIOS[scenario].name}.{tail}"


def payment_token_of(scenario: str) -> str:
    """What the buyer of such an order pays with."""
    return SCENARIOS[scenario].token


def hs_code_of(scenario: str, usual: str) -> str:
    """The customs code of the order's first line: one without papers where the scenario asks for it."""
    if scenario == "battery_missing":
        return "851713"
    return NO_PAPERS_HS_CODE if scenario in ("documents_missing", "documents_supplied") else usual


def destinations_of(scenario: str, usual: list[str]) -> list[str]:
    """Where such orders go: the point of some is what is asked at one border. Elsewhere they are as normal."""
    if scenario.startswith("china_"):
        return ["CN"]
    if scenario in SPLIT:
        return [country for country in usual if country != "CN"]
    return FULL_DECLARATION if scenario == "documents_code_short" else usual


def is_bonded(scenario: str) -> bool:
    """Whether its goods lie in a bonded warehouse in China."""
    return scenario.startswith("china_bonded")


def sku_of(scenario: str, order_id: str, usual: str) -> str:
    """The SKU of the order's first line; where stock is the point it is the order's own, so that others keep theirs."""
    prefix = {"no_stock": SKU_NOWHERE, "part_stock_ship": SKU_PART, "part_stock_wait": SKU_PART,
              "part_stock_follows": SKU_PART, "part_stock_expires": SKU_PART}.get(scenario)
    prefix = SKU_SEASON if scenario in SEASONS else SKU_BOND if is_bonded(scenario) else prefix
    if prefix is None:
        return usual
    return prefix + _own(order_id)


def name_of(scenario: str, usual: str) -> str:
    """The buyer's name: one of the list of denied parties (services/orders/lists), or nearly, or one of which the registry says no."""
    return {"denied_party": "Viktor Grauhafen", "denied_later": LISTED_LATER, "screening_cleared": "Victor Grauhafn", "screening_blocked": "Viktor Grauhaven",
            "china_name_wrong": "Somebody Else", "china_name_unknown": "Nobody Known"}.get(scenario, usual)


def merchant_of(scenario: str, order_id: str, usual: str) -> str:
    """Who sells it; where he is frozen, or his terms change, he is the order's own, so that others have nothing to do with it."""
    if scenario == TERMS_CHANGED:
        return "terms-" + _own(order_id)
    if not scenario.startswith(("merchant_frozen", "brand_complaint")):
        return usual
    return "frozen-" + _own(order_id)


def brand_of(scenario: str, order_id: str) -> str | None:
    """The brand of the order's first line: the order's own, so that others keep theirs. Protected where it is registered
    beforehand (edge.registrations_for)."""
    if scenario not in BRANDED:
        return None
    return f"Brand {_own(order_id)}"


def _own(order_id: str) -> str:
    """What makes a name the order's own."""
    return hashlib.blake2b(order_id.encode(), digest_size=8).hexdigest()


def season_of(scenario: str, placed_at: datetime) -> Season | None:
    """When the goods may be shipped."""
    return Season(ships_not_before=placed_at + OPENS_AFTER, ships_not_after=placed_at + CLOSES_AFTER) if scenario in SEASONS else None


def announced_too_little(order_id: str) -> bool:
    return order_id.startswith(f"{FORCED}season_sold_out.")


def cold_of(scenario: str) -> AskedBand | None:
    """The band of the order's first line."""
    return AskedBand(silent_minutes=24 * 60 if scenario == SILENT else None) if scenario in COLD else None


def goods_needed(order_id: str) -> int:
    """How often the goods of an order must be there: twice where they are sent once more."""
    return 2 if order_id.startswith(f"{FORCED}cold_reshipped.") else 1


def backorder_of(scenario: str) -> bool:
    """Whether what is missing is to follow."""
    return scenario in ("part_stock_follows", "part_stock_expires")


def on_shortage_of(scenario: str) -> str:
    return "wait" if scenario == "part_stock_wait" else "ship_available"


@lru_cache(maxsize=65_536)
def warehouse_of(sku: str) -> str:
    """The one warehouse that keeps this SKU."""
    if sku.startswith(SKU_BOND):
        return BONDED_WAREHOUSE
    return WAREHOUSES[hashlib.blake2b(sku.encode(), digest_size=1).digest()[0] % len(WAREHOUSES)]
