"""`tradewind demo`: everything once, on this machine, from an empty data folder to the auditor's verdict."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from services import simulators
from services.cli import exits, pace
from services.cli.output import Output, Refused
from services.cli.rest import at_rest, registered, stocked, watching
from services.cli.watch import Views
from services.runtime.settings import SERVICES, Settings

SPEED = 30_000.0
# One instance of each service has nothing to spread: fewer partitions make fuller batches.
TUNED = {"partitions": 2}
SHORT_ORDERS = 150
MORE_ORDERS = 100  # synthetic ones beside the one of each scenario
TERMS = Path(simulators.__file__).with_name("terms.toml")  # fee plans and rates of the synthetic merchants
SAMPLE = "tests/data/online-retail-sample.csv.gz"


@dataclass(frozen=True)
class Size:
    """`of_file`: only so many of the file's orders. `corridors`: so many orders in all, over every country and scenario."""

    of_file: int | None
    corridors: int | None


@dataclass
class Told:
    """What the demo knows at its end."""

    importer: Any
    follower: Any
    report: Any
    timelines: dict[str, list[Any]]
    done: bool
    left: list[str]
    duties_paid: dict[str, int]  # rule → orders whose landed cost was quoted by it
    account: dict[str, Any]
    corridors: dict[str, dict[str, int]]  # "US-CN" → orders, and how they ended
    finance: dict[str, Any]  # remitted, stated, paid out at the end


