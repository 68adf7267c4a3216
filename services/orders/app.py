"""The orders service: `python -m services.orders.app`."""

from __future__ import annotations

from schemas.topics import INTAKE, ORDER, PAYMENT, SHIPMENT
from services.orders import denied, goods, machine, quota, storage
from services.orders.rulebook import load
from services.orders.terms import load as load_terms
from services.runtime.decision import INTERNAL, PROTECTED, WALKED
from services.runtime.main import run
from services.runtime.settings import Settings
from services.runtime.spec import Spec


def spec(settings: Settings) -> Spec:
    key, rules = settings.vault_key_bytes(), load(settings.rates_file, settings.tax_rounding)
    terms = load_terms(settings.terms_file)

    lists, asked = denied.load(settings.denied_file), goods.load(settings.goods_file)

    def decide(state, document, incoming, shared, now):
        return machine.decide(state, document, incoming, key, now, rules, shared,
                              settings.registered_only, terms, lists, settings.china_platform, asked, settings.registry_url is not None)

    return Spec("orders", (INTAKE, PAYMENT, SHIPMENT), ORDER, frozenset(machine.HANDLERS) - INTERNAL, machine.Order,
                decide, machine.STATE, machine.DOCUMENT, quota.shared_keys, storage, WALKED | {PROTECTED})


if __name__ == "__main__":
    run(spec)
