"""`tradewind network`: the places and lanes parcels travel on, the plan of one parcel, and how good plans are."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from schemas import shipping_report as report
from services.cli import lanes
from services.cli.order import _settings as settings_of_running
from services.cli.order import speaking
from services.cli.output import BadUsage, Output
from services.shipping.network.compare import Comparison, against_optimum, compare
from services.shipping.network.geography import Place
from services.shipping.network.lanes import DOOR, Lane, Network, network
from services.shipping.network.planner import Planner, Route, legs

app = typer.Typer(invoke_without_command=True)

AsJson = Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")]
_SMALL_ORDERS = 300


@app.callback()
def describe(
    context: typer.Context,
    place: Annotated[str | None, typer.Option(metavar="ID", help="A place with its lanes.", show_default=False)] = None,
    country: Annotated[str | None, typer.Option(metavar="ISO", help="Its places.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """The network: how many places, hubs and lanes, of which version; or a country's places, or a place's lanes.

    Example:  tradewind network --country DE
    Example:  tradewind network --place USSEA --json
    """
    if context.invoked_subcommand is not None:
        return
    with Output(as_json) as out:
        net = network()
        if place is not None:
            _place(out, net, _known(net, place))
        elif country is not None:
            _country(out, net, country.upper())
        else:
            _overview(out, net)


@app.command("plan")
def plan_(
    to: Annotated[str, typer.Option(metavar="COUNTRY|PLACE", help="Where to: a country, or a place of the network.")],
    from_: Annotated[str, typer.Option("--from", metavar="PLACE", help="The warehouse that has the goods.")] = "SEA1",
    weight: Annotated[int, typer.Option(metavar="GRAMS", min=1, max=50_000)] = 500,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="When the order is accepted, ISO 8601 (UTC when it does not say);"
                                           " now, if left out.", show_default=False)] = None,
    closed: Annotated[list[str] | None, typer.Option(metavar="LANE", help="As if this lane were closed; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Plan one parcel: the cheapest way that is there within the promised hours, else the earliest, which says so.

    Example:  tradewind network plan --from SEA1 --to DE --weight 1500 --at 2026-11-25T10:00Z
    Example:  tradewind network plan --to JP --closed USSEA-JPHND-air --json
    """
    with Output(as_json) as out:
        net, moment = network(), _moment(at)
        if unknown := sorted(set(closed or ()) - set(net.lanes)):
            raise BadUsage(f"no lane is called {', '.join(unknown)}", "--closed", "tradewind network --place ID lists a place's lanes.")
        planner = Planner(net, frozenset(closed or ()))
        warehouse, area = _known(net, from_), planner.area(to.upper())
        if area is None:
            raise BadUsage(f"the network has no place in {to!r}", "--to", "A country (ISO 3166) or a place; see tradewind network.")
        route = planner.plan(warehouse.id, area, weight, moment)
        if route is None:
            raise BadUsage(f"no open lane leads from {warehouse.id} to {area}", "--closed", "Close fewer lanes.")
        told = _route(net, planner, warehouse, route, moment)
        _say_route(out, net, told, area, weight)
        out.result({"plan": told})


