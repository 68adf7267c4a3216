"""The ledger's accounts and kinds of entry: what payments books by, and everybody else reads by.

Double entry, credit positive; the rows of one entry add up to zero in each currency. Some accounts have a dimension behind
a slash: `payable/CN`. See docs/decisions/0020-the-ledgers-accounts.md.
"""

from __future__ import annotations

BOOKS = "books:"  # begins the keys of what is no order: books:tax:<authority>, books:merchant:<merchant>, books:provider:<name>

ACCOUNTS = {
    "buyer": "taken from buyers by the provider (negative)",
    "held": "in escrow, parcel by parcel",
    "refunded": "gone back to buyers",
    "charged_back": "taken back by buyers' banks",
    "merchant": "payable to merchants; a claw-back debits it",
    "carrier": "freight payable to carriers",
    "fee": "the platform's fees",
    "withheld": "tax withheld from merchants, payable to the country behind the slash",
    "reserve": "kept of merchants' money against chargebacks",
    "tax": "duty and taxes collected with orders, until they meet what was assessed",
    "payable": "assessed and not remitted, by the authority behind the slash",
    "reclaim": "tax claimed back of the authority behind the slash, until it pays (negative)",
    "returned": "tax that the authority behind the slash paid back (negative)",
    "variance": "duty variance: quoted less assessed",
    "claims": "what carriers paid for lost parcels (negative)",
    "advanced": "laid out by the platform for chargebacks that nobody has decided yet (negative)",
    "remitted": "paid to the authority behind the slash",
    "paid_out": "paid out to merchants",
    "position": "what conversions owe in one currency and own in another",
    "fx": "exchange gain (positive) or loss",
    "provider_fees": "what the payment provider asks for its work (negative)",
    "provider": "owed to the payment provider, who keeps it of what he pays",
    "released": "before accounts were split: all that left escrow towards a merchant",
}
# Accounts that may be on one side alone, at any moment and in each currency; the others go either way.
SIGNS = {"buyer": -1, "held": 1, "refunded": 1, "charged_back": 1, "carrier": 1, "fee": 1, "withheld": 1, "reserve": 1, "claims": -1,
         "reclaim": -1, "returned": -1, "advanced": -1, "remitted": 1, "paid_out": 1, "released": 1, "provider_fees": -1, "provider": 1}
# kind -> what it says
KINDS = {
    "capture": "the provider took the buyer's money", "refund": "back to the buyer, by the provider",
    "divide": "escrow of a parcel that was split, from the one to the other",
    "manual_payout": "back to the buyer, by hand", "charge_back": "to the buyer, because a dispute was lost",
    "release": "out of escrow, to all who have a share in it",
    "release_claim": "a carrier's claim, out of escrow to the merchant",
    "recover_merchant": "back from the merchant", "recover_carrier": "a carrier's claim",
    "recover_platform": "laid out by the platform: a chargeback of what the merchant has already",
    "chargeback": "taken back by the buyer's bank", "second_chargeback": "taken back once more, for good",
    "chargeback_reversed": "given back by the buyer's bank", "release_advance": "what the platform had laid out, back to it",
    "chargeback_lost": "what the platform had laid out, out of the reserve and then from the merchant",
    "assess": "customs' bill for a parcel", "declare": "quoted tax, declared as it is", "variance": "quoted less assessed",
    "reclaim": "tax claimed back, for goods that were returned in time", "tax_back": "paid back by an authority",
    "remit": "paid to an authority", "reserve_back": "a reserve whose days are over", "convert": "a statement's net, once",
    "payout": "paid out to a merchant", "provider_fee": "the payment provider's fees of a month, by its settlement file",
}
RELEASES = ("release", "release_claim", "release_advance")
# The names of the order's equation: captured (buyer, negative) + recovered (negative) = the others.
EQUATION = ("buyer", "recovered", "held", "released", "refunded", "charged_back")
ASIDE = "aside"


def account_of(name: str) -> str:
    """The account without its dimension."""
    return name.partition("/")[0]


def side(account: str, kind: str) -> str:
    """The name of the order's equation that a row counts for; ASIDE for entries that move nothing into or out of escrow."""
    if account in ("held", "buyer", "refunded", "charged_back"):
        return account
    if kind in RELEASES:
        return "released"
    return "recovered" if kind.startswith("recover_") else ASIDE
