"""The shipping service: `python -m services.shipping.app`."""

from __future__ import annotations

from functools import partial

from schemas.topics import ORDER, PAYMENT, REPORT, SHIPMENT
from services.runtime.decision import INTERNAL, LANES, WALKED
from services.runtime.main import run
from services.runtime.settings import Settings
from services.runtime.spec import Spec
from services.shipping import machine, storage
from services.shipping.plans import Plans


def spec(settings: Settings) -> Spec:
    return Spec("shipping", (ORDER, PAYMENT, REPORT), SHIPMENT, frozenset(machine.HANDLERS) - INTERNAL, machine.Shipment,
                partial(machine.decide, prefix=settings.gs1_prefix, plans=Plans(speed=settings.speed),
                        resends=settings.china_resends), machine.STATE,
                machine.DOCUMENT, machine.shared_keys, storage, WALKED | {LANES})


if __name__ == "__main__":
    run(spec)
