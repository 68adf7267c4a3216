"""`tradewind bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from services.bench.run import IN_FLIGHT, Plan, bench as measured
from services.cli import exits
from services.cli.output import Output
from services.runtime.settings import Settings


def bench(
    orders: Annotated[int, typer.Option("--orders", "-n", min=100, help="Lifecycles in the closed loop.")] = 20_000,
    seed: Annotated[int | None, typer.Option(help="Of orders and scenarios; default: TRADEWIND_SEED.")] = None,
    in_flight: Annotated[int, typer.Option(min=1, help="Orders in flight; at most a fifth of all.")] = IN_FLIGHT,
    half_load: Annotated[bool, typer.Option(help="Also measure delays at half of the rate found.")] = True,
    limit: Annotated[bool, typer.Option(help="Also move the same bytes and rows without logic.")] = True,
    part_orders: Annotated[int, typer.Option("--parts", min=0, help="So many orders without and with each part of the "
                                             "trade, in memory: what it costs.")] = 0,
    retain_gb: Annotated[float | None, typer.Option(min=0.1, help="Let its topics keep only so much; with --no-limit.")] = None,
    profile: Annotated[str | None, typer.Option(hidden=True, help="Run this program under cProfile.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Measure complete lifecycles a second, on a fresh system of its own in <data folder>/bench.

    All orders cross a border, a fifth have two parcels, 5 % take an exit. The payment provider is in the process.
    Processor µs an order are given for every process. What the run left stays in the folder.

    Example:  tradewind bench --orders 24000 --parts 4000 --json
              tradewind bench --orders 1000000 --no-limit --retain-gb 10 --json
    """
    if retain_gb is not None and limit:
        raise typer.BadParameter("what the limit program is to move is counted on whole topics: add --no-limit",
                                 param_hint="--retain-gb")
    with Output(as_json) as out:
        settings = Settings()
        plan = Plan(orders, settings.seed if seed is None else seed, in_flight, half_load, limit, profile,
                    part_orders // 4 * 4, retain_gb)
        figures = measured(settings, plan, out.progress)
        _show(out, figures)
        phases = (figures, figures.get("half_load", {}))
        bad = any("stalled" in phase for phase in phases) or figures["dead_letters"]
        out.result(figures, exits.VIOLATIONS if bad else exits.OK)


def _show(out: Output, f: dict) -> None:
    from rich.table import Table

    half = f.get("half_load", {})
    table = Table(title=f"{f['lifecycles_per_s']:,.0f} lifecycles a second, {f['in_flight']} in flight, {f['cores']} cores")
    for heading in ("process", "µs an order", "at half load", "MB at start", "warm", "end"):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    for name, micros in f["cpu_us_per_order"].items():
        memory = f["rss_mb"].get(name, {})
        table.add_row(name, f"{micros:,}", str(half.get("cpu_us_per_order", {}).get(name, "")),
                      *(str(memory.get(moment) or "") for moment in ("start", "warm", "end")))
    out.say(table)
    _show_memory(out, f["rss_mb"])
    for name, part in f.get("parts", {}).items():
        where = ", ".join(f"{process.replace('_', ' ')} {us:+,}" for process, us in part["adds_us"].items() if us and process != "total")
        out.say(f"{name.replace('_', ' ')} ({part['what']}): {part['adds_us']['total']:+,} µs an order ({where or 'nothing'}), "
                f"{part['adds_records']:+} records, {part['adds_bytes']:+,} bytes; {part['without_us']:,} µs without it")
    for title, part in (("closed loop", f), (f"half load ({half.get('wanted_per_s')}/s)", half)):
        for what, d in part.get("delays", {}).items():
            out.say(f"placed → {what.replace('_', ' ')}, {title}: p50 {d['p50_s']} s, p99 {d['p99_s']} s")
    for title, suffix in (("limit, same batches", ""), ("limit, full batches", "_full_batches")):
        if found := f.get(f"limit{suffix}"):
            out.say(f"{title}: {found['lifecycles_per_s']:,.0f} orders a second, ratio {f.get(f'limit_ratio{suffix}')}; "
                    f"{found['cpu_us_per_order']['total']:,} µs an order, ratio {f.get(f'limit_cpu_ratio{suffix}')}")
    for name in ("mix", "seed", "versions", "dead_letters", "restarts", "stalled", "cores_used", "cores_others"):
        if f.get(name):
            out.say(f"{name.replace('_', ' ')}: {f[name]}")


def _show_memory(out: Output, rss: dict) -> None:
    """Resident MB of each process after so many finished orders."""
    for moment in [m for m in next(iter(rss.values())) if m.isdigit()]:
        out.say(f"after {int(moment):>9,} orders: " + ", ".join(f"{name} {rss[name][moment]:.0f}" for name in rss) + " MB")
