"""The planted bugs: each a change of source text that a tired engineer could have made, and who has to notice.

`old` occurs exactly once in its package (a test says so): whoever changes that line changes the bug with it. `run` names
how the bug is brought to show: "memory" in `tests.planted`, the others in `tests.planted_runs`, on a real broker and
real databases. `by` must all notice: "auditor" through at least one of `rules` (its invariants), "explorer" by exploring in memory (an
assertion of the machines, or orders that never come to rest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Change(NamedTuple):
    """`where`: a package; the text stands in one of its modules."""

    where: str
    old: str
    new: str


@dataclass(frozen=True)
class Bug:
    """`breaks`: what a user would lose."""

    name: str
    breaks: str
    changes: tuple[Change, ...]
    by: frozenset[str] = frozenset({"auditor"})
    rules: frozenset[int] = frozenset()
    run: str = "memory"
    promised: bool = False  # it shows where parcels travel by a plan


RUNTIME, ORDERS, PAYMENTS, SHIPPING = "services.runtime", "services.orders", "services.payments", "services.shipping"


def _bug(name: str, breaks: str, where: str, old: str, new: str, rules: set[int] = frozenset(), by: str = "auditor",
         run: str = "memory", promised: bool = False) -> Bug:
    return Bug(name, breaks, (Change(where, old, new),), frozenset(by.split()), frozenset(rules), run, promised)


BUGS = (
    # -- the runtime: once, in order, nothing dropped
    _bug("no_duplicate_check", "an event told twice counts twice", RUNTIME,
         "if incoming.sequence <= draft.track.last.get(incoming.source, 0):", "if False:", {12}),
    _bug("outsiders_duplicates_count", "a report sent twice counts twice", RUNTIME,
         "seen = draft.track.seen.get(identity)", "seen = None", {1}),
    _bug("id_reused_unnoticed", "another content under a known id is dropped without a word", RUNTIME,
         "if seen.removesuffix(DEAD) == content:", "if True:", {27}),
    _bug("not_yet_is_dropped", "what comes too early is forgotten", RUNTIME,
         "        if isinstance(answer, NotYet):\n            self._park(draft, record)\n        else:",
         "        if isinstance(answer, NotYet):\n            self._settle(draft, record, mark)\n        else:", {7, 24}),
    _bug("parked_is_never_retried", "what waits waits for ever", RUNTIME,
         "                if draft.parked:\n                    self._next(draft)", "                pass", {26}),
    _bug("retry_applies_twice", "what waited is applied twice when its time comes", RUNTIME,
         '                    self.counts["unparked"] += 1',
         '                    self._apply(draft, record.incoming, self._decide(draft, record.incoming))', by="explorer"),
    _bug("sequence_gap", "readers wait for a number that never comes", RUNTIME,
         "draft.seq += 1", "draft.seq += 1 + (draft.seq == 2)", {17}),
    _bug("sequence_reused", "two events of one decision have one number", RUNTIME,
         "draft.seq += 1", "draft.seq += event is decision.events[0]", {18}),
    _bug("event_id_is_random", "an event sent twice has two ids", RUNTIME,
         "Envelope(event_id(source, order_id, out.sequence),", "Envelope(__import__('uuid').uuid4().hex,", {23}),
    _bug("no_cause", "nobody can tell why an event happened", RUNTIME,
         "self.now, incoming.correlation, incoming.id, merchant", "self.now, incoming.correlation, '', merchant", {20}),
    _bug("merchant_of_the_neighbour", "an event is told under another merchant's name", RUNTIME,
         "order_id.encode(), decision.state.merchant_id, self",
         "order_id.encode(), next(iter(self.drafts.values())).state.merchant_id or decision.state.merchant_id, self",
         {23}),
    _bug("dead_letters_vanish", "a record that cannot be handled is gone without a trace", RUNTIME,
         'self.out.append(Out(f"{topic}.dlq"', '(lambda out: None)(Out(f"{topic}.dlq"', {27}),
    _bug("anybody_may_write_events", "a forged event is believed", RUNTIME,
         "if (envelope.source == ours) != (ours is not None) or (ours and not envelope.sequence) or \\",
         "if False and \\", {27}),
    _bug("key_is_not_looked_at", "a record of one order is filed under another", RUNTIME,
         "if key != data.order_id.encode() or envelope.subject != data.order_id:", "if False:", {27}),
    _bug("unknown_types_are_skipped", "a record of a type that nobody knows is skipped in silence", RUNTIME,
         "return None if name in spec.known[topic] else _of_no_model", "return None if name else _of_no_model", {27}),

    # -- orders
    _bug("copies_go_unnoticed", "a serial number that is in another parcel already alarms nobody", SHIPPING,
         'kind = "twice" if seen.parcel_id != parcel_id else', 'kind = "" if seen.parcel_id != parcel_id else', {46}),
    _bug("handed_over_before_the_result", "a parcel leaves while somebody has to look at it", SHIPPING,
         'HELD_BY_INSPECTION = {"ParcelHandedOver", "ParcelCancelled"}', 'HELD_BY_INSPECTION = {"ParcelCancelled"}', {46}),
    _bug("revoked_links_count", "goods of a brand are sold on after its owner has taken his authorisation back", ORDERS,
         '    if link.revoked:\n        return "was revoked"\n', "", {45}),
    _bug("no_confirmation_timer", "a buyer who says nothing keeps the merchant's money for ever", ORDERS,
         'order.timers[f"confirm:{parcel_id}"] = now + timedelta(seconds=deadlines()["confirmation"])', "pass", {24}),
    _bug("timer_fires_for_ever", "a deadline that passed passes again and again", ORDERS,
         "        del order.timers[name]\n", "", by="explorer"),
    _bug("return_never_expires", "a return that never arrives keeps the order open for ever", ORDERS,
         'order.timers[f"return:{parcel_id}"] = now + timedelta(seconds=deadlines()["return_arrival"])', "pass", {24}),
    _bug("completed_while_a_return_is_open", "an order is closed over a return that is on its way", ORDERS,
         "and not self.pending and not (self.dispute or self.contested)", "and not (self.dispute or self.contested)", {24}),
    _bug("completed_while_disputed", "an order is closed over a dispute", ORDERS,
         "and not self.pending and not (self.dispute or self.contested)", "and not self.pending", {24}),
    _bug("refused_totals_are_accepted", "an order whose total is not its sum is accepted", ORDERS,
         "if (refusal := screen(command, vault_key, persons)) is not None:",
         "if (refusal := screen(command, vault_key, persons)) is not None and refusal[0] != 'total_mismatch':", {12}),
    _bug("currency_of_the_house", "an order is told in another currency than it was placed in", ORDERS,
         "merchant_id=command.merchant_id, currency=command.currency, origin",
         "merchant_id=command.merchant_id, currency='USD', origin", {12}),
    _bug("buyer_in_clear", "the sealed person goes out with the event", ORDERS,
         "buyer_token=buyer.token,", "buyer_token=__import__('schemas.parties').parties.unseal(buyer, vault_key).name,",
         {12}),
    _bug("document_is_missing", "what was ordered is not kept: lines can be sent back that were never bought", ORDERS,
         "document=Document({", "document=None and Document({",
         by="explorer"),
    _bug("consignee_is_the_buyer", "a gift goes to who paid for it", ORDERS,
         "consignee_token=consignee.token", "consignee_token=buyer.token", {12}),

    _bug("quota_is_not_committed", "a person's year stays reserved for ever", ORDERS,
         '"ListAccepted": _listed,', '"ListAccepted": lambda *_: None,', {32}),

    # -- payments
    _bug("authorised_twice", "a second call goes out before the first is answered", PAYMENTS,
         'if payment.intent or payment.status == "ended":', 'if payment.status == "ended":', by="explorer"),
    _bug("answer_counts_twice", "an answer that came by two ways is booked twice", PAYMENTS,
         "if payment is None or payment.intent != event.intent_id:", "if payment is None:", by="explorer"),
    _bug("one_key_for_all_calls", "two refunds have one idempotency key: the second never happens", PAYMENTS,
         "payment.calls += 1", "payment.calls = 1", by="explorer"),
    _bug("provider_is_believed", "a capture of another amount than asked for is booked", PAYMENTS,
         'event.outcome == "succeeded" and event.amount != payment.intent_amount', "False", {10}),
    _bug("captured_without_papers", "money is taken before the customs papers are there", PAYMENTS,
         "elif work.account.regime == \"china\" or all(h.documents for h in holds.values() if h.due):", "else:", {24}),
    _bug("void_is_skipped", "a cancelled order's money stays blocked on the buyer's card", PAYMENTS,
         'work.call(payment_id, "void", payment.authorised)', '_give_up(work, payment_id, payment, "PaymentVoided", 0)',
         {11}),
    _bug("released_before_delivery", "the merchant is paid while the parcel is on its way", PAYMENTS,
         '(hold.confirmed or hold.status == "recovered")', "True", by="explorer"),
    _bug("one_cent_too_much_refunded", "every refund gives a cent too much", PAYMENTS,
         "owed.amount = min(owed.amount, hold.due)", "owed.amount = min(owed.amount + 1, hold.due)", {12}),
    _bug("return_refunded_twice", "goods that came back are paid for twice", PAYMENTS,
         "    _lower(account, event.parcel_id, Owed(event.refund, reason, ref))\n",
         "    _lower(account, event.parcel_id, Owed(event.refund, reason, ref))\n"
         "    if incoming.type == 'ReturnReceived':\n        _lower(account, event.parcel_id, Owed(event.refund, reason))\n",
         {12}),
    _bug("refund_is_forgotten", "goods that are missing are paid for", PAYMENTS,
         "if owed.amount and (hold.captured or parcel_id in payment.capturing):", "if owed.amount and parcel_id in payment.capturing:",
         {12}),
    _bug("lost_dispute_ignored", "the buyer was right and gets nothing", PAYMENTS,
         'if incoming.type == "DisputeResolved" and event.outcome == "lost":', "if False:", {12}),
    _bug("claim_paid_to_nobody", "the carrier paid for what it lost, and nobody has the money", PAYMENTS,
         "    if event.amount:\n        _recover(", "    if False:\n        _recover(", {7}),
    _bug("float_money", "amounts go through floating point", PAYMENTS,
         'work.call(payment_id, "capture", due)',
         'payment.capturing = {k: int(a / 100 * 1.15 / 1.15 * 100) for k, a in payment.capturing.items()}\n'
         '            work.call(payment_id, "capture", int(due / 100 * 1.15 / 1.15 * 100))', by="explorer"),
    _bug("released_to_the_cent_below", "a cent of each release stays with nobody", PAYMENTS,
         'work.call(payment_id, "release", hold.held, parcel_id)', 'work.call(payment_id, "release", hold.held - 1, parcel_id)',
         by="explorer"),
    _bug("ledger_has_one_side", "money leaves an account and arrives nowhere", PAYMENTS,
         "for name, signed in ((debit, -amount), (credit, amount)):", "for name, signed in ((credit, amount),):", {8}),
    _bug("ledger_reuses_numbers", "two bookings have one number", PAYMENTS,
         "a.entries += 1\n        for name, signed in ((debit", "a.entries = 1\n        for name, signed in ((debit", {13}),
    _bug("refund_booked_as_release", "the books say that the merchant has what the buyer got", PAYMENTS,
         'parcel_id, "held", "refunded", owed.amount)', 'parcel_id, "held", "released", owed.amount)', {7}),
    _bug("nobody_pays_by_hand", "a refund that the provider refuses is tried for ever", PAYMENTS,
         "REFUND_TRIES_MAX = 3", "REFUND_TRIES_MAX = 10**9", by="explorer"),
    _bug("blocked_release_is_forgotten", "a merchant whose account was blocked for an hour is never paid", PAYMENTS,
         'work.account.timers[f"release:{event.payment_id}"] = work.now + RELEASE_PAUSE', "hold.confirmed = False", {24}),
    _bug("authorisation_never_expires", "money stays blocked while papers are missing, for ever", PAYMENTS,
         'work.account.timers[f"authorisation:{event.payment_id}"] = work.now + timedelta(seconds=deadlines()["authorisation"])',
         "pass", {11}),
    _bug("wrong_currency_asked_for", "the provider is asked for dollars whatever was agreed", PAYMENTS,
         '"amount": amount, "currency": a.currency', '"amount": amount, "currency": "USD"', {27}),

    # -- whose money it is
    _bug("variance_charged_to_the_merchant", "customs asks more than was quoted, and the merchant pays for it", PAYMENTS,
         '[("tax", -odd), ("variance", odd)]', '[("tax", -odd), ("merchant", odd)]', {9}),
    _bug("bill_of_customs_ignored", "what customs asks for is not owed", PAYMENTS,
         '    _assess(work, "assess", payment_id, parcel_id, shares, inside, bill)\n', "", {9}),
    _bug("fee_rounded_down", "the platform's fee is a cent too low", PAYMENTS,
         "return (amount * permyriad + WHOLE // 2) // WHOLE", "return amount * permyriad // WHOLE", {12}),
    _bug("fee_of_freight_and_tax", "a merchant pays a fee on tax and freight", PAYMENTS,
         "        sold = rest\n", "        sold = amount\n", {12}),
    _bug("tax_of_returned_goods_is_paid", "tax is released for goods that left the sale", PAYMENTS,
         'hold.shares.gone += owed.amount if', 'hold.shares.gone += 0 if', {12}),
    _bug("tax_given_away", "a merchant's gift lowers the tax", PAYMENTS,
         'not in ("granted", "dispute_lost") else 0', 'not in ("dispute_lost",) else 0', by="auditor", rules={12}),
    _bug("tax_shared_by_halves", "a parcel's part of the tax is not its part of the goods", SHIPPING,
         "taxes = shares(wanted.tax, list(values.values()), wanted.goods)", "taxes = shares(wanted.tax // 2, list(values.values()), wanted.goods)",
         {12}),
    _bug("statement_closed_twice", "a merchant's sales are stated twice", PAYMENTS,
         "    if event.statement_id in book.done:\n", "    if False:\n", {9}),
    _bug("paid_out_twice", "a batch that is run again pays again", PAYMENTS,
         '    if key in book.done:\n        return Stale("paid before")\n    if work.account.stops:',
         "    if work.account.stops:", {27}),
    _bug("converted_at_the_market", "a merchant gets another rate than was locked for the order", PAYMENTS,
         "agreed = convert(line.net, line.currency, line.payout, line.rate)",
         "agreed = convert(line.net, line.currency, line.payout, line.market)", {9, 28}),
    _bug("exchange_gain_vanishes", "what the platform gains by a conversion is on no account", PAYMENTS,
         '("position", -market), ("fx", market - agreed)', '("position", -agreed)', {28}),
    _bug("remittance_on_the_wrong_side", "what was paid to an authority is owed to it twice", PAYMENTS,
         '(f"{event.claim}/{authority}", -event.amount), (f"remitted/{authority}", event.amount)',
         '(f"{event.claim}/{authority}", event.amount), (f"remitted/{authority}", -event.amount)', {28}),
    _bug("capture_refused_without_a_void", "the buyer's card stays blocked after a refused capture", PAYMENTS,
         'payment.expiring, payment.refused = True, event.reason or "capture refused"',
         '_give_up(work, event.payment_id, payment, "PaymentExpired", payment.authorised)', {11}),
    # -- shipping
    _bug("short_codes_go_out", "goods leave with a customs code that their declaration does not take", SHIPPING,
         " or len(hs_code) < digits)", ")", {36}),
    _bug("match_is_skipped", "papers that disagree are declared to Chinese customs", SHIPPING,
         "    if not found:\n        _declare(", "    if True:\n        _declare(", {47}),
    _bug("packed_in_bond_before_the_release", "goods leave a bonded warehouse that customs has not released", SHIPPING,
         "    if parcel.status not in RELEASING:\n        _go_on(", "    if parcel.status == 'listed' and work.step(parcel, 'ListReleased') or True:\n        _go_on(", {47}),
    _bug("packed_before_customs_answered", "a parcel is packed whose import list customs may refuse", SHIPPING,
         "number(parcel_id, papers), replaces, _voyage(work, parcel_id),\n        work.document.china))\n",
         "number(parcel_id, papers), replaces, _voyage(work, parcel_id),\n        work.document.china))\n"
         "    _accept(work, parcel_id, parcel, number(parcel_id, papers))\n", {47}),
    _bug("stock_is_not_reserved", "the same unit is sold to everybody", SHIPPING,
         '        work.move(parcel_id, "reserve")\n', "", {15}),
    _bug("stock_is_not_released", "what was cancelled can never be sold again", SHIPPING,
         '    work.move(parcel_id, "restock" if before == "packed" else "release")\n', "", {15}),
    _bug("restocked_twice", "a parcel that came back counts twice on the shelf", SHIPPING,
         '    work.move(parcel_id, "restock")\n    work.emit(out.ParcelReturned',
         '    work.move(parcel_id, "restock")\n    work.move(parcel_id, "restock")\n    work.emit(out.ParcelReturned', {15}),
    _bug("packed_goods_stay_on_the_shelf", "what was packed is counted as being there", SHIPPING,
         '    work.move(parcel_id, "consume")\n', "", {15}),
    _bug("rejected_while_packed_is_released", "unpacked goods are counted as if never taken", SHIPPING,
         'work.move(parcel_id, "restock" if before == "packed" else "release")', 'work.move(parcel_id, "release")', {15}),
    _bug("shortage_is_put_back", "units that are not on the shelf are sold again", SHIPPING,
         'work.move(parcel_id, "shrink", taken)', 'work.move(parcel_id, "release", taken)', {15}),
    _bug("given_out_in_quarantine", "a buyer gets food that nobody has looked at", SHIPPING,
         "if aside.quarantine and event in HELD_BACK:", "if False:", {38}),
    _bug("undecided_for_ever", "food waits for a decision that nobody makes", SHIPPING,
         'work.arm(f"quality:{parcel_id}", "quality")', "pass", {24, 38}),
    _bug("held_up_for_ever", "the money of a parcel that is held up stays held", SHIPPING,
         'work.arm(f"hold:{parcel_id}", "packing_hold")', "pass", {24}),
    _bug("one_number_for_two_parcels", "a carrier brings one of two parcels of one number", SHIPPING,
         "serial = self.stock.serial()", "serial = self.stock.serial() // 2", {37}),
    _bug("returned_goods_are_lost", "what a buyer sent back is on no shelf", SHIPPING,
         '    work.move(parcel_id, "restock", taken)\n', "", {15}),
    _bug("reservation_never_expires", "an order that is never paid for keeps its goods for ever", SHIPPING,
         '    work.arm("reservation", "reservation")\n', "", {26}),
    _bug("lost_without_notice", "a parcel that nobody scans is never missed", SHIPPING,
         '    work.arm(f"lost:{parcel_id}", "lost")\n    promise.resume(work, parcel_id)\n', "    promise.resume(work, parcel_id)\n",
         {24}),
    _bug("customs_may_take_for_ever", "a parcel without a decision never comes back", SHIPPING,
         '    work.arm(f"customs:{parcel_id}", "customs")\n', "", {26}),
    _bug("one_cent_too_much_owed", "every cut line lowers the debt by a cent too much", SHIPPING,
         "return taken, before - self.value(parcel_id)", "return taken, before - self.value(parcel_id) + 1", {12}),
    _bug("freight_is_never_given_back", "who gets nothing still pays for the way", SHIPPING,
         "if any(units for _, units in left) else 0", "if True else 0", {12}),
    _bug("grant_above_the_price", "a merchant grants more than the parcel cost", SHIPPING,
         "refund = min(event.amount, value)", "refund = event.amount", {12}),
    _bug("claim_of_nothing", "the carrier is asked for nothing", SHIPPING,
         "claim = sum(line.amount * units // line.quantity for line, units in work.left(parcel_id))", "claim = 0", {12}),
    _bug("cancelled_after_hand_over", "a parcel on the truck is called cancelled", SHIPPING,
         "from schemas.lifecycle import BEFORE_HANDOVER, BEFORE_PACKING\n",
         'from schemas.lifecycle import BEFORE_HANDOVER as _FROM, BEFORE_PACKING\nBEFORE_HANDOVER = (*_FROM, "handed_over")\n', {16}),
    _bug("fulfilment_without_money", "the warehouse packs what nobody has paid for", SHIPPING,
         "        papers.ready(work)\n    return None", "        papers.ready(work)\n        _held(work, incoming)\n    return None", {11}),
    _bug("units_rounded_up", "a parcel is asked for more units than were ordered", SHIPPING,
         "units = min(units, open_units)", "units = min(units, open_units + 1)", by="explorer"),
    _bug("freight_by_float", "the parts of the freight are not the whole", SHIPPING,
         "upto = total * seen // whole if whole else 0", "upto = int(total * (seen / whole) * 0.9999) if whole else 0",
         {12}),
    _bug("tax_is_forgotten", "the buyer's tax is charged to nobody", SHIPPING,
         "taxes = shares(placed.tax, amounts)", "taxes = [0 for _ in amounts]", {12}),

    # -- the promise
    _bug("promised_later_than_planned", "the buyer is told a later day than the plan's", SHIPPING,
         "promised_at=run[-1].arrives, in_time=in_time,\n                                     border=border",
         "promised_at=run[-1].arrives + timedelta(hours=9), in_time=in_time,\n                                     border=border",
         {40}, promised=True),
    _bug("clock_stands_after_customs", "a parcel that customs held once can never be late again", SHIPPING,
         "    promise.resume(work, parcel_id)\n    work.emit(out.CustomsReleased", "    work.emit(out.CustomsReleased", {40}, promised=True),
    _bug("clock_stands_after_a_hold", "what was held for an officer is promised for no day any more", SHIPPING,
         "            promise.resume(work, parcel_id)\n    standing_still", "            pass\n    standing_still", {40},
         promised=True),
    _bug("rerouted_over_the_closed_lane", "a parcel is sent into the fog it was to avoid", SHIPPING,
         "work.plans.again(place, max(work.now, there), area, due, work.closed)",
         "work.plans.again(place, max(work.now, there), area, due, frozenset())", {40}, promised=True),

    # -- the runtime, on a real broker and real databases: once, whatever dies when
    _bug("offsets_before_the_work", "what was read and not applied when the service died is lost", RUNTIME,
         '        point("owner.loaded")\n',
         '        point("owner.loaded")\n        if records:\n'
         "            self.stored = self._end_of(records, len(records))\n"
         "            await conn.execute('UPDATE partitions SET offsets = $2::text::jsonb WHERE partition = $1',\n"
         "                               self.partition, to_json(self.stored).decode())\n"
         "            await asyncio.sleep(0.02)\n", {22}, run="kills"),
    _bug("dual_write", "events are told of changes that a crash undoes", RUNTIME,
         '            point("batch.decided")\n',
         '            point("batch.decided")\n            await self.relay._send(batch.out)\n'
         "            await asyncio.sleep(0.02)\n", {21}, run="kills"),
    _bug("no_outbox", "what was committed and not sent when the service died is never told", RUNTIME,
         "            write.insert_outbox(self.next_batch, pack(batch.out))", "            pass",
         {17, 24}, run="crash:batch.committed:40"),
    Bug("outbox_deleted_before_it_is_sent", "the same, when the broker is slow", (
        Change(RUNTIME, "if self.relay.acknowledged > self.relay.deleted:\n            self._deleting = self.relay.acknowledged",
               "if True:\n            self._deleting = self.next_batch"),
        Change(RUNTIME, "                await self._send(out)\n",
               "                await asyncio.sleep(0.3)  # a broker may be\n                await self._send(out)\n"),
    ), rules=frozenset({17, 21, 24}), run="kills"),
    _bug("calls_only_in_memory", "a payment that was to be made when the service died is never made", RUNTIME,
         "        if batch.intents:\n            write.insert_intents(", "        if False:\n            write.insert_intents(",
         {24}, run="crash:effects.asked:20"),
    _bug("calls_are_never_struck_off", "every payment is made again at each start", RUNTIME,
         "            write.delete_intents(batch.done_intents)", "            pass", {26}, run="steady"),
    _bug("a_key_for_each_attempt", "a payment whose answer was lost is made twice", PAYMENTS,
         "return Call(intent.intent_id, order_id", "return Call(f'{intent.intent_id}.{random.random()}', order_id",
         {6, 7, 11}, run="crash:effects.answered:20"),
    _bug("parked_only_in_memory", "what came too early is lost when the service dies", RUNTIME,
         "        if batch.parked:  # what", "        if False:  # what", {22, 24}, run="kills"),
    _bug("parked_rows_stay", "what waited is tried again after its time, for ever", RUNTIME,
         "            write.delete_parked(gone)", "            pass", {26}, run="kills"),
    _bug("offset_one_too_far", "the next record is skipped when the service dies", RUNTIME,
         "end[record.topic] = max(end.get(record.topic, 0), record.offset + 1)",
         "end[record.topic] = max(end.get(record.topic, 0), record.offset + 2)", {22}, run="kills"),
    _bug("sequence_is_not_stored", "after a crash old numbers are given to new events", RUNTIME,
         "row = (order_id, state.status, state.closed, draft.seq,", "row = (order_id, state.status, state.closed, min(draft.seq, 2),", {21}, run="steady"),
    _bug("last_seen_is_not_stored", "after a crash a repetition counts twice", RUNTIME,
         'track = {"last": self.last,', 'track = {"last": {},', frozenset(), run="kills"),
    _bug("timers_are_not_stored", "no deadline ever comes", RUNTIME,
         "                arm.append((order_id, due))\n", "", {24}, run="steady"),
    _bug("timers_are_not_deleted", "a deadline comes again and again", RUNTIME,
         "                disarm.append(order_id)\n", "", {26}, run="steady"),
    Bug("no_fence", "a service that was stopped for a while writes over its successor", (
        Change(RUNTIME, "    if done is None:\n        await _refused", "    if False:\n        await _refused"),
        Change(RUNTIME, 'WHERE partition = $1 AND epoch = $2"\n          " AND offsets = $3::text::jsonb AND standing = $5 RETURNING',
               'WHERE partition = $1 AND $2::bigint IS NOT NULL"\n          " AND $3::text IS NOT NULL AND standing = $5 RETURNING'),
    ), run="zombie:payments:batch.decided:12"),
    _bug("wrong_partition", "an order's events are in two places", RUNTIME,
         "send_batch(builder, topic, partition=self._partition)", "send_batch(builder, topic, partition=1 - self._partition)",
         {19}, run="steady"),
    _bug("no_person_is_kept", "nobody knows whom to send the parcel to", ORDERS,
         "rows=rows, moves=reserve(", "rows=[], moves=reserve(", {25}, run="steady"),
    _bug("documents_are_not_stored", "what an order consists of is known until the service is started again", RUNTIME,
         "        if batch.documents:\n", "        if False:\n", {25}, run="steady"),
    _bug("signature_is_not_looked_at", "anybody can say that a payment failed", PAYMENTS,
         "            self._verifier.verify(body, dict(request.headers), json_parse=False)\n", "            pass\n",
         {11}, run="forged_webhook"),
)  # fmt: skip
