"""What a timeline says of a parcel's numbers, scans, temperatures and season. Pure."""

from __future__ import annotations

from typing import Any


def told(data: dict[str, Any]) -> list[str]:
    """Parts of one line, out of a message's body."""
    parts = []
    if "dialect" in data and "code" in data:
        parts.append(f"{data['dialect']} {data['code']}{_of(data, 'leg')}, scanned {str(data.get('at', ''))[:16]}{_of(data, 'place')}")
    if "cancellation_id" in data and "until" in data:
        parts.append(f"{data['cancellation_id']}, answer by {str(data['until'])[:16]}")
    if isinstance(part := data.get("part"), dict):
        parts.append(f"{_units(part)} as {part['parcel_id']}, SSCC {part.get('sscc')}; stays: {_units(data)}")
    if isinstance(first := data.get("of"), str):
        parts.append(f"of what was held for {first}")
    parts += _papers(data)
    if isinstance(data.get("sensor_element_list"), list):
        parts.append(_measured(data["sensor_element_list"]))
    if "worst_tenths" in data:
        parts.append(f"outside for {data.get('minutes')} min, {data['worst_tenths'] / 10:g} °C")
    if "decision" in data:
        parts.append(f"{data['decision']} by the {data.get('decided_by')}")
    elif data.get("decided_by") in ("merchant", "warehouse", "deadline"):
        parts.append(f"by the {data['decided_by']}")
    if data.get("replaces"):
        parts.append(f"SSCC {data.get('sscc')} instead of {data['replaces']}")
    elif data.get("sscc"):
        parts.append(f"SSCC {data['sscc']}")
    if data.get("waybill_no"):
        parts.append(f"waybill {data['waybill_no']}")
    if isinstance(data.get("cold"), dict):
        parts.append(f"at {data['cold']['low_tenths'] / 10:g} to {data['cold']['high_tenths'] / 10:g} °C")
    if data.get("units"):
        parts.append(f"{len(data['units'])} serial numbers")
    if "serial" in data:
        parts.append(f"(01){data.get('gtin')}(21){data['serial']}" + (f"(10){data['lot']}" if data.get("lot") else ""))
    if isinstance(data.get("first"), dict) and isinstance(data.get("again"), dict):
        parts += [f"in {data[name].get('parcel_id')} at {data[name].get('place')}, {str(data[name].get('at'))[:16]}" for name in ("first", "again")]
        parts.append(f"{data.get('km')} km apart")
    if data.get("inspection_id"):
        parts.append(f"inspection {data['inspection_id']}" + (f": {data['result']}" if data.get("result") else ""))
    if isinstance(link := data.get("authorisation"), dict):
        parts.append(f"{link['authorisation_id']}: {link['grantor']} → {link['grantee']} for {', '.join(link['territory'])}, "
                     f"{link['valid_from']} to {link['valid_to']}")
    for chain in data.get("brands") or ():
        parts.append(f"{chain['brand']} by {' → '.join(chain['links']) or 'its owner'}")
    if "opens" in data and "closes" in data:
        parts.append(f"from {str(data['opens'])[:10]} to {str(data['closes'])[:10]}")
    return parts


def _papers(data: dict[str, Any]) -> list[str]:
    """Of an import into China."""
    parts = [f"{d['field']} ({d['between']})" for d in data.get("differences") or ()]
    if isinstance(listed := data.get("import_list"), dict):
        parts.append(f"import list {listed['list_no']}, mode {listed.get('mode', '9610')}, waybill {listed['logistics_no']}" + (
            f", instead of {listed['replaces']}" if listed.get("replaces") else ""))
    if isinstance(bond := data.get("bonded"), dict):
        parts.append(f"from bonded warehouse {bond['ems_no']}, area {bond['area_code']}")
    if "list_no" in data:
        parts.append(f"list {data['list_no']}" + (f", status {data['status']}" if "status" in data else ""))
    if isinstance(paper := data.get("document"), dict):
        parts.append(f"document of {paper['order_no']}: {paper.get('paid', paper.get('amount')) / 100:.2f} CNY, {paper['transaction']}"
                     + (f", revision {data['revision']}" if data.get("revision", 1) > 1 else ""))
    return parts


def _units(plan: dict[str, Any]) -> str:
    return ", ".join(f"{line['quantity']} × {line['sku']}" for line in plan["lines"])


def _of(data: dict[str, Any], name: str) -> str:
    return f" {data[name]}" if data.get(name) else ""


def _measured(elements: list[dict[str, Any]]) -> str:
    tenths = [reading["value_tenths"] for element in elements for reading in element.get("sensor_report", ())]
    if not tenths:
        return "no readings"
    return f"{len(tenths)} readings, {min(tenths) / 10:g} to {max(tenths) / 10:g} °C"
