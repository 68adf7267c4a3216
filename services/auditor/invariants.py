"""The invariants of a Tradewind, and where each is checked: by the auditor's rules of the same number, or elsewhere."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import services.auditor as home
from services.auditor.rules import ORDER_RULES, RECORD_RULES, WHOLE_RULES

for _file in iter_modules(home.__path__):
    if _file.name.startswith("rules_"):  # every file of rules registers itself
        import_module(f"{home.__name__}.{_file.name}")

INVARIANTS = {
    1: "Every accepted order exists exactly once.",
    2: "Every rejected order is nowhere.",
    3: "An unknown outcome is 0 or 1 orders.",
    4: "The same key with the same body gets the same answer, with another body a refusal.",
    5: "Nothing exists that no client sent.",
    6: "At most one successful authorisation and capture a payment at the provider.",
    7: "Totals of the provider = of the ledger = of the events.",
    8: "Debits = credits.",
    9: "captured + recovered = held + released + refunded + disputes lost, all >= 0, per order and currency.",
    10: "refunded <= captured <= authorised <= order total.",
    11: "Shipped: captured first. Released: delivered. Cancelled unshipped: nothing held, voided or refunded.",
    12: "Currency, amount and persons are the same in all services, and each refund is what its goods cost.",
    13: "The ledger is append-only, in whole entries.",
    14: "At most one dispatch a parcel at the carrier.",
    15: "Shipped <= ordered; stock is never negative; reserved = consumed + released + open.",
    16: "Per topic and order: a path of the state machines.",
    17: "Sequence 1..n after repetitions are taken out: no gap, no decrease.",
    18: "One event id is one content everywhere.",
    19: "One order is in one partition, that of its key's hash.",
    20: "Every event has a cause; causation is acyclic.",
    21: "Last sequences in the databases = on the topics; nothing on a topic that its service did not commit.",
    22: "A stored offset is at most the lowest unapplied one, at every moment of a run.",
    23: "Events are as their schema says, of a merchant, from their owner.",
    24: "All orders end, and nothing is open in an order that has ended.",
    25: "The three services and the fold of the events agree.",
    26: "Outbox empty, nothing unread, nothing parked, no deadline missed.",
    27: "Dead letters are exactly the bad records.",
    28: "Offsets set back to 0 over full databases change nothing; the fold of each topic is its database.",
    29: "The operators' views, live and rebuilt, are the fold of the events.",
    30: "What was read of an order once is never taken back.",
    31: "The auditor notices planted bugs.",
    32: "What a person brings into China in a year: never above the limit; reserved, committed and given back with the goods.",
    33: "Nothing is handed over of an order whose persons were not screened by a list, or before a review was cleared; nor what a newer list means.",
    34: "While a merchant is frozen nothing of his open orders goes forward; lifted, all go on; upheld, all are undone.",
    36: "Nothing is packed whose customs codes are not what its declaration asks for.",
    37: "Parcels' numbers hold, and no two parcels have one in common.",
    38: "Cold goods: every excursion in the readings is told and decided about; nothing is given out before.",
    39: "Goods sold before their harvest are paid and shipped within their season.",
    40: "A promise = acceptance + plan; its clock adds up, and what is told of it is so.",
    44: "Disputes of buyers' banks: nothing goes forward until decided; what is lost the reserve bears, then the merchant.",
    45: "Goods of a protected brand are sold by an unbroken chain of authorisations; when it breaks, what is open is held.",
    46: "A serial number in two parcels alarms somebody; nothing leaves while somebody has to look at it, and no counterfeit at all.",
    47: "Papers into China agree with one another, and what customs says of them is what becomes of the parcel.",
    48: "A warehouse that has begun to pack is asked before a buyer's cancellation undoes it, and what it is asked is answered.",
    49: "A parcel that its warehouse splits is two that are together what it was, to the unit and the minor unit, and promised alike.",
}
ELSEWHERE = {
    4: "not yet: orders come in through a topic, where the same id is one answer (1, 18); checked once there is an HTTP API",
    28: "stock: 15; offsets set back to 0: services/chaos/reread.py",
    29: "after a rebuild: tests/test_views.py",
    31: "tests/planted_bugs.py and tests/test_planted.py, corruptions in tests/test_auditor_corruptions.py",
}


def rules_of(number: int) -> list[str]:
    """The names of the rules that check an invariant."""
    own = [rule.name for rule in (*ORDER_RULES, *WHOLE_RULES) if rule.number == number]
    return own + ([RECORD_RULES[number]] if number in RECORD_RULES else [])


def lines() -> list[str]:
    """All of it as text."""
    told = []
    for number, text in INVARIANTS.items():
        told.append(f"{number:2}  {text}")
        told += [f"      - {name}" for name in rules_of(number)]
        told += [f"      ({ELSEWHERE[number]})"] if number in ELSEWHERE else []
    return told
