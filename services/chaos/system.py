"""The system that a campaign torments: programs, and a link on each connection of its services.

The outside world, the client and the auditor connect directly: their view is the truth that the services are held to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from services.chaos.proxy import Link
from services.chaos.wire import HttpWire, KafkaWire, PostgresWire
from services.cli import prepare
from services.cli.supervisor import Supervisor
from services.cli.table import VIEWS, Program, programs
from services.runtime import processes
from services.runtime.local import LocalKafka
from services.runtime.settings import SERVICES, Settings

_SECOND = "-2"


class Links:
    """`kafka[service]` has one link a broker, `postgres[service]` one, `provider` is that of payments' calls."""

    def __init__(self, settings: Settings):
        seed, nodes = settings.seed, range(1, settings.kafka_nodes + 1)
        # The brokers' ports are known once the listeners of these links are: see `open`.
        self.kafka = {service: [Link(f"{service} to kafka-{node}", "127.0.0.1", 0, KafkaWire, seed) for node in nodes]
                      for service in SERVICES}
        self.postgres = {service: Link(f"{service} to postgres", *_place(settings.dsn(service)), PostgresWire, seed)
                         for service in SERVICES}
        self.provider = Link("payments to provider", *_place(settings.provider_address), HttpWire, seed)

    async def open(self) -> None:
        for link in self.all:
            await link.open()

    async def close(self) -> None:
        for link in self.all:
            await link.close()

    @property
    def all(self) -> list[Link]:
        return [link for service in SERVICES for link in self.of(service)]

    def of(self, service: str) -> list[Link]:
        return [*self.kafka[service], self.postgres[service], *([self.provider] if service == "payments" else [])]

    def heal(self) -> None:
        for link in self.all:
            link.heal()

    @property
    def advertised(self) -> dict[str, list[int]]:
        """What each service's listener of the broker tells its clients: service → port by node."""
        return {service: [link.port for link in links] for service, links in self.kafka.items()}

    def aim(self, kafka: LocalKafka) -> None:
        """Let the links of the brokers lead to the brokers' listeners for them."""
        for service, links in self.kafka.items():
            for node, link in enumerate(links, 1):
                link.target = ("127.0.0.1", kafka.listener(service, node))

    def settings_for(self, service: str, settings: Settings) -> Settings:
        """The same settings, with every address led through a link."""
        dsn = urlsplit(settings.dsn(service))
        port = self.postgres[service].port
        return settings.model_copy(update={
            "bootstrap_servers": ",".join(f"127.0.0.1:{link.port}" for link in self.kafka[service]),
            f"{service}_dsn": dsn._replace(netloc=f"{dsn.username}@127.0.0.1:{port}").geturl(),
            "provider_url": f"http://127.0.0.1:{self.provider.port}"})


def _place(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    return parts.hostname, parts.port


def table(settings: Settings, instances: int = 1, provider_args: tuple[str, ...] = ()) -> tuple[Program, ...]:
    """The services (as many instances of each), the webhooks' edge, the provider, and one world that answers at once."""
    ours = [p for p in programs(settings, world=False)]
    second = [Program(p.name + _SECOND, p.module, p.args) for p in ours if p.name in SERVICES and instances > 1]
    provider = [replace(p, args=(*p.args, *provider_args)) for p in programs(settings) if p.name == "provider"]
    world = Program("world", "services.simulators.world", ("--role", "all", "--fast"), SERVICES)
    return (*(p for p in ours if p.name not in VIEWS), *second, *provider, world)


def service_of(program: Program) -> str | None:
    """The service whose links a program uses; None: it stands outside."""
    package = program.module.split(".")[1]
    return package if package in SERVICES else None


class TormentedSupervisor(Supervisor):
    """A supervisor whose services reach Kafka, PostgreSQL and the provider through links alone."""

    def __init__(self, settings: Settings, programs: tuple[Program, ...], links: Links,
                 progress: Callable[[str], None] = lambda _: None):
        super().__init__(settings, programs, progress)
        self.links = links

    async def start(self) -> None:
        await self.links.open()
        await super().start()

    async def stop(self) -> None:
        try:
            await super().stop()
        finally:
            await self.links.close()

    def make_kafka(self) -> LocalKafka:
        kafka = prepare.kafka(self.settings, self.links.advertised)
        self.links.aim(kafka)
        return kafka

    async def another(self, service: str) -> processes.Child:
        """One more instance of a service for a while, which nobody starts again. It has no lasting name in its group, so
        that its partitions are given to others as soon as it leaves."""
        settings = self.links.settings_for(service, self.settings)
        name = f"{service}-extra"
        ready = self.folder.ready(name)
        ready.unlink(missing_ok=True)
        return processes.spawn(name, [sys.executable, "-m", f"services.{service}.app"], log=self.folder.log(name),
                               env=settings.child_env(TRADEWIND_READY_FILE=str(ready), **self.clock.env()))

    def settings_for(self, program: Program) -> Settings:
        service = service_of(program)
        return self.settings if service is None else self.links.settings_for(service, self.settings)