@app.command("compare")
def compare_(
    orders: Annotated[int, typer.Option(min=100, max=200_000, help="Orders on the whole network.")] = 3_000,
    small: Annotated[int, typer.Option(min=1, max=20_000, help="Orders on the small network, against the solver.")] = _SMALL_ORDERS,
    seed: Annotated[int, typer.Option(help="Another seed, other orders.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Compare plans with those of a shop that sends from the nearest warehouse, and with the optimum of a solver.

    Example:  tradewind network compare --orders 3000 --seed 7 --json
    """
    with Output(as_json) as out:
        found = compare(orders, seed, out.progress)
        out.progress("solving the small network")
        ratios = against_optimum(small, seed)
        told = _figures(found, ratios) | {"version": network().version, "seed": seed}
        _say_figures(out, told)
        out.result(told)


@app.command("close")
def close_(
    lane: Annotated[str, typer.Argument(metavar="LANE", help="As `tradewind network --place` names it.", show_default=False)],
    reason: Annotated[str, typer.Option(help="For whoever looks at a re-routed order.")] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Real seconds to wait for the answer.")] = 10, as_json: AsJson = False,
) -> None:
    """Close a lane: from the answer on no plan uses it, and open orders that have it ahead are re-routed within seconds.

    Exit code 6 when it is closed already.

    Example:  tradewind network close USSEA-DELEJ-air --reason fog
    """
    _change(report.CloseLane, lane, timeout, as_json, reason=reason)


@app.command("open")
def open_(
    lane: Annotated[str, typer.Argument(metavar="LANE", help="One that is closed.", show_default=False)],
    timeout: Annotated[float, typer.Option(min=0.1, help="Real seconds to wait for the answer.")] = 10, as_json: AsJson = False,
) -> None:
    """Open a lane again. Parcels that were re-routed keep their new way.

    Exit code 6 when it is open.

    Example:  tradewind network open USSEA-DELEJ-air
    """
    _change(report.OpenLane, lane, timeout, as_json)


def _change(model: type, lane: str, timeout: float, as_json: bool, **fields: Any) -> None:
    with speaking(as_json) as out:
        if lane not in network().lanes:
            raise BadUsage(f"no lane is called {lane}", "LANE", "tradewind network --place ID lists a place's lanes.")
        message = model(order_id=f"{report.LANE}{lane}", lane=lane, **fields)
        told = asyncio.run(lanes.change(settings_of_running(), message, timeout))
        out.say(f"{told.type} {lane}")
        out.result({"lane": lane, "event": told.type, "id": told.id})


# -- what is asked ------------------------------------------------------------------------------------------------------


def _known(net: Network, id_: str) -> Place:
    place = net.places.get(id_.upper())
    if place is None:
        raise BadUsage(f"no place is called {id_!r}", "the network", "tradewind network --country ISO lists a country's places.")
    return place


def _moment(text: str | None) -> int:
    try:
        moment = datetime.fromisoformat(text) if text else datetime.now(UTC)
    except ValueError as wrong:
        raise BadUsage(f"{text!r} is no time: {wrong}", "--at", "ISO 8601, as 2026-11-25T10:00Z.") from wrong
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


# -- what is told -------------------------------------------------------------------------------------------------------


def _overview(out: Output, net: Network) -> None:
    kinds, services = Counter(p.kind for p in net.places.values()), Counter(
        f"to the door, {lane.service}" if lane.to == DOOR else lane.service for lane in net.lanes.values())
    out.say(f"network {net.version}, valid {net.valid[0]} to {net.valid[1]}: {len(net.places)} places in {len(net.main)} countries "
            f"({kinds['major']} majors, {kinds['hub']} hubs, {kinds['warehouse']} warehouses)")
    out.say("lanes: " + ", ".join(f"{n} {name}" for name, n in services.most_common()))
    out.say(f"the promise: {net.rules['promise_h']} h from acceptance to the last parcel delivered")
    out.result({"version": net.version, "valid": [str(d) for d in net.valid], "places": dict(kinds), "countries": len(net.main),
                "lanes": dict(services), "promise_h": net.rules["promise_h"]})


def _country(out: Output, net: Network, country: str) -> None:
    found = [p for p in net.places.values() if p.country == country]
    if not found:
        raise BadUsage(f"the network has no place in {country!r}", "--country", "Give an ISO 3166 code, such as DE.")
    for p in found:
        out.say(f"{p.id:6} {p.kind:9} {p.name} ({p.zone})")
    out.result({"places": [p._asdict() for p in found]})


def _place(out: Output, net: Network, place: Place) -> None:
    out.say(f"{place}: {place.kind}, {place.lat} {place.lon}, {place.zone}")
    lanes = sorted(net.out[place.id] + net.doors[place.id], key=lambda lane: (lane.transit_s, lane.id))
    for lane in lanes:
        clears = f", customs {lane.clear_s // 3600} h" if lane.customs else ""
        out.say(f"  {lane.id:24} {lane.carrier:9} {lane.transit_s / 3600:5.1f} h{clears}, leaves {', '.join(lane.table.cutoffs)}"
                f" ({lane.table.days} days), {lane.fixed / 100_000:.2f} USD and {lane.rate / 100:.2f} a kg")
    out.result({"place": place._asdict(), "lanes": [_lane(lane) for lane in lanes]})


def _lane(lane: Lane) -> dict[str, Any]:
    return {"id": lane.id, "to": lane.to, "service": lane.service, "carrier": lane.carrier, "hours": lane.transit_s / 3600,
            "cutoffs": lane.table.cutoffs, "days": lane.table.days, "customs_hours": lane.clear_s / 3600,
            "cents_a_parcel": lane.fixed / 1000, "cents_a_kg": lane.rate}


def _route(net: Network, planner: Planner, warehouse: Place, route: Route, accepted: int) -> dict[str, Any]:
    run = legs(route.lanes, route.starts)
    return {
        "warehouse": warehouse.id, "accepted_at": _iso(accepted), "packing_from": _iso(route.wave), "ready_at": _iso(route.starts),
        "legs": [{"lane": lane.id, "carrier": lane.carrier, "service": lane.service, "departs": _iso(departs), "arrives": _iso(arrives),
                  "customs": lane.customs is not None} for lane, departs, arrives in run],
        "promised_at": _iso(route.arrives), "hours": round((route.arrives - accepted) / 3600, 1), "in_time": route.in_time,
        "cost_usd_cents": -(-route.cost // 1000), "version": net.version}


def _say_route(out: Output, net: Network, told: dict[str, Any], area: str, grams: int) -> None:
    out.say(f"{grams} g from {net.places[told['warehouse']]} to the doors of {net.places[area]}")
    out.say(f"  accepted {told['accepted_at']}, packed {told['packing_from']} to {told['ready_at']}")
    for leg in told["legs"]:
        lane = net.lanes[leg["lane"]]
        end = "the door" if lane.to == DOOR else f"{net.places[lane.to].name}{' and through customs' if leg['customs'] else ''}"
        zone = ZoneInfo(net.places[lane.origin].zone)
        local = datetime.fromisoformat(leg["departs"]).astimezone(zone)
        out.say(f"  {leg['departs']} ({local:%a %H:%M} there) {leg['carrier']} {leg['service']} from {net.places[lane.origin].name} "
                f"to {end}, {leg['arrives']}")
    kept = "within" if told["in_time"] else "NOT within"
    out.say(f"promise {told['promised_at']}: {told['hours']} h after acceptance, {kept} {net.rules['promise_h']} h; "
            f"costs USD {told['cost_usd_cents'] / 100:.2f}")


def _iso(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _figures(found: Comparison, ratios: list[float]) -> dict[str, Any]:
    return {
        "orders": found.ours.orders, "unreachable": found.unreachable, "planner": found.ours.figures(),
        "nearest_warehouse_cheapest_service": found.nearest_cheap.figures(),
        "nearest_warehouse_fastest_service": found.nearest_fast.figures(),
        "us_an_order": round(found.again_us, 1), "us_an_order_p99": round(found.again_p99_us, 1),
        "us_an_order_with_search": round(found.first_us, 1), "tables_searched": found.searched,
        "against_solver": {"orders": len(ratios), "mean_ratio": round(sum(ratios) / len(ratios), 5), "max_ratio": round(max(ratios), 5),
                           "optimal_percent": round(100 * sum(r < 1.000001 for r in ratios) / len(ratios), 1)}}


def _say_figures(out: Output, told: dict[str, Any]) -> None:
    for name, title in (("planner", "planner"), ("nearest_warehouse_fastest_service", "nearest warehouse, fastest service"),
                        ("nearest_warehouse_cheapest_service", "nearest warehouse, cheapest service")):
        f = told[name]
        out.say(f"{title}: {f['planned_in_time_percent']} % planned within the promised hours, {f['in_time_percent']} % there with the "
                f"delays, {f['by_the_told_moment_percent']} % by the moment told, USD {f['cents_an_order'] / 100:.2f} and "
                f"{f['parcels_an_order']} parcels an order")
    out.say(f"{told['us_an_order']} µs of CPU an order (p99 {told['us_an_order_p99']}); {told['us_an_order_with_search']} µs when its tables "
            f"must be searched first ({told['tables_searched']} tables for {told['orders']} orders)")
    solver = told["against_solver"]
    out.say(f"against the solver on {solver['orders']} orders of a small network: cost {solver['mean_ratio']} times the optimum, "
            f"{solver['max_ratio']} at most, {solver['optimal_percent']} % optimal")
