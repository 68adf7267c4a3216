"""The benchmark: a short run end to end, every figure there and sane, and what it leaves is consistent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.bench import measure, orders
from services.bench.measure import Snapshot
from services.bench.mover import Share
from services.bench.run import Plan, TooLittleDisk, own_settings, require_disk, retain, table
from services.bench.parts import PARTS, pairs
from services.cli import exits
from services.cli.table import UnknownProgram
from services.orders import rulebook
from services.runtime.processes import free_port
from services.runtime.settings import Settings
from tests.tally import until

ORDERS = 300
PROCESSES = {"orders", "payments", "shipping", "world", "load", "kafka", "postgres"}
COMMAND = "from services.cli.main import main; main()"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of a `tradewind` of its own; the folder is that of the settings, the benchmark's lies below it."""
    ports = free_port(5)
    names = ("POSTGRES", "ORDERS", "CONSOLE", "PROVIDER", "WEBHOOK")
    yield {name: value for name, value in os.environ.items() if not name.startswith("TRADEWIND_")} | {
        "TRADEWIND_DATA_FOLDER": str(tmp_path_factory.mktemp("bench")), "NO_COLOR": "1",
        "TRADEWIND_CACHE_FOLDER": str(Settings().cache_folder), "TRADEWIND_KAFKA_PORT": str(free_port(2)),
    } | {f"TRADEWIND_{name}_PORT": str(ports + n) for n, name in enumerate(names)}


def tradewind(env: dict[str, str], *arguments: str) -> tuple[int, dict, str]:
    done = subprocess.run([sys.executable, "-c", COMMAND, *arguments, "--json"], env=env, capture_output=True, text=True,
                          timeout=600)
    return done.returncode, json.loads(done.stdout.strip().splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def figures(environment: dict[str, str]) -> dict:
    code, line, error = tradewind(environment, "bench", "--orders", str(ORDERS), "--seed", "7", "--parts", "8")
    assert code == exits.OK, (line, error)
    assert not error  # progress belongs on a terminal
    return line


def test_all_lifecycles_end_and_their_rate_is_told(figures: dict) -> None:
    assert figures["placed"] == figures["finished"] == ORDERS
    assert "stalled" not in figures and figures["dead_letters"] == {} and figures["restarts"] == {}
    assert figures["lifecycles_per_s"] > 1 and figures["seconds"] < figures["whole_run_s"]
    assert figures["in_flight"] == ORDERS // 5 and figures["seed"] == 7 and figures["cores"] >= 1


@pytest.mark.parametrize("where", ["", "half_load", "limit", "limit_full_batches"])
def test_processor_time_is_told_for_every_process(figures: dict, where: str) -> None:
    micros = (figures[where] if where else figures)["cpu_us_per_order"]
    assert set(micros) == PROCESSES | {"total"}
    assert all(micros[name] > 0 for name in ("orders", "payments", "shipping", "world", "kafka", "postgres"))
    assert abs(micros["total"] - sum(micros[name] for name in PROCESSES)) <= len(PROCESSES)


def test_each_part_is_told_with_what_it_adds(figures: dict) -> None:
    assert set(figures["parts"]) == set(PARTS)
    for part in figures["parts"].values():
        assert part["orders"] == 8 and part["without_us"] > 0 and part["ratio"] > 0
        assert abs(part["adds_us"]["total"] - (part["with_us"] - part["without_us"])) <= 1
        assert set(part["adds_us"]) == {"orders", "payments", "shipping", "cold_view", "total"}
    parts = figures["parts"]
    assert parts["cold_chain"]["adds_records"] == 16 and parts["cold_chain"]["adds_us"]["cold_view"] > 0
    assert parts["documents_missing"]["adds_records"] >= 3  # missing, supplied twice: to orders, and by them
    assert parts["real_name"]["adds_records"] >= 4  # held, answered twice, resumed; and the promise's clock
    assert parts["quota"]["adds_records"] >= 1 and parts["promise"]["adds_bytes"] > 300
    assert parts["screening"]["adds_records"] == parts["fx"]["adds_records"] == parts["merchant_standing"]["adds_records"] == 0


def test_the_two_sides_of_a_part_differ_in_the_part_alone() -> None:
    given = {"vault_key": bytes(32), "placed_at": datetime(2026, 11, 25, tzinfo=UTC)}
    for part in PARTS.values():
        made = list(pairs(part, rulebook.load(), 3, 5, **given))
        assert len(made) == 5
        without, with_ = part.platform(False), part.platform(True)
        for plain, dressed in made:
            assert plain.order_id == dressed.order_id and plain.destination == dressed.destination
            assert (plain == dressed) == (without != with_), "an order has the part, or else its platform has it"


def test_delays_are_told_at_full_and_at_half_load(figures: dict) -> None:
    for part in (figures, figures["half_load"]):
        settled, requested = part["delays"]["settled"], part["delays"]["fulfilment_requested"]
        assert 0 < requested["p50_s"] <= settled["p50_s"] <= settled["p99_s"] < 60
        assert part["p50_s"] == settled["p50_s"] and part["p99_s"] == settled["p99_s"]
    assert figures["half_load"]["wanted_per_s"] == pytest.approx(figures["lifecycles_per_s"] / 2, rel=0.01)


def test_memory_and_mix_are_told(figures: dict) -> None:
    assert set(figures["rss_mb"]) == PROCESSES
    assert all(moments[m] > 1 for moments in figures["rss_mb"].values() for m in ("start", "warm", "end"))
    mix = figures["mix"]
    assert mix["cross_border_percent"] == 100 and "US" not in mix["destinations_percent"]
    assert sum(mix["destinations_percent"].values()) == pytest.approx(100, abs=1)
    assert 12 < mix["two_parcels_percent"] < 28 and 1 < mix["exits_percent"] < 10
    assert {"tradewind", "python", "kafka", "postgres"} <= set(figures["versions"])


def test_the_limit_moves_what_the_run_moved(figures: dict) -> None:
    traffic = figures["traffic"]
    assert traffic["topics"]["orders.intake.v1"]["records"] > 1.5  # the order and the buyer's confirmation
    assert traffic["topics"]["shipping.shipment.v1"]["records"] > 8
    for service in ("orders", "payments", "shipping"):
        assert traffic["rows"][service]["orders"]["inserted"] == pytest.approx(1, abs=0.02)
        assert traffic["transactions"][service] > 0
    assert traffic["rows"]["payments"]["ledger"]["inserted"] > 3
    for suffix in ("", "_full_batches"):
        assert figures[f"limit{suffix}"]["lifecycles_per_s"] > 0 and figures[f"limit_ratio{suffix}"] > 0
        assert figures[f"limit_cpu_ratio{suffix}"] > 0


def test_nothing_is_left_running(figures: dict, environment: dict[str, str]) -> None:
    folder = environment["TRADEWIND_DATA_FOLDER"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if folder in " ".join(p.info["cmdline"] or ())]


def test_the_audit_of_what_it_left_is_clean(figures: dict, environment: dict[str, str]) -> None:
    left = environment | {"TRADEWIND_DATA_FOLDER": str(Path(environment["TRADEWIND_DATA_FOLDER"]) / "bench"),
                          "TRADEWIND_PARTITIONS": str(figures["partitions"])}
    code, line, error = tradewind(left, "up", "--detach", "--only", "")
    assert code == exits.OK, error
    try:
        code, line, error = tradewind(left, "audit")
    finally:
        tradewind(left, "down")
    assert code == exits.OK and line["violations"] == 0, line
    assert line["orders"] >= ORDERS


async def test_a_long_run_can_let_its_topics_forget(kafka: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 2, 1) for name in ("forgets.a", "forgets.b")])
        await retain(kafka, ["forgets.a", "forgets.b"], 2, 400_000_000)

        async def applied() -> bool:  # a broker is told of what the controller has accepted a moment later
            [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "forgets.b")])
            found = {name: value for _, _, _, _, configs in answer.resources for name, value, *_ in configs}
            return (found["retention.bytes"], found["retention.ms"], found["segment.bytes"]) == ("100000000", "-1", "25000000")

        await until(applied)
    finally:
        await admin.close()


