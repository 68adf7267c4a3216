"""The payments service: `python -m services.payments.app`."""

from __future__ import annotations

from schemas.topics import ORDER, PAYMENT, PROVIDER_RESULT, SHIPMENT
from services.payments import machine
from services.payments.effects import Effects
from services.payments.providers import from_settings
from services.runtime.clock import Clock
from services.runtime.decision import INTERNAL, WALKED
from services.runtime.main import run
from services.runtime.settings import Settings
from services.runtime.spec import Spec


def spec(settings: Settings) -> Spec:
    return Spec("payments", (ORDER, SHIPMENT, PROVIDER_RESULT), PAYMENT, frozenset(machine.HANDLERS) - INTERNAL,
                machine.Account, machine.decide, machine.STATE, walked_for=WALKED - {"frozen"})


def effects(settings: Settings, clock: Clock):
    """Each session of the service gets callers of its own; the provider behind them stays the same."""
    provider = from_settings(settings, clock)

    def start(producer):
        return Effects(producer, provider, clock)
    return start


if __name__ == "__main__":
    run(spec, effects)
