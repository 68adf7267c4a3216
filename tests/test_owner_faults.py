"""Faults around the partition owner: a stopped process, an unknown commit, instances that come and go, a hot row."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from urllib.parse import urlsplit, urlunsplit

import pytest

from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.orders_order import OrderPlaced, PlacedLine
from schemas.shipping_report import InboundReceived
from schemas.topics import ORDER, REPORT
from services.runtime import processes, service, storage
from services.runtime.migrate import migrate
from services.runtime.settings import Settings
from services.runtime.topics import ensure_topics
from services.shipping import app as shipping
from tests.tally import NOW, Add, Fact, Open, Place, Raw, content, record, running, send, until

PARTITIONS = 6  # of the topics that all tests share


# -- a process that stops, and goes on when it is too late ----------------------------------------------------------------


@contextlib.asynccontextmanager
async def process(place: Place, folder, name: str, member: str = ""):
    """An instance of the tiny service as a process of its own."""
    command = [sys.executable, "-m", "tests.tally", place.spec.name, place.dsn, place.bootstrap, str(place.partitions)]
    child = processes.spawn(name, command + [member] * bool(member), log=folder / f"{name}.log")
    try:
        yield child
    finally:
        child.signal(signal.SIGKILL)
        await processes.gone(child, 5)


async def test_a_zombie_changes_nothing(place, tmp_path):
    """Stopped in the middle of a load; its successor takes its place in the group and finishes; then it wakes up."""
    place, total = await place(), 4000
    await place.send(Open(order_id="A"))
    async with process(place, tmp_path, "zombie", member="one") as zombie:
        await until(lambda: place.query("SELECT 1 FROM orders"))
        sending = asyncio.create_task(place.send(*(Fact(order_id="A", text=f"t{n}") for n in range(total))))
        await until(lambda: place.query("SELECT 1 FROM applied"))
        zombie.signal(signal.SIGSTOP)
        epoch = (await place.query("SELECT epoch FROM partitions"))[0][0]
        await sending
        async with process(place, tmp_path, "successor", member="one"):
            await until(lambda: place.query("SELECT 1 FROM applied HAVING count(*) = $1", total))
            log, before = tmp_path / "zombie.log", (tmp_path / "zombie.log").stat().st_size
            zombie.signal(signal.SIGCONT)
            await until(lambda: log.stat().st_size > before)  # the group or the fence has told it
            zombie.signal(signal.SIGKILL)
            await place.send(Add(order_id="A", text="end"))
            await place.applies(*(f"t{n}" for n in range(total)), "end")
            assert (await place.query("SELECT epoch FROM partitions"))[0][0] > epoch
        found = [id for id, _ in dict.fromkeys(await place.published())]
        assert found == [f"tally:A:{n}" for n in range(1, total + 2)], "without repetitions: a path of sequences"


# -- the answer to a commit is lost ---------------------------------------------------------------------------------------


class Cutter:
    """A TCP proxy in front of PostgreSQL that cuts a connection at the batch that writes `text`: before it is sent, or after.

    That statement is a transaction of its own, so its answer is the answer to its commit."""

    def __init__(self, dsn: str):
        self.target = urlsplit(dsn)
        self.armed, self.text, self.cuts = "", "", 0

    async def __aenter__(self) -> Cutter:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        user = self.target.netloc.rpartition("@")[0]
        self.dsn = urlunsplit(self.target._replace(netloc=f"{user}@127.0.0.1:{port}"))
        return self

    async def __aexit__(self, *_) -> None:
        self.server.close()

    async def _serve(self, client_in, client_out) -> None:
        server_in, server_out = await asyncio.open_connection(self.target.hostname, self.target.port)
        back = asyncio.create_task(self._copy(server_in, client_out))
        with contextlib.suppress(OSError):
            while data := await client_in.read(65536):
                if self.armed and self.text.encode() in data:
                    self.cuts += 1
                    how, self.armed = self.armed, ""
                    if how == "after":
                        back.cancel()  # the answer arrives here, and goes no further
                        await asyncio.gather(back, return_exceptions=True)
                        server_out.write(data)
                        await server_in.read(1)
                    break
                server_out.write(data)
        back.cancel()
        for end in (client_out, server_out):
            end.transport.abort()

    @staticmethod
    async def _copy(source, sink) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
            sink.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_unknown_commit_is_neither_lost_nor_done_twice(place, when):
    place = await place()
    async with Cutter(place.dsn) as cutter, running(place.spec, cutter.dsn, place.bootstrap, 1):
        await place.send(Open(order_id="A"))
        expected = []
        for round in range(4):
            text = f"t{round}"
            cutter.armed, cutter.text = when, f'"{text}"'
            await place.send(Add(order_id="A", text=text))
            expected.append(text)
            await until(lambda: cutter.cuts > round)
            await place.applies(*expected)
        await place.publishes(*expected)
    assert await place.dead() == []


# -- instances that come and go -------------------------------------------------------------------------------------------


async def test_instances_share_partitions_and_nothing_is_applied_twice(place):
    place = await place(partitions=4)
    orders = [f"o{n}" for n in range(24)]
    numbers: Counter[str] = Counter()

    async def load(count: int) -> None:
        raws = []
        for n in range(count):
            for order_id in orders:
                numbers[order_id] += 1
                raws.append(record(place.spec, Fact(order_id=order_id, text=f"t{numbers[order_id]}"), numbers[order_id]))
        await send(place.bootstrap, raws)

    def shared_by(*instances) -> bool:
        held = [set(i.owners) for i in instances]
        return all(held) and set().union(*held) == set(range(4)) and sum(map(len, held)) == 4

    await place.send(*(Open(order_id=o) for o in orders))
    async with place.running() as one:
        await load(5)
        await until(lambda: shared_by(one))
        async with place.running() as two:
            await load(5)
            await until(lambda: shared_by(one, two))
            async with place.running() as three:
                await load(5)
                await until(lambda: shared_by(one, two, three))
            await load(5)
            await until(lambda: shared_by(one, two))
        await load(5)
        await until(lambda: shared_by(one))
        await until(lambda: place.query("SELECT 1 FROM applied HAVING count(*) = $1", 25 * len(orders)))
    for order_id in orders:
        assert await place.applied(order_id) == [f"t{n}" for n in range(1, 26)]
    by_order: dict[str, list[str]] = {}
    for found in await content(place.bootstrap, place.spec.output.name, 4):
        by_order.setdefault(found.key.decode(), []).append(dict(found.headers)["ce_sequence"].decode())
    for sequences in by_order.values():
        assert list(dict.fromkeys(sequences)) == [str(n) for n in range(1, 26)]


async def test_a_killed_instance_that_comes_back_has_its_partitions_at_once(place, tmp_path):
    """Under a name of its own; without one the group would wait until its session has run out."""
    place = await place()
    await place.send(Open(order_id="A"), Add(order_id="A", text="a"))
    async with process(place, tmp_path, "killed", member="one") as killed:
        await place.applies("a")
        killed.signal(signal.SIGKILL)
        await processes.gone(killed, 5)
    async with place.running(member="one"):
        await place.send(Add(order_id="A", text="b"))
        await place.applies("a", "b", within_s=service.SESSION_TIMEOUT_MS / 1000 - 3)


async def test_effects_that_fail_end_the_session(place):
    """Also while no new intent comes: nobody else would call them again."""
    place, made = await place(), []

    def effects(producer):
        async def submit(*_):
            pass

        async def stop():
            pass
        submit.failed, submit.stop = asyncio.get_running_loop().create_future(), stop
        made.append(submit)
        return submit

    async with place.running(effects=effects):
        await place.send(Open(order_id="A"), Add(order_id="A", text="a"))
        await place.applies("a")
        made[0].failed.set_exception(storage.OwnershipLost("a caller broke"))
        await until(lambda: len(made) == 2)
        await place.send(Add(order_id="A", text="b"))
        await place.applies("a", "b")


# -- shared rows ----------------------------------------------------------------------------------------------------------


def placed(order_id: str, skus: list[str]) -> Raw:
    lines = [PlacedLine(line_no=n, sku=sku, quantity=1, amount=100) for n, sku in enumerate(skus, 1)]
    message = OrderPlaced(
        order_id=order_id, merchant_id="m1", currency="USD", origin="US", destination="DE", regime="abroad", lines=lines,
        freight=0, tax=0, total=100 * len(lines), on_shortage="ship_available", payment_token="tok", buyer_token="b",
        buyer_hash="0" * 32, consignee_token="b", consignee_hash="0" * 32, placed_at=NOW)
    envelope = Envelope(f"orders:{order_id}:1", "OrderPlaced", "orders", NOW, order_id, 1, merchant="m1")
    return Raw(ORDER.name, order_id.encode(), message.model_dump_json().encode(),
               tuple(headers_of(envelope, dataschema_of(ORDER.name, "OrderPlaced"))))


def inbound(warehouse: str, sku: str, units: int) -> Raw:
    key = f"stock:{warehouse}:{sku}"
    message = InboundReceived(order_id=key, warehouse=warehouse, sku=sku, quantity=units)
    envelope = Envelope(f"inbound:{key}", "InboundReceived", "/warehouse", NOW, key)
    return Raw(REPORT.name, key.encode(), message.model_dump_json().encode(),
               tuple(headers_of(envelope, dataschema_of(REPORT.name, "InboundReceived"))))


async def test_everybody_buys_the_same_goods_and_nobody_twice(kafka, postgres, caplog):
    """600 orders on all partitions want one unit each of the same SKUs, in either sequence; there are 100 and 150."""
    await ensure_topics(kafka, PARTITIONS)
    dsn = await postgres("hot_stock")
    await migrate(dsn, "shipping", PARTITIONS)
    place = Place(shipping.spec(Settings()), dsn, kafka, PARTITIONS)
    hot = ["HOT-1", "HOT-2"]
    async with running(place.spec, dsn, kafka, PARTITIONS):
        await send(kafka, [inbound("SEA1", "HOT-1", 100), inbound("PVD1", "HOT-2", 150)])
        await until(lambda: place.query("SELECT 1 FROM stock HAVING sum(received) = 250"))
        await send(kafka, [placed(f"hot-{n}", hot if n % 2 else hot[::-1]) for n in range(600)])
        await until(lambda: place.query("SELECT 1 FROM orders WHERE order_id LIKE 'hot-%' HAVING count(*) = 600"))
    stock = {row["sku"]: row for row in await place.query("SELECT * FROM stock")}
    assert [stock[sku]["reserved"] for sku in hot] == [100, 150], "every unit is sold, none twice"
    assert "starts over" not in caplog.text, "no deadlock ended an owner"
    planned = Counter()
    for row in await place.query("SELECT body::text FROM documents"):
        for sku in hot:
            planned[sku] += row[0].count(f'"{sku}"')
    assert planned == {"HOT-1": 100, "HOT-2": 150}, "what orders were promised is what was reserved"