def demo(
    short: Annotated[bool, typer.Option("--short", help=f"Only the first {SHORT_ORDERS} orders of the sample.")] = False,
    corridors: Annotated[int | None, typer.Option(
        min=2_500, help="So many orders: beside those of the file, each scenario to each country, and drawn ones.")] = None,
    file: Annotated[Path, typer.Option(help="Another retail file.")] = Path(SAMPLE),
    speed: Annotated[float | None, typer.Option(min=1, help="Trade seconds in a real second; default: "
                                                f"{SPEED:,.0f}, or what this machine permits.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of stock, exits and delays.")] = None,
    timeout: Annotated[float, typer.Option(help="Give up after so many seconds.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Run real orders from placed to settled through every service, show each exit once, and audit it all.

    Starts its own Kafka, PostgreSQL and services in <data folder>/demo (emptied first) and stops them at the end.
    Exit code 1 when the auditor finds anything.

    Example:  tradewind demo --short
              tradewind demo --corridors 5000 --json
    """
    with Output(as_json) as out:
        base, started = Settings(), time.monotonic()
        tuned = {name: value for name, value in TUNED.items() if name not in base.model_fields_set}
        base = base.model_copy(update=tuned | {"seed": base.seed if seed is None else seed, "provider": "http"})
        if speed is None:
            speed = pace.chosen(base, SPEED, out.progress)
        else:
            pace.require(base.model_copy(update={"speed": speed}), out.progress)
        settings = base.model_copy(update={"data_folder": base.data_folder / "demo", "speed": speed,
                                           "terms_file": base.terms_file or TERMS,
                                           "registry_url": base.registry_url or base.provider_address})
        _empty(settings.data_folder)
        if settings.denied_file is None:
            settings = settings.model_copy(update={"denied_file": _lists(settings.data_folder)})
        size = Size(SHORT_ORDERS if short else None, corridors)
        told = asyncio.run(_run(settings, file, size, timeout, out))
        line = _result(told, time.monotonic() - started, settings.seed, speed)
        if not as_json:
            from services.cli.demo_report import say
            say(out, told, line)
        out.result(line, _code(told))


def _code(told: Told) -> int:
    if not told.report.clean:
        return exits.VIOLATIONS
    return exits.OK if told.done else exits.REFUSED


def _lists(folder: Path) -> Path:
    """The lists of denied parties that we ship, in a file that grows while the demo runs."""
    from services.orders.denied import SHIPPED

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "denied_parties.toml"
    path.write_text(SHIPPED.read_text())
    return path


def _list_grows(settings: Settings, now: datetime) -> None:
    """Its publisher adds a version that holds from tomorrow; whoever orders today was clear."""
    from services.simulators.scenario import LISTED_LATER

    path, tomorrow = settings.data_folder / "denied_parties.toml", (now + timedelta(days=1)).date()
    if settings.denied_file == path:
        path.write_text(path.read_text() + f'\n[[list]]\nid = "denied.{tomorrow}"\nvalid_from = {tomorrow}\nsource = "invented, for the '
                        f'demo"\ncertainty = "C"\nnames = ["Viktor Grauhafen", "{LISTED_LATER}"]\n')


def _empty(folder: Path) -> None:
    """The demo's own folder, and nothing else: what is not a Tradewind's folder is not touched."""
    if folder.exists():
        if not (folder / "run").is_dir() and any(folder.iterdir()):
            raise Refused("the folder holds something else", str(folder), "Choose another TRADEWIND_DATA_FOLDER.")
        shutil.rmtree(folder)


async def _run(settings: Settings, file: Path, size: Size, timeout: float, out: Output) -> Told:
    from services.cli.import_ import account, read_file
    from services.cli.supervisor import Supervisor, run

    read = asyncio.create_task(asyncio.to_thread(read_file, file))  # while everything starts

    async def body(supervisor: Supervisor) -> Told:
        reading = await read
        told = await _body(supervisor, settings, reading, file, size, timeout, out)
        told.account = account(reading)
        return told

    return await run(Supervisor(settings, progress=out.progress), body)


async def _body(supervisor: Any, settings: Settings, reading: Any, file: Path, size: Size, timeout: float, out: Output) -> Told:
    from services.auditor.audit import audit
    from services.bench import quiet
    from services.cli.table import OUTSIDE
    from services.simulators import importer as imports
    from services.simulators.edge import (Publisher, client_journal, corridor_orders, demo_orders, inbound_for, merchants_for, place_record,
                                          registrations_for)
    from services.simulators.scenario import SCENARIOS, scenario_of

    now, key = supervisor.clock.now(), settings.vault_key_bytes()
    _list_grows(settings, now)
    shown = _duties_paid(settings, demo_orders(settings.seed, len(SCENARIOS) + MORE_ORDERS, vault_key=key, placed_at=now))
    reading = imports.anchored(reading, file, settings.data_folder, now)
    plan = imports.plan(reading, file, key, settings.seed, size.of_file)
    given = {"vault_key": key, "placed_at": now}
    more = corridor_orders(settings.seed, size.corridors - len(plan.orders) - len(shown), **given) if size.corridors else []
    more = _duties_paid(settings, more)
    async with watching(settings):
        async with Publisher(settings.bootstrap, client_journal(settings)) as publisher:
            deliveries = await publisher.send(inbound_for([*shown, *more], batch="demo", time=now))
            known = await publisher.send([*registrations_for([*shown, *more], now), *merchants_for(now)])
            await stocked(settings, deliveries)
            await registered(settings, known)
            await publisher.send(place_record(order) for order in shown)
        with _live(out, len(plan.orders) + len(shown) + len(more)) as show:
            work = imports.Import(plan, settings.bootstrap, client_journal(settings), settings.seed, now, more)
            importer, follower, done = await work.run(show, timeout_s=timeout, extra={o.order_id for o in shown})
            left = await at_rest(settings)
        finance = await _month_end(settings)
        await supervisor.stop_programs(OUTSIDE)  # a webhook that comes late must still find somebody
        if not left:
            await quiet.rest(settings, calm_s=0.0)
    out.progress("audit, while the services stop")
    examples = {scenario_of(o.order_id, settings.seed): o.order_id for o in reversed(shown[:len(SCENARIOS)])}
    quoted = Counter(order.quote.rule_id for order in (*shown, *more) if order.quote)
    corridors = _corridors([*shown, *more, *plan.orders], follower)
    _, report, timelines = await asyncio.gather(
        supervisor.stop_programs((*SERVICES, "payments-webhook")),  # the views are asked what they have seen
        audit(settings, views=lambda: Views(settings).ask().funnel), _timelines(settings, examples))
    return Told(importer, follower, report, timelines, done, left, dict(quoted), {}, corridors, finance)


async def _month_end(settings: Settings) -> dict[str, Any]:
    """What finance does at a month's end: remit taxes, book those that authorities paid back, close every merchant's statement, pay out what is due."""
    from services.cli.money import payouts, provider_fees, reconciled, recovered, remitted, statements
    from services.cli.order_state import running_clock

    until = f"{running_clock(settings).now():%Y-%m}"
    tax, back = await remitted(settings, until), await recovered(settings, until)
    closed = await statements(settings, None, close=True)
    paid = await payouts(settings, None)
    file = await reconciled(settings)
    fees = await provider_fees(settings, book=True)
    return {"remitted": tax["new"], "recovered": back["new"], "statements": closed["closed"], "payouts": paid["new"], "paid_out": paid["total"],
            "settled": file["matched"], "breaks": file["breaks"], "fees": fees["booked"]}


def _corridors(orders: Iterable[Any], follower: Any) -> dict[str, dict[str, int]]:
    """Most orders first."""
    found: dict[str, Counter[str]] = {}
    for order in orders:
        story = follower.stories.get(order.order_id)
        found.setdefault(f"{order.origin}-{order.destination}", Counter()).update(("orders", story and story.end or "open"))
    return {name: dict(c) for name, c in sorted(found.items(), key=lambda item: (-item[1]["orders"], item[0]))}


def _duties_paid(settings: Settings, orders: Iterable[Any]) -> list[Any]:
    """The orders; duty and taxes are paid with those whose landed cost our rules give."""
    from services.cli.duties import duties_paid
    from services.orders.landed_cost import Refusal
    from services.orders.rulebook import load

    rules = load(settings.rates_file, settings.tax_rounding)
    return [order if isinstance(paid := duties_paid(order, rules), Refusal) else paid for order in orders]


async def _timelines(settings: Settings, examples: dict[str, str]) -> dict[str, list[Any]]:
    from services.cli.order_records import reading
    from services.cli.timeline import weave

    async with reading(settings, list(examples.values())) as reader:
        events = await reader.to_end()
    by_order: dict[str, list[Any]] = {}
    for event in events:
        by_order.setdefault(_order_of(event), []).append(event)
    return {name: weave(by_order.get(order_id, [])) for name, order_id in examples.items()}


def _order_of(event: Any) -> str:
    return event.data.get("order_id", "")


class _live:
    """A live funnel on a terminal; silence elsewhere."""

    def __init__(self, out: Output, total: int):
        self.out, self.total, self.live, self.last = out, total, None, 0.0

    def __enter__(self) -> _live:
        if self.out.interactive:
            from rich.console import Console
            from rich.live import Live
            self.live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
            self.live.__enter__()
        return self

    def __call__(self, importer: Any, follower: Any) -> None:
        if self.live is not None and time.monotonic() - self.last > 0.25:
            from services.cli.demo_report import funnel
            self.last = time.monotonic()
            self.live.update(funnel(follower, self.total, importer.pending))

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.__exit__(*error)


def _result(told: Told, seconds: float, seed: int, speed: float) -> dict[str, Any]:
    from services.cli.demo_report import stage_times

    report = told.report.as_json()
    return {"orders": report["orders"], "exits": report["exits"], "violations": report["violations"],
            "seconds": round(seconds, 1), "seed": seed, "speed": speed, "ended": dict(told.follower.ends), "left": told.left,
            "money": report["money"], "events": report["events"], "stage_times": stage_times(told.follower),
            "cancellations": dict(told.importer.outcomes), "scenarios": len(told.timelines), "finance": told.finance, "duties_paid": told.duties_paid,
            "corridors": told.corridors,
            "details": report["details"][:20]}
