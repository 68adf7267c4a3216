"""The explorer finds what is wrong, tells it so that a person can follow, and tells it again.

The full run is the command, `tradewind explore`; here are a few paths, some hundred schedules, and planted bugs.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from schemas import payments_payment
from schemas.lifecycle import ORDER
from services.cli import exits
from services.cli.main import build
from services.explorer import explore, outside, schedule
from services.explorer.paths import PATHS
from services.explorer.schedule import Schedules
from services.orders import machine as orders
from services.payments import machine as payments
from services.runtime.batch import Batch
from services.runtime.decision import Decision, NotYet
from services.shipping import machine as shipping
from services.shipping import storage

# The reasons of docs/exits.md; what is not the order's end (a command refused, a late wish) is on a path all the same.
EXITS = {"completed", "rejected: total_mismatch"} | {f"cancelled: {reason}" for reason in (
    "no_stock", "payment_declined", "reservation_expired", "authorisation_expired", "cancelled", "short_pick",
    "packing_rejected", "hold_expired", "destroyed", "spoiled", "season_closed", "sold_out", "customs_refused", "not_collected", "reported_lost", "no_scan", "lost", "returned", "granted",
    "dispute_lost", "merchant_closed", "denied_party", "real_name_unproven", "brand_not_authorised", "counterfeit", "not_inspected",
    "papers_expired", "documents_mismatch", "list_rejected", "list_refused", "over_limit", "chargeback")}


# -- what is closed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rejected", "no-stock", "domestic", "abroad", "china", "no-papers", "return"])
def test_a_path_is_closed_without_a_violation(name):
    closed = explore.close_path(name, 60)
    assert closed.complete and closed.violations == []
    assert closed.transitions > closed.states > 10


def test_the_paths_reach_every_exit_and_use_the_whole_alphabet():
    assert set().union(*(path.ends for path in PATHS)) == EXITS
    assert set().union(*(path.words for path in PATHS)) | {"inbound"} == set(outside.WORDS)
    assert len({path.name for path in PATHS}) == len(PATHS)


def test_a_path_that_ends_otherwise_than_declared_is_a_finding(monkeypatch):
    [path] = explore.chosen(["no-stock"])
    monkeypatch.setattr(explore, "PATHS", (replace(path, ends=frozenset({"completed"})),))
    [found] = explore.close_path("no-stock", 60).violations
    assert found.what.startswith("the path ends otherwise than it should: never ['completed'], but ['cancelled: no_stock']")


# -- planted bugs -----------------------------------------------------------------------------------------------------------


def _again(batch, draft, record, mark):
    """No duplicate is ever recognised."""
    return False


def _no_retry(batch, draft, alone=False):
    """What was put aside is never taken up again."""


def _keeps_waiting(work, incoming):
    """A return that had expired is taken for one that was not asked for yet (as it was)."""
    event = incoming.data
    if event.return_id not in work.account.holds[event.parcel_id].frozen:
        return NotYet("ReturnRequested")
    return payments._lowered(work, incoming)


def _refund_booked_twice(work, payment_id, parcel_id, via):
    hold = work.account.holds[parcel_id]
    work.book("refund", payment_id, parcel_id, "held", "refunded", hold.owed[0].amount)
    _REFUNDED(work, payment_id, parcel_id, via)


_REFUNDED = payments._refunded


def _settles_silently(order, document, incoming, now):
    """Orders does not hear of the money's end."""
    return Decision(order)


def _declined_twice(work, event_data, payment, _):
    work.emit(payments_payment.PaymentDeclined, event_data.payment_id, parcels=[], reason="x")
    raise KeyError("parcel")


# (what is planted, where, the path that must find it, a word of the finding)
PLANTED = {
    "no dedupe": (lambda m: m.setattr(Batch, "_repeated", _again), "domestic", "repetition"),
    "parked for ever": (lambda m: m.setattr(Batch, "_retry", _no_retry), "domestic", "still waits"),
    "expired return": (lambda m: m.setitem(payments.HANDLERS, "ReturnReceived", _keeps_waiting), "return", "still waits"),
    "booked twice": (lambda m: m.setattr(payments, "_refunded", _refund_booked_twice), "china", "ledger"),
    "end not heard": (lambda m: m.setitem(orders.HANDLERS, "PaymentSettled", _settles_silently), "two", "no end"),
    "handler raises": (lambda m: m.setattr(payments, "_authorise_answered", _declined_twice), "domestic", "KeyError"),
    "stock not named": (lambda m: m.setattr(shipping, "stock_keys", lambda s, d, i: []), "domestic", "shared_keys"),
    "no timer": (lambda m: m.setattr(orders, "deadlines", _never), "domestic", "KeyError"),
    "random": (lambda m: m.setattr(payments.Work, "emit", _impure), "domestic", "two results"),
}


