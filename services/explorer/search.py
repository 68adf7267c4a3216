"""Every state of a path, breadth first; then backwards from the ends: is there a state from which none can be reached?"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from services.explorer.system import System

TOLD_EVERY = 20_000


@dataclass(frozen=True)
class Finding:
    """One violation: what is wrong, and the names of the shortest list of actions that shows it."""

    path: str
    what: str
    names: tuple[str, ...]


@dataclass
class Closure:
    """What is known of a path once all its states were seen. `ends`: outcome -> states in which it is reached."""

    name: str
    states: int = 0
    transitions: int = 0
    seconds: float = 0.0
    complete: bool = True
    ends: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


def close(system: System, name: str, seconds: float = 600.0, told: Callable[[int], None] = lambda states: None,
          findings_max: int = 1) -> Closure:
    """See every state that can be reached. Stops at `findings_max` violations, or incomplete after `seconds`."""
    began = time.monotonic()
    search = _Search(system, name, findings_max)
    result = search.result
    n = 0
    while n < len(search.states):
        search.expand(n)
        n += 1
        if len(result.findings) >= findings_max:
            break
        if n % TOLD_EVERY == 0:
            told(n)
            if time.monotonic() - began > seconds:
                result.complete = False
                break
    if result.complete and not result.findings:
        search.look_backwards()
    result.states, result.transitions, result.seconds = len(search.states), len(search.sources), time.monotonic() - began
    return result


class _Search:
    """States in the order in which they were found, each with the state and choice it was first reached by."""

    def __init__(self, system: System, name: str, findings_max: int):
        self.system, self.findings_max = system, findings_max
        start = system.start()
        self.states = [start]
        self.numbers = {start: 0}
        self.parents, self.choices = array("l", [-1]), array("l", [-1])
        self.sources, self.targets, self.sure = array("l"), array("l"), bytearray()
        self.ends: list[int] = []
        self.result = Closure(name)
        self._judged: dict[tuple, list[str]] = {}

    def expand(self, n: int) -> None:
        system, state, numbers = self.system, self.states[n], self.numbers
        if system.is_end(state):
            self.ends.append(n)
            self._judge(n)
        for choice, (action, must) in enumerate(system.actions(state)):
            step = system.apply(state, action)
            if step.broken:
                self._found(step.broken, n, choice)
                continue
            target = numbers.get(step.state)
            if target is None:
                target = numbers[step.state] = len(self.states)
                self.states.append(step.state)
                self.parents.append(n)
                self.choices.append(choice)
            self.sources.append(n)
            self.targets.append(target)
            self.sure.append(must)

    def _judge(self, n: int) -> None:
        state = self.states[n]
        key = self.system.essence(state)
        faults = self._judged.get(key)
        if faults is None:
            faults = self._judged[key] = self.system.faults_of_end(state)
        self.result.ends[self.system.outcome(state)] += 1
        if faults:
            self._found("at rest, but " + "; ".join(faults), n)

    def look_backwards(self) -> None:
        """From every state an end must be reachable, even when nobody does what he need not do."""
        ways = [("no end can be reached any more", False)]
        if self.system.setting.timers is None:  # with every timer there, nobody outside needs to be kind
            ways.append(("no end can be reached unless somebody does what he need not do", True))
        for what, only_sure in ways:
            good = self._reaching(only_sure)
            bad = good.find(0)
            if bad >= 0:
                self._found(what, self._stuck(good, bad, only_sure))
                return

    def _stuck(self, good: bytearray, first_bad: int, only_sure: bool) -> int:
        """Where nothing moves any more, which tells most; else (it goes round in circles) the first point of no return."""
        moving = bytearray(len(self.states))
        for edge, source in enumerate(self.sources):
            if source != self.targets[edge] and (self.sure[edge] or not only_sure):
                moving[source] = 1
        return next((n for n in range(first_bad, len(self.states)) if not good[n] and not moving[n]), first_bad)

    def _reaching(self, only_sure: bool) -> bytearray:
        """1 for each state from which an end can be reached."""
        first, following = self._backwards()
        good = bytearray(len(self.states))
        stack = list(self.ends)
        for n in stack:
            good[n] = 1
        while stack:
            edge = first[stack.pop()]
            while edge >= 0:
                source = self.sources[edge]
                if not good[source] and (self.sure[edge] or not only_sure):
                    good[source] = 1
                    stack.append(source)
                edge = following[edge]
        return good

    def _backwards(self) -> tuple[array, array]:
        """For each state its first incoming edge, for each edge the next one into the same state (-1: none)."""
        first = array("l", [-1]) * len(self.states)
        following = array("l", [-1]) * len(self.sources)
        for edge, target in enumerate(self.targets):
            following[edge] = first[target]
            first[target] = edge
        return first, following

    def _found(self, what: str, n: int, *last: int) -> None:
        choices = list(last)
        while n > 0:
            choices.append(self.choices[n])
            n = self.parents[n]
        if len(self.result.findings) < self.findings_max:
            self.result.findings.append(Finding(self.result.name, what, self._names(reversed(choices))))

    def _names(self, choices: Iterable[int]) -> tuple[str, ...]:
        names, state = [], self.states[0]
        for choice in choices:
            action, _ = self.system.actions(state)[choice]
            names.append(self.system.name(action))
            state = self.system.apply(state, action).state
        return tuple(names)
