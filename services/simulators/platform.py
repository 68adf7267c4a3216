"""What the platform's officer does in the outside world: freezes a merchant, hears his appeal, revokes and grants, decides. Pure."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from schemas import brands
from schemas import merchants as ask
from schemas.orders_intake import AnswerRealName, DecideScreening
from schemas.topics import INTAKE
from services.runtime.decision import REAL_NAME
from services.simulators import inspectors
from services.simulators.outsiders import Heard, Memory, Reaction, after, moment_of
from services.simulators.scenario import TERMS_CHANGED, brand_of, merchant_of

OFFICER = "/platform"
LIFTED, UPHELD = "merchant_frozen_lifted", "merchant_frozen_upheld"
FREEZING = frozenset({LIFTED, UPHELD})
SEEN = "china_name_unknown"
REVIEWED = {"screening_cleared": "clear", "screening_blocked": "block"}
COVERED, REVOKED = "brand_covered", "brand_revoked"
REVOKING = frozenset({COVERED, REVOKED})
HELD = FREEZING | REVIEWED.keys() | {COVERED}


def act(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """While the goods are packed: the merchant is frozen, or gets other terms, the authorisation of the brand is revoked, or
    somebody wants to look."""
    if scenario == TERMS_CHANGED:
        return _change_terms(heard, memory)
    if scenario in inspectors.BEFORE:
        return inspectors.ask(heard, scenario, memory)
    return revoke(heard, scenario, memory) if scenario in REVOKING else freeze(heard, scenario, memory)


def revoke(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    key = brands.brand_key(brand_of(scenario, heard.data.order_id))
    message = brands.RevokeAuthorisation(order_id=key, authorisation_id="A2", decided_by="officer-1",
                                         reason="the distributor has ended the contract")
    return [after(0, 0.5, memory, INTAKE.name, OFFICER, f"revoke:{key}", message)]


def _grant_anew(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """The owner lets the merchant sell it himself."""
    key, today = brands.brand_key(brand := brand_of(scenario, heard.data.order_id)), moment_of(heard).date()
    message = brands.GrantAuthorisation(
        order_id=key, authorisation_id="A3", grantor="brand-owner", grantee=heard.merchant, territory=["*"],
        valid_from=today - timedelta(days=30), valid_to=today + timedelta(days=365), decided_by="officer-1",
        doc_hash=hashlib.sha256(brand.encode()).hexdigest())
    return [after(12, 24, memory, INTAKE.name, OFFICER, f"grant:{key}:A3", message)]


def _change_terms(heard: Heard, memory: Memory) -> list[Reaction]:
    merchant = merchant_of(TERMS_CHANGED, heard.data.order_id, "")
    message = ask.ChangeTerms(order_id=f"{ask.MERCHANT}{merchant}", payout_currency="CHF", decided_by="officer-1",
                              valid_from=moment_of(heard).date() + timedelta(days=2))
    return [after(0, 0.5, memory, INTAKE.name, OFFICER, f"terms:{merchant}", message)]


def freeze(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    merchant = merchant_of(scenario, heard.data.order_id, "")
    message = ask.FreezeMerchant(order_id=f"{ask.MERCHANT}{merchant}", reason="counterfeit", decided_by="officer-7",
                                 detail="the brand does not know these serial numbers")
    return [after(0, 0.5, memory, INTAKE.name, OFFICER, f"freeze:{merchant}", message)]


def see_papers(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """An officer has the buyer's papers sent, and looks at them."""
    if heard.data.outcome != "unknown":
        return []
    order_id = heard.data.order_id
    answer = AnswerRealName(order_id=order_id, outcome="match", decided_by="officer-4", detail="passport and residence permit seen")
    return [after(4, 24, memory, INTAKE.name, OFFICER, f"papers:{order_id}", answer)]


def punish(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """An inspection found copies."""
    return freeze(heard, scenario, memory) if heard.data.by == "inspection" else []


def decide(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """Who is nearly a denied party is looked at; a frozen merchant appeals the next day, and the decision takes some more."""
    if heard.data.reason == REAL_NAME:
        return []  # a registry answers that, and what the order is here for comes later
    if scenario in REVIEWED:
        order_id = heard.data.order_id
        decision = DecideScreening(order_id=order_id, outcome=REVIEWED[scenario], decided_by="officer-4")
        return [after(4, 24, memory, INTAKE.name, OFFICER, f"screening:{order_id}", decision)]
    if scenario == COVERED:
        return _grant_anew(heard, scenario, memory)
    merchant = merchant_of(scenario, heard.data.order_id, "")
    key = f"{ask.MERCHANT}{merchant}"
    appeal = ask.FileAppeal(order_id=key, statement="the invoices of the brand are attached")
    decision = ask.DecideAppeal(order_id=key, outcome="lifted" if scenario == LIFTED else "upheld", decided_by="officer-2")
    return [after(12, 24, memory, INTAKE.name, OFFICER, f"appeal:{merchant}", appeal),
            after(96, 120, memory, INTAKE.name, OFFICER, f"decision:{merchant}", decision)]
