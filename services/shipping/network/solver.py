"""The optimum of a small network, found another way than the planner does: ways of any length, and a solver over all of them.

For tests and `tradewind network compare`; no order waits for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from services.shipping.network.geography import places
from services.shipping.network.lanes import Lane, Network, build, load_rules
from services.shipping.network.planner import Planner
from services.shipping.network.sourcing import Stock, Want

SMALL = ("USSEA", "USMEM", "USNEY", "SEA1", "PVD1", "DEFRA", "DEBER", "DEHAM", "DEMUC", "GBBQH", "GBBHX", "FRCDG", "CNSHA", "CNHGH",
         "JPITM", "JPHND")


class Way(NamedTuple):
    warehouse: str
    arrives: int
    fixed: int
    rate: int


def small_network() -> Network:
    """Sixteen of the places, joined as all are."""
    known = places()
    return build(load_rules(), {id_: known[id_] for id_ in SMALL})


def optimum(planner: Planner, wants: Sequence[Want], stock: Stock, area: str, accepted: int) -> tuple[int, int] | None:
    """(second at which the promise ends, cost in thousandths of a cent): the least cost within the promised hours, else the
    least of those that are there first. None: no way."""
    wanted = {w.sku: min(w.units, sum(free for at, free in stock[w.sku] if at in planner.network.places)) for w in wants}
    senders = {at for rows in stock.values() for at, free in rows if free > 0 and at in planner.network.places}
    ways = [way for at in sorted(senders) for way in _ways(planner, at, area, accepted)]
    for deadline in (accepted + planner.promise_s, *sorted({way.arrives for way in ways})):
        in_time = [way for way in ways if way.arrives <= deadline]
        able = {way.warehouse for way in in_time}
        if all(sum(free for at, free in stock[sku] if at in able) >= units for sku, units in wanted.items()):
            return deadline, _least(in_time, wants, wanted, stock)
    return None


def _ways(planner: Planner, warehouse: str, area: str, accepted: int) -> list[Way]:
    """Every way over any number of lanes, but what another one equals or beats in all respects. Who is at a place earlier is
    never later anywhere, so nothing is lost by that."""
    network = planner.network
    start = network.waves[warehouse].next(accepted + planner.lead_s) + planner.pack_s
    at: dict[str, list[Way]] = {warehouse: [Way(warehouse, start, planner.pack_cost, 0)]}
    changed = {warehouse}
    while changed:
        ahead: dict[str, list[Way]] = {}
        for place in changed:
            for lane in network.out[place]:
                ahead.setdefault(lane.to, []).extend(_further(way, lane) for way in at[place])
        changed = set()
        for place, ways in ahead.items():
            kept = _undominated(at.get(place, []) + ways)
            if kept != at.get(place):
                at[place] = kept
                changed.add(place)
    return _undominated([_further(way, door) for way in at.get(area, ()) for door in network.doors[area]])


def _further(way: Way, lane: Lane) -> Way:
    return Way(way.warehouse, lane.run(way.arrives)[1], way.fixed + lane.fixed, way.rate + lane.rate)


def _undominated(ways: list[Way]) -> list[Way]:
    """Without ways that another equals or beats in everything: the same optimum, fewer columns."""
    kept: list[Way] = []
    for way in sorted(set(ways)):
        if not any(k.arrives <= way.arrives and k.fixed <= way.fixed and k.rate <= way.rate for k in kept):
            kept.append(way)
    return kept


def _least(ways: list[Way], wants: Sequence[Want], wanted: dict[str, int], stock: Stock) -> int:
    """Which ways to use, and how many units of which SKU go which way: a mixed-integer program."""
    import highspy

    h = _quiet_solver()
    grams = {want.sku: want.grams for want in wants}
    used = [h.addBinary(obj=way.fixed / 1000) for way in ways]
    units = {(sku, n): h.addIntegral(lb=0, ub=count, obj=way.rate * grams[sku] / 1000)
             for sku, count in wanted.items() for n, way in enumerate(ways)}
    for sku, count in wanted.items():
        h.addConstr(sum(units[sku, n] for n in range(len(ways))) == count)
        for n in range(len(ways)):
            h.addConstr(units[sku, n] <= count * used[n])
        for at, free in stock[sku]:
            here = [units[sku, n] for n, way in enumerate(ways) if way.warehouse == at]
            if here:
                h.addConstr(sum(here) <= free)
        there = {at for at, _ in stock[sku]}
        for n, way in enumerate(ways):
            if way.warehouse not in there:
                h.addConstr(units[sku, n] <= 0)
    h.setOptionValue("mip_rel_gap", 0.0)
    h.run()
    status = h.getModelStatus()
    if status != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"the solver ends with {status}")
    return round(h.getObjectiveValue() * 1000)


def _quiet_solver() -> Any:
    """HiGHS greets on stdout when it is made, before it can be told not to; there stands only what a command says."""
    import highspy

    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        h = highspy.Highs()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    h.setOptionValue("output_flag", False)
    return h
