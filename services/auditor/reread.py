"""The other half of rule 28: offsets set back to 0 over full databases change nothing.

    before = await snapshot(settings)     # at rest, the services stopped, and `all_read`
    await forget(settings)                # every stored offset is 0
    ...                                   # the services run until `read_again`, and are stopped
    differences(before, await snapshot(settings))

Whoever reads everything again finds every record in its databases: as a sequence it has seen, or an outsider's id. So the
topics get nothing, but for dead letters, which have the coordinates of the first time and are repetitions by that.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field

import asyncpg

from schemas.topics import TOPICS
from services.auditor.evidence import Evidence
from services.runtime.settings import SERVICES, Settings

# Not of orders: who owns a partition, how far it has read, what is still to be sent.
_ASIDE = ("partitions", "installation", "outbox")
SHOWN = 5


@dataclass
class Snapshot:
    """`tables`: (service, table) -> its rows as JSON text. `ends`: of every topic of ours. `letters`: coordinates of what
    was refused, by whom and why; `letters_told`: how many records tell of them."""

    tables: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    letters: set[tuple] = field(default_factory=set)
    letters_told: int = 0

    @property
    def rows(self) -> int:
        return sum(rows.total() for rows in self.tables.values())

    @property
    def records(self) -> int:
        return sum(self.ends.values())


async def snapshot(settings: Settings) -> Snapshot:
    """Raises evidence.CannotRead."""
    taken = Snapshot()
    async with Evidence(settings) as evidence:
        taken.ends = dict(evidence.ends)
        taken.letters = {tuple(letter[:5]) for letter in await evidence.dead_letters()}
        taken.letters_told = await evidence.dead_letters_told()
    for service in SERVICES:
        conn = await asyncpg.connect(settings.dsn(service))
        try:
            names = await conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL($1)",
                                     _ASIDE)
            for (name,) in names:
                rows = await conn.fetch(f'SELECT to_jsonb(t)::text FROM "{name}" t')
                taken.tables[service, name] = Counter(row[0] for row in rows)
        finally:
            await conn.close()
    return taken


async def forget(settings: Settings) -> int:
    """Set every stored offset of every service back to 0; how many records that makes them read again."""
    count = 0
    for service in SERVICES:
        conn = await asyncpg.connect(settings.dsn(service))
        try:
            count += await conn.fetchval("SELECT coalesce(sum(value::bigint), 0)::bigint"
                                         " FROM partitions, jsonb_each_text(offsets)")
            await conn.execute("UPDATE partitions SET offsets = coalesce((SELECT jsonb_object_agg(key, 0)"
                               " FROM jsonb_object_keys(offsets) key), '{}')")
        finally:
            await conn.close()
    return count


async def read_again(settings: Settings) -> None:
    """Until every service has read up to the ends of its topics, and has nothing left to send."""
    async with Evidence(settings) as evidence:
        while await _behind(settings, evidence):
            await asyncio.sleep(0.2)


async def all_read(settings: Settings) -> bool:
    """Whether, of services that stand still, each has read up to the ends of its topics, and has nothing left to send."""
    async with Evidence(settings) as evidence:
        return not await _behind(settings, evidence)


async def _behind(settings: Settings, evidence: Evidence) -> bool:
    ends, behind = await evidence.ends_now(), False
    for service in SERVICES:
        conn = await asyncpg.connect(settings.dsn(service))
        try:
            rows = await conn.fetch("SELECT partition, offsets::text FROM partitions")
            behind |= await conn.fetchval("SELECT count(*) > 0 FROM outbox")
        finally:
            await conn.close()
        stored = {(topic, partition): at for partition, text in rows for topic, at in json.loads(text).items()}
        behind |= any(stored.get(place, 0) < end for topic in TOPICS if service in topic.read_by
                      for place, end in ends.items() if place[0] == topic.name)
    return behind


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What is not as it was; empty when nothing has changed."""
    found = []
    for place, end in after.ends.items():
        if (was := before.ends.get(place, 0)) != end:
            found.append(f"{place[0]}/{place[1]} has {end - was} records more")
    found += [f"a new dead letter: {letter}" for letter in sorted(after.letters - before.letters)]
    for table in before.tables.keys() | after.tables.keys():
        was, is_ = before.tables.get(table, Counter()), after.tables.get(table, Counter())
        if was != is_:
            gone, come = list((was - is_).elements()), list((is_ - was).elements())
            found.append(f"table {table[1]} of {table[0]}: {len(gone)} rows gone, {len(come)} new")
            found += [f"  was {text[:400]}" for text in sorted(gone)[:SHOWN]]
            found += [f"  is  {text[:400]}" for text in sorted(come)[:SHOWN]]
    return found
