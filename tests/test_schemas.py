"""What crosses a boundary: generated files are current, examples are right, commands are strict, events are tolerant."""

from __future__ import annotations

import json

import jsonschema
import pytest
from pydantic import ValidationError

from schemas import diagrams, generate
from schemas.envelope import dataschema_of, envelope_of
from schemas.lifecycle import MACHINES
from schemas.model import Command, Event
from schemas.orders_intake import PlaceOrder
from schemas.orders_order import OrderPlaced
from schemas.parties import unseal
from schemas.shipping_shipment import ParcelsAllocated
from schemas.topics import TOPICS

MESSAGES = [pytest.param(topic, model, id=model.__name__) for topic in TOPICS for model in topic.messages]
COMMANDS = [p for p in MESSAGES if issubclass(p.values[1], Command)]
EVENTS = [p for p in MESSAGES if issubclass(p.values[1], Event)]
EXAMPLE_KEY = bytes(range(32))  # the vault key the example's persons are sealed with


def payload(topic, model) -> dict:
    return generate.example_of(topic, model)["payload"]


def decode(model, value: dict):
    return model.model_validate_json(json.dumps(value))


# -- files ------------------------------------------------------------------------------------------------------------


def test_generated_files_are_current_and_break_nothing():
    assert [str(b) for b in generate.breaks()] == []
    assert generate.stale() == [], "run: python -m schemas.generate"


def test_drawings_are_current():
    assert diagrams.stale() == [], "run: python -m schemas.diagrams"


def test_every_row_of_every_machine_is_in_the_documentation():
    text = diagrams.lifecycle()
    for machine in MACHINES:
        for row in machine.rows:
            assert f"| {row.event} | {row.owner} |" in text


@pytest.mark.parametrize("folder", [generate.GENERATED, generate.EXAMPLES], ids=lambda folder: folder.name)
def test_no_file_without_a_message_and_no_message_without_a_file(folder):
    assert generate.orphans(folder) == []
    have = {(path.parent.name, path.stem) for path in folder.glob("*/*.json")}
    assert have == {(topic.name, model.__name__) for topic in TOPICS for model in topic.messages}


def test_the_check_fails_when_a_file_is_old(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "GENERATED", tmp_path)
    monkeypatch.setattr(generate, "HERE", tmp_path / "x")
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    path = tmp_path / "orders.intake.v1" / "PlaceOrder.json"
    path.write_text(path.read_text().replace("Place an order", "Order"))
    assert generate.main(["--check"]) == 1 and "PlaceOrder.json is not current" in capsys.readouterr().err


def test_a_breaking_change_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "GENERATED", tmp_path)
    monkeypatch.setattr(generate, "HERE", tmp_path / "x")
    generate.main([])
    path = tmp_path / "orders.order.v1" / "OrderPlaced.json"
    committed = json.loads(path.read_text())
    committed["properties"]["gift_wrap"] = {"type": "boolean"}
    path.write_text(json.dumps(committed))
    (tmp_path / "orders.order.v1" / "OrderMislaid.json").write_text("{}")
    capsys.readouterr()
    assert generate.main([]) == 1
    said = capsys.readouterr().err
    assert "orders.order.v1 OrderPlaced, field gift_wrap: was removed or renamed" in said and "new version" in said
    assert "orders.order.v1 OrderMislaid: the message was removed or renamed" in said
    assert json.loads(path.read_text()) == committed
    assert generate.main(["--breaking", "OrderPlaced", "OrderMislaid"]) == 0 and generate.main(["--check"]) == 0


# -- examples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic, model", MESSAGES)
def test_example(topic, model):
    """It is valid by schema and model, comes back the same, and its headers are a CloudEvent of the message."""
    example = generate.example_of(topic, model)
    schema = generate.schema_of(topic, model)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    validator.check_schema(schema)
    assert schema["$id"] == dataschema_of(topic.name, model.__name__).decode()
    assert list(validator.iter_errors(example["payload"])) == []
    message = decode(model, example["payload"])
    assert json.loads(message.model_dump_json()) == example["payload"], "an example shows every field"
    assert model.model_validate_json(message.model_dump_json()) == message

    headers = tuple((name, value.encode()) for name, value in example["headers"].items())
    envelope = envelope_of(headers)
    assert (envelope.type, envelope.subject) == (model.__name__, example["key"]) and example["key"] == message.order_id
    assert example["headers"]["ce_dataschema"] == schema["$id"]
    assert (envelope.sequence > 0) == issubclass(model, Event)


def test_the_examples_tell_one_order():
    keys = {generate.example_of(topic, model)["key"] for topic in TOPICS for model in topic.messages}
    assert len([key for key in keys if not key.startswith(("stock:", "merchant:", "books:", "lane:", "brand:"))]) == 1
    placed, allocated = (next(payload(t, m) for t in TOPICS for m in t.messages if m is wanted)
                         for wanted in (OrderPlaced, ParcelsAllocated))
    assert placed["total"] == sum(line["amount"] for line in placed["lines"]) + placed["freight"] + placed["tax"]
    assert placed["total"] == allocated["total"] == sum(parcel["amount"] for parcel in allocated["parcels"])


def test_the_examples_persons_are_sealed_and_nowhere_else():
    asked = decode(PlaceOrder, payload(TOPICS[0], PlaceOrder))
    person = unseal(asked.buyer, EXAMPLE_KEY)
    for path in generate.EXAMPLES.glob("*/*.json"):
        text = path.read_text()
        assert not any(part in text for part in (*person.name.split(), person.phone, "Heidestra")), path


