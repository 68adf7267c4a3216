"""The processes of a running Tradewind: what each is, and what it calls."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from services.runtime.processes import StartError
from services.runtime.settings import Settings


@dataclass(frozen=True)
class Program:
    """`python -m module *args`, started after all of `needs` and stopped before them (Kafka and PostgreSQL are ready).

    `nice`: how far it steps back where processors are scarce. `port`: the setting that says where it listens."""

    name: str
    module: str
    args: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    nice: int = 0
    port: str = ""


_WORLD = ("storefront", "warehouse", "carrier", "customs")

PROGRAMS = (
    Program("orders", "services.orders.app"),
    Program("payments", "services.payments.app"),
    Program("shipping", "services.shipping.app"),
    Program("payments-webhook", "services.payments.webhook", port="webhook_port"),
    Program("rescreening", "services.orders.rescreen", nice=10),
    Program("registry", "services.orders.registry", nice=5),
    # Rebuilt from the topics at any time, and never slowing the money path.
    Program("console-views", "services.console.views", ("worker",), nice=10, port="console_port"),
    Program("cold-chain-view", "services.shipping.views", ("worker", "--without-web"), nice=5),
    # It calls back; the rest of the world speaks through topics alone, which need nobody to listen.
    Program("provider", "services.simulators.provider", needs=("payments-webhook",), port="provider_port"),
    *(Program(role, "services.simulators.world", ("--role", role)) for role in _WORLD),
)
VIEWS = {"console-views", "cold-chain-view", "rescreening"}  # on which no money waits: left out where only that is measured
_HTTP_PROVIDER = {"provider", "payments-webhook"}
OUTSIDE = ("provider", *_WORLD)


class UnknownProgram(StartError):
    """`--only` names a program that is not in the table."""


def programs(settings: Settings, *, world: bool = True, only: tuple[str, ...] | None = None) -> tuple[Program, ...]:
    """What `up` starts with these settings: `only` these names, else all; without `world` only our own side.

    Raises UnknownProgram.
    """
    if only is not None:
        if unknown := set(only) - {p.name for p in PROGRAMS}:
            names = ", ".join(p.name for p in PROGRAMS)
            raise UnknownProgram(f"no program is called {', '.join(sorted(unknown))}", "--only", f"There are: {names}.")
        return tuple(p for p in PROGRAMS if p.name in only)
    left_out = set() if settings.provider == "http" else set(_HTTP_PROVIDER)
    if settings.provider_url is not None:
        left_out.add("provider")
    if settings.registry_url is None:
        left_out.add("registry")
    if not world:
        left_out |= set(OUTSIDE)
    return tuple(p for p in PROGRAMS if p.name not in left_out and _installed(p.module))


def waves(table: tuple[Program, ...]) -> list[list[Program]]:
    """The programs in groups: a group needs only earlier ones. A need that is not in the table counts as ready."""
    names, placed, result = {p.name for p in table}, set(), []
    while len(placed) < len(table):
        wave = [p for p in table if p.name not in placed and not (set(p.needs) & names) - placed]
        assert wave, f"needs in a circle: {sorted(names - placed)}"
        placed |= {p.name for p in wave}
        result.append(wave)
    return result


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
