"""Who may import whom, read from the sources: `schemas` ← `services/runtime` ← a service; never one service another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVICES = {"orders", "payments", "shipping", "console"}
# What stands outside the services, and sees them only as the world does: by topic, or as processes.
OUTSIDERS = {"simulators", "auditor"}
# The explorer runs the machines themselves, so it may import them, and of the runtime what needs no Kafka and no database.
PURE = ("batch", "spec", "decision", "track")


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything a file imports, wherever in the file; what follows `from` names is included."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).with_suffix("").parts[: -node.level or None]
            base = ".".join((*package, *filter(None, [node.module]))) if node.level else node.module
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def package_of(name: str) -> str | None:
    """orders of services.orders.machine.decide."""
    parts = name.split(".")
    return parts[1] if parts[0] == "services" and len(parts) > 1 else None


def offences(folder: str, forbidden) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{line} imports {name}" for path in sources(folder) for line, name in imports(path)
            if forbidden(name)]


def test_schemas_import_nothing_of_services():
    assert sources("schemas")
    assert offences("schemas", lambda name: name.split(".")[0] in ("services", "tests")) == []


def test_the_runtime_imports_no_service():
    assert sources("services/runtime")
    assert offences("services/runtime", lambda name: package_of(name) not in (None, "runtime")) == []


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_imports_no_other_package_of_services(service):
    assert offences(f"services/{service}", lambda name: package_of(name) not in (None, "runtime", service)) == []


@pytest.mark.parametrize("outsider", sorted(OUTSIDERS))
def test_who_stands_outside_imports_no_service(outsider):
    assert sources(f"services/{outsider}")
    assert offences(f"services/{outsider}", lambda name: package_of(name) in SERVICES) == []


def test_the_auditor_imports_nothing_it_judges():
    """Its own code, `schemas`, and the settings, which only say where to look: a fault of the runtime must not excuse itself."""
    settings = "services.runtime.settings."
    assert offences("services/auditor", lambda name: package_of(name) not in (None, "auditor")
                    and not name.startswith(settings)) == []


def test_the_explorer_imports_machines_and_the_pure_runtime():
    machines = tuple(f"services.{service}.{module}" for service in ("orders", "payments", "shipping")
                     for module in ("machine", "storage", "allocation", "quota", "terms", "plans"))
    allowed = (*machines, *(f"services.runtime.{module}." for module in PURE), "services.explorer")
    assert sources("services/explorer")
    assert offences("services/explorer", lambda name: package_of(name) is not None and not name.startswith(allowed)) == []


@pytest.mark.parametrize("folder", ["runtime", *sorted(SERVICES | OUTSIDERS)])
def test_nobody_but_the_command_imports_the_explorer(folder):
    assert offences(f"services/{folder}", lambda name: package_of(name) == "explorer") == []


def test_only_tests_import_tests():
    assert offences("services", lambda name: name.split(".")[0] == "tests") == []


def test_the_reader_of_imports_sees_each_form(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "services" / "orders" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text("import services.payments.app\nfrom services import shipping\nfrom ..payments import machine\n"
                    "def f():\n    from services.shipping.app import spec\n    from . import machine\n")
    assert [package_of(name) for _, name in sorted(imports(file))] == ["payments", "shipping", "payments", "shipping", "orders"]
