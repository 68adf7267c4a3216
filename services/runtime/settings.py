"""The one place where Tradewind is configured: every setting, its environment variable and its local default.

A setting `speed` is read from `TRADEWIND_SPEED`. Nothing has to be set: without any, everything runs on
this machine, in the data folder, on 127.0.0.1.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.numbers import COMPANY_PREFIX

SERVICES = ("orders", "payments", "shipping")
# What may run elsewhere. Whoever measures or breaks things starts a system of his own, and unsets these.
ELSEWHERE = ("bootstrap_servers", *(f"{service}_dsn" for service in SERVICES), "provider_url", "registry_url")
_PREFIX = "TRADEWIND_"


def _default_cache() -> Path:
    """Downloads outlive data folders, so they stand in the user's cache (XDG_CACHE_HOME or ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tradewind"


class Settings(BaseSettings):
    """Read from the environment once, at a process's start; immutable from then on."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    # Where things are. None means: started by us, on this machine.
    bootstrap_servers: str | None = Field(None, description="Kafka's addresses, host:port[,host:port]")
    orders_dsn: str | None = Field(None, description="PostgreSQL DSN of the orders service")
    payments_dsn: str | None = Field(None, description="PostgreSQL DSN of the payments service")
    shipping_dsn: str | None = Field(None, description="PostgreSQL DSN of the shipping service")
    data_folder: Path = Field(Path(".tradewind"), description="local broker, databases, logs, journals, keys")
    cache_folder: Path = Field(default_factory=_default_cache, description="the broker's downloaded jars")

    # The local broker and database.
    kafka_port: int = Field(19092, ge=1, le=65000, description="first local broker; the others and the controllers follow")
    kafka_nodes: Annotated[Literal[1, 3], BeforeValidator(int)] = Field(1, description="local brokers; 3 replicate with min ISR 2")
    postgres_port: int = Field(15432, ge=1, le=65535)

    # The trade.
    partitions: int = Field(6, ge=1, le=1024, description="of every topic; cannot change once topics exist")
    speed: float = Field(1.0, gt=0, description="trade seconds that pass in a real second")
    seed: int = Field(20101201, description="of everything random in the simulators")

    # Ports of our own processes, all on 127.0.0.1.
    orders_port: int = Field(18080, ge=1, le=65535, description="the orders HTTP API")
    console_port: int = Field(18081, ge=1, le=65535, description="the operators' pages")
    provider_port: int = Field(18082, ge=1, le=65535, description="the simulated payment provider")
    webhook_port: int = Field(18083, ge=1, le=65535, description="where the provider's webhooks arrive")

    # Landed cost: what changes too often, or is too much one's own, to be shipped.
    rates_file: Path | None = Field(None, description="TOML: customs exchange rates, duty and tax rates, carriers' fees")
    tax_rounding: str = Field("", description="of taxes whose rounding nobody verified: CN=half_up/line,EU=down/total")
    terms_file: Path | None = Field(None, description="TOML: fee plans, exchange rates, the payment provider's fees")

    china_platform: str = Field("TRADEWIND0", pattern=r"^[A-Z0-9]{10}$", description="our code at Chinese customs (ebpCode)")
    china_resends: int = Field(3, ge=1, le=9, description="how often a parcel's wrong papers are corrected before it is paid back")

    registry_url: str | None = Field(None, description="who is asked whose a buyer's identity number is; None: nobody")
    provider: Literal["http", "inprocess"] = Field("http", description="inprocess: for the benchmark only")
    provider_url: str | None = Field(None, description="None: the local provider at provider_port")
    webhook_secret: SecretStr | None = Field(None, description="whsec_…; None: made once in the data folder")
    vault_key: SecretStr | None = Field(None, description="32 bytes in base64; None: made once in the data folder")
    gs1_prefix: str = Field(
        COMPANY_PREFIX, pattern=r"^\d{7}$", description="the operator's GS1 company prefix, which parcels' SSCCs begin with"
    )
    linger_ms: int = Field(
        10, ge=0, le=1000, description="how long a reader lets a batch fill: a fuller one costs less an event, and waits"
    )
    denied_file: Path | None = Field(None, description="lists of denied parties; None: the invented ones we ship")
    goods_file: Path | None = Field(None, description="positive list, limits and batteries; None: the rows we ship")
    registered_only: bool = Field(False, description="orders of merchants who did not register are refused")
    dead_letters_max: int = Field(
        100, ge=1, description="a reader stops before a topic's dead letters, less one for ten good records, pass this"
    )
    parked_grace_s: float | None = Field(
        None, ge=0, description="until a start gives up what waited too long; None: 300"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("registry_url")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None  # as a variable that an environment passes on unset

    @field_validator("vault_key")
    @classmethod
    def _key_is_32_bytes(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(base64.b64decode(value.get_secret_value(), validate=True)) != 32:
            raise ValueError("must be 32 bytes in base64; make one: head -c32 /dev/urandom | base64")
        return value

    @field_validator("data_folder", "cache_folder", "rates_file", "denied_file", "goods_file", "terms_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        # Children may run in another folder than the command that was given a relative path.
        return value and value.expanduser().absolute()

    @property
    def bootstrap(self) -> str:
        """Kafka's addresses: the configured ones, else those of the local brokers."""
        nodes = range(self.kafka_port, self.kafka_port + self.kafka_nodes)
        return self.bootstrap_servers or ",".join(f"127.0.0.1:{port}" for port in nodes)

    def dsn(self, service: str) -> str:
        """The DSN of `service` (one of SERVICES): the configured one, else the local database tradewind_<service>."""
        assert service in SERVICES, service
        return getattr(self, f"{service}_dsn") or (
            f"postgresql://postgres@127.0.0.1:{self.postgres_port}/tradewind_{service}"
        )

    @property
    def needs_local_postgres(self) -> bool:
        return any(getattr(self, f"{service}_dsn") is None for service in SERVICES)

    @property
    def provider_address(self) -> str:
        """Base URL of the payment provider, without a slash at its end."""
        return (self.provider_url or f"http://127.0.0.1:{self.provider_port}").rstrip("/")

    def vault_key_bytes(self) -> bytes:
        """The 32 bytes that encrypt the orders' vault. Who loses them loses the buyers' data for good."""
        if self.vault_key is not None:
            return base64.b64decode(self.vault_key.get_secret_value())
        return base64.b64decode(self._made_once("vault.key", ""))

    def webhook_secret_text(self) -> str:
        """The secret both ends sign webhooks with, in the form of Standard Webhooks (`whsec_` + base64)."""
        if self.webhook_secret is not None:
            return self.webhook_secret.get_secret_value()
        return self._made_once("webhook.key", "whsec_")

    def _made_once(self, name: str, prefix: str) -> str:
        """A secret in the data folder, mode 600, made by whoever asks first; the same for all afterwards."""
        path = self.data_folder / "secrets" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_name(f"{name}.{os.getpid()}")
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(prefix + base64.b64encode(secrets.token_bytes(32)).decode())
                file.flush()
                os.fsync(file.fileno())
            try:
                # link fails where another process was first, and nobody ever sees half a key.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return path.read_text()

    def child_env(self, **extra: str) -> dict[str, str]:
        """The environment of a child process: ours, these settings written out, and `extra` over them.

        Secrets that were not configured are left out: the child reads them from the data folder.
        """
        env = {key: value for key, value in os.environ.items() if not key.startswith(_PREFIX)}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is not None:
                plain = value.get_secret_value() if isinstance(value, SecretStr) else value
                env[_PREFIX + name.upper()] = str(plain)
        # A line of a dead child that still sat in a buffer is the one that was needed.
        return env | {"PYTHONUNBUFFERED": "1"} | extra
