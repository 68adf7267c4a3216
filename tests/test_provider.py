"""The contract of the payment provider, run on both: in the process, and over HTTP against the simulator."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web

from schemas.provider_api import REASONS, SCRIPTS
from services.cli.money_reconcile import Movement, match
from services.payments.providers import Answer, Call, CallRefused, ProviderPending, ProviderUnavailable
from services.payments.providers.http import HttpProvider
from services.payments.providers.inprocess import InProcessProvider
from services.simulators.provider_book import Journal, JournalInUse
from tests.provider_helpers import PENDING_S, Turned, call, journal, served, simulator


@pytest.fixture
def clock():
    Turned.ahead = timedelta()
    now = datetime.now(UTC)
    return Turned(now, now)


@pytest.fixture(params=["inprocess", "http"])
async def provider(request, tmp_path, clock):
    if request.param == "inprocess":
        yield InProcessProvider(clock, knows_all=True, pending_s=PENDING_S)
    else:
        async with simulator(tmp_path, clock) as client:
            yield client


async def succeeds(provider, kind: str, asked: Call) -> Answer:
    answer = await getattr(provider, kind)(asked)
    assert (answer.outcome, answer.amount, answer.reason) == ("succeeded", asked.amount, "") and answer.reference
    return answer


async def fails(provider, kind: str, asked: Call, reason: str) -> Answer:
    answer = await getattr(provider, kind)(asked)
    assert (answer.outcome, answer.amount, answer.reason) == ("failed", asked.amount, reason) and reason in REASONS
    return answer


async def answered(provider, kind: str, asked: Call) -> Answer:
    """Ask until the answer is definite."""
    for _ in range(400):
        try:
            return await getattr(provider, kind)(asked)
        except ProviderUnavailable:
            await asyncio.sleep(0.005)
    raise AssertionError(f"no definite answer to {asked}")


# -- the contract, on both providers --------------------------------------------------------------------------------------


async def test_the_money_of_a_payment_never_exceeds_what_came_before(provider) -> None:
    await fails(provider, "capture", call("c0"), "unknown_payment")
    await fails(provider, "authorise", call("a0", 0), "amount_not_positive")
    await succeeds(provider, "authorise", call("a1", 100))
    await fails(provider, "authorise", call("a2", 100), "already_authorised")
    await fails(provider, "capture", call("c1", 101), "exceeds_authorised")
    await fails(provider, "capture", call("c2", 50, currency="GBP"), "currency_mismatch")
    await fails(provider, "refund", call("r1", 1), "exceeds_captured")
    await fails(provider, "release", call("l1", 1), "exceeds_captured")
    await succeeds(provider, "capture", call("c3", 60))
    await fails(provider, "void", call("v1", 41), "exceeds_authorised")
    await succeeds(provider, "void", call("v2", 10))
    await succeeds(provider, "capture", call("c4", 30))
    await fails(provider, "void", call("v3", 0), "nothing_to_void")
    await succeeds(provider, "release", call("l2", 90))
    await fails(provider, "release", call("l3", 1), "exceeds_captured")
    await succeeds(provider, "refund", call("r2", 40))  # after the release: clawed back from the merchant
    await fails(provider, "refund", call("r3", 51), "exceeds_captured")
    await succeeds(provider, "refund", call("r4", 50))


async def test_a_void_of_nothing_gives_up_all_that_is_left(provider) -> None:
    await succeeds(provider, "authorise", call("a1", 100))
    await succeeds(provider, "void", call("v1", 0))
    await fails(provider, "capture", call("c1", 1), "exceeds_authorised")


async def test_the_same_key_is_answered_the_same_and_moves_money_once(provider) -> None:
    for kind, amount in (("authorise", 100), ("capture", 60), ("refund", 40), ("release", 40), ("void", 20)):
        first = await succeeds(provider, kind, call(kind, amount))
        assert [await getattr(provider, kind)(call(kind, amount)) for _ in range(3)] == [first] * 3
    refused = await fails(provider, "refund", call("r2", 21), "exceeds_captured")
    await succeeds(provider, "refund", call("r3", 20))
    assert await provider.refund(call("r2", 21)) == refused  # definite stays definite


async def test_a_key_with_another_body_is_refused(provider) -> None:
    await succeeds(provider, "authorise", call("k"))
    for kind, other in (("authorise", call("k", 4_999)), ("capture", call("k")), ("authorise", call("k", payment="P-2"))):
        with pytest.raises(CallRefused):
            await getattr(provider, kind)(other)
    with pytest.raises(ProviderPending):
        await provider.authorise(call("p", token="tok_test_pending", payment="P-3"))
    with pytest.raises(CallRefused):
        await provider.authorise(call("p", 1, token="tok_test_pending", payment="P-3"))


SCRIPTED = {script.name: script for script in SCRIPTS}


def scripted(name: str, by: str, key: str, payment: str = "P-1") -> Call:
    script = SCRIPTED[name]
    return call(key, script.amount, payment) if by == "amount" else call(key, 777, payment, token=script.token)


BY = pytest.mark.parametrize("by", ["amount", "token"])


@BY
async def test_declined(provider, by) -> None:
    await fails(provider, "authorise", scripted("declined", by, "a1"), "card_declined")
    await fails(provider, "capture", call("c1", 1), "unknown_payment")
    await succeeds(provider, "authorise", call("a2"))  # another card


@BY
@pytest.mark.parametrize("name,times", [("timeout", 1), ("error", 2)])
async def test_no_answer_for_a_while_then_exactly_one_effect(provider, by, name, times) -> None:
    for kind in ("authorise", "capture", "refund", "release"):
        asked = scripted(name, by, kind)
        for _ in range(times):
            with pytest.raises(ProviderUnavailable) as why:
                await getattr(provider, kind)(asked)
            assert why.type is ProviderUnavailable
        await succeeds(provider, kind, asked)
    assert (await answered(provider, "refund", call("r2", 1))).reason == "exceeds_captured"


@BY
async def test_a_refund_that_can_never_be_made(provider, by) -> None:
    for kind in ("authorise", "capture"):
        await succeeds(provider, kind, scripted("refund_fails", by, kind))
    for key in ("r1", "r2"):
        await fails(provider, "refund", scripted("refund_fails", by, key), "account_closed")
    await fails(provider, "refund", call("r3", 5), "account_closed")  # the payment keeps its misfortune
    await succeeds(provider, "release", scripted("refund_fails", by, "l1"))


@BY
async def test_pending_then_succeeds(provider, by) -> None:
    for kind in ("authorise", "capture"):
        asked = scripted("pending", by, kind)
        with pytest.raises(ProviderPending):
            await getattr(provider, kind)(asked)
        assert (await answered(provider, kind, asked)).outcome == "succeeded"
        await succeeds(provider, kind, asked)


@BY
async def test_abandoned_fails_after_26_trade_hours(tmp_path, clock, by) -> None:
    inprocess = InProcessProvider(clock, knows_all=True)
    async with simulator(tmp_path, clock) as client:
        for provider in (inprocess, client):
            Turned.ahead = timedelta()
            asked = scripted("abandoned", by, "a1")
            for Turned.ahead in (timedelta(), timedelta(hours=25, minutes=59)):
                with pytest.raises(ProviderPending):
                    await provider.authorise(asked)
            Turned.ahead = timedelta(hours=26)
            if provider is client:  # its timer sleeps 26 hours; the next one looks at the clock
                provider.simulated._timers["a1"].cancel()
                provider.simulated._settle("a1")
            await fails(provider, "authorise", asked, "authentication_abandoned")
            await fails(provider, "capture", call("c1", 1), "unknown_payment")


# -- only in process ------------------------------------------------------------------------------------------------------


async def test_in_process_memory_is_bounded_and_what_is_forgotten_is_trusted() -> None:
    provider = InProcessProvider(knows_all=True, keys_max=10, payments_max=10)
    for n in range(1_000):
        provider.perform("authorise", call(f"a{n}", payment=f"P-{n}"))
    assert len(provider._keys.young) + len(provider._keys.old) <= 20
    assert len(provider._payments.young) + len(provider._payments.old) <= 20
    assert provider.perform("authorise", call("a995", payment="P-995")).outcome == "succeeded"
    assert provider.perform("capture", call("c0", payment="P-0")).outcome == "succeeded"
    assert provider.perform("capture", call("c999", 5_001, "P-999")).reason == "exceeds_authorised"


# -- only over HTTP -------------------------------------------------------------------------------------------------------


async def test_what_is_not_definite_is_asked_again_and_what_is_refused_is_not(tmp_path, clock) -> None:
    status, text = 200, b""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, body=text)

    app = web.Application()
    app.router.add_post("/v1/{kind}", handler)
    good = {"intent_id": "k", "kind": "authorise", "order_id": "O-1", "payment_id": "P-1", "outcome": "succeeded",
            "amount": 5_000, "currency": "EUR", "reference": "r", "news": 1}
    async with served(app) as address:
        client = HttpProvider(address, timeout_s=2)
        for status, answer in ((200, b""), (200, b"<html>"), (200, b"{}"), (200, good | {"amount": 1}), (500, good),
                               (503, b""), (429, b""), (302, good), (200, good | {"intent_id": "other"}),
                               (200, b" " * 70_000)):
            text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            with pytest.raises(ProviderUnavailable):
                await client.authorise(call("k"))
        text = b"no"
        for status in (400, 401, 404, 422):
            with pytest.raises(CallRefused):
                await client.authorise(call("k"))
        status, text = 200, json.dumps(good).encode()
        assert await client.authorise(call("k")) == Answer("succeeded", 5_000, "r")
        await client.close()
    with pytest.raises(ProviderUnavailable):
        await HttpProvider(address).authorise(call("k"))  # nobody listens any more


async def test_the_provider_refuses_what_it_cannot_read(tmp_path, clock) -> None:
    good = {"order_id": "O-1", "payment_id": "P-1", "amount": 5, "currency": "EUR"}
    async with simulator(tmp_path, clock) as client, aiohttp.ClientSession() as session:
        for status, kind, key, body in (
            (404, "steal", "k", good), (400, "authorise", "", good), (400, "authorise", "a b", good),
            (422, "authorise", "k", good | {"amount": 1.5}), (422, "authorise", "k", good | {"amount": -1}),
            (422, "authorise", "k", good | {"tip": 1}), (422, "authorise", "k", [])):
            async with session.post(f"{client.address}/v1/{kind}", json=body, headers={"Idempotency-Key": key}) as response:
                assert (response.status, response.content_type) == (status, "application/problem+json")
        async with session.get(f"{client.address}/healthz") as response:
            assert (await response.json())["payments"] == 0
        await succeeds(client, "authorise", call("a1", 100))
        await succeeds(client, "capture", call("c1", 60))
        async with session.get(f"{client.address}/v1/payments/P-1") as response:
            assert await response.json() == {"currency": "EUR", "authorised": 100, "captured": 60, "voided": 0,
                                             "refunded": 0, "released": 0, "disputed": 0}
        async with session.get(f"{client.address}/v1/settlement") as response:
            found = match(await response.text(), [Movement("P-1", "capture", "EUR", 60, clock.now())])
            assert (found.lines, found.matched, found.breaks) == (1, 1, [])
        async with session.get(f"{client.address}/v1/payments/P-9") as response:
            assert response.status == 404
    assert [line["intent_id"] for line in journal(tmp_path)] == ["a1", "c1"]


async def test_a_journal_has_one_writer_and_loses_only_a_half_line(tmp_path) -> None:
    first = Journal(tmp_path / "j" / "x.ndjson")
    first.write({"n": 1})
    with pytest.raises(JournalInUse):
        Journal(tmp_path / "j" / "x.ndjson")
    first.close()
    with open(tmp_path / "j" / "x.ndjson", "ab") as file:
        file.write(b'{"n": 2')
    again = Journal(tmp_path / "j" / "x.ndjson")
    assert again.read() == [{"n": 1}]
    again.write({"n": 3})
    assert again.read() == [{"n": 1}, {"n": 3}]
    again.close()