def test_memory_is_noted_after_ten_thousand_orders_and_then_ten_times() -> None:
    assert Plan(300, 1).memory_marks == [] and Plan(20_000, 1).memory_marks == [10_000]
    assert Plan(1_000_000, 1).memory_marks == [10_000, *range(100_000, 1_000_000, 100_000)]


def test_a_run_says_how_much_disk_it_needs(tmp_path: Path) -> None:
    with pytest.raises(TooLittleDisk, match="GB are free") as refused:
        require_disk(Settings(data_folder=tmp_path), Plan(10**9, 1, limit=False, retain_gb=1.0), 10**9)
    assert "--retain-gb" in refused.value.remedy


def test_the_same_seed_gives_the_same_orders(tmp_path: Path) -> None:
    def built(name: str) -> tuple[orders.Mix, list, list]:
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        mix, stock = orders.build(tmp_path / name, seed=3, count=50, vault_key=b"k" * 32, placed_at=moment, partitions=6)
        reader = orders.Reader(tmp_path / name)
        return mix, stock, [*reader.take(20), *reader.take(100)]

    (mix, stock, first), (again, restock, second) = built("a"), built("b")
    assert mix == again and mix.orders == 50 and [o.key for o in first] == [o.key for o in second] and len(first) == 50
    assert [r.value for r in stock] == [r.value for r in restock] and all(0 <= o.partition < 6 for o in first)


def test_costs_are_what_lies_between_two_snapshots() -> None:
    first, last = Snapshot(10, 0, 100, {"orders": 1.0, "kafka": 2.0}, 50), Snapshot(12, 2000, 300, {"orders": 1.5, "kafka": 2.1}, 53)
    assert measure.cost(first, last) == {
        "lifecycles_per_s": 100.0, "cpu_us_per_order": {"orders": 2500, "kafka": 500, "total": 3000}, "seconds": 2,
        "orders": 200, "cores_used": 0.3, "cores_others": 1.2}
    assert measure.cost(first, first)["lifecycles_per_s"] == 0


def test_shares_lose_no_fraction() -> None:
    share = Share(0.3)
    assert sum(share.take() for _ in range(1000)) in (299, 300)


def test_a_profiled_program_runs_under_the_profiler_and_servers_are_always_own(tmp_path: Path) -> None:
    settings = own_settings(Settings(data_folder=tmp_path, bootstrap_servers="elsewhere:1", orders_dsn="postgresql://elsewhere"))
    assert settings.bootstrap_servers is None and settings.needs_local_postgres and settings.data_folder == tmp_path / "bench"
    by_name = {p.name: p for p in table(settings, Plan(1000, 1, profile="orders"))}
    assert by_name["orders"].module == "cProfile" and by_name["payments"].module == "services.payments.app"
    with pytest.raises(UnknownProgram, match="ordres"):
        table(settings, Plan(1000, 1, profile="ordres"))
