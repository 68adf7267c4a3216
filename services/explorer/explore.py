"""Everything together: paths closed and schedules run, in as many processes as there are cores, into one report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from services.explorer import schedule, story
from services.explorer.paths import MODELS, PATHS, Model, Path
from services.explorer.schedule import Schedules
from services.explorer.search import close

CHUNK = 50  # schedules a process runs between two looks at the clock
Told = Callable[[str], None]


class UnknownPath(ValueError):
    """No path has this name; the message has those that there are."""


class BadReplay(ValueError):
    """The text is no replay of ours; the message says how one looks."""


@dataclass(frozen=True)
class Violation:
    """`story`: what happened, line by line; `replay`: what to give to `tradewind explore --replay`."""

    where: str
    what: str
    story: tuple[str, ...]
    replay: str


@dataclass
class Closed:
    """One path. `ends`: outcome -> states at rest; `complete`: nothing was left when the time was over."""

    name: str
    about: str
    states: int
    transitions: int
    seconds: float
    complete: bool
    ends: dict[str, int]
    violations: list[Violation]


@dataclass
class Report:
    paths: list[Closed] = field(default_factory=list)
    schedules: int = 0
    steps: int = 0
    schedule_seconds: float = 0.0
    seconds: float = 0.0
    failures: list[Violation] = field(default_factory=list)

    @property
    def violations(self) -> list[Violation]:
        return [v for path in self.paths for v in path.violations] + self.failures

    @property
    def open_paths(self) -> list[str]:
        return [path.name for path in self.paths if not path.complete]

    def as_json(self) -> dict[str, Any]:
        return {
            "states": sum(p.states for p in self.paths), "transitions": sum(p.transitions for p in self.paths),
            "paths": len(self.paths), "not_closed": self.open_paths, "schedules": self.schedules, "steps": self.steps,
            "schedules_per_s": round(self.schedules / self.schedule_seconds, 1) if self.schedules else 0.0,
            "seconds": round(self.seconds, 1), "violations": len(self.violations),
            "closed": [{"name": p.name, "states": p.states, "transitions": p.transitions, "complete": p.complete,
                        "seconds": round(p.seconds, 2), "ends": p.ends} for p in self.paths],
            "found": [{"where": v.where, "what": v.what, "story": list(v.story), "replay": v.replay} for v in self.violations],
        }  # fmt: skip


def chosen(names: Iterable[str]) -> list[Path | Model]:
    """The paths of these names, all of them when there is none. Raises UnknownPath."""
    known = {path.name: path for path in (*PATHS, *MODELS)}
    if unknown := [name for name in names if name not in known]:
        raise UnknownPath(f"no path is called {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names] or list(known.values())


def close_path(name: str, seconds: float) -> Closed:
    """See every state of one path, and judge what was found."""
    [path] = chosen([name])
    system = path.system()
    result = close(system, name, seconds)
    found = [Violation(name, f.what, tuple(story.tell(system, system.named(f.names), f.what)),
                       f"{name}:{schedule.pack(*f.names)}") for f in result.findings]
    if result.complete and not found and set(result.ends) != path.ends:
        missing, more = sorted(path.ends - set(result.ends)), sorted(set(result.ends) - path.ends)
        found.append(Violation(name, f"the path ends otherwise than it should: never {missing or '-'}, but {more or '-'}", (),
                               name))
    return Closed(name, path.about, result.states, result.transitions, result.seconds, result.complete, dict(result.ends),
                  found)


_schedules: Schedules | None = None


def run_schedules(seed: int, first: int, count: int) -> tuple[int, list[Violation]]:
    """(actions taken, violations) of schedules `first` to `first + count`; stops at the first violation."""
    global _schedules  # what one chunk learned of the machines serves the next one of this process
    _schedules = _schedules or Schedules()
    before = _schedules.steps
    for number in range(first, first + count):
        failure = _schedules.run(seed, number)
        if failure is not None:
            told, what = _schedules.replay(failure.world, failure.names)
            lines = story.tell(_schedules.system(failure.world), told, what)
            return _schedules.steps - before, [Violation(f"schedule {number} of seed {seed}", failure.what, tuple(lines),
                                                         failure.replay)]
    return _schedules.steps - before, []


def explore(paths: list[Path | Model], schedules: int, seed: int, seconds: float, jobs: int,
            told: Told = lambda text: None) -> Report:
    """Close the paths, then run the schedules. `seconds`: at most, for each path, and for all schedules together."""
    report, began = Report(), time.monotonic()
    with _pool(jobs) as run:
        for closed in run([(close_path, path.name, seconds) for path in paths]):
            report.paths.append(closed)
            told(f"{closed.name}: {closed.states} states, {closed.transitions} transitions in {closed.seconds:.1f} s")
        started = time.monotonic()
        chunks = [(run_schedules, seed, first, min(CHUNK, schedules - first)) for first in range(0, schedules, CHUNK)]
        for steps, failures in run(chunks, started + seconds):
            report.steps += steps
            report.failures += failures
            report.schedules += CHUNK
            told(f"{report.schedules} schedules in {time.monotonic() - started:.0f} s")
            if failures:
                break
        report.schedules = min(report.schedules, schedules)
        report.schedule_seconds = time.monotonic() - started
    order = {path.name: n for n, path in enumerate(paths)}
    report.paths.sort(key=lambda closed: order[closed.name])
    report.seconds = time.monotonic() - began
    return report


class _pool:
    """Runs calls in `jobs` processes, or here when it is one; results come as they are ready."""

    def __init__(self, jobs: int):
        self._pool = ProcessPoolExecutor(jobs) if jobs > 1 else None

    def __enter__(self):
        return self._run

    def __exit__(self, *_) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _run(self, calls: list[tuple], until: float = float("inf")) -> Iterator[Any]:
        if self._pool is None:
            for function, *arguments in calls:
                if time.monotonic() > until:
                    return
                yield function(*arguments)
            return
        futures = [self._pool.submit(*call) for call in calls]
        for future in as_completed(futures):
            yield future.result()
            if time.monotonic() > until:
                for late in futures:
                    late.cancel()
                return


def replayed(text: str) -> tuple[list[str], str]:
    """(the story, what is wrong or "") of a violation's `replay`. Raises BadReplay, UnknownPath."""
    kind, _, rest = text.strip().partition(":")
    try:
        values = schedule.unpack(rest) if rest else []
        if kind == "schedule":
            schedules = Schedules()
            told, what = schedules.replay(int(values[0]), tuple(map(str, values[1:])))
            return story.tell(schedules.system(int(values[0])), told, what or "no rule is broken"), what
    except (ValueError, IndexError, TypeError) as why:
        raise BadReplay(f"{text[:40]!r} is no replay ({why}); give the whole word that was printed, or a file with it") from why
    system = chosen([kind])[0].system()
    told = list(system.named(map(str, values)))
    what = next((step.broken for _, step in told if step.broken), "")
    if not what and told and system.is_end(told[-1][1].state):
        faults = system.faults_of_end(told[-1][1].state)
        what = "at rest, but " + "; ".join(faults) if faults else ""
    return story.tell(system, told, what or "no rule is broken up to here; that an end is out of reach shows only on the "
                                            f"whole path: tradewind explore --path {kind}"), what
