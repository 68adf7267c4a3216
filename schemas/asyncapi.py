"""The AsyncAPI 3.0 document: topics as channels, messages with their CloudEvents headers, who writes and who reads.

https://www.asyncapi.com/docs/reference/specification/v3.0.0, Kafka bindings 0.5.0. Written by `generate.py`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from pydantic.json_schema import models_json_schema

from schemas.model import Command
from schemas.topics import TOPICS, Topic

PARTITIONS = 6  # the default of TRADEWIND_PARTITIONS
BINDING = "0.5.0"
DESCRIPTION = """\
The life of a cross-border order, from placed to settled. Every record is a CloudEvent 1.0 in binary mode: the attributes
are Kafka headers, the value is the JSON of the message. The key is the order's id on every topic, and every topic has the
same number of partitions, so that all records of one order are in one partition of each topic, in order.

Reading: look at `ce_type` first and skip what you do not handle. The same record may come twice, with the same `ce_id`.
Our events carry `ce_sequence`, which rises with each of an order's events at one `ce_source`; what is not above the last
one seen is a repetition. Between topics there is no order. Ignore fields you do not know: optional ones are added
without a new version. Writing: choose a `ce_id` of your own, repeat it when you repeat the message, and send no field
that is not in the schema: it would be refused."""

_HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "CloudEvents 1.0 attributes as Kafka headers (UTF-8)",
    "required": ["content-type", "ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject"],
    "properties": {
        "content-type": {"type": "string", "const": "application/json"},
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": {"type": "string", "maxLength": 200, "description": "the same for every repetition of this record"},
        "ce_type": {"type": "string", "description": "the name of the message"},
        "ce_source": {"type": "string", "description": "who says so"},
        "ce_time": {"type": "string", "format": "date-time", "description": "when it happened, in trade time, UTC"},
        "ce_subject": {"type": "string", "description": "the order's id, as in the key"},
        "ce_dataschema": {"type": "string", "format": "uri-reference", "description": "the message's JSON Schema"},
        "ce_sequence": {"type": "string", "pattern": "^[1-9][0-9]*$", "description": "per order and source; ours only"},
        "ce_correlationid": {"type": "string", "description": "the order's story this belongs to"},
        "ce_causationid": {"type": "string", "description": "ce_id of the record that caused this one"},
        "ce_merchant": {"type": "string", "description": "the merchant's id"},
    },
}
_KEY = {"type": "string", "description": "the order's id (stock: `stock:<warehouse>:<sku>`)"}


def document(example_of: Callable[[Topic, type], dict[str, Any]]) -> dict[str, Any]:
    """The whole document; `example_of` gives each message's golden example."""
    models = [(model, "validation") for topic in TOPICS for model in topic.messages]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tradewind", "version": "1.0.0", "description": DESCRIPTION,
                 "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}},
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "127.0.0.1:19092", "protocol": "kafka", "description": "what `tradewind up` starts"}},
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": dict(operation for topic in TOPICS for operation in _operations(topic)),
        "components": {
            "messages": {m.__name__: _message(topic, m, example_of(topic, m)) for topic in TOPICS for m in topic.messages},
            "schemas": {"CloudEventHeaders": _HEADERS, **schemas["$defs"]},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    config: dict[str, Any] = {"cleanup.policy": [topic.config["cleanup.policy"]]}
    config |= {name: int(topic.config[name]) for name in ("retention.ms", "retention.bytes")}
    return {
        "address": topic.name,
        "description": f"Written by {', '.join(topic.written_by)}; read by {', '.join(topic.read_by)}. "
                       f"What a reader can never handle goes to {topic.dlq}.",
        "messages": {m.__name__: {"$ref": f"#/components/messages/{m.__name__}"} for m in topic.messages},
        "bindings": {"kafka": {"topic": topic.name, "partitions": PARTITIONS, "replicas": 1, "topicConfiguration": config,
                               "bindingVersion": BINDING}},
    }


def _operations(topic: Topic) -> list[tuple[str, dict[str, Any]]]:
    """One operation for each writer (send) and each reader (receive) of a topic."""
    parties = [("send", "writes", who) for who in topic.written_by] + [("receive", "reads", who) for who in topic.read_by]
    return [(f"{_slug(who)}-{verb}-{topic.name}",
             {"action": action, "channel": {"$ref": f"#/channels/{topic.name}"}, "summary": f"{who} {verb} {topic.name}"})
            for action, verb, who in parties]


def _message(topic: Topic, model: type, example: dict[str, Any]) -> dict[str, Any]:
    own = vars(model).get("__doc__")
    kind = "command" if issubclass(model, Command) else "event"
    return {
        "name": model.__name__,
        "title": re.sub(r"(?<!^)(?=[A-Z])", " ", model.__name__).capitalize(),
        "summary": inspect.cleandoc(own) if own else f"A {kind} of {topic.name}.",
        "tags": [{"name": kind}],
        "contentType": "application/json",
        "headers": {"allOf": [{"$ref": "#/components/schemas/CloudEventHeaders"},
                              {"type": "object", "properties": {"ce_type": {"const": model.__name__}}}]},
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
        "bindings": {"kafka": {"key": _KEY, "bindingVersion": BINDING}},
        "examples": [{"name": model.__name__, "headers": example["headers"], "payload": example["payload"]}],
    }


def _slug(who: str) -> str:
    return re.sub(r"[^a-z]+", "-", who.lower()).strip("-")
