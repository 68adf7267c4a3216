"""The proxy's lines: as good as no proxy, and each way in which they can be bad. Real sockets, real PostgreSQL, real Kafka."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from services.chaos.proxy import Link
from services.chaos.wire import Frames, HttpWire, KafkaWire, PostgresWire
from services.runtime import storage
from services.runtime.local import LocalKafka
from services.runtime.processes import free_port
from tests.tally import Add, Fact, Open, running


@pytest.fixture
async def link():
    """A link to a server that says everything back."""
    async def echo(reader, writer):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    made = Link("test to echo", "127.0.0.1", server.sockets[0].getsockname()[1])
    await made.open()
    yield made
    await made.close()
    server.close()


async def dial(link):
    return await asyncio.open_connection("127.0.0.1", link.port)


async def say(line, text: bytes, timeout_s: float = 5.0) -> bytes:
    reader, writer = line
    writer.write(text)
    return await asyncio.wait_for(reader.readexactly(len(text)), timeout_s)


async def test_a_good_line_changes_nothing(link):
    line = await dial(link)
    big = bytes(range(256)) * 20_000
    assert await say(line, big) == big
    assert link.connections == 1 and link.carried == 2 * len(big)
    line[1].close()
    while link.connections:
        await asyncio.sleep(0.01)


async def test_what_is_late_keeps_its_order(link):
    link.slow(0.02, jitter_s=0.02)
    reader, writer = await dial(link)
    began = time.monotonic()
    text = b"".join(b"%4d" % n for n in range(200))
    for n in range(0, len(text), 40):
        writer.write(text[n:n + 40])
        await asyncio.sleep(0.001)
    assert await asyncio.wait_for(reader.readexactly(len(text)), 5) == text
    assert time.monotonic() - began > 0.02


async def test_a_narrow_line_takes_its_time(link):
    link.slow(0.0, bytes_per_s=1_000_000)
    line = await dial(link)
    began = time.monotonic()
    await say(line, bytes(200_000))
    assert time.monotonic() - began > 0.2


async def test_a_cut_line_is_reset_at_once(link):
    line = await dial(link)
    await say(line, b"before")
    assert link.cut() == 1
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(line[0].readexactly(1), 5)
    assert await say(await dial(link), b"again") == b"again"


async def test_a_line_that_refuses_resets_new_connections(link):
    link.refusing = True
    reader, _ = await dial(link)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 5)


@pytest.mark.parametrize("up", [True, False])
async def test_a_line_held_in_one_direction_delivers_late(link, up):
    line = await dial(link)
    await say(line, b"before")
    link.hold(up=up, down=not up)
    fresh = await dial(link)  # also what comes while it is held
    for each in (line, fresh):
        with pytest.raises(TimeoutError):
            await say(each, b"12345", 0.1)
    carried = link.carried
    assert carried == len(b"before") * 2 + (0 if up else len(b"12345") * 2), "the other direction is open"
    link.heal()
    for reader, _ in (line, fresh):
        assert await asyncio.wait_for(reader.readexactly(5), 5) == b"12345"


async def test_a_forgotten_connection_says_nothing_and_a_new_one_is_good(link):
    line = await dial(link)
    await say(line, b"before")
    assert link.forget() == 1
    with pytest.raises(TimeoutError):
        await say(line, b"12345", 0.1)
    assert await say(await dial(link), b"again") == b"again"


async def test_a_server_that_is_down_looks_like_it(link):
    link.target = ("127.0.0.1", 1)
    reader, _ = await dial(link)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 5)


# -- answers that are lost ----------------------------------------------------------------------------------------------

def test_frames_are_found_however_they_are_cut():
    messages = [(7).to_bytes(4, "big") + b"abcdefg", (4).to_bytes(4, "big") + b"wxyz", (300).to_bytes(4, "big") + bytes(300)]
    stream = b"".join(messages) * 3
    for size in (1, 3, 7, 11, 64, len(stream)):
        frames, found = Frames(4), []
        for at in range(0, len(stream), size):
            for start, head in frames.feed(stream[at:at + size]):
                assert 0 <= start < size
                found.append(head)
        assert found == [b"abcd", b"wxyz", bytes(4)] * 3, size


def test_only_an_armed_request_is_doomed():
    commit, done, failed = b"Q\x00\x00\x00\x0cCOMMIT;\x00", b"C...Z\x00\x00\x00\x05I", b"E...Z\x00\x00\x00\x05I"
    wire = PostgresWire()
    for request, wanted in ((commit, False), (b"Q\x00\x00\x00\x0eROLLBACK;\x00", True)):
        wire.to_server(request, wanted)
        assert not wire.doomed and wire.to_client(done) == (done, False)
    wire.to_server(commit, True)
    assert wire.to_client(failed) == (failed, False) and not wire.doomed, "what was not committed is not lost"
    wire.to_server(commit, True)
    assert wire.doomed and wire.to_client(done[:4]) == (b"", False) and wire.to_client(done[4:]) == (b"", True)


async def test_a_batch_of_one_statement_is_doomed_when_it_committed():
    class Session:
        async def fetchval(self, statement, *_):
            self.statement = statement.encode()
            return 1

    session = Session()
    await storage.Write().send(session, 0, 1, {}, {"topic": 1})
    wire, bind = PostgresWire(), b"B\x00\x00\x00\x20\x00write\x00..."
    inside, outside = b"2...Z\x00\x00\x00\x05T", b"2...Z\x00\x00\x00\x05I"
    wire.to_server(bind, True)
    assert not wire.doomed, "it may be any statement"
    wire.to_server(b"P\x00\x00\x00\x40write\x00" + session.statement + b"\x00...", True)
    wire.to_server(bind, True)
    assert wire.doomed and wire.to_client(inside) == (inside, False) and not wire.doomed, "its transaction goes on"
    wire.to_server(bind, True)
    assert wire.to_client(outside) == (b"", True)


def test_a_post_is_doomed_and_a_get_is_not():
    http, answer = HttpWire(), b"HTTP/1.1 200 OK"
    http.to_server(b"GET / HTTP/1.1\r\n", True)
    assert http.to_client(answer) == (answer, False)
    http.to_server(b"POST / HTTP/1.1\r\n", True)
    assert http.to_client(answer) == (b"", True)


async def test_a_commit_whose_answer_is_lost_was_committed(postgres):
    dsn = await postgres("cut")
    parts = urlsplit(dsn)
    link = Link("test to postgres", parts.hostname, parts.port, PostgresWire)
    await link.open()
    direct = await asyncpg.connect(dsn)
    conn = await asyncpg.connect(parts._replace(netloc=parts.netloc.replace(str(parts.port), str(link.port))).geturl())
    try:
        await direct.execute("CREATE TABLE t (n int)")
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute("INSERT INTO t VALUES (1)")
        lost = link.lose_answer()
        with pytest.raises((OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
            await transaction.commit()
        await asyncio.wait_for(lost, 5)
        assert await direct.fetchval("SELECT count(*) FROM t") == 1
        assert link.connections == 0
    finally:
        conn.terminate()
        await direct.close()
        await link.close()


async def test_a_produce_request_whose_answer_is_lost_was_written(tmp_path, cache_folder):
    """On a broker whose second listener advertises the link: whoever came in through it comes back through it."""
    link = Link("test to kafka", "127.0.0.1", 0, KafkaWire)
    await link.open()
    broker = LocalKafka(tmp_path / "kafka", free_port(3), cache=cache_folder, proxied={"test": [link.port]})
    link.target = ("127.0.0.1", broker.listener("test", 1))
    await broker.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{link.port}", acks="all", enable_idempotence=True)
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, enable_auto_commit=False)
    try:
        await admin.start()
        await admin.create_topics([NewTopic("cut.v1", 1, 1)])
        await producer.start()
        await producer.send_and_wait("cut.v1", b"before", partition=0)
        lost = link.lose_answer()
        answer = await producer.send("cut.v1", b"cut", partition=0)
        await asyncio.wait_for(lost, 10)
        await consumer.start()
        place = TopicPartition("cut.v1", 0)
        assert (await consumer.end_offsets([place]))[place] == 2, "the broker has the record whose answer was lost"
        await asyncio.wait_for(answer, 30)  # sent again by an idempotent producer, and not written twice
        assert (await consumer.end_offsets([place]))[place] == 2
    finally:
        await asyncio.gather(admin.close(), producer.stop(), consumer.stop(), return_exceptions=True)
        await broker.stop()
        await link.close()


async def test_an_owner_does_not_wait_for_ever_on_a_database_that_fell_silent(place, monkeypatch):
    """No end of the connection learns that it is dead: only a timeout of our own ends the wait."""
    monkeypatch.setattr(storage, "COMMAND_TIMEOUT_S", 1.0)
    place = await place()
    parts = urlsplit(place.dsn)
    link = Link("test to postgres", parts.hostname, parts.port, PostgresWire)
    await link.open()
    try:
        through = parts._replace(netloc=parts.netloc.replace(str(parts.port), str(link.port))).geturl()
        async with running(place.spec, through, place.bootstrap, place.partitions):
            await place.send(Open(order_id="A"), Fact(order_id="A", text="before"))
            await place.applies("before")
            assert link.forget() >= 1
            await place.send(Add(order_id="A", text="after"))
            await place.applies("before", "after", within_s=20.0)
    finally:
        await link.close()
