"""The paths: each is one order and an alphabet of what the world may do with it, small enough to be closed completely.

Together they reach every exit of docs/exits.md; `ends` is how the order must be able to end on this path, and nothing else
may happen. On every path the provider may be late, every timer that is armed may fire at any later moment, and deliveries,
decisions and confirmations may never come.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from schemas.brands import RegisterBrand
from schemas.cold_chain import AskedBand
from schemas.orders_intake import OrderLine, PlaceOrder, Season
from schemas.quotes import StatedLine, StatedQuote
from schemas.parties import Person, seal
from services.explorer.machines import Machines
from services.explorer.outside import BRAND, authorisation
from services.explorer.ownership import ALL_TOLD, Ownership
from services.explorer.simulation import KEY, REGISTERED, START, bonded_order, order
from services.explorer.system import Setting, System
from services.shipping.plans import Plans

ONE = (("CHERRY", 2, 5000),)
TWO = (("CHERRY", 2, 5000), ("TOY", 1, 1999))
DESTINATIONS = {"abroad": "DE", "china": "CN", "domestic": "US"}
# On its way a parcel may always be lost or stay with customs, and the provider's answer may come too late.
LATE = {"cancelled: reservation_expired"}
UNPAID = LATE | {"cancelled: authorisation_expired"}
LOST = {"cancelled: lost", "cancelled: no_scan"}
DOMESTIC = UNPAID | LOST | {"completed"}
ABROAD = DOMESTIC | {"cancelled: customs_refused"}
TWO_ROUTES = ("SEA1", "USSEA", "DEBER")
BANK_TIMERS = frozenset({"confirm", "evidence"})
NO_TIMERS: frozenset[str] = frozenset()
CHINA = LATE | LOST | {"completed", "cancelled: customs_refused", "cancelled: papers_expired"}


@dataclass(frozen=True)
class Path:
    """`words`: see `outside.WORDS`; `ends`: outcomes that must be reachable, and the only ones that may be."""

    name: str
    about: str
    words: frozenset[str]
    ends: frozenset[str]
    regime: str = "abroad"
    parcels: int = 1
    timers: frozenset[str] | None = None
    stock: int = 9
    inbound: tuple[tuple[str, str, int], ...] = ()
    order: PlaceOrder | None = None
    promised: bool = False
    places: tuple[str, ...] = TWO_ROUTES
    at: str = "SEA1"
    before: tuple = ()
    placed: bool = True
    resends: int = 3

    def setting(self) -> Setting:
        placed = self.order or order(destination=DESTINATIONS[self.regime], lines=TWO if self.parcels == 2 else ONE)
        stock = {(self.at, "CHERRY"): self.stock} | ({("PVD1", "TOY"): 9} if self.parcels == 2 else {})
        return Setting((placed,), (self.words,), {row: units for row, units in stock.items() if units}, self.inbound,
                       self.timers, before=self.before, placed=self.placed)

    def system(self) -> System:
        return System(self.setting(), Machines(plans=Plans.of_places(*self.places) if self.promised else None,
                                                resends=self.resends, real_names="registry" in self.words))


@dataclass(frozen=True)
class Model:
    """A path of the runtime's model: two instances, one partition."""

    name: str
    about: str
    faults: int
    moves: int
    ends: frozenset[str] = frozenset({ALL_TOLD})

    def system(self) -> Ownership:
        return Ownership(faults=self.faults, moves=self.moves)


def _path(name: str, about: str, words: str, ends: set[str] | frozenset[str], **more) -> Path:
    return Path(name, about, frozenset(filter(None, words.split(", "))), frozenset(ends), **more)


def _two(name: str, about: str, words: str, ends: set[str], regime: str = "domestic",
         timers: frozenset[str] = NO_TIMERS) -> Path:
    return _path(name, about, words, ends | {"completed"}, parcels=2, regime=regime, timers=timers)


