"""What the demo shows at its end: funnel, money, stage times, exits, one timeline an exit, the verdict."""

from __future__ import annotations

from shutil import get_terminal_size
from statistics import quantiles
from textwrap import fill
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from services.cli.timeline import ENDS, currency_of, money
from services.simulators.follow import STAGES
from services.simulators.scenario import SCENARIOS

STAGE_NAMES = tuple(STAGES.values())
CORRIDORS = 12  # named; the others are summed
BUCKETS = ("captured", "recovered", "held", "released", "refunded", "charged_back")


def funnel(follower: Any, total: int, pending: int = 0) -> Group:
    """A bar a stage."""
    table = Table.grid(padding=(0, 2))
    for stage in STAGE_NAMES:
        count = follower.funnel[stage]
        table.add_row(stage, ProgressBar(total=max(1, total), completed=count, width=40), f"{count:,}")
    ends = ", ".join(f"{count:,} {end}" for end, count in follower.ends.items() if count) or "none yet"
    return Group(table, Text(f"ended: {ends} of {total:,}; cancellations of the file still open: {pending:,}"))


def stage_times(follower: Any) -> dict[str, dict[str, float]]:
    """Real seconds from placed to each stage: p50 and p95 over the orders that got there."""
    times: dict[str, list[float]] = {}
    for story in follower.stories.values():
        placed = story.reached.get("placed")
        for stage, at in story.reached.items() if placed else ():
            times.setdefault(stage, []).append((at - placed) / 1000)
    result = {}
    for stage in STAGE_NAMES[1:]:
        values = times.get(stage, [])
        if len(values) > 1:
            cuts = quantiles(values, n=20)
            result[stage] = {"p50_s": round(cuts[9], 2), "p95_s": round(cuts[18], 2)}
    return result


def say(out: Any, told: Any, line: dict[str, Any]) -> None:
    account = told.account
    out.say(f"\n[bold]Real orders[/bold]  {account['lines']:,} lines read: {account['accepted']:,} accepted, {account['merged']:,} "
            f"merged, {account['refused']:,} refused by name; money difference {account['money_difference']}")
    out.say(funnel(told.follower, line["orders"], told.importer.pending))
    out.say(_money_table(line["money"]))
    out.say(_times_table(line["stage_times"]))
    out.say(_corridors(told.corridors))
    out.say(_exits_table(line["exits"]))
    paid = ", ".join(money(amount, currency) for currency, amount in told.finance["paid_out"].items())
    out.say(f"Month's end: {told.finance['remitted']} tax remittances, {told.finance['recovered']} repayments of tax for goods returned in "
            f"time, {told.finance['statements']} merchants' statements, {told.finance['payouts']} payouts ({paid}); {told.finance['settled']:,} lines of the provider's settlement file "
            f"match the ledger, {len(told.finance['breaks'])} breaks; {told.finance['fees']} postings of its fees")
    if told.duties_paid:
        out.say("Duty and taxes paid with the order, by rule: "
                + ", ".join(f"{rule} {count}" for rule, count in sorted(told.duties_paid.items())))
    for name, events in told.timelines.items():
        out.say(_timeline(name, events))
    _verdict(out, told, line)


def _money_table(sums: dict[str, dict[str, int]]) -> Table:
    table = Table(title="Money: captured + recovered = held + released + refunded + disputes lost", title_justify="left")
    table.add_column("currency")
    for name in (*BUCKETS[:-1], "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("balances")
    for currency, m in sums.items():
        balanced = m.get("captured", 0) + m.get("recovered", 0) == sum(m.get(b, 0) for b in BUCKETS[2:])
        amounts = (money(m.get(b, 0), currency).removeprefix(f"{currency} ") for b in BUCKETS)
        table.add_row(currency, *amounts, "yes" if balanced else "NO")
    return table


def _times_table(times: dict[str, dict[str, float]]) -> Table:
    table = Table(title="Real seconds after the order was placed (the trade clock runs ahead)", title_justify="left")
    for name in ("stage", "p50", "p95"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage, t in times.items():
        table.add_row(stage, f"{t['p50_s']:.2f}", f"{t['p95_s']:.2f}")
    return table


def _corridors(corridors: dict[str, dict[str, int]]) -> Text:
    """Origin and destination, with the number of orders; those that are few in one sum."""
    shown = [(name, c["orders"]) for name, c in corridors.items()]
    parts = [f"{name} {count:,}" for name, count in shown[:CORRIDORS]]
    rest = shown[CORRIDORS:]
    more = f", and {len(rest)} more with {sum(count for _, count in rest):,}" if rest else ""
    return Text(f"Corridors, by orders: {', '.join(parts)}{more}")


def _exits_table(counts: dict[str, int]) -> Table:
    table = Table(title="Exits and their reasons", title_justify="left")
    table.add_column("exit")
    table.add_column("orders", justify="right")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    return table


def _timeline(name: str, events: list[Any]) -> Group:
    """One order of one exit, as a paragraph: trade time since the order was placed, event, its main facts."""
    currency = currency_of(events)
    start = next((e.time for e in events if e.type == "OrderPlaced" and e.time), None)
    parts = []
    for event in events:
        if event.lane == "world" and event.type not in ("CancelOrder", "RequestReturn", "OpenDispute", "GrantRefund"):
            continue
        parts.append(f"{_after(event.time, start)} {event.type}" + _amount(event, currency))
    end = next((ENDS[e.type] for e in reversed(events) if e.type in ENDS), "not ended")
    title = Text.assemble((name.replace("_", " "), "bold"), f": {SCENARIOS[name].text} → {end}")
    width = max(60, get_terminal_size((110, 24)).columns - 2)
    return Group(title, Text(fill(" · ".join(parts), width, initial_indent="  ", subsequent_indent="  "), style="dim"))


def _after(moment: Any, start: Any) -> str:
    if moment is None or start is None:
        return "–"
    hours = (moment - start).total_seconds() / 3600
    return f"{hours / 24:.1f}d" if hours >= 24 else f"{hours:.0f}h"


def _amount(event: Any, currency: str) -> str:
    value, quote = event.data.get("amount") or event.data.get("refund"), event.data.get("quote")
    if event.type == "OrderPlaced":
        with_taxes = f" with duty and taxes {money(event.data['tax'], currency)} by {quote['rule_id']}" if quote else ""
        declaration = event.data.get("declaration")
        return f"{with_taxes}, declared by {declaration['name']}" if declaration else with_taxes
    if event.type == "DocumentsMissing":
        return f" ({'; '.join(sorted({missing['what'] for missing in event.data['missing']}))})"
    return f" {money(value, currency)}" if isinstance(value, int) and value and currency else ""


def _verdict(out: Any, told: Any, line: dict[str, Any]) -> None:
    if told.left or not told.done:
        out.say(f"[bold]Not everything ended[/bold]: {', '.join(told.left) or 'orders are still open'}")
    out.say(f"\n[bold]Audit[/bold]  {told.report.lines()[0]}")
    if told.report.clean:
        out.say(f"[bold green]No violation[/bold green] in {sum(told.report.checked.values()):,} checks of "
                f"{len(told.report.checked)} rules. {line['seconds']:.0f} s in all.")
    else:
        out.say(told.report.rich())
