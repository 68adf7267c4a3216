"""Serial numbers of units (GS1 AI 01 and 21, lot 10): where each was seen last, and what that says of a copy.

Where a unit was seen lies in rows that all orders share (`storage.py`), locked for the batch that packs or scans it, so that of
two parcels with one number the second knows of the first, whichever partitions they are on. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from schemas import shipping_shipment as out
from schemas.dead_letters import Reason
from schemas.numbers import is_gtin
from services.runtime.decision import Impossible, Incoming, NotYet, Stale
from services.shipping.network.geography import km, places

UNIT = "unit:"
AIR_KM_H, NEAR_KM = 900, 200  # nothing travels faster than an aeroplane, door to door; scanners' clocks differ


class Sighting(NamedTuple):
    """Where a unit was seen last. `back`: it came back from that parcel, and may be packed again."""

    order_id: str
    parcel_id: str
    place: str
    at: datetime
    lot: str = ""
    back: bool = False


@dataclass(slots=True, frozen=True)
class UnitSeen:
    """A change of one unit's row."""

    key: str
    sighting: Sighting


def key_of(gtin: str, serial: str) -> str:
    return f"{UNIT}{gtin.zfill(14)}.{serial}"


def keys(shipment: Any, incoming: Incoming) -> Iterable[str]:
    """The rows that an event may need: of the units it names, and of those in the order's parcels."""
    data = incoming.data
    named = [key_of(unit.gtin, unit.serial) for unit in getattr(data, "units", ())]
    if incoming.type == "SerialScanReported":
        named.append(key_of(data.gtin, data.serial))
    for parcel in shipment.parcels.values() if shipment is not None else ():
        if parcel.aside is not None:
            named += parcel.aside.units
    return named


def far(seen: Sighting, place: str, at: datetime) -> tuple[int, bool]:
    """Kilometres from where it was seen last (0 where a place is not of the network), and whether nothing travels so fast."""
    one, other = places().get(seen.place), places().get(place)
    if one is None or other is None:
        return 0, False
    distance = round(km(one, other))
    return distance, distance > NEAR_KM + AIR_KM_H * abs((at - seen.at).total_seconds()) / 3600


def packed(work: Any, parcel_id: str, units: Iterable[Any]) -> bool:
    """Note the units that were packed. Whether one of them was seen where it cannot have been. Raises Impossible."""
    parcel, lines = work.shipment.parcels[parcel_id], {line.line_no for line in work.content(parcel_id).lines}
    alert, aside = False, parcel.beside()
    aside.units.clear()  # the box that was replaced had others
    for unit in units:
        if unit.line_no not in lines:
            raise Impossible(Reason.UNKNOWN_LINE, f"unit {unit.serial} is of line {unit.line_no}, which is not in the parcel")
        if not is_gtin(unit.gtin):
            raise Impossible(Reason.INVALID, f"units: {unit.gtin} is no GTIN, its check digit does not fit")
        key = key_of(unit.gtin, unit.serial)
        now = Sighting(work.shipment.order_id, parcel_id, parcel.warehouse, work.at, unit.lot)
        seen = work.stock.sighting(key)
        if key in aside.units:
            seen, kind, distance = now, "twice", 0
        elif seen is None or seen.back:
            kind = ""
        else:
            distance, impossible = far(seen, now.place, now.at)
            kind = "twice" if seen.parcel_id != parcel_id else "too_far" if impossible else ""
        if kind:
            tell(work, parcel_id, key, kind, seen, now, distance)
            alert = True
        aside.units[key] = unit.line_no
        work.moves.append(UnitSeen(key, now))
    return alert


def tell(work: Any, parcel_id: str, key: str, kind: str, seen: Sighting, now: Sighting, distance: int) -> None:
    gtin, _, serial = key.removeprefix(UNIT).partition(".")
    work.step(work.shipment.parcels[parcel_id], "SerialAlert")
    work.emit(out.SerialAlert, parcel_id=parcel_id, kind=kind, gtin=gtin, serial=serial, lot=now.lot or seen.lot, km=distance,
              first=out.SeenAt(order_id=seen.order_id, parcel_id=seen.parcel_id, place=seen.place, at=seen.at),
              again=out.SeenAt(order_id=now.order_id, parcel_id=now.parcel_id, place=now.place, at=now.at))


def scanned(work: Any, incoming: Incoming) -> NotYet | Stale | bool:
    """Somebody scanned a unit of a parcel somewhere. Whether it cannot have been there. Raises Impossible."""
    scan = incoming.data
    parcel, key = work.shipment.parcels.get(scan.parcel_id), key_of(scan.gtin, scan.serial)
    if parcel is None or parcel.aside is None or key not in parcel.aside.units:
        return Stale("no unit of the parcel has this serial number")
    work.told_of(scan.at)
    seen = work.stock.sighting(key)
    now = Sighting(work.shipment.order_id, scan.parcel_id, scan.place, scan.at, seen.lot)
    distance, impossible = far(seen, now.place, now.at)
    if now.at >= seen.at and seen.parcel_id == scan.parcel_id:
        work.moves.append(UnitSeen(key, now))
    if impossible:
        tell(work, scan.parcel_id, key, "too_far", seen, now, distance)
    return impossible


def back(work: Any, parcel_id: str, lines: set[int]) -> None:
    """Units of these lines are on the shelf again."""
    aside = work.shipment.parcels[parcel_id].aside
    for key, line_no in aside.units.items() if aside is not None else ():
        seen = work.stock.sighting(key)
        if line_no in lines and seen is not None and seen.parcel_id == parcel_id:
            work.moves.append(UnitSeen(key, seen._replace(back=True)))
