"""What the platform's officer does in the outside world: freezes a merchant, hears his appeal, decides. Pure."""

from __future__ import annotations

from schemas import merchants as ask
from schemas.orders_intake import DecideScreening
from schemas.topics import INTAKE
from services.simulators.outsiders import Heard, Memory, Reaction, after
from services.simulators.scenario import merchant_of

OFFICER = "/platform"
LIFTED, UPHELD = "merchant_frozen_lifted", "merchant_frozen_upheld"
FREEZING = frozenset({LIFTED, UPHELD})
REVIEWED = {"screening_cleared": "clear", "screening_blocked": "block"}
HELD = FREEZING | REVIEWED.keys()


def freeze(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    merchant = merchant_of(scenario, heard.data.order_id, "")
    message = ask.FreezeMerchant(order_id=f"{ask.MERCHANT}{merchant}", reason="counterfeit", decided_by="officer-7",
                                 detail="the brand does not know these serial numbers")
    return [after(0, 0.5, memory, INTAKE.name, OFFICER, f"freeze:{merchant}", message)]


def decide(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """Who is nearly a denied party is looked at; a frozen merchant appeals the next day, and the decision takes some more."""
    if scenario in REVIEWED:
        order_id = heard.data.order_id
        decision = DecideScreening(order_id=order_id, outcome=REVIEWED[scenario], decided_by="officer-4")
        return [after(4, 24, memory, INTAKE.name, OFFICER, f"screening:{order_id}", decision)]
    merchant = merchant_of(scenario, heard.data.order_id, "")
    key = f"{ask.MERCHANT}{merchant}"
    appeal = ask.FileAppeal(order_id=key, statement="the invoices of the brand are attached")
    decision = ask.DecideAppeal(order_id=key, outcome="lifted" if scenario == LIFTED else "upheld", decided_by="officer-2")
    return [after(12, 24, memory, INTAKE.name, OFFICER, f"appeal:{merchant}", appeal),
            after(96, 120, memory, INTAKE.name, OFFICER, f"decision:{merchant}", decision)]
