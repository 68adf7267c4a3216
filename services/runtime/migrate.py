"""Bring a service's database up to date: the runtime's tables, then the service's own. Safe to run again."""

from __future__ import annotations

from importlib.resources import files

import asyncpg

from services.runtime.crash import point

SCHEMA_VERSION = "1"


class WrongInstallation(Exception):
    """The database was made for other settings; the message says which, and what to do."""


async def migrate(dsn: str, service: str, partitions: int = 6) -> None:
    """Create what is missing. Raises WrongInstallation when the stored partition count or version is another one."""
    conn = await asyncpg.connect(dsn)
    try:
        async with conn.transaction():
            await conn.execute("SELECT pg_advisory_xact_lock(7239847)")  # two migrations at once would collide
            point("migrate.begun")
            await conn.execute((files("services.runtime") / "schema.sql").read_text())
            await conn.execute((files(f"services.{service}") / "schema.sql").read_text())
            for name, value in (("service", service), ("partitions", str(partitions)), ("version", SCHEMA_VERSION)):
                stored = await conn.fetchval(
                    "INSERT INTO installation VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET name = EXCLUDED.name"
                    " RETURNING value", name, value)
                if stored != value:
                    raise WrongInstallation(
                        f"the database of {service} was made with {name} = {stored}, now asked for {value}; set it back, "
                        "or use another database (orders cannot change their partition)")
            await conn.executemany("INSERT INTO partitions (partition) VALUES ($1) ON CONFLICT DO NOTHING",
                                   [(p,) for p in range(partitions)])
            point("migrate.written")
        point("migrate.committed")
    finally:
        await conn.close()
