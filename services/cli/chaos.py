"""`tradewind chaos`: faults under load, let the system recover, audit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import exits
from services.cli.output import Output, Refused
from services.runtime.settings import Settings

ORDERS_A_KILL = 20
KILLS = 20


def chaos(
    kills: Annotated[int | None, typer.Option("--kills", "-k", min=0, help=f"Short for --campaign service-kill --n N. Default: {KILLS}.")] = None,
    campaign: Annotated[str | None, typer.Option("--campaign", "-c", help="A name from --list, or all.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="How many times the fault is done; default: see --list.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of victims, moments, orders and exits; default: TRADEWIND_SEED.")] = None,
    orders: Annotated[int | None, typer.Option("--orders", "-o", min=40, help="So many, spread over the faults.")] = None,
    rate: Annotated[float | None, typer.Option(min=1, help="Orders a second, as long as the faults last. Default: 45.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="End the faults after so long; with all: how long the set is.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a set that was ended; finished campaigns stay.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Use this folder, and keep what the run leaves there.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that orders have to come to their end after the last fault.")] = None,
    show: Annotated[bool, typer.Option("--list", help="The campaigns, and what each must hold.")] = False,
    crash: Annotated[bool, typer.Option("--crash-points", help="End processes at their crash points instead.")] = False,
    point: Annotated[list[str] | None, typer.Option("--point", help="Only this crash point; may be repeated.")] = None,
    times: Annotated[int, typer.Option("--times", min=1, help="How often at each crash point.")] = 20,
    some: Annotated[int | None, typer.Option("--some", min=1, help="Only so many crash points, others with each seed.")] = None,
    within: Annotated[float | None, typer.Option(help="End nothing at a crash point after so many seconds; for --notes.")] = None,
    notes: Annotated[Path | None, typer.Option(help="Note there which crash points were done; go on from what is noted.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Do faults to a system under load, let it recover for at most a minute, then audit everything.

    Starts a system of its own in <data folder>/chaos (emptied first, removed after a clean run), with a proxy on every
    connection of its services. The same seed draws the same victims and pauses. Exit code 1 when the auditor finds
    anything or a promise is broken; the folder is kept then, and the command that repeats it is told.

    Example:  tradewind chaos --kills 100 --seed 7 --json
              tradewind chaos --campaign cut-answers --n 90 --seed 7 --json
              tradewind chaos --campaign all --minutes 60 --seed 7 --json
              tradewind chaos --crash-points --times 20 --seed 7 --json
    """
    with Output(as_json) as out:
        if crash:
            from services.chaos.crash_points import crash_points

            crash_points(out, only=point, times=times, some=some, seed=seed, within=within, notes=notes, keep=keep)
            return
        base = Settings()
        folder = base.data_folder / "chaos" if keep is None else keep.expanduser().absolute()
        seed = base.seed if seed is None else seed
        if show:
            _list(out)
        elif campaign == "all":
            _set(out, base, folder, minutes or 60.0, seed, rate, resume)
        else:
            if campaign is None:
                kills = KILLS if kills is None else kills
                campaign, n, orders = "service-kill", kills, orders or max(40, ORDERS_A_KILL * kills)
                timeout = 180.0 if timeout is None else timeout
            _one(out, base, folder, _plan(campaign, n, seed, orders, rate, minutes, timeout), keep is not None)


def _plan(campaign: str, n: int | None, seed: int, orders: int | None, rate: float | None, minutes: float | None,
          drain_s: float | None) -> Any:
    from services.chaos.campaign import DRAIN_MAX_S, RATE_S, Plan
    from services.chaos.faults import FAULTS

    fault = FAULTS.get(campaign)
    if fault is None:
        raise Refused(f"no campaign is called {campaign}", "--campaign", f"There are: {', '.join(FAULTS)}, all.")
    if n is None:
        n = 10**6 if minutes else fault.n
    return Plan(fault, n, seed, orders, rate or RATE_S, minutes, DRAIN_MAX_S if drain_s is None else drain_s)


def _one(out: Output, base: Settings, folder: Path, plan: Any, keep: bool) -> None:
    from services.chaos.campaign import torment

    line = torment(base, plan, folder, out.progress)
    if plan.fault.name == "service-kill":
        line |= {"kills": line["n"], "killed": line["hits"]}
    _say(out, line)
    if line["violations"]:
        out.say(f"The folder stays: {folder}. Again: {line['repeat']}")
    elif not keep:
        shutil.rmtree(folder)
    out.result(line, exits.VIOLATIONS if line["violations"] else exits.OK)


def _set(out: Output, base: Settings, folder: Path, minutes: float, seed: int, rate: float | None, resume: bool) -> None:
    from services.chaos.campaign import RATE_S
    from services.chaos.series import STATE, run_set

    line = run_set(base, folder, minutes, seed, rate or RATE_S, resume, out.progress, lambda line: _say(out, line))
    out.say(f"{line['n']} faults, {line['orders']} orders, {line['events']} events, {line['checks']:,} checks, "
            f"{line['seconds']} s: {line['violations']} violations")
    for command in line["repeat"]:
        out.say(f"Again: {command}")
    out.say(f"For the table in docs: python -m services.chaos.report {folder / STATE}")
    out.result(line, exits.VIOLATIONS if line["violations"] else exits.OK)


def _say(out: Output, line: dict[str, Any]) -> None:
    hits = ", ".join(f"{name} {count}" for name, count in sorted(line["hits"].items()))
    out.say(f"{line['campaign']}: {line['n']} times ({hits}), seed {line['seed']}, {line['orders']} orders "
            f"({line['orders_per_s']}/s), {line['seconds']} s")
    out.say(f"  recovery {line['recovery_s_p50']} s (p50), {line['recovery_s_max']} s (max), {line['recoveries']} measured, "
            f"{line['late']} late; drain {line['drain_s']} s")
    out.say(f"  {line['violations']} violations in {line['checks']:,} checks of {line['events']} events ({line['audit_s']} s)")
    for what in [*(f"broken: {what}" for what in line["broken"]), *(f"not at rest: {what}" for what in line["left"])]:
        out.say(f"  {what}")
    for detail in line["details"]:
        out.say(f"  rule {detail['rule']} ({detail['name']}) broken by order {detail['order'] or '-'}: {'; '.join(detail['evidence'])}")


def _list(out: Output) -> None:
    from services.chaos.faults import FAULTS

    for fault in FAULTS.values():
        out.say(f"{fault.name:16} {fault.what}\n{'':16} must hold: {fault.holds}; n = {fault.n}, about {fault.seconds:g} s each")
    out.result({"campaigns": [{"name": f.name, "what": f.what, "holds": f.holds, "n": f.n, "an_hour": f.hour} for f in FAULTS.values()]})
