"""The contract with a registry that knows whose an identity number is: HTTP bodies, and the names that it is tried with.

`POST /v1/real-name` with the header Idempotency-Key and a `RealNameQuestion` answers 200 with a `RealNameVerdict`; the same key gets
the same verdict. Whatever else it answers says nothing about the person: ask again with the same key. Name and number go there in
clear, over a connection that nobody else reads, and stand on no topic.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PATH = "/v1/real-name"
Outcome = Literal["match", "mismatch", "unknown"]


class RealNameQuestion(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    identity_no: Annotated[str, Field(min_length=1, max_length=40)]


class RealNameVerdict(BaseModel):
    """`unknown`: the registry has no such number, or may not say. What else it tells is not read: it may name somebody, and the
    verdict goes onto a topic."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    outcome: Outcome


# Anybody else's number is his.
TEST_NAMES: dict[str, Outcome] = {"Somebody Else": "mismatch", "Nobody Known": "unknown"}
