"""May a message change like this? Old schema against new schema, before anybody sends the new one.

Commands come from outside, so that a new reader must take everything an old writer sends (backward). Our events are read
by partners who upgrade when they like, and by ourselves again from the topic's first record, so that also an old reader
must take everything a new writer sends (backward and forward). What may always change: a new optional field where unknown
fields are ignored, for commands also whatever accepts more than before, and all words. The rest is a new version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Per keyword: does a greater value accept more?
_BOUNDS = {"maximum": True, "exclusiveMaximum": True, "maxLength": True, "maxItems": True,
           "minimum": False, "exclusiveMinimum": False, "minLength": False, "minItems": False}
_EXACT = ("pattern", "format", "uniqueItems", "multipleOf")
_ABSENT = object()


@dataclass(frozen=True)
class Break:
    """One reason to refuse a change."""

    topic: str
    type: str
    field: str
    what: str

    def __str__(self) -> str:
        where = f"{self.topic} {self.type}" + (f", field {self.field}" if self.field else "")
        return f"{where}: {self.what}. Remedy: keep it as it was, or publish a new version of the message (a topic ….v2)"


def compare(topic: str, type_name: str, old: dict[str, Any], new: dict[str, Any], both_ways: bool) -> list[Break]:
    """Every way in which `new` breaks `old`; `both_ways` for our events, which old readers must still understand."""
    return [Break(topic, type_name, field.lstrip("."), what) for field, what in _Pair(old, new, both_ways).walk(old, new, "")]


class _Pair:
    def __init__(self, old: dict[str, Any], new: dict[str, Any], both_ways: bool):
        self.old_root, self.new_root, self.both_ways = old, new, both_ways

    def walk(self, old: Any, new: Any, at: str) -> Iterator[tuple[str, str]]:
        """(field, what) of each break, at this place and below."""
        old, new = _resolve(old, self.old_root), _resolve(new, self.new_root)
        # pydantic writes an optional value as anyOf [X, null]: compare X with X, and null as a type.
        old_kinds, new_kinds = _kinds(old, self.old_root), _kinds(new, self.new_root)
        if gone := sorted(set(old_kinds) - set(new_kinds)):
            yield at, f"{' or '.join(gone)} is not accepted any more (now {' or '.join(sorted(new_kinds))})"
        if self.both_ways and (more := sorted(set(new_kinds) - set(old_kinds))):
            yield at, f"may now be {' or '.join(more)}, which readers of the committed version refuse"
        if old.get("default", _ABSENT) != new.get("default", _ABSENT) and "default" in old:
            yield at, f"another default ({old['default']!r} before): messages already written would mean something else"
        for kind in set(old_kinds) & set(new_kinds):
            yield from self._same_kind(old_kinds[kind], new_kinds[kind], at)

    def _same_kind(self, old: dict[str, Any], new: dict[str, Any], at: str) -> Iterator[tuple[str, str]]:
        yield from self._values(old, new, at)
        if "properties" in old or "properties" in new:
            yield from self._fields(old, new, at)
        for keyword in ("items", "additionalProperties"):
            if isinstance(old.get(keyword), dict) and isinstance(new.get(keyword), dict):
                yield from self.walk(old[keyword], new[keyword], f"{at}[]")

    def _fields(self, old: dict[str, Any], new: dict[str, Any], at: str) -> Iterator[tuple[str, str]]:
        before, after = old.get("properties", {}), new.get("properties", {})
        had, has = set(old.get("required", ())), set(new.get("required", ()))
        closed_before, closed_after = (s.get("additionalProperties") is False for s in (old, new))
        for name in before:
            field = f"{at}.{name}"
            if name not in after:
                yield field, "was removed or renamed"
                continue
            if name in has - had:
                yield field, "was made required, and messages already written may lack it"
            if self.both_ways and name in had - has:
                yield field, "was made optional, and readers of the committed version need it"
            yield from self.walk(before[name], after[name], field)
        for name in after.keys() - before.keys():
            if name in has:
                yield f"{at}.{name}", "is new and required, and messages already written lack it"
            elif self.both_ways and closed_before:
                yield f"{at}.{name}", "is new where readers of the committed version refuse unknown fields"
        if closed_after and not closed_before:
            yield at, "unknown fields are refused now"

    def _values(self, old: dict[str, Any], new: dict[str, Any], at: str) -> Iterator[tuple[str, str]]:
        allowed_before, allowed_after = _values_of(old), _values_of(new)
        if allowed_before != allowed_after:
            if allowed_after is not None and (allowed_before is None or allowed_before - allowed_after):
                lost = sorted((allowed_before or set()) - allowed_after)
                yield at, f"fewer values are accepted ({', '.join(lost) or 'there were no limits'})"
            if self.both_ways and allowed_before is not None and (allowed_after is None or allowed_after - allowed_before):
                more = sorted((allowed_after or set()) - allowed_before)
                yield at, f"values may come that readers of the committed version refuse ({', '.join(more) or 'any'})"
        for keyword, greater_is_more in _BOUNDS.items():
            was, now = old.get(keyword), new.get(keyword)
            if was == now:
                continue
            wider = now is None or (was is not None and (now > was) == greater_is_more)
            if not wider:
                yield at, f"{keyword} is {now}, was {was}: less is accepted"
            elif self.both_ways:
                yield at, f"{keyword} is {now}, was {was}: readers of the committed version refuse the rest"
        for keyword in _EXACT:
            was, now = old.get(keyword), new.get(keyword)
            # Whether one pattern accepts more than another cannot be told; only its absence is sure to.
            if was != now and (self.both_ways or now is not None):
                yield at, f"{keyword} is {now!r}, was {was!r}"


def _resolve(schema: Any, root: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = root["$defs"][name] | {k: v for k, v in schema.items() if k != "$ref"}
    return schema


def _kinds(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """JSON type → the schema of that type."""
    if "anyOf" in schema:
        return {kind: one for option in schema["anyOf"] for kind, one in _kinds(_resolve(option, root), root).items()}
    kind = schema.get("type", "anything" if _values_of(schema) is None else "string")
    return {one: schema for one in (kind if isinstance(kind, list) else [kind])}


def _values_of(schema: dict[str, Any]) -> set[str] | None:
    if "const" in schema:
        return {str(schema["const"])}
    return {str(value) for value in schema["enum"]} if "enum" in schema else None
