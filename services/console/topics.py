"""The changelog topics of the views' Faust tables. Faust cannot create them on this Kafka: whoever starts it must.

`APP` names consumer group and changelogs alike. A change of what the tables hold gets a new number, which is a rebuild:
the new group starts at the beginning of the topics with empty tables.
"""

from __future__ import annotations

APP = "tradewind-console-views-1"
ORDERS, TOTALS = "orders", "totals"
# Width of a window → how long it is kept, both in seconds.
WINDOWS = {1: 120, 10: 1_200, 60: 7_200}


def rates(width_s: int) -> str:
    return f"rates-{width_s}s"


def changelog(table: str) -> str:
    return f"{APP}-{table}-changelog"


# "delete" beside "compact" keeps everything of these two, and lets a rebuild empty them: a topic that is only compacted
# refuses to have its records deleted.
_STATE = {
    "cleanup.policy": "compact,delete", "retention.ms": "-1", "retention.bytes": "-1", "min.cleanable.dirty.ratio": "0.2",
    "segment.ms": "600000", "segment.bytes": "16777216",
}  # fmt: skip


def _windows(keep_s: int) -> dict[str, str]:
    # Faust drops expired windows without telling the changelog, so that the broker must drop them too.
    return {"cleanup.policy": "compact,delete", "retention.ms": str(keep_s * 1000), "segment.ms": str(min(keep_s, 600) * 1000)}


MORE: dict[str, dict[str, str]] = {changelog(ORDERS): _STATE, changelog(TOTALS): _STATE} | {
    changelog(rates(width)): _windows(keep) for width, keep in WINDOWS.items()
}
