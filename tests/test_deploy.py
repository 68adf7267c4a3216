"""The deployment says what it must: every process, pinned images, loopback ports, no root, nothing writable but volumes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.cli.table import PROGRAMS

yaml = pytest.importorskip("yaml", reason="PyYAML is not in requirements.lock")
ROOT = Path(__file__).parents[1]
ONE_SHOT = {"prepare", "load"}


def read() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


COMPOSE = read()
SERVICES: dict[str, dict] = COMPOSE["services"]
EACH = pytest.mark.parametrize("name", sorted(SERVICES))


def test_every_program_of_the_table_is_a_service_with_its_command():
    for program in PROGRAMS:
        assert SERVICES[program.name]["command"] == ["python", "-m", program.module, *program.args], program.name


def test_there_is_nothing_else():
    assert set(SERVICES) == {p.name for p in PROGRAMS} | {"kafka", "postgres", "prepare", "load", "payments-network"}


@EACH
def test_ports_are_bound_to_this_machine(name):
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))
    assert SERVICES[name].get("network_mode", "") != "host"


@EACH
def test_images_are_pinned(name):
    assert re.fullmatch(r"[a-z/]+:\d+(\.\d+)+", SERVICES[name]["image"]), SERVICES[name]["image"]


@EACH
def test_no_root_and_no_privilege(name):
    service = SERVICES[name]
    assert str(service["user"]).split(":")[0] not in ("", "0", "root") and not service.get("privileged")
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert "no-new-privileges:true" in service["security_opt"]
    assert any(place.startswith("/tmp:") for place in service["tmpfs"])
    assert service["mem_limit"] and service["pids_limit"]


@EACH
def test_health_and_restart(name):
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert service["restart"] == "no" and service["healthcheck"] == {"disable": True}
    else:
        assert service["restart"] == "unless-stopped" and service["healthcheck"]["test"][0] == "CMD"


@EACH
def test_what_it_waits_for_is_in_each_of_its_profiles(name):
    """A profile alone must be enough: compose refuses a dependency that the profile leaves out."""
    for other in SERVICES[name].get("depends_on", {}):
        assert set(SERVICES[name]["profiles"]) <= set(SERVICES[other]["profiles"]), other
    assert set(SERVICES[name]["profiles"]) <= {"core", "ui", "load", "registry"}


@EACH
def test_volumes_are_named_or_read_only(name):
    for volume in SERVICES[name].get("volumes", []):
        source, _, rest = volume.partition(":")
        assert source in COMPOSE["volumes"] or (source.startswith("./") and rest.endswith(":ro")), volume
        assert not source.startswith(".") or (ROOT / source).exists()


def test_services_start_after_topics_and_tables_and_keep_to_their_own_database():
    for service in ("orders", "payments", "shipping"):
        assert SERVICES[service]["depends_on"]["prepare"] == {"condition": "service_completed_successfully"}
        dsns = {key for key in SERVICES[service]["environment"] if key.endswith("_DSN")}
        assert dsns == {f"TRADEWIND_{service.upper()}_DSN"}
    for name in ("provider", "storefront", "warehouse", "carrier", "customs", "payments-webhook", "console-views"):
        assert not any(key.endswith("_DSN") for key in SERVICES[name]["environment"]), name


def test_topics_never_appear_by_themselves_and_nothing_is_dropped_by_age():
    kafka = SERVICES["kafka"]["environment"]
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false" and kafka["KAFKA_LOG_RETENTION_MS"] == "-1"


def test_the_tests_use_the_same_servers():
    from tests.conftest import KAFKA_IMAGE, POSTGRES_IMAGE

    assert (SERVICES["kafka"]["image"], SERVICES["postgres"]["image"]) == (KAFKA_IMAGE, POSTGRES_IMAGE)


def test_who_listens_on_loopback_shares_a_network_with_who_calls_it():
    """payments → provider → webhook edge, all on 127.0.0.1; the network's owner does nothing and so never restarts."""
    for name in ("payments", "payments-webhook", "provider"):
        assert SERVICES[name]["network_mode"] == "service:payments-network"
    assert SERVICES["payments-network"]["command"] == ["sleep", "infinity"]


def test_the_dockerfile():
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(bases) == 2 and set(bases) == {"python:3.11-slim-bookworm"}, "two stages, one pinned base"
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    assert any("--require-hashes -r /src/requirements.lock" in line for line in lines)
    assert "STOPSIGNAL SIGTERM" in lines and any(line.startswith("HEALTHCHECK ") for line in lines)
    ours = {s["image"] for n, s in SERVICES.items() if n not in ("kafka", "postgres")}
    assert len(ours) == 1 and f"-t {ours.pop()} " in "\n".join(lines), "one image for all"


def test_the_build_sees_no_more_than_it_copies():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "deploy" / "Dockerfile").read_text(), re.M))
    assert kept == {name for line in copied for name in line.split()}
