"""`tradewind order`: an order out of options or a file, and all its commands on the real stack."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.parties import unseal
from services.cli import exits, pace
from services.cli.main import main
from services.cli.order_place import Wish, WrongInput, order_from, order_id_for, order_of, same_but_for_time
from services.runtime import clock
from services.runtime.processes import free_port, write_json
from services.runtime.settings import Settings

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
KEY = bytes(range(32))
O = "cli-1"


# -- an order out of options or a file ----------------------------------------------------------------------------------


def test_an_order_of_options() -> None:
    order = order_of(Wish(skus=["TEA-1:3:3000", "CUP-1:1:1200"], currency="JPY", destination="JP", freight=500), O, KEY, NOW)
    assert (order.total, [(l.line_no, l.sku, l.quantity, l.amount) for l in order.lines]) == (
        4700, [(1, "TEA-1", 3, 3000), (2, "CUP-1", 1, 1200)])
    assert unseal(order.buyer, KEY).name == "Test Buyer"


def test_a_scenario_chooses_id_token_and_goods() -> None:
    assert order_id_for("7", "declined", None) == "try.declined.cli-7"
    assert order_id_for("7", "declined", "mine") == "try.declined.mine" == order_id_for("7", "declined", "try.declined.mine")
    assert order_of(Wish(scenario="declined"), O, KEY, NOW).payment_token == "tok_test_declined"
    assert order_of(Wish(scenario="no_stock"), O, KEY, NOW).lines[0].sku.startswith("NONE-")
    refused = order_of(Wish(scenario="refused"), O, KEY, NOW)
    assert refused.total != sum(line.amount for line in refused.lines)


@pytest.mark.parametrize(("wish", "named"), [
    (Wish(skus=["TEA-1"]), "SKU:QTY:AMOUNT"), (Wish(skus=["TEA-1:0:5"]), "quantity"), (Wish(skus=["t e:1:5"]), "sku"),
    (Wish(skus=["A:1:5"], currency="euro"), "currency"), (Wish(merchant="nobody"), "nobody"),
])
def test_wrong_options_are_named(wish: Wish, named: str) -> None:
    with pytest.raises(WrongInput, match=named):
        order_of(wish, O, KEY, NOW)
    with pytest.raises(WrongInput, match="no scenario"):
        order_id_for("7", "nonsense", None)


FILE = {"merchant_id": "my-shop", "currency": "JPY", "origin": "US", "destination": "JP", "freight": 500,
        "lines": [{"line_no": 1, "sku": "TEA-1", "quantity": 3, "amount": 3000}], "buyer": {"name": "Aiko Tanaka"}}


@pytest.mark.parametrize("words", [("frob",), ("order", "show"), ("network", "compare", "--orders", "many"), ("quote", "--frob")])
def test_a_wrong_word_is_told_in_json_as_well(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*words, "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert end.value.code == told["exit"] == exits.USAGE
    assert told["error"]["what"] and "--help" in told["error"]["remedy"]


def test_an_order_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "order.json"
    path.write_text(json.dumps(FILE))
    order = order_from(path, None, "7", KEY, NOW)
    assert (order.order_id, order.total, order.consignee) == ("cli-7", 3500, order.buyer)
    later = order_from(path, "cli-7", "", KEY, NOW + timedelta(hours=1))
    before = json.loads(order.model_dump_json()) | {r: {"token": order.buyer.token} for r in ("buyer", "consignee")}
    assert same_but_for_time(later, before) and not same_but_for_time(later, before | {"freight": 1})


@pytest.mark.parametrize(("content", "named"), [
    (b"{", "not JSON"), (b"\xff", "not JSON"), (b"[]", "one JSON object"),
    (json.dumps(FILE | {"lines": 3}).encode(), "whole amounts"),
    (json.dumps(FILE | {"buyer": None}).encode(), "buyer is missing"), (json.dumps(FILE | {"typo": 1}).encode(), "typo"),
    (json.dumps(FILE | {"buyer": {"name": ""}}).encode(), "name"),
])
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "order.json"
    path.write_bytes(content)
    with pytest.raises(WrongInput, match=named) as caught:
        order_from(path, None, "7", KEY, NOW)
    assert caught.value.where == str(path)


def test_a_running_clock_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    clock.save(path, clock.Clock(datetime.now(UTC), NOW, 1000.0), stopped=False)
    time.sleep(0.05)
    assert timedelta(seconds=40) < clock.running(path).now() - NOW < timedelta(hours=1)
    assert abs(clock.running(tmp_path / "none.json").now() - datetime.now(UTC)) < timedelta(seconds=5)


# -- all of it --------------------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def tradewind(tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch,
              capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """`tradewind(*words)` -> exit code, the JSON object, stderr; with servers of its own, because its services read every
    order from the beginning, and other tests' topics hold orders that were never meant to make sense."""
    for name in [name for name in os.environ if name.startswith("TRADEWIND_")]:
        monkeypatch.delenv(name)
    ports = free_port(5)
    own = {"DATA_FOLDER": tmp_path / "data", "CACHE_FOLDER": cache_folder, "SPEED": 43200, "KAFKA_PORT": free_port(2)}
    own |= {f"{name}_PORT": ports + n for n, name in enumerate(("POSTGRES", "ORDERS", "CONSOLE", "PROVIDER", "WEBHOOK"))}
    for name, value in own.items():
        monkeypatch.setenv(f"TRADEWIND_{name}", str(value))
    # How fast the trade clock may run here is test_pace.py's subject: this machine is said to have been measured.
    quick = pace.Latency(0.05, 0.1, 100, datetime.now(UTC).isoformat(), pace._place(Settings()))
    write_json(tmp_path / "data" / "latency.json", {quick.place: asdict(quick)})

    def run(*words: str) -> tuple[int, dict[str, Any], str]:
        with pytest.raises(SystemExit) as left:
            main([*words, "--json"])
        out, err = capsys.readouterr()
        return left.value.code or 0, json.loads(out.splitlines()[-1]), err

    yield run
    run("down")


