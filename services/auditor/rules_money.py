"""Rules of money, 6 to 13. Three witnesses: the events, the ledger, the provider's journal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from schemas.ledger import ACCOUNTS as PLAN
from schemas.ledger import ASIDE, KINDS, account_of, side
from schemas.lifecycle import PAYMENT
from services.auditor.facts import Facts
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, whole_rule
from services.auditor.story import places

ACCOUNTS = ("captured", "recovered", "held", "released", "refunded", "charged_back")
# The ledger's accounts of what comes in are negative: money left the buyer, or the carrier.
_IN_LEDGER = {"captured": ("buyer", -1), "recovered": ("recovered", -1), "held": ("held", 1), "released": ("released", 1),
              "refunded": ("refunded", 1), "charged_back": ("charged_back", 1)}
_BY_THE_BANK = {"chargeback": "ChargebackOpened", "chargeback_reversed": "ChargebackReversed",
                "second_chargeback": "SecondChargeback"}
_UNDONE = {"voided", "declined", "expired", "refunded"}


@order_rule(6, "at most one authorisation and one capture a payment")
def once_at_the_provider(case: Case) -> Iterator[Verdict]:
    done: dict[tuple[str, str], list[str]] = defaultdict(list)
    for call in case.provider or ():
        if call.outcome == "succeeded" and call.kind in ("authorise", "capture"):
            done[call.payment_id, call.kind].append(f"provider line {call.line}: {call.kind} {call.amount} as {call.intent_id}")
    for event in case.story.of("payments", "PaymentHeld"):
        done[event.data.payment_id, "held"].append(str(event))
    for evidence in done.values():
        yield None if len(evidence) == 1 else evidence


@order_rule(6, "one effect an intent at the provider")
def once_an_intent(case: Case) -> Iterator[Verdict]:
    lines: dict[str, list[int]] = defaultdict(list)
    for call in case.provider or ():
        lines[call.intent_id].append(call.line)
    for intent_id, numbers in lines.items():
        yield None if len(numbers) == 1 else [f"{intent_id} on provider lines {numbers}"]


@order_rule(7, "ledger = sum of events, parcel by parcel", live=False)
def ledger_is_the_events(case: Case) -> Iterator[Verdict]:
    parcels = case.facts.parcels
    for parcel_id in {**parcels, **{b.parcel_id: None for b in case.ledger}}:
        parcel = parcels.get(parcel_id)
        told = parcel.totals if parcel else dict.fromkeys(ACCOUNTS, 0)
        booked = {name: sign * case.balances[parcel_id, account] for name, (account, sign) in _IN_LEDGER.items()}
        wrong = [f"{name}: events {told[name]}, ledger {booked[name]}" for name in ACCOUNTS if told[name] != booked[name]]
        yield [f"parcel {parcel_id}", *wrong] if wrong else None


@order_rule(7, "provider = sum of events", live=False)
def provider_is_the_events(case: Case) -> Iterator[Verdict]:
    if case.provider is None:
        return
    did: Counter[str] = Counter()
    for call in case.provider:
        if call.outcome == "succeeded":
            did[call.kind] += call.amount
    parcels = case.facts.parcels.values()
    repaid = sum(e.data.amount - dict(e.data.parts)["escrow"] for e in case.story.of("payments", "ChargebackReversed"))
    told = {"capture": sum(p.captured for p in parcels), "release": sum(p.released for p in parcels) - repaid,
            "refund": sum(p.refunded + p.charged_back - p.by_hand for p in parcels)}
    for kind, type_ in _BY_THE_BANK.items():
        told[kind] = sum(e.data.amount for e in case.story.of("payments", type_))
    told["refund"] -= told["chargeback"] + told["second_chargeback"] - told["chargeback_reversed"]
    if authorised := case.story.of("payments", "PaymentAuthorised"):
        told["authorise"] = sum(e.data.amount for e in authorised)
    for kind, amount in told.items():
        yield None if did[kind] == amount else [f"{kind}: events {amount}, provider {did[kind]}"]


@order_rule(7, "what a carrier paid is in the books", live=False)
def claims_are_booked(case: Case) -> Iterator[Verdict]:
    for parcel_id, parcel in case.facts.parcels.items():
        if parcel.claimed or parcel.made_good:
            yield None if parcel.claimed == parcel.made_good else [
                f"parcel {parcel_id}", f"the carrier paid {parcel.claimed}, {parcel.made_good} is recovered from it"]


@order_rule(8, "debits = credits in every entry")
def entries_balance(case: Case) -> Iterator[Verdict]:
    sums: Counter[tuple[int, str]] = Counter()
    for row in case.ledger:
        sums[row.entry, row.currency] += row.amount
    for (entry, currency), amount in sums.items():
        yield None if amount == 0 else [f"ledger entry {entry} is off by {amount} {currency}",
                                        *(f"{b.account} {b.amount} ({b.kind})" for b in case.ledger if b.entry == entry)]


@order_rule(9, "captured + recovered = held + released + refunded + charged back, all >= 0")
def money_is_conserved(case: Case) -> Iterator[Verdict]:
    for parcel_id, parcel in case.facts.parcels.items():
        yield None if parcel.low >= 0 else [f"parcel {parcel_id}", f"held fell to {parcel.low}", str(parcel.totals)]
    sums = Counter()
    for (_, account), amount in case.balances.items():
        sums[account] += amount
    if case.ledger:
        have = {name: sign * sums[account] for name, (account, sign) in _IN_LEDGER.items()}
        right = (have["captured"] + have["recovered"] == sum(have[n] for n in ACCOUNTS[2:])) and min(have.values()) >= 0
        yield None if right else [f"ledger: {have}"]


@order_rule(10, "refunded <= captured <= authorised <= order total")
def within_bounds(case: Case) -> Iterator[Verdict]:
    facts = case.facts
    if facts.placed and facts.allocated:
        yield _at_most("allocated", facts.allocated.total, "order total", facts.placed.total)
        yield _at_most("captured", sum(p.captured for p in facts.parcels.values()), "order total", facts.placed.total)
    authorised = {e.data.payment_id: e.data.amount for e in case.story.of("payments", "PaymentAuthorised")}
    if facts.allocated and authorised:
        yield _at_most("authorised", sum(authorised.values()), "allocated", facts.allocated.total)
    for event in case.story.of("payments", "PaymentHeld"):
        if event.data.payment_id in authorised:
            yield _at_most("captured", event.data.amount, "authorised", authorised[event.data.payment_id], str(event))
    for parcel_id, parcel in facts.parcels.items():
        if parcel.captured or parcel.refunded or parcel.charged_back:
            # What a bank took of money that was paid back by hand is beyond it.
            yield _at_most("refunded and charged back", parcel.refunded + parcel.charged_back - parcel.bank_took, "captured",
                           parcel.captured, f"parcel {parcel_id}")
            yield _at_most("taken by the bank", parcel.bank_took, "captured", parcel.captured, f"parcel {parcel_id}")


def _at_most(small: str, amount: int, large: str, bound: int, where: str = "") -> Verdict:
    return None if amount <= bound else [*([where] if where else []), f"{small} {amount} > {large} {bound}"]


@order_rule(11, "shipped only what was paid for", live=False)
def captured_before_shipped(case: Case) -> Iterator[Verdict]:
    held = {f"payments:{case.order_id}:{e.sequence}": {p for p, _ in e.parcels}
            for e in case.story.of("payments", "PaymentHeld")}
    again = {e.cause: {p for p, _ in e.parcels} for e in case.story.of("shipping", "ParcelReplaced")}  # paid for once before
    paid = set().union(*held.values())
    # Into China customs' receipt comes in between.
    listed = {e.cause: {p for p, _ in e.parcels} & paid for e in case.story.of("shipping", "ListAccepted", "ListReleased")}
    # Paid for with the others, and awaited: what says that its goods are there lets it go on.
    came = {e.cause: {p for p, _ in e.parcels} & paid for e in case.story.of("shipping", "BackorderFilled")}
    # And the part of a parcel that was asked for by then: its warehouse split it.
    parts = {e.cause: {e.data.part_id} for e in case.story.of("shipping", "ParcelSplit")}
    for event in case.story.of("shipping", "FulfilmentRequested"):
        right = any(event.parcels[0][0] in causes.get(event.cause, ()) for causes in (held, again, listed, came, parts))
        yield None if right else [str(event), f"its cause {event.cause!r} is no capture for {event.parcels[0][0]}"]
    for parcel_id, parcel in case.facts.parcels.items():
        shipped, paid = parcel.first.get("ParcelHandedOver"), case.facts.allocated_as(parcel_id).first.get("PaymentHeld")
        if shipped:
            # One clock for all services: what was made later was decided later.
            yield None if paid and paid <= shipped else [f"parcel {parcel_id}", f"handed over at {shipped}, captured at {paid}"]


@order_rule(11, "released only after delivery, or a claim paid", live=False)
def delivered_before_released(case: Case) -> Iterator[Verdict]:
    for parcel_id, parcel in case.facts.parcels.items():
        if released := parcel.first.get("PaymentSettled"):
            grounds = [parcel.first[name] for name in ("ParcelDelivered", "ClaimPaid") if name in parcel.first]
            yield None if grounds and min(grounds) <= released else [
                f"parcel {parcel_id}", f"released at {released}", f"delivered or claim paid at {grounds or 'no time'}"]


@order_rule(11, "cancelled: nothing held, voided or refunded", live=False)
def cancelled_is_given_back(case: Case) -> Iterator[Verdict]:
    for parcel_id, parcel in case.facts.parcels.items():
        if parcel.goods == "cancelled":
            right = parcel.held == 0 and parcel.released == 0 and parcel.money in {*_UNDONE, "charged_back"}
            yield None if right else [f"parcel {parcel_id} is cancelled", f"its money is {parcel.money}", str(parcel.totals)]
    left: Counter[str] = Counter()
    captured = set()
    for call in case.provider or ():
        if call.outcome == "succeeded" and call.kind in ("authorise", "capture", "void"):
            left[call.payment_id] += call.amount if call.kind == "authorise" else -call.amount
            if call.kind == "capture" or call.amount == 0:  # a void of 0 gives up everything
                captured.add(call.payment_id)
    for payment_id, amount in left.items():
        if payment_id not in captured:
            yield None if amount == 0 else [f"{payment_id}: {amount} still authorised at the provider, never captured"]


@order_rule(12, "one currency and one amount in all services")
def one_currency_and_amount(case: Case) -> Iterator[Verdict]:
    facts, story = case.facts, case.story
    if facts.placed is None:
        return
    currency = facts.placed.currency
    born = story.of("orders", "OrderPlaced")[0]
    asked = next((s for s in places(story) if s.id == born.cause), None)
    if asked:
        yield None if asked.about[:5] == facts.placed[:5] else [str(asked), str(born), "are not about the same goods and money"]
        yield None if asked.about.persons == facts.placed.persons else [str(asked), str(born), "are not about the same persons"]
    sum_ = sum(amount for _, _, amount in facts.placed.lines.values()) + facts.placed.extra
    yield None if facts.placed.total == sum_ else [str(born), f"lines, freight and tax are {sum_}, not {facts.placed.total}"]
    others = {e.data.currency: str(e) for e in story.events["payments"]}
    others |= {b.currency: f"ledger entry {b.entry}" for b in case.ledger if side(b.account, b.kind) != ASIDE}
    others |= {c.currency: f"provider line {c.line}" for c in case.provider or ()}
    if facts.allocated:
        others[facts.allocated.currency] = str(story.of("shipping", "ParcelsAllocated")[0])
        amounts = sum(p.amount for p in facts.allocated.plans.values())
        yield None if amounts == facts.allocated.total else [f"parcels add up to {amounts}, not {facts.allocated.total}"]
        for parcel_id, plan in facts.allocated.plans.items():
            parts = sum(plan.amounts.values()) + plan.freight
            yield None if parts == plan.amount else [f"parcel {parcel_id}: lines and freight are {parts}, not {plan.amount}"]
        yield _all_is_charged(facts)
    wrong = [f"{where}: {c}" for c, where in others.items() if c != currency]
    yield [f"ordered in {currency}", *wrong] if wrong else None
    for event in story.of("payments", "PaymentHeld"):
        parts = sum(amount for _, amount in event.parcels)
        yield None if parts == event.data.amount else [str(event), f"amount {event.data.amount}, its parcels {parts}"]


@order_rule(12, "duty and taxes are those the buyer agreed to")
def duties_as_agreed(case: Case) -> Iterator[Verdict]:
    placed = case.facts.placed
    if placed is None:
        return
    born = case.story.of("orders", "OrderPlaced")[0]
    asked = next((s for s in places(case.story) if s.id == born.cause), None)
    if asked and (asked.about.landed or placed.landed):
        yield None if asked.about.landed == placed.landed else [
            str(asked), str(born), f"agreed to {asked.about.landed}, frozen {placed.landed}"]
    if placed.landed:
        _, to_others, tax, total = placed.landed
        yield None if sum(to_others) == tax and total == placed.total else [
            str(born), f"duty, taxes and fee are {sum(to_others)}, not {tax}; landed cost {total}, order {placed.total}"]


def _all_is_charged(facts: Facts) -> Verdict:
    """Where every unit is allocated, its parcels cost what the order does."""
    units: Counter[int] = Counter()
    for plan in facts.allocated.plans.values():
        units.update({line_no: count for line_no, (_, count) in plan.lines.items()})
    whole = all(units[line_no] == count for line_no, (_, count, _) in facts.placed.lines.items())
    return None if not whole or facts.allocated.total == facts.placed.total else [
        f"all units are allocated, for {facts.allocated.total} of {facts.placed.total}"]


@order_rule(12, "refunds and claims are what the goods cost")
def priced_as_allocated(case: Case) -> Iterator[Verdict]:
    for event, parcel_id, told, right in case.facts.priced:
        yield None if told == right else [str(event), f"parcel {parcel_id}: {told} instead of {right}"]


@order_rule(12, "the buyer pays for what arrived, to the last cent", live=False)
def pays_what_is_due(case: Case) -> Iterator[Verdict]:
    for parcel_id, parcel in case.facts.parcels.items():
        if parcel.money in PAYMENT.terminal:
            paid = parcel.captured - parcel.refunded - parcel.charged_back
            twice = parcel.due == 0 and 0 < -paid <= min(parcel.by_hand, parcel.bank_lost)
            yield None if paid == parcel.due or twice else [
                f"parcel {parcel_id}", f"planned {parcel.plan.amount if parcel.plan else 0}, less {parcel.lowered}"
                + (", dispute lost" if parcel.dispute_lost else ""), f"due {parcel.due}, paid {paid}", str(parcel.totals)]


@order_rule(13, "ledger entries 1..n, none taken out")
def entries_are_complete(case: Case) -> Iterator[Verdict]:
    if case.ledger:
        entries = sorted({b.entry for b in case.ledger})
        yield None if entries == list(range(1, len(entries) + 1)) else [f"entries {entries}"]
        for entry in entries:
            rows = [b for b in case.ledger if b.entry == entry]
            sides = len({b.kind for b in rows}) == 1 and min(b.amount for b in rows) < 0 < max(b.amount for b in rows)
            sides = sides and all(b.amount for b in rows)
            known = all(account_of(b.account) in PLAN and b.kind in KINDS for b in rows)
            yield None if sides and known else [f"entry {entry} has not two sides of one kind by the account plan",
                                                *(f"{b.account} {b.amount} ({b.kind})" for b in rows)]


@whole_rule(13, "the ledger refuses changes")
def ledger_is_guarded(whole: Whole) -> Iterator[WholeVerdict]:
    yield None if whole.ledger_guarded else ("", ["the table ledger has no enabled trigger against changes"])