# -- strict commands, tolerant events -----------------------------------------------------------------------------------


@pytest.mark.parametrize("topic, model", COMMANDS)
def test_a_command_refuses_a_field_it_does_not_know(topic, model):
    value = payload(topic, model) | {"prioriry": 1}
    with pytest.raises(ValidationError, match="prioriry"):
        decode(model, value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, generate.schema_of(topic, model))


@pytest.mark.parametrize("topic, model", EVENTS)
def test_an_event_of_a_newer_writer_is_read(topic, model):
    value = payload(topic, model)
    newer = value | {"since_next_year": {"a": 1}}
    assert decode(model, newer) == decode(model, value)
    jsonschema.validate(newer, generate.schema_of(topic, model))


def loose(value: dict) -> list[dict]:
    """The message with one top-level number as text or as a float, or one text as a number, each in turn."""
    found = []
    for name, now in value.items():
        if isinstance(now, bool) or not isinstance(now, (int, str)):
            continue
        others = (str(now), float(now), True) if isinstance(now, int) else (7, True)
        found += [value | {name: other} for other in others]
    return found


@pytest.mark.parametrize("topic, model", COMMANDS)
def test_a_command_refuses_loose_types(topic, model):
    for wrong in loose(payload(topic, model)):
        with pytest.raises(ValidationError):
            decode(model, wrong)


def nested(topic, model) -> dict | None:
    """The first part of the example, if it has any."""
    for value in payload(topic, model).values():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return value[0]
    return None


def test_parts_of_commands_refuse_loose_types():
    for topic, model in (p.values for p in COMMANDS):
        part = nested(topic, model)
        for wrong in loose(part) if part else ():
            value = payload(topic, model)
            name = next(k for k, v in value.items() if isinstance(v, list))
            with pytest.raises(ValidationError):
                decode(model, value | {name: [wrong]})


@pytest.mark.parametrize("topic, model", [p for p in COMMANDS if nested(*p.values)])
def test_parts_of_commands_refuse_a_field_they_do_not_know(topic, model):
    value = payload(topic, model)
    name = next(k for k, v in value.items() if isinstance(v, list))
    with pytest.raises(ValidationError):
        decode(model, value | {name: [nested(topic, model) | {"x": 1}]})


def test_parts_of_events_of_a_newer_writer_are_read():
    for topic, model in (p.values for p in EVENTS):
        if part := nested(topic, model):
            value = payload(topic, model)
            name = next(k for k, v in value.items() if isinstance(v, list) and (not v or isinstance(v[0], dict)))
            decode(model, value | {name: [part | {"since_next_year": 1}]})


BAD_IDS = ["", " A1", "A1 ", "A 1", "A1\n", "A1\u0000", "A1\u0007", "A1\u202e", "\u2066A1", "A1\u200b", "\ufeffA1", "A1\u00ad",
           "Ａ1", "A1/..", "-A1", "'; DROP", "é", "A" * 61, "A1\x7f", "A1\u2028"]


@pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
@pytest.mark.parametrize("topic, model", COMMANDS)
def test_ids_are_short_printable_ascii(topic, model, bad):
    with pytest.raises(ValidationError):
        decode(model, payload(topic, model) | {"order_id": bad})


@pytest.mark.parametrize("field, bad", [
    ("currency", "usd"), ("currency", "USDT"), ("destination", "D"), ("destination", "DEU"), ("total", -1), ("total", 10**13 + 1),
    ("lines", []), ("placed_at", "2026-11-23T12:00:00"), ("placed_at", "yesterday"), ("on_shortage", "guess"),
    ("merchant_reference", "x" * 501), ("payment_token", "tok\u202e"), ("merchant_id", None),
])
def test_an_order_is_refused_for_one_wrong_field(field, bad):
    with pytest.raises(ValidationError, match=field):
        decode(PlaceOrder, payload(TOPICS[0], PlaceOrder) | {field: bad})


# -- AsyncAPI -----------------------------------------------------------------------------------------------------------


def test_the_asyncapi_document_is_whole():
    """Every topic is a channel with its partitions, every message has schema, headers, key and example; no dead reference."""
    document = json.loads((generate.GENERATED / "asyncapi.json").read_text())
    assert document["asyncapi"] == "3.0.0" and set(document["channels"]) == {t.name for t in TOPICS}
    for topic in TOPICS:
        channel = document["channels"][topic.name]
        assert channel["address"] == topic.name and channel["bindings"]["kafka"]["partitions"] > 0
        assert set(channel["messages"]) == {m.__name__ for m in topic.messages}
        told = [o for o in document["operations"].values() if o["channel"]["$ref"] == f"#/channels/{topic.name}"]
        assert [o["action"] for o in told].count("send") == len(topic.written_by)
        assert [o["action"] for o in told].count("receive") == len(topic.read_by)
    for name, message in document["components"]["messages"].items():
        assert message["examples"] and message["summary"] and message["bindings"]["kafka"]["key"], name
    for pointer in references(document):
        found = document
        for step in pointer.removeprefix("#/").split("/"):
            found = found[step]


def references(node) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for value in node.values() for r in references(value)]
    return [r for value in node for r in references(value)] if isinstance(node, list) else []
