"""Each kind of change to a message, allowed or refused, for events (both ways) and commands (backward)."""

from __future__ import annotations

import copy

import pytest

from schemas.compatibility import compare

SCHEMA = {
    "type": "object",
    "required": ["order_id", "amount", "kind"],
    "properties": {
        "order_id": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 9},
        "amount": {"type": "integer", "minimum": 0, "maximum": 100},
        "kind": {"enum": ["a", "b"], "type": "string"},
        "note": {"type": "string", "default": ""},
        "price": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
    },
    "$defs": {"Line": {"type": "object", "required": ["no"], "properties": {"no": {"type": "integer"}}}},
}


def changed(*path, value=None, drop=False) -> dict:
    schema = copy.deepcopy(SCHEMA)
    holder = schema
    for step in path[:-1]:
        holder = holder[step]
    if drop:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return schema


def field(name: str, **more) -> dict:
    return changed("properties", name, value=SCHEMA["properties"].get(name, {}) | more)


def said(new: dict, both_ways: bool, old: dict = SCHEMA) -> list[str]:
    return [str(found) for found in compare("t.v1", "Thing", old, new, both_ways)]


BREAKS_BOTH = {
    "removed": (changed("properties", "note", drop=True), "field note: was removed or renamed"),
    "removed deep": (changed("$defs", "Line", "properties", "no", drop=True), r"field lines[].no: was removed"),
    "retyped": (field("amount", type="string"), "field amount: integer is not accepted any more (now string)"),
    "made required": (changed("required", value=["order_id", "amount", "kind", "note"]), "field note: was made required"),
    "new and required": (field("size", type="integer") | {"required": [*SCHEMA["required"], "size"]}, "field size: is new and req"),
    "no longer empty": (field("price", anyOf=[{"type": "integer"}]), "field price: null is not accepted"),
    "value gone": (field("kind", enum=["a"]), "field kind: fewer values are accepted (b)"),
    "values limited": (field("note", enum=["x"]), "field note: fewer values"),
    "shorter": (field("order_id", maxLength=8), "field order_id: maxLength is 8, was 9"),
    "newly limited": (field("note", maxLength=5), "field note: maxLength is 5, was None"),
    "higher minimum": (field("amount", minimum=1), "field amount: minimum is 1, was 0"),
    "other pattern": (field("order_id", pattern="^[a-f]+$"), "field order_id: pattern"),
    "other default": (field("note", default="none"), "field note: another default"),
    "closed": (SCHEMA | {"additionalProperties": False}, "unknown fields are refused now"),
}
BREAKS_EVENTS_ONLY = {
    "made optional": (changed("required", value=["order_id", "amount"]), "field kind: was made optional"),
    "may be null": (field("note", anyOf=[{"type": "string"}, {"type": "null"}]), "field note: may now be null"),
    "new value": (field("kind", enum=["a", "b", "c"]), "field kind: values may come"),
    "longer": (field("order_id", maxLength=10), "field order_id: maxLength is 10, was 9"),
    "no maximum": (field("amount", maximum=None), "field amount: maximum"),
    "lower minimum": (field("amount", minimum=-1), "field amount: minimum is -1, was 0"),
    "no pattern": (field("order_id", pattern=None), "field order_id: pattern"),
}
ALLOWED = {
    "nothing": SCHEMA,
    "new optional field": field("colour", type="string", default=""),
    "new optional field deep": changed("$defs", "Line", "properties", "sku", value={"type": "string"}),
    "other words": SCHEMA | {"description": "better said", "title": "New"},
}


@pytest.mark.parametrize("name", BREAKS_BOTH)
@pytest.mark.parametrize("both_ways", [True, False], ids=["event", "command"])
def test_breaks_whoever_sends(name, both_ways):
    new, expected = BREAKS_BOTH[name]
    found = said(new, both_ways)
    assert any(expected in line for line in found), found
    assert all(line.startswith("t.v1 Thing") and "new version" in line for line in found)


@pytest.mark.parametrize("name", BREAKS_EVENTS_ONLY)
def test_breaks_events_but_a_command_may_accept_more(name):
    new, expected = BREAKS_EVENTS_ONLY[name]
    assert any(expected in line for line in said(new, both_ways=True))
    assert said(new, both_ways=False) == []


@pytest.mark.parametrize("name", ALLOWED)
@pytest.mark.parametrize("both_ways", [True, False], ids=["event", "command"])
def test_allowed(name, both_ways):
    assert said(ALLOWED[name], both_ways) == []


def test_a_new_field_breaks_an_event_whose_readers_are_strict():
    strict = SCHEMA | {"additionalProperties": False}
    wider = field("colour", type="string") | {"additionalProperties": False}
    assert "field colour: is new where readers" in said(wider, True, old=strict)[0]
    assert said(wider, False, old=strict) == []


def test_every_break_is_named():
    new = field("amount", type="string")
    del new["properties"]["note"], new["properties"]["kind"]
    assert len(said(new, both_ways=True)) >= 3
