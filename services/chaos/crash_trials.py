"""Which crash points are armed in whom, how often, and at which passing: a plan that follows from the seed alone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from services.runtime.crash import POINTS
from services.runtime.settings import SERVICES

PREPARE, IMPORT = "prepare", "import"  # commands that are run for a trial; everybody else is a program of the supervisor
# Not the storefront, whose code is the same: a buyer who forgot what he sent back is waited for during ten days of trade.
_WORLD = ("warehouse", "carrier", "customs")
_WHERE = {"session": SERVICES, "owner": SERVICES, "batch": SERVICES, "relay": SERVICES, "effects": ("payments",),
          "webhook": ("payments-webhook",), "provider": ("provider",), "world": _WORLD, "topics": (PREPARE,),
          "migrate": (PREPARE,), "edge": (IMPORT,), "importer": (IMPORT,)}
# Only orders refuses what is planted, only shipping has shared rows and deadlines of a day, only payments calls anybody.
_ONLY = {"batch.fenced": ("shipping",), "batch.shared_locked": ("shipping",),
         "relay.between_topics": ("orders",), "owner.timers_read": ("shipping",), "batch.submitted": ("payments",)}
# How often a process passes a point within a few seconds: one of these passings is drawn.
_PASSINGS = {"session": 1, "owner": 3, "batch": 5, "relay": 5, "effects": 3, "webhook": 3, "provider": 6, "world": 2,
             "topics": 1, "migrate": 3, "edge": 3, "importer": 1}
_SELDOM = {"owner.timers_read", "relay.between_topics", "effects.pending", "provider.waiting"}
AT_STOP = {"session.owners_ended"}  # passed by who is asked to stop


@dataclass(frozen=True)
class Trial:
    """`program` is to end the `nth` time it passes `point`. `number` counts the trials of a point from 0."""

    point: str
    number: int
    program: str
    nth: int
    tries: int = 0

    def __str__(self) -> str:
        return f"{self.point}:{self.nth}"


def trial_of(point: str, number: int, seed: int) -> Trial:
    dice = random.Random(f"crash:{seed}:{point}:{number}")
    prefix = point.partition(".")[0]
    programs = _ONLY.get(point) or _WHERE[prefix]
    passings = 1 if point in _SELDOM else _PASSINGS[prefix]
    return Trial(point, number, programs[number % len(programs)], dice.randint(1, passings))


def plan(points: tuple[str, ...], times: int, seed: int, done: Counter[str]) -> dict[str, list[Trial]]:
    """Program -> its trials, in the order they are made; without the first `done` of each point."""
    trials = [trial_of(point, number, seed) for point in points for number in range(done[point], times)]
    # By number first, so that a run that ends early has tried each point about as often.
    dice = random.Random(f"crash:{seed}")
    trials.sort(key=lambda trial: (trial.number, dice.random()))
    chains: dict[str, list[Trial]] = {}
    for trial in trials:
        chains.setdefault(trial.program, []).append(trial)
    return chains


def sample(seed: int, count: int) -> tuple[str, ...]:
    """`count` points, the next ones of a fixed order with each seed: enough seeds in a row cover all."""
    names = list(POINTS)
    random.Random("crash points").shuffle(names)
    return tuple(names[(seed * count + n) % len(names)] for n in range(min(count, len(names))))