def test_place_wait_show_timeline_and_a_refusal(tradewind: Run) -> None:
    code, line, error = tradewind("order", "show", O)
    assert code == exits.NOT_RUNNING and "tradewind up" in error
    code, line, error = tradewind("up", "--detach")
    assert code == exits.OK, error
    _place_and_look(tradewind)
    _duties_paid(tradewind)
    _refusals(tradewind)
    _keys(tradewind)
    _what_waits(tradewind)


def _place_and_look(tradewind: Run) -> None:
    scenario = ("--scenario", "customs_held", "--id", "cli")
    code, line, error = tradewind("order", "place", "--stock", *scenario, "--until", "completed")
    order_id = "try.customs_held.cli"
    assert (code, line) == (exits.OK, {"order": order_id, "status": "completed", "reason": "", "repeated": False}), error
    code, line, _ = tradewind("order", "show", order_id)
    assert code == exits.OK and {s["status"] for s in line["services"].values()} == {"completed", "closed"}
    amounts = line["parcels"][f"{order_id}-P1"]["amounts"]
    assert amounts["captured"] == amounts["released"] > 0 == amounts["held"] and line["why"][0].startswith("completed")
    code, line, _ = tradewind("order", "timeline", order_id)
    types = [e["type"] for e in line["events"]]
    assert code == exits.OK and line["ended"] == "completed" and types[0] == "PlaceOrder"
    assert types.index("CustomsHeld") < types.index("CustomsReleased") < types.index("OrderCompleted")
    assert all(e["cause"] < e["n"] for e in line["events"] if e["cause"])
    assert all(e["cause"] for e in line["events"] if e["lane"] != "world")


