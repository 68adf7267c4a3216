"""Planted bugs: the product with one of `tests.planted_bugs` in it, and who notices.

    python -m tests.planted                      every bug that shows in memory, one line each
    python -m tests.planted NAME …               these
    python -m tests.planted --run NAME MODULE    `python -m MODULE` with this bug in it

A bug is a piece of source text replaced while its module is imported; nothing on the disk changes and no product code knows
of it. Each bug runs in a process of its own, forked from one that has loaded what never has a bug.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import multiprocessing
import resource
import runpy
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.planted_bugs import BUGS, Bug

CONTROL = Bug("control", "nothing: the product as it is", ())
ROOT = Path(__file__).parents[1]
SEEDS, SCHEDULES = 4, 40
CPU_S_MAX = 5  # the control takes two; a bug that keeps the simulation from coming to rest is found by this limit
WORKERS = 2
CLEAN = ("schemas.topics", "aiokafka", "aiokafka.admin", "asyncpg", "msgpack", "iso4217", "pycountry", "pytest", "cryptography")


class DoesNotFit(Exception):
    """The text that a bug replaces does not occur exactly once in its package: the product has changed, so change the bug in
    tests/planted_bugs.py."""


def locate(bug: Bug) -> dict[str, str]:
    """Module -> its source with the bug in it. Raises DoesNotFit."""
    found: dict[str, str] = {}
    for change in bug.changes:
        sources = {".".join((change.where, *path.relative_to(folder).with_suffix("").parts)): path.read_text()
                   for folder in (ROOT.joinpath(*change.where.split(".")),) for path in folder.rglob("*.py")} | found
        inside = {name: source for name, source in sources.items() if name.startswith(change.where + ".")}
        count = sum(source.count(change.old) for source in inside.values())
        if count != 1:
            raise DoesNotFit(f"{bug.name}: {change.old!r} occurs {count} times in {change.where}")
        module = next(name for name, source in inside.items() if change.old in source)
        found[module] = inside[module].replace(change.old, change.new)
    return found


class Planter(importlib.abc.MetaPathFinder):
    """Finds the modules that have a bug, and compiles them with it."""

    def __init__(self, bug: Bug):
        self.sources = locate(bug)
        if early := [name for name in self.sources if name in sys.modules]:
            raise RuntimeError(f"{bug.name} comes too late: {early} are imported already")

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self.sources:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        spec.loader = _Loader(fullname, spec.origin, self.sources[fullname])
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, source: str):
        super().__init__(fullname, path)
        self.source = source

    def get_code(self, fullname):
        return compile(self.source, self.path, "exec", dont_inherit=True)


def plant(bug: Bug) -> None:
    """From now on this process has the bug. Before its modules are imported."""
    sys.meta_path.insert(0, Planter(bug))


# -- in memory ------------------------------------------------------------------------------------------------------------


@dataclass
class Caught:
    """`by`: who noticed -> what it said first. Nobody: the bug went uncaught."""

    name: str
    by: dict[str, str] = field(default_factory=dict)
    rules: list[int] = field(default_factory=list)
    seconds: float = 0.0


def in_memory(bugs: Iterable[Bug], everybody: bool = True, workers: int = WORKERS) -> Iterator[Caught]:
    """Each bug in a fork of this process, which must not have imported the services yet; as they end. `everybody`: auditor
    and explorer look at each bug; else only who must notice it, the auditor where both must."""
    for name in CLEAN:
        importlib.import_module(name)
    fork, waiting, running = multiprocessing.get_context("fork"), list(bugs), {}
    while waiting or running:
        while waiting and len(running) < workers:
            bug = waiting.pop(0)
            mine, theirs = fork.Pipe(duplex=False)
            child = fork.Process(target=_child, args=(bug, everybody, theirs), daemon=True)
            child.start()
            theirs.close()
            running[mine] = Caught(bug.name), child, time.monotonic()
        for pipe in multiprocessing.connection.wait(list(running)):
            caught, child, began = running[pipe]
            try:
                running[pipe] = Caught(**pipe.recv()), child, began
                continue
            except EOFError:
                child.join()
            if child.exitcode == -signal.SIGXCPU:
                caught.by.setdefault("explorer", f"no rest within {CPU_S_MAX} s of CPU")
            elif child.exitcode:
                caught.by["crash"] = f"exit code {child.exitcode}"
            caught.seconds = round(time.monotonic() - began, 2)
            del running[pipe]
            yield caught


def _child(bug: Bug, everybody: bool, pipe) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX + 1))
    plant(bug)
    caught = Caught(bug.name)
    if bug.promised or bug is CONTROL:
        _audit_promised(caught)
        pipe.send(asdict(caught))
    if bug.promised:
        return
    if everybody or "auditor" not in bug.by:
        _explore(caught)
        pipe.send(asdict(caught))
    if everybody or "explorer" not in caught.by:
        _audit(caught, bug)
        pipe.send(asdict(caught))
    pipe.close()


def _explore(caught: Caught) -> None:
    """Schedules of a few orders that share stock, every step checked."""
    from services.explorer.explore import run_schedules

    try:
        _, found = run_schedules(1, 0, SCHEDULES)
    except Exception as stuck:  # whatever a bug makes of the explorer is what was looked for
        caught.by["explorer"] = f"{type(stuck).__name__}: {stuck}"[:200]
    else:
        if found:
            caught.by["explorer"] = f"{found[0].where}: {found[0].what}"[:200]


def _audit(caught: Caught, bug: Bug) -> None:
    """Crowds, and the auditor over what they leave behind, until a rule of the bug's own has complained. What the machines themselves cannot go on with (an assertion, no
    rest) is found by exploring them."""
    from services.auditor.audit import examine
    from tests.crowd import crowd, dead_letters_expected
    from tests.history import History

    for seed in range(SEEDS):
        try:
            world = crowd(seed)
        except Exception as stuck:  # as in `_explore`
            caught.by.setdefault("explorer", f"{type(stuck).__name__}: {stuck}"[:200])
            continue
        history = History([world])
        history.note_what_clients_sent()
        report = asyncio.run(examine(history, expected_dead_letters=dead_letters_expected(world)))
        if not report.clean:
            first = report.violations[0]
            caught.by.setdefault("auditor", f"rule {first.rule} ({first.name}): {'; '.join(first.evidence)}"[:200])
            caught.rules = sorted({v.rule for v in report.violations} | set(caught.rules))
            if not bug.rules or bug.rules.intersection(caught.rules):
                break


def _audit_promised(caught: Caught) -> None:
    from services.auditor.audit import examine
    from tests.history import History, promised

    report = asyncio.run(examine(History(promised())))
    if not report.clean:
        first = report.violations[0]
        caught.by["auditor"] = f"rule {first.rule} ({first.name}): {'; '.join(first.evidence)}"[:200]
        caught.rules = sorted({v.rule for v in report.violations})


# -- a process with a bug -------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("names", nargs="*", help="bugs; without any, all that show in memory, and the control")
    parser.add_argument("--run", nargs=2, metavar=("NAME", "MODULE"), help="run a module with a bug in it")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--needed", action="store_true", help="only who must notice a bug looks at it")
    given, rest = parser.parse_known_args()
    known = {bug.name: bug for bug in (CONTROL, *BUGS)}
    if given.run:
        name, module = given.run
        plant(known[name])
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    chosen = [known[name] for name in given.names] or [CONTROL, *(bug for bug in BUGS if bug.run == "memory")]
    for caught in in_memory(chosen, everybody=not given.needed):
        if given.json:
            print(json.dumps(asdict(caught)), flush=True)
        else:
            print(f"{caught.name:36} {caught.seconds:5.1f} s  {','.join(map(str, caught.rules)):20} {caught.by or 'NOBODY'}",
                  flush=True)


if __name__ == "__main__":
    main()
