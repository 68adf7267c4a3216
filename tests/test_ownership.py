"""The model of the runtime's own rules: it holds, and every rule is needed. The real thing does the same: see
test_ownership_real.py."""

from __future__ import annotations

import pytest

from services.explorer.ownership import RULES, Ownership
from services.explorer.search import close


def test_the_model_holds_with_all_its_rules():
    """With one fault and one move of the group; `tradewind explore` allows two faults."""
    closed = close(Ownership(faults=1, moves=1), "ownership", 300)
    assert closed.complete and closed.findings == [] and closed.states > 1_000 and closed.ends


# What is lost without a rule. The offsets alone are guarded twice: who leaves when in doubt never starts from wrong ones.
WITHOUT = {
    ("epoch",): "given twice",
    ("leave",): "given twice",
    ("offsets", "leave"): "is applied twice",
    ("after",): "given twice",
    ("seek",): "is applied twice",
    ("outbox",): "before 1",
    ("stored",): "two contents",
    ("order",): "the broker does not have it",
    ("acknowledged",): "the broker does not have it",
    ("whole",): "two instances may claim",
}


@pytest.mark.parametrize("rules", sorted(WITHOUT), ids="+".join)
def test_without_a_rule_something_is_lost_or_done_twice(rules):
    closed = close(Ownership(rules, faults=1, moves=1), "ownership", 300)
    assert closed.findings and WITHOUT[rules] in closed.findings[0].what


def test_every_rule_is_taken_away_somewhere():
    assert {rule for rules in WITHOUT for rule in rules} == set(RULES)