def _duties_paid(tradewind: Run) -> None:
    goods = ("--sku", "MAPLE-1S:2:6800", "--destination", "GB", "--currency", "GBP", "--freight", "500")
    code, line, error = tradewind("order", "place", "--stock", *goods, "--ddp", "--id", "ddp", "--wait")
    assert code == exits.OK and line["status"] == "accepted", error
    events = tradewind("order", "timeline", "ddp")[1]["events"]
    placed = next(e for e in events if e["type"] == "OrderPlaced")
    # A rule without an end, as the trade clock starts today: 20 % of 68.00 + 5.00 = 14.60
    assert (placed["data"]["tax"], placed["data"]["total"]) == (1460, 6800 + 500 + 1460)
    assert "import tax GBP 14.60, landed cost by gb.low-value.marketplace" in placed["facts"]
    assert tradewind("order", "show", "ddp")[1]["landed_cost"] == placed["data"]["quote"]
    code, line, _ = tradewind("order", "place", "--sku", "MAPLE-1S:2:6800", "--destination", "AU", "--currency", "AUD", "--ddp")
    assert code == exits.REFUSED and line["error"]["what"].startswith("quote_incomplete: ")
    assert tradewind("order", "place", *goods, "--ddp", "--tax", "5")[0] == exits.USAGE


def _refusals(tradewind: Run) -> None:
    order_id = "try.customs_held.cli"
    for reason, words in {
        "already_closed": ("cancel", order_id), "unknown_order": ("cancel", "never-placed"),
        "unknown_parcel": ("dispute", order_id, "--parcel", "P9"), "unknown_line": ("refund", order_id, "--line", "77:1"),
        "no_dispute": ("resolve", order_id, "--parcel", "P1", "--outcome", "won"),
        "total_mismatch": ("place", "--scenario", "refused", "--wait"),
        "order_exists": ("place", "--scenario", "customs_held", "--id", "cli", "--freight", "5"),
    }.items():
        code, line, error = tradewind("order", *words)
        assert code == exits.REFUSED and line["error"]["what"].startswith(f"{reason}: "), (reason, line)
        assert line["error"]["remedy"] and reason in error
    assert tradewind("order", "cancel", order_id, "--line", "one")[0] == exits.USAGE
    assert tradewind("order", "show", "never-placed")[0] == tradewind("order", "timeline", "never-placed")[0] == exits.REFUSED


def _keys(tradewind: Run) -> None:
    order_id = "try.customs_held.cli"
    grant = ("order", "refund", order_id, "--amount", "100", "--key", "goodwill")
    first, again = tradewind(*grant), tradewind(*grant)
    assert first[0] == again[0] == exits.OK and first[1]["command_id"] == again[1]["command_id"]
    assert (first[1]["repeated"], again[1]["repeated"]) == (False, True) and first[1]["events"][0]["type"] == "RefundGranted"
    code, line, _ = tradewind("order", "refund", order_id, "--amount", "200", "--key", "goodwill")
    assert code == exits.REFUSED and line["error"]["what"].startswith("id_reused")
    code, line, _ = tradewind("order", "confirm", order_id, "--parcel", "P1")
    assert (code, line["status"]) == (exits.OK, "unchanged")
    code, line, _ = tradewind("order", "place", "--scenario", "customs_held", "--id", "cli", "--until", "completed")
    assert code == exits.OK and line["repeated"] and line["status"] == "completed"


def _what_waits(tradewind: Run) -> None:
    code, line, error = tradewind("order", "place", "--stock", "--scenario", "lost_silent", "--key", "k", "--wait")
    assert code == exits.OK and line["status"] == "accepted", error
    code, answer, _ = tradewind("order", "confirm", line["order"], "--parcel", "P1")
    assert (code, answer["status"], answer["waits_for"]) == (exits.OK, "waiting", "ParcelDelivered")
    code, seen_, _ = tradewind("order", "show", line["order"])
    assert [w["type"] for w in seen_["waiting"]] == ["ConfirmReceipt"]
    assert "orders keeps ConfirmReceipt until ParcelDelivered" in seen_["why"]
