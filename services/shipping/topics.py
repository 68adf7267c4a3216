"""The changelog topics of the cold-chain view's Faust tables. Faust cannot create them on this Kafka: whoever starts it must."""

from __future__ import annotations

APP = "tradewind-cold-chain-1"
READINGS, KNOWN = "readings", "known"

# "delete" beside "compact" lets the view empty them before it reads everything again.
_STATE = {"cleanup.policy": "compact,delete", "retention.ms": "-1", "retention.bytes": "-1", "segment.bytes": "16777216"}
MORE: dict[str, dict[str, str]] = {f"{APP}-{table}-changelog": _STATE for table in (READINGS, KNOWN)}