COUNTER = itertools.count()


def _never():
    return {}


def _impure(work, model, payment_id, **fields):
    a = work.account
    if "amount" in fields:
        fields["amount"] += next(COUNTER)
    work.events.append(model.model_construct(order_id=a.order_id, payment_id=payment_id, currency=a.currency, **fields))


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_bug_is_found_and_its_story_can_be_told_again(name, monkeypatch):
    plant, path, word = PLANTED[name]
    plant(monkeypatch)
    closed = explore.close_path(path, 60)
    [found] = closed.violations
    assert word in found.what
    assert found.story[0].startswith("  1. orders reads PlaceOrder") and found.story[-1] == f"  => {found.what}"
    if "no end" not in word:  # an end that is out of reach shows only in the whole path
        lines, what = explore.replayed(found.replay)
        if name != "random":
            assert (tuple(lines), what) == (found.story, found.what)
    monkeypatch.undo()
    assert explore.replayed(found.replay)[1] == "", "without the bug the same story breaks no rule"


# -- schedules --------------------------------------------------------------------------------------------------------------


def test_schedules_of_many_orders_break_no_rule():
    steps, failures = explore.run_schedules(seed=7, first=0, count=300)
    assert failures == [] and steps > 300 * 60


def test_the_same_seed_is_the_same_schedule():
    taken = []
    for _ in range(2):
        schedules = Schedules()
        schedules.run(3, 11)
        taken.append(schedules.steps)
    assert taken[0] == taken[1] > 10


def test_an_oversold_unit_is_found_among_many_orders_and_shrunk(monkeypatch):
    """What is reserved is not looked at: nobody notices with one order."""
    monkeypatch.setattr(storage.Stock, "available", lambda self, sku: self._need(sku) or [("SEA1", 9)])
    monkeypatch.setattr(explore, "_schedules", None)
    _, [found] = explore.run_schedules(seed=1, first=0, count=50)
    assert "negative" in found.what or "units free" in found.what
    assert len(found.story) < 20, "shrunk to what is needed"
    lines, what = explore.replayed(found.replay)
    assert (tuple(lines), what) == (found.story, found.what)


def test_a_batch_that_is_not_its_records_one_by_one_is_found(monkeypatch):
    """A batch's second record of an order sees the state before the first."""
    def forgetful(batch, order_id):
        batch.drafts.pop(order_id, None)
        return _DRAFT(batch, order_id)
    monkeypatch.setattr(Batch, "_draft", forgetful)
    monkeypatch.setattr(schedule, "BATCH_OF_EACH", 1)
    schedules = Schedules()
    assert any((failure := schedules.run(1, number)) and "in one batch" in failure.what for number in range(20))


_DRAFT = Batch._draft


# -- the command --------------------------------------------------------------------------------------------------------------


def tradewind(*arguments: str):
    return CliRunner().invoke(build("explore"), ["explore", *arguments])


def test_the_command_ends_with_one_object():
    result = tradewind("--path", "no-stock", "--schedules", "5", "--jobs", "1", "--json")
    line = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == exits.OK
    assert line["paths"] == 1 and line["states"] > 10 and line["transitions"] > line["states"] and line["violations"] == 0
    assert line["schedules"] == 5 and line["schedules_per_s"] > 0 and line["not_closed"] == []


def test_the_command_tells_a_violation_and_how_to_see_it_again(monkeypatch, tmp_path):
    monkeypatch.setattr(Batch, "_repeated", _again)
    result = tradewind("--path", "no-stock", "--jobs", "1")
    assert result.exit_code == exits.VIOLATIONS
    assert "orders reads PlaceOrder" in result.stdout
    replay = result.stdout.split("--replay ")[1].split()[0]
    file = tmp_path / "found"
    file.write_text(replay + "\n")
    for given in (replay, str(file)):
        again = tradewind("--replay", given)
        assert again.exit_code == exits.VIOLATIONS and "  => " in again.stdout


@pytest.mark.parametrize("arguments", [("--path", "xx"), ("--replay", "schedule:abc"), ("--replay", "nowhere:abc")])
def test_what_does_not_exist_is_named(arguments):
    result = tradewind(*arguments, "--json")
    assert result.exit_code == exits.USAGE
    assert json.loads(result.stdout.splitlines()[-1])["error"]["remedy"]


def test_orders_of_the_table_are_on_the_paths():
    """No state of an order is without a path that goes through it: the paths do not silently lag behind the table."""
    assert ORDER.terminal == {end.split(":")[0] for path in PATHS for end in path.ends}
