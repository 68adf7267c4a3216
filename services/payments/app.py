"""The payments service: `python -m services.payments.app`."""

from __future__ import annotations

from schemas.topics import ORDER, PAYMENT, PROVIDER_RESULT, SHIPMENT
from services.payments import machine
from services.payments.effects import Effects
from services.payments.providers.http import HttpProvider
from services.payments.providers.inprocess import InProcessProvider
from services.runtime.batch import Spec
from services.runtime.clock import Clock
from services.runtime.decision import TIMER
from services.runtime.main import run
from services.runtime.settings import Settings


def spec(settings: Settings) -> Spec:
    return Spec("payments", (ORDER, SHIPMENT, PROVIDER_RESULT), PAYMENT, frozenset(machine.HANDLERS) - {TIMER},
                machine.Account, machine.decide, machine.STATE, tables={"ledger": machine.LEDGER})


def effects(settings: Settings, clock: Clock):
    """Each session of the service gets callers of its own; the in-process provider remembers across sessions."""
    inprocess = InProcessProvider() if settings.provider == "inprocess" else None

    def start(producer):
        return Effects(producer, inprocess or HttpProvider(settings.provider_address), clock)
    return start


if __name__ == "__main__":
    run(spec, effects)