def _without_papers() -> PlaceOrder:
    lines = [OrderLine(line_no=1, sku="CHERRY", quantity=2, amount=5000, hs_code="000000")]
    return order().model_copy(update={"lines": lines})


def _wrong_code() -> PlaceOrder:
    placed = order(destination="CN")
    return placed.model_copy(update={"lines": [line.model_copy(update={"hs_code": "080929"}) for line in placed.lines]})


def _with_a_number() -> PlaceOrder:
    return order(destination="CN", buyer=seal(Person(name="Mei Lin", identity_no="11010519491231002X"), KEY))


def _with_duties() -> PlaceOrder:
    """GBP 57.00 with freight, and 20 % of it as tax."""
    line = StatedLine(line_no=1, origin="US")
    stated = StatedQuote(import_date=START.date() + timedelta(days=3), lines=[line], rule_id="gb.low-value.marketplace", duty=0,
                         consumption_tax=0, import_tax=1140, clearance_fee=0)
    lines = [OrderLine(line_no=1, sku="CHERRY", quantity=2, amount=5000, hs_code="950300")]
    return order(destination="GB", currency="GBP", merchant_id="split", tax=1140, total=6840, quote=stated).model_copy(
        update={"lines": lines})


def _with_chinese_duties() -> PlaceOrder:
    """CNY 57.00 with freight, and its tax: VAT of 13 %, of which 70 % are asked."""
    stated = StatedQuote(import_date=START.date() + timedelta(days=3), lines=[StatedLine(line_no=1, origin="US")], rule_id="cn.cbec", duty=0,
                         consumption_tax=0, import_tax=519, clearance_fee=0)
    return order(destination="CN", tax=519, total=6219, quote=stated)


def _of_a_season() -> PlaceOrder:
    opens, closes = START + timedelta(days=3), START + timedelta(days=6)
    return order(destination="US").model_copy(update={"season": Season(ships_not_before=opens, ships_not_after=closes)})


BRANDED = (RegisterBrand(order_id=BRAND, name="ACME", owner="acme", decided_by="officer"), authorisation("A1"))


def _with_a_logger() -> PlaceOrder:
    placed = order(destination="US")
    return placed.model_copy(update={"lines": [line.model_copy(update={"cold": AskedBand(silent_minutes=1440)}) for line in placed.lines]})


def _of_a_brand() -> PlaceOrder:
    lines = [OrderLine(line_no=1, sku="CHERRY", quantity=2, amount=5000, brand="ACME")]
    return order(destination="US").model_copy(update={"lines": lines})


