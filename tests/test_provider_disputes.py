"""Disputes at the simulated provider: stages in their time, money taken and given back, signed webhooks, across a restart."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from schemas.provider_api import COURSES, DISPUTE_WEBHOOK_TYPE
from schemas.provider_disputes import Dispute
from tests.provider_helpers import SECRET, Turned, call, journal, served, simulator, until

T0 = datetime(2026, 11, 23, 12, tzinfo=UTC)


def stages(course: str, evidence: set[str], begin: str) -> list[tuple[str, float]]:
    """(stage, hours after the beginning) of a dispute; evidence is sent an hour after the stages that are named."""
    dispute = Dispute("O-1", "P-1", "EUR", course, {begin: T0})
    found = []
    while (coming := dispute.following()) is not None:
        stage, when = coming
        dispute.at[stage], dispute.stages[stage] = when, 100
        found.append((stage, (when - T0).total_seconds() / 3600))
        if stage in evidence:
            assert dispute.refusal("dsp-P-1", when) == ""
            dispute.at[f"evidence:{stage}"] = when + timedelta(hours=1)
    return found


@pytest.mark.parametrize("course, evidence, expected", [
    ("inquiry", {"request_for_information"}, [("request_for_information", 72), ("inquiry_closed", 85)]),
    ("inquiry", set(), [("request_for_information", 72), ("chargeback", 72 + 168), ("lost", 72 + 336)]),
    ("bank_won", {"chargeback"}, [("request_for_information", 24), ("chargeback", 48), ("chargeback_reversed", 73)]),
    ("bank_won", set(), [("request_for_information", 24), ("chargeback", 48), ("lost", 48 + 168)]),
    ("bank_lost", set(), [("chargeback", 36), ("lost", 36 + 168)]),
    ("bank_late", set(), [("chargeback", 24), ("lost", 24 + 168)]),
    ("bank_late_won", {"chargeback"}, [("chargeback", 24), ("chargeback_reversed", 49)]),
    ("bank_twice", set(), [("chargeback", 24), ("chargeback_reversed", 24.25), ("second_chargeback", 24.5)])])
def test_a_course_and_what_silence_makes_of_it(course, evidence, expected):
    assert stages(course, evidence, COURSES[course][0].after) == expected


def test_evidence_is_taken_once_and_in_time():
    dispute = Dispute("O-1", "P-1", "EUR", "bank_lost", {"capture": T0, "chargeback": T0}, {"chargeback": 100})
    assert dispute.refusal("dsp-P-1", T0 + timedelta(days=7)) == "" and dispute.refusal("dsp-P-2", T0) == "unknown_dispute"
    assert dispute.refusal("dsp-P-1", T0 + timedelta(days=7, seconds=1)) == "evidence_too_late"
    dispute.at["evidence:chargeback"] = T0
    assert dispute.refusal("dsp-P-1", T0) == "unknown_dispute"


async def test_the_simulator_takes_tells_and_gives_back_and_goes_on_after_a_restart(tmp_path):
    Turned.ahead = timedelta()
    now = datetime.now(UTC)
    clock = Turned(now, now, 360_000.0)  # an hour is ten milliseconds
    heard: list[dict] = []

    async def hook(request: web.Request) -> web.Response:
        body = await request.read()
        Webhook(SECRET).verify(body, dict(request.headers))
        heard.append(json.loads(body))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", hook)
    async with served(app) as address:
        async with simulator(tmp_path, clock, hook=address) as provider:
            paid = call("a", token="tok_test_bank_late_won")
            for kind, key in (("authorise", "a"), ("capture", "c"), ("release", "l")):
                assert (await getattr(provider, kind)(paid._replace(intent_id=key))).outcome == "succeeded"
            payment = provider.simulated.book.payments["P-1"]
            await until(lambda: payment.disputed == 5_000, "the bank takes it")
            refused = await provider.refund(call("r", 1))
            assert (refused.outcome, refused.reason) == ("failed", "exceeds_captured")
        async with simulator(tmp_path, clock, hook=address) as provider:
            payment = provider.simulated.book.payments["P-1"]
            assert payment.disputed == 5_000 and payment.dispute.last == "chargeback"
            assert (await provider.evidence(call("e1")._replace(reference="dsp-P-2"))).reason == "unknown_dispute"
            assert (await provider.evidence(call("e2")._replace(reference="dsp-P-1"))).outcome == "succeeded"
            await until(lambda: payment.disputed == 0, "the bank gives it back")
            await until(lambda: len({b["data"]["stage"] for b in heard}) == 2, "both are told")
            assert "chargeback_reversed" in provider.simulated.book.settlement()
    assert {b["type"] for b in heard} == {DISPUTE_WEBHOOK_TYPE}
    told = [(b["data"]["stage"], b["data"]["amount"], b["data"]["dispute_id"]) for b in heard]
    assert set(told) == {("chargeback", 5_000, "dsp-P-1"), ("chargeback_reversed", 5_000, "dsp-P-1")} and len(told) >= 3
    assert [line["kind"] for line in journal(tmp_path) if line["outcome"] == "succeeded"] == [
        "authorise", "capture", "release", "chargeback", "evidence", "chargeback_reversed"]
