"""Every service of a running system reads all of its topics again, from offset 0, over the databases it has."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.auditor.reread import all_read, differences, forget, read_again, snapshot
from services.runtime.processes import NotReady
from services.runtime.settings import SERVICES, Settings

if TYPE_CHECKING:
    from services.cli.supervisor import Supervisor

WITHIN_S = 120.0


@dataclass
class Reread:
    """`records`: read again. `rows`: looked at in the databases. `repeated`: dead letters that were told a second time."""

    records: int
    rows: int
    repeated: int
    differences: list[str]

    def as_json(self) -> dict[str, Any]:
        return {"records": self.records, "rows": self.rows, "dead_letters_repeated": self.repeated,
                "differences": self.differences}


async def reread(settings: Settings, supervisor: Supervisor) -> Reread:
    """Of a system at rest; it runs again afterwards. Raises NotReady when the services do not get through in time."""
    try:
        async with asyncio.timeout(WITHIN_S):
            await _halted(settings, supervisor)
            before = await snapshot(settings)
            records = await forget(settings)
            await _each(supervisor.resume)
            await read_again(settings)
    except TimeoutError:
        raise NotReady(f"the services have not read all of their topics again within {WITHIN_S:g} s",
                       str(settings.data_folder / "logs"), "Their logs have the cause.") from None
    await _each(supervisor.halt)
    after = await snapshot(settings)
    await _each(supervisor.resume)
    return Reread(records, after.rows, after.letters_told - before.letters_told, differences(before, after))


async def _halted(settings: Settings, supervisor: Supervisor) -> None:
    """Stopped with nothing unread: what the provider tells once more while they stop would be a change that reading again made."""
    await _each(supervisor.halt)
    while not await all_read(settings):
        await _each(supervisor.resume)
        await read_again(settings)
        await _each(supervisor.halt)


async def _each(step) -> None:
    await asyncio.gather(*(step(name) for name in SERVICES))
