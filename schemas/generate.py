"""Write what partners read: JSON Schemas, the AsyncAPI document. Made from the models, committed beside them.

    python -m schemas.generate                    write what changed; refuse what would break a reader or a writer
    python -m schemas.generate --check            write nothing, fail when a file is not current
    python -m schemas.generate --breaking TYPE    let one message break: it never left this repository

The committed schemas are the baseline of the compatibility rules (see `compatibility.py`), so that a change which breaks
a partner cannot be written here by accident. Examples (`schemas/examples/`) are made by hand; this file only reads them.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from schemas import asyncapi
from schemas.compatibility import Break, compare
from schemas.envelope import dataschema_of
from schemas.model import Command
from schemas.topics import TOPICS, Topic

HERE = Path(__file__).parent
GENERATED = HERE / "generated"
EXAMPLES = HERE / "examples"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(topic: Topic, model: type) -> dict[str, Any]:
    """The JSON Schema of one message, with the address that events carry in `ce_dataschema`."""
    body = model.model_json_schema(mode="validation")
    # pydantic lets a model without a docstring inherit its base's, which says nothing about this message.
    for holder in (body, *body.get("$defs", {}).values()):
        holder.pop("description", None)
    if "__doc__" in vars(model) and model.__doc__:
        body["description"] = inspect.cleandoc(model.__doc__)
    return {"$schema": DIALECT, "$id": dataschema_of(topic.name, model.__name__).decode(), **body}


def schema_path(topic: Topic, model: type) -> Path:
    return GENERATED / topic.name / f"{model.__name__}.json"


def example_path(topic: Topic, model: type) -> Path:
    return EXAMPLES / topic.name / f"{model.__name__}.json"


def example_of(topic: Topic, model: type) -> dict[str, Any]:
    """The golden example: `key`, `headers` and `payload` of one record."""
    return json.loads(example_path(topic, model).read_text())


def documents() -> dict[Path, str]:
    """Every generated file with the text it must have."""
    found = {schema_path(topic, model): _text(schema_of(topic, model)) for topic in TOPICS for model in topic.messages}
    return found | {GENERATED / "asyncapi.json": _text(asyncapi.document(example_of))}


def breaks(allowed: frozenset[str] = frozenset()) -> list[Break]:
    """What the models break of the committed schemas; `allowed` names messages that may."""
    found = []
    for topic in TOPICS:
        for model in topic.messages:
            path = schema_path(topic, model)
            if path.exists() and model.__name__ not in allowed:
                both_ways = not issubclass(model, Command)
                found += compare(topic.name, model.__name__, json.loads(path.read_text()), schema_of(topic, model), both_ways)
    for path in orphans(GENERATED):
        if path.stem not in allowed:
            found.append(Break(path.parent.name, path.stem, "", "the message was removed or renamed"))
    return found


def orphans(folder: Path) -> list[Path]:
    """Files below `folder` that belong to no message."""
    known = {(topic.name, model.__name__) for topic in TOPICS for model in topic.messages}
    return [path for path in sorted(folder.glob("*/*")) if (path.parent.name, path.stem) not in known or path.suffix != ".json"]


def stale() -> list[Path]:
    """Generated files that are missing, or differ from what the models say."""
    return [path for path, text in documents().items() if not path.exists() or path.read_text() != text]


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description="Write schemas and AsyncAPI document")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a file is not current")
    parser.add_argument("--breaking", nargs="*", default=[], metavar="TYPE", help="messages that never left this repository")
    given = parser.parse_args(arguments)
    if found := breaks(frozenset(given.breaking)):
        print("\n".join(map(str, found)), file=sys.stderr)
        return 1
    old = stale()
    if given.check:
        for path in old:
            print(f"{path.relative_to(HERE.parent)} is not current; run: python -m schemas.generate", file=sys.stderr)
        return 1 if old else 0
    texts = documents()
    for path in orphans(GENERATED):
        path.unlink()
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[path])
        print(f"wrote {path.relative_to(HERE.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
