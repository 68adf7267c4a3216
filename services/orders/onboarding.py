"""What is checked of an application before an officer sees it: that what it says can be true. Nothing here asks anybody."""

from __future__ import annotations

import stdnum
from stdnum.exceptions import ValidationError

from schemas.merchants import ChangeTerms, RegisterMerchant
from schemas.terms import STANDARD
from services.orders.rulebook import countries
from services.orders.screening import currencies
from services.orders.terms import Book

# The number by which a country's commercial register knows a company, where its form is public: stdnum's name of it.
REGISTER = {"CN": "uscc", "FR": "siren", "AU": "acn", "NO": "orgnr", "DK": "cvr", "IE": "vat"}


def checked(application: RegisterMerchant, terms: Book) -> list[str] | tuple[str, str]:
    """The checks that were passed, or (reason, detail) of the first that was not."""
    passed = ["country", "currency", "fee_plan"]
    if application.country not in countries():
        return "unknown_country", f"{application.country} is not an ISO 3166 country"
    if (wrong := wrong_terms(application, terms)) is not None:
        return wrong
    for name, number, kind in (("registration_no", application.registration_no, REGISTER.get(application.country, "")),
                               ("vat_no", application.vat_no, "vat")):
        module = stdnum.get_cc_module(application.country.lower(), kind) if kind and number else None
        if module is None:
            continue  # no register of this country has published the form of its numbers, or there is none to check
        try:
            module.validate(number)
        except ValidationError as wrong:
            return f"{name}_invalid", f"{number!r} is no {name} of {application.country}: {wrong.message} Ask for it again."
        passed.append(name)
    return passed


def wrong_terms(asked: RegisterMerchant | ChangeTerms, terms: Book) -> tuple[str, str] | None:
    """What cannot be of the terms that are asked for. Whether a currency can be converted, the order's day decides."""
    if asked.payout_currency is not None and asked.payout_currency not in currencies():
        return "unknown_currency", f"{asked.payout_currency} is not an ISO 4217 currency with minor units"
    known = {STANDARD, *terms.names}
    if asked.fee_plan is not None and asked.fee_plan not in known:
        return "unknown_fee_plan", f"{asked.fee_plan} is no fee plan; there is {', '.join(sorted(known))} (TRADEWIND_TERMS_FILE)"
    return None