PATHS: tuple[Path, ...] = (
    # The normal way.
    _path("abroad", "the normal way to another country", "confirm", ABROAD),
    _path("china", "the normal way into China", "confirm", CHINA, regime="china"),
    _path("domestic", "the normal way within a country", "confirm", DOMESTIC, regime="domestic"),
    _path("abroad-scans", "scans in the wrong order", "swaps, confirm", ABROAD),
    _path("domestic-resent", "each service publishes a batch twice", "resend, confirm", DOMESTIC, regime="domestic"),
    _path("china-resent", "the same into China", "resend, express", CHINA, regime="china"),
    # Before anything is paid.
    _path("rejected", "refused at intake", "cancel, return", {"rejected: total_mismatch"}, order=order(total=1)),
    _path("no-stock", "no stock", "cancel", {"cancelled: no_stock"}, stock=0),
    _path("part", "part of the stock is there and is sent", "confirm, cancel line", DOMESTIC | {"cancelled: cancelled"},
          regime="domestic", stock=1),
    _path("waits", "part of the stock is there, the rest may come", "confirm, cancel", DOMESTIC | {
        "cancelled: no_stock", "cancelled: cancelled"}, order=order(destination="US", on_shortage="wait"), stock=1,
        inbound=(("SEA1", "CHERRY", 5),)),
    _path("follows", "part of the stock is sent, the rest may come", "confirm, express, cancel line", {"completed"},
          order=order(destination="US", backorder=True), stock=1, regime="domestic", inbound=(("SEA1", "CHERRY", 5),),
          timers=frozenset({"stock"})),
    _path("follows-not", "it never comes, or is cancelled before", "cancel, confirm, express", {
        "completed", "cancelled: cancelled"}, order=order(destination="US", backorder=True), stock=1,
        regime="domestic", timers=frozenset({"stock_ends"})),
    _path("waits-line", "one unit is cancelled while stock is missing", "confirm, cancel line", DOMESTIC | {
        "cancelled: no_stock"}, order=order(destination="US", on_shortage="wait"), stock=1,
        inbound=(("SEA1", "CHERRY", 5),)),
    _path("no-papers", "the papers are missing", "cancel", UNPAID | {"cancelled: cancelled"}, order=_without_papers()),
    _path("papers-supplied", "the papers are missing; the merchant may supply them at any moment", "supply, express", ABROAD,
          order=_without_papers()),
    _path("provider", "the provider refuses what it can", "confirm, decline, capture fails, void fails, release fails",
          ABROAD | {"cancelled: payment_declined"}),
    _path("provider-china", "the same into China", "confirm, decline, capture fails, void fails, release fails",
          CHINA | {"cancelled: payment_declined"}, regime="china"),
    _path("provider-cancel", "it refuses while the buyer cancels", "cancel, decline, capture fails, void fails", DOMESTIC | {
        "cancelled: payment_declined", "cancelled: cancelled"}, regime="domestic"),
    _path("answers-twice", "the provider's answers come again, by caller and webhook", "answers twice, cancel", LATE | {
        "completed", "cancelled: cancelled"}, regime="domestic", timers=frozenset({"reservation", "confirm"})),
    _path("contradicts", "the provider says the opposite afterwards", "contradicts, cancel, decline", DOMESTIC | {
        "cancelled: cancelled", "cancelled: payment_declined"}, regime="domestic"),
    _path("wrong-amount", "the provider names another amount", "wrong amount, confirm", DOMESTIC, regime="domestic"),
    _path("wrong-amount-china", "the same into China", "wrong amount, cancel, express", CHINA | {"cancelled: cancelled"},
          regime="china"),
    # Papers into China.
    _path("papers", "customs does not take the list, for good or not", "rejects list, cancel, express", {
        "completed", "cancelled: papers_expired", "cancelled: over_limit", "cancelled: list_rejected", "cancelled: cancelled"},
        regime="china", resends=1, timers=frozenset({"papers", "confirm"})),
    _path("papers-wrong", "a customs code is wrong; the merchant may supply it at any moment, or another wrong one",
          "supply digits, supply, express", {"completed", "cancelled: papers_expired", "cancelled: documents_mismatch"},
          order=_wrong_code(), regime="china", resends=1, timers=frozenset({"papers", "confirm"})),
    _path("papers-amended", "units leave the parcel while it is declared or packed", "short, rejects, cancel line, express",
          {"completed", "cancelled: packing_rejected", "cancelled: papers_expired", "cancelled: short_pick", "cancelled: cancelled"},
          regime="china", timers=frozenset({"papers", "confirm"})),
    _path("bonded", "from a bonded warehouse in China: packed when customs has released it", "holds, refuses, confirm",
          LATE | {"completed", "cancelled: list_refused", "cancelled: papers_expired", "cancelled: lost", "cancelled: no_scan"},
          order=bonded_order()),
    _path("bonded-amended", "units leave it at any moment, or all of it", "short, cancel line",
          {"completed", "cancelled: short_pick", "cancelled: cancelled"}, order=bonded_order(), timers=frozenset({"confirm"})),
    # Cancelled.
    _path("cancel", "cancelled at any moment", "cancel, stops", ABROAD | {"cancelled: cancelled"}),
    _path("cancel-china", "the same into China", "cancel, stops", CHINA | {"cancelled: cancelled"}, regime="china"),
    _path("cancel-line", "one unit cancelled at any moment", "confirm, cancel line", ABROAD),
    _path("cancel-line-china", "the same into China", "confirm, cancel line", CHINA, regime="china"),
    _path("cancel-both", "one unit cancelled, then all", "cancel line, cancel", DOMESTIC | {"cancelled: cancelled"},
          regime="domestic"),
    # On the way.
    _path("warehouse", "too few on the shelf, or rejected", "confirm, short, rejects", ABROAD | {
        "cancelled: packing_rejected"}),
    _path("warehouse-last", "nothing on the shelf", "short, rejects, cancel", DOMESTIC | {
        "cancelled: packing_rejected", "cancelled: cancelled", "cancelled: short_pick"}, regime="domestic", stock=1),
    _path("warehouse-hold", "held up, and packed or not", "holds up, cancel", DOMESTIC | {
        "cancelled: hold_expired", "cancelled: cancelled"}, regime="domestic"),
    _path("begun", "the warehouse has begun when the buyer cancels: it agrees, declines, or never answers", "begins, cancel, stops", {
        "completed", "cancelled: cancelled"}, regime="domestic", timers=frozenset({"asked", "confirm"})),
    _path("begun-line", "the same of one unit", "begins, cancel line, express", {"completed"}, regime="domestic",
          timers=frozenset({"asked", "confirm"})),
    _path("begun-both", "the same of one unit and of all", "begins, cancel line, cancel, express", {"completed", "cancelled: cancelled"},
          regime="domestic", timers=frozenset({"confirm"})),
    _path("begun-held", "the same, and it is held up", "begins, holds up, cancel, express", {
        "completed", "cancelled: hold_expired", "cancelled: cancelled"}, regime="domestic", timers=frozenset({"hold", "confirm"})),
    _path("begun-short", "one unit is cancelled, and too few are on the shelf", "begins, short, cancel line, express", {"completed", "cancelled: short_pick", "cancelled: cancelled"},
          regime="domestic", timers=frozenset({"asked", "confirm"})),
    _path("begun-china", "the same into China: what leaves it is told anew", "begins, cancel line, express", {"completed"},
          regime="china", timers=frozenset({"asked", "confirm"})),
    _path("warehouse-short-late", "too few on the shelf, and one unit cancelled", "short, cancel line, express", DOMESTIC | {
        "cancelled: short_pick", "cancelled: cancelled"}, regime="domestic"),
    _path("boxes", "its warehouse puts a unit into a parcel of its own at any moment", "splits, confirm, express", {"completed"},
          regime="domestic", timers=NO_TIMERS),
    _path("boxes-cancel", "the same, and it is cancelled", "splits, cancel, express", {"completed", "cancelled: cancelled"}, regime="domestic",
          timers=frozenset({"confirm"})),
    _path("boxes-cancel-line", "the same, and one unit is cancelled", "splits, cancel line, express", {"completed"}, regime="domestic",
          timers=frozenset({"confirm"})),
    _path("boxes-short", "the same, and too few are on the shelf", "splits, short, confirm, express", {"completed", "cancelled: short_pick"}, regime="domestic",
          timers=NO_TIMERS),
    _path("boxes-return", "the same, and sent back", "splits, return, express", {"completed", "cancelled: returned"}, regime="domestic",
          timers=frozenset({"confirm"})),
    _path("boxes-china", "into China a parcel stays one", "splits, confirm, express", {"completed"}, regime="china", timers=NO_TIMERS),
    _path("destroyed", "destroyed on its way", "destroys, refuses, express", ABROAD | {"cancelled: destroyed"}),
    _path("scans", "told in another's codes, twice and in any order", "scans, fails",
          {"completed", "cancelled: not_collected"}, regime="domestic", timers=frozenset({"pickup", "confirm"})),
    _path("pickup", "left at a pickup point", "pickup", DOMESTIC | {"cancelled: not_collected"}, regime="domestic"),
    _path("spoiled", "too warm on its way, or found so afterwards", "spoils, confirm", DOMESTIC | {"cancelled: spoiled"},
          regime="domestic"),
    _path("spoiled-once-more", "the same, and nothing left to send once more", "spoils", DOMESTIC | {"cancelled: spoiled"},
          regime="domestic", stock=2),
    _path("spoiled-cancel", "too warm, and cancelled", "spoils, cancel, confirm",
          {"completed", "cancelled: spoiled", "cancelled: cancelled"}, regime="domestic", timers=frozenset({"quality"})),
    _path("spoiled-return", "too warm, and sent back", "spoils, return, confirm",
          {"completed", "cancelled: spoiled", "cancelled: returned"}, regime="domestic", timers=frozenset({"quality"})),
    _path("silent", "its logger falls silent at any moment, and is heard again or not", "logs, confirm", {
        "completed", "cancelled: spoiled"}, regime="domestic", order=_with_a_logger(), stock=2,
        timers=frozenset({"logger"})),
    _path("season", "sold before its harvest, which may come in time", "confirm, cancel", DOMESTIC | {
        "cancelled: season_closed", "cancelled: cancelled"}, regime="domestic", order=_of_a_season()),
    _path("season-sold-out", "nothing is announced", "cancel", {"cancelled: sold_out"}, stock=0, order=_of_a_season()),
    # Promised: by air or by express from Seattle to Berlin. Elsewhere parcels travel without a plan.
    _path("promise", "held by customs, or a scan is missed", "confirm, holds", {"completed"}, promised=True,
          timers=frozenset({"risk"})),
    _path("promise-late", "scans come late or never", "confirm, loses, express", LOST | {"completed", "cancelled: reported_lost",
          "cancelled: customs_refused"},
          promised=True, timers=frozenset({"risk", "lost"})),
    _path("promise-absent", "nobody at home", "fails, confirm", {"completed", "cancelled: not_collected"}, regime="domestic",
          promised=True, timers=frozenset({"risk", "pickup"})),
    _path("promise-fog", "the lane of the plan is closed at any moment, and opened again or not", "fog, confirm, express", {"completed"},
          promised=True, timers=frozenset({"risk"})),
    _path("promise-held", "held for an officer, who decides at any moment", "officer, confirm, express, holds", {
        "completed", "cancelled: denied_party"}, promised=True, timers=frozenset({"risk", "screening"}),
        order=order(buyer=seal(Person(name="Viktor Grauhaven"), KEY))),
    _path("promise-follows", "part of the stock is sent, the rest is promised when it has come", "express, cancel line", {"completed"},
          promised=True, stock=1, inbound=(("SEA1", "CHERRY", 5),), order=order(destination="US", backorder=True), regime="domestic",
          timers=frozenset({"stock", "confirm"})),
    _path("promise-bonded", "from a bonded warehouse in China, where customs may hold it", "holds, refuses, express, confirm", {
        "completed", "cancelled: list_refused"}, promised=True, places=("CNSHA", "CNNAY"), at="CNSHA", order=bonded_order(),
          timers=frozenset({"risk"})),
    _path("promise-cancel", "cancelled, and the clock with it", "confirm, cancel, stops", {"completed", "cancelled: cancelled"},
          promised=True, timers=frozenset({"risk"})),
    _path("customs", "held, released or refused", "confirm, holds, refuses", ABROAD),
    _path("customs-china", "the same into China", "confirm, holds, refuses", CHINA, regime="china"),
    _path("deliveries", "nobody at home three times, or lost", "fails, loses", DOMESTIC | {
        "cancelled: not_collected", "cancelled: reported_lost"}, regime="domestic"),
    _path("deliveries-cancel", "the same, and cancelled", "fails, cancel, stops", DOMESTIC | {
        "cancelled: not_collected", "cancelled: cancelled"}, regime="domestic"),
    _path("lost", "lost on any leg", "loses, refuses, express", ABROAD | {"cancelled: reported_lost"}),
    _path("taxed", "duty and taxes paid with the order, a merchant with terms; customs may bill more", "assesses, refuses, loses, express, confirm, grant amount",
          {"completed", "cancelled: customs_refused", "cancelled: reported_lost", "cancelled: lost"}, order=_with_duties(), timers=NO_TIMERS,
          before=REGISTERED),
    _path("split", "a merchant with terms", "confirm, return line, grant amount", DOMESTIC, regime="domestic",
          order=order(destination="US", merchant_id="split"), before=REGISTERED),
    _path("terms", "his terms change at any moment, also before the order is placed", "terms, express, confirm, grant amount",
          {"completed"}, regime="domestic", order=order(destination="US", merchant_id="split"), before=REGISTERED, placed=False,
          timers=NO_TIMERS),
    # After delivery.
    _path("return", "all sent back, or not", "confirm, return", DOMESTIC | {"cancelled: returned"}, regime="domestic"),
    _path("return-line", "one unit sent back", "confirm, return line", DOMESTIC, regime="domestic"),
    _path("return-late", "asked weeks later, or long before", "confirm, return late", DOMESTIC | {"cancelled: returned"},
          regime="domestic"),
    _path("return-china", "one unit sent back from China", "confirm, return line, express", CHINA, regime="china"),
    _path("return-taxed", "the same with its tax, which is given back or not", "assesses, confirm, return line, keeps lists, express",
          {"completed"}, order=_with_chinese_duties(), timers=frozenset({"confirm"}), regime="china"),
    _path("return-twice", "one unit, then the rest", "return, return line", DOMESTIC | {"cancelled: returned"},
          regime="domestic"),
    _path("return-cancel", "sent back and cancelled", "return, cancel", DOMESTIC | {
        "cancelled: returned", "cancelled: cancelled"}, regime="domestic"),
    _path("grant", "the merchant gives everything back", "confirm, grant", DOMESTIC | {"cancelled: granted"},
          regime="domestic"),
    _path("grant-amount", "the merchant gives an amount, and a unit's price", "grant amount, grant line", DOMESTIC,
          regime="domestic"),
    _path("grant-return", "a grant and a return", "return, grant", DOMESTIC | {"cancelled: returned", "cancelled: granted"},
          regime="domestic"),
    _path("dispute", "disputed, won or lost", "confirm, dispute", DOMESTIC | {"cancelled: dispute_lost"}, regime="domestic"),
    _path("dispute-customs", "disputed and refused by customs", "dispute, refuses, express", ABROAD | {
        "cancelled: dispute_lost"}),
    _path("dispute-cancel", "disputed and cancelled", "dispute, cancel, stops", DOMESTIC | {
        "cancelled: dispute_lost", "cancelled: cancelled"}, regime="domestic"),
    _path("dispute-return", "disputed and sent back", "dispute, return", DOMESTIC | {
        "cancelled: dispute_lost", "cancelled: returned"}, regime="domestic"),
    _path("dispute-grant", "disputed and granted", "dispute, grant amount", DOMESTIC | {"cancelled: dispute_lost"},
          regime="domestic"),
    _path("refund-fails", "refunds that the provider refuses are paid by hand", "refund fails, cancel", DOMESTIC | {
        "cancelled: cancelled"}, regime="domestic"),
    # The buyer's bank takes the money back, and gives it back or not.
    _path("bank", "asked about, taken, given back, taken again; told in the wrong order", "bank, confirm", {"completed"},
          regime="domestic", timers=BANK_TIMERS),
    _path("bank-late", "the same after the money was released", "bank late, evidence, confirm", {"completed"}, regime="domestic",
          timers=BANK_TIMERS, order=order(destination="US", merchant_id="split"), before=REGISTERED),
    _path("bank-cancel", "the same, and cancelled", "bank, cancel", {"completed", "cancelled: cancelled", "cancelled: chargeback"}, regime="domestic",
          timers=frozenset({"confirm"})),
    _path("bank-return", "the same, and sent back", "bank, return, confirm", {"completed", "cancelled: returned"},
          regime="domestic", timers=NO_TIMERS),
    _path("bank-dispute", "the same, and disputed here too", "bank, dispute", {"completed"}, regime="domestic", timers=frozenset({"confirm"})),
    _path("bank-china", "the same into China", "bank, refuses, express", {
        "completed", "cancelled: customs_refused"}, regime="china", timers=frozenset({"confirm"})),
    # The merchant is stopped, at any moment.
    _path("freeze", "frozen at any moment, then lifted or upheld", "freeze", {
        "completed", "cancelled: merchant_closed"}, regime="domestic", timers=frozenset({"confirm"})),
    _path("freeze-china", "the same into China", "freeze, express", {"completed", "cancelled: merchant_closed"},
          regime="china", timers=frozenset({"confirm"})),
    _path("screening", "the buyer is nearly a denied party", "officer, confirm", {
        "completed", "cancelled: denied_party"}, regime="domestic", timers=frozenset({"screening", "confirm"}),
        order=order(destination="US", buyer=seal(Person(name="Viktor Grauhaven"), KEY))),
    _path("real-name", "a registry is asked whose the buyer's identity number is", "registry, express", {
        "completed", "cancelled: real_name_unproven"}, regime="china", timers=frozenset({"real_name", "confirm"}), order=_with_a_number()),
    _path("real-name-cancel", "the same, and cancelled", "registry, cancel, express", {
        "completed", "cancelled: real_name_unproven", "cancelled: cancelled"}, regime="china", timers=frozenset({"real_name", "confirm"}),
        order=_with_a_number()),
    _path("rescreened", "a newer list of denied parties means the buyer", "rescreens, officer, confirm", {
        "completed", "cancelled: denied_party"}, regime="domestic", timers=frozenset({"screening", "confirm"})),
    _path("inspection", "somebody wants to look at it at any moment", "inspects, confirm, cancel", {"completed",
        "cancelled: counterfeit", "cancelled: not_inspected", "cancelled: cancelled"}, regime="domestic",
        timers=frozenset({"inspection", "confirm"})),
    _path("inspection-spoiled", "the same of cold goods", "inspects, spoils", {"completed", "cancelled: counterfeit",
          "cancelled: not_inspected", "cancelled: spoiled"}, regime="domestic", timers=frozenset({"inspection", "quality", "confirm"})),
    _path("brand", "its brand's authorisation is revoked at any moment, and another granted or not", "brand, confirm, stops", {
        "completed", "cancelled: brand_not_authorised"}, regime="domestic", timers=frozenset({"brand", "confirm"}),
        order=_of_a_brand(), before=BRANDED),
    # Two parcels; of the timers only the one that two parcels may have at once, or none: what fires when is closed above.
    _two("two", "the normal way", "confirm, express", set(), timers=frozenset({"confirm"})),
    _two("two-china", "the normal way into China, a payment each", "confirm, express", set(), regime="china"),
    _two("two-provider", "one payment is declined or refused, the other is not", "confirm, decline, capture fails, express",
         {"cancelled: payment_declined"}, regime="china"),
    _two("two-cancel", "all cancelled at any moment", "confirm, cancel", {"cancelled: cancelled"}),
    _two("two-cancel-line", "one unit cancelled at any moment", "confirm, cancel line", set()),
    _two("two-warehouse", "each may be packed, short or rejected", "confirm, short, rejects", {"cancelled: packing_rejected"}),
    _two("two-customs", "each may be released or refused", "confirm, refuses, express", {"cancelled: customs_refused"},
         regime="abroad"),
    _two("two-lost", "each may be lost", "confirm, loses", {"cancelled: reported_lost", "cancelled: lost"}),
    _two("two-return", "all sent back", "confirm, return", {"cancelled: returned"}),
    _two("two-dispute", "each may be disputed", "dispute", set(), timers=frozenset({"confirm"})),
)

MODELS = (Model("ownership", "two instances of one partition, with two faults while the group moves it", 2, 1),)
