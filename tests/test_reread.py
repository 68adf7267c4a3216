"""What reading everything again may not do: each planted change is told, and what is no change is not."""

from __future__ import annotations

import copy
from collections import Counter

import pytest

from services.auditor.reread import Snapshot, differences
from services.chaos import reread as chaos_reread
from services.runtime.settings import Settings

LETTER = ("orders.intake.v1", 0, 7, "orders", "unknown_type")


def snapshot() -> Snapshot:
    return Snapshot({("orders", "orders"): Counter({'{"order_id": "A"}': 1}), ("payments", "ledger"): Counter({"row": 2})},
                    {("orders.order.v1", 0): 9, ("orders.intake.v1", 0): 8}, {LETTER}, 1)


def told_again(after: Snapshot) -> None:
    after.letters_told += 1


def test_nothing_changed_is_nothing_to_tell():
    assert differences(snapshot(), snapshot()) == []


def test_a_dead_letter_of_the_same_place_is_a_repetition():
    after = snapshot()
    told_again(after)
    assert differences(snapshot(), after) == []


def published(after):
    after.ends["orders.order.v1", 0] += 2


def new_topic(after):
    after.ends["orders.order.v1", 1] = 1


def refused(after):
    after.letters.add((*LETTER[:2], 8, *LETTER[3:]))


def booked_again(after):
    after.tables["payments", "ledger"]["row"] += 1


def rewritten(after):
    after.tables["orders", "orders"] = Counter({'{"order_id": "A", "seq": 2}': 1})


def taken_out(after):
    after.tables["orders", "orders"].clear()


def parked(after):
    after.tables["shipping", "parked"] = Counter({"waits": 1})


@pytest.mark.parametrize("plant, says", [
    (published, "orders.order.v1/0 has 2 records more"), (new_topic, "orders.order.v1/1 has 1 records more"),
    (refused, "a new dead letter"), (booked_again, "table ledger of payments: 0 rows gone, 1 new"),
    (rewritten, "table orders of orders: 1 rows gone, 1 new"), (taken_out, "1 rows gone, 0 new"),
    (parked, "table parked of shipping: 0 rows gone, 1 new")])
def test_a_planted_change_is_told(plant, says):
    before, after = snapshot(), copy.deepcopy(snapshot())
    plant(after)
    assert says in "\n".join(differences(before, after))


async def test_a_record_that_came_while_the_services_stopped_is_read_before_the_first_look(monkeypatch):
    """The provider told a webhook once more: payments notes it, which reading again from the start did not do."""
    done, unread = [], [True]

    class Services:
        async def halt(self, name):
            done.append(f"halt {name}")

        async def resume(self, name):
            done.append(f"resume {name}")

    def step(name, result=None):
        async def act(settings):
            done.append(name)
            return result() if result else None
        return act
    taken = iter((snapshot(), snapshot()))
    for name, result in (("all_read", lambda: not (unread and unread.pop())), ("read_again", None), ("forget", lambda: 7),
                         ("snapshot", lambda: next(taken))):
        monkeypatch.setattr(chaos_reread, name, step(name, result))
    told = await chaos_reread.reread(Settings(), Services())
    acts = [act for act in done if not act.endswith(("payments", "shipping"))]
    assert acts == ["halt orders", "all_read", "resume orders", "read_again", "halt orders", "all_read", "snapshot", "forget",
                    "resume orders", "read_again", "halt orders", "snapshot", "resume orders"]
    assert told.records == 7 and told.differences == []
