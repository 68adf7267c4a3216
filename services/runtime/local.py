"""Kafka and PostgreSQL on this machine, for who has no address of a real one to give."""

from services.runtime.local_kafka import LocalKafka
from services.runtime.local_postgres import LocalPostgres

__all__ = ["LocalKafka", "LocalPostgres"]
