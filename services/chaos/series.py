"""A set of campaigns, one after the other, each on a system of its own. A file remembers those that are finished."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.chaos.campaign import RATE_S, Plan, torment
from services.chaos.faults import FAULTS, Fault
from services.cli.output import Refused
from services.runtime.processes import read_json, write_json
from services.runtime.settings import Settings

STATE = "set.json"


def plans(minutes: float, seed: int, rate_s: float = RATE_S) -> list[Plan]:
    """All campaigns, each with the part of its hourly number that so many minutes have room for."""
    return [Plan(fault, _share(fault, minutes), seed, rate_s=rate_s) for fault in FAULTS.values() if fault.hour]


def _share(fault: Fault, minutes: float) -> int:
    return max(1, round(fault.hour * minutes / 60))


def run_set(settings: Settings, folder: Path, minutes: float, seed: int, rate_s: float, resume: bool,
            progress: Callable[[str], None], finished: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run what is not finished yet; the JSON line of the whole. The folder of a campaign with violations stays.

    Raises Refused: `resume` of a set that was started with other figures, or none to resume.
    """
    began, given = time.monotonic(), {"minutes": minutes, "seed": seed, "rate": rate_s}
    state = _state(folder, given, resume)
    for plan in plans(minutes, seed, rate_s):
        name = plan.fault.name
        if name in state["finished"]:
            continue
        progress(f"campaign {name}: {plan.n} × {plan.fault.what}")
        line = torment(settings, plan, folder / name, lambda text, name=name: progress(f"{name}: {text}"))
        if not line["violations"]:
            shutil.rmtree(folder / name)
        state["finished"][name] = line
        state["seconds"] = round(state["seconds"] + time.monotonic() - began, 1)
        began = time.monotonic()
        write_json(folder / STATE, state)
        finished(line)
    return summary(state)


def _state(folder: Path, given: dict[str, float], resume: bool) -> dict[str, Any]:
    stored = read_json(folder / STATE)
    if resume:
        if stored is None:
            raise Refused("there is no set to resume", str(folder), "Start it without --resume.")
        if stored["given"] != given:
            raise Refused(f"the set there was started with {stored['given']}, not {given}", str(folder), "Give the same figures.")
        return stored
    if stored is not None:
        (folder / STATE).unlink()
    for name in FAULTS:
        if (folder / name / "run").is_dir():
            shutil.rmtree(folder / name)
    state = {"given": given, "finished": {}, "seconds": 0.0}
    write_json(folder / STATE, state)
    return state


def summary(state: dict[str, Any]) -> dict[str, Any]:
    """`faults`: campaign → n, orders, recovery_s_p50, recovery_s_max, violations; and their sums."""
    lines = list(state["finished"].values())
    short = {line["campaign"]: {name: line[name] for name in
                                ("n", "orders", "recovery_s_p50", "recovery_s_max", "violations", "seconds", "late")} for line in lines}
    return {
        "campaign": "all", "n": sum(line["n"] for line in lines), "orders": sum(line["orders"] for line in lines),
        "recovery_s_max": max((line["recovery_s_max"] for line in lines), default=0.0),
        "violations": sum(line["violations"] for line in lines), "seconds": state["seconds"], **state["given"],
        "events": sum(line["events"] for line in lines), "checks": sum(line["checks"] for line in lines), "faults": short,
        "details": [detail for line in lines for detail in line["details"]][:20],
        "broken": [f"{line['campaign']}: {what}" for line in lines for what in line["broken"]],
        "repeat": [line["repeat"] for line in lines if line["violations"]],
    }  # fmt: skip
