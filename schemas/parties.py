"""Persons, as they cross a topic: sealed for the vault, with a token to look up and a keyed hash to compare.

The edge seals (`seal`), the orders service opens (`unseal`) to check and stores the sealed form in its vault.
AES-256-GCM; the hash is HMAC-SHA256 over the normalised person, so that nobody without the key can test a guess.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import unicodedata
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field
from typing import Annotated

from schemas.china_papers import Consignee
from schemas.model import CommandPart, Id, Part


class Person(Part):
    """In clear: only at the edge, and in memory of the orders service."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    phone: Annotated[str, Field(max_length=40)] = ""
    address: Annotated[str, Field(max_length=500)] = ""
    identity_no: Annotated[str, Field(max_length=40)] = ""


class SealedParty(CommandPart):
    token: Id
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    sealed: Annotated[str, Field(max_length=4000, description="base64: 12 bytes of nonce, then the ciphertext")]
    identity: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$", description="keyed hash of the identity number alone")] = ""


class SealBroken(ValueError):
    """The sealed person cannot be opened with this system's vault key: seal it again with the current key."""


@lru_cache(maxsize=8)
def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key)


def seal(person: Person, key: bytes) -> SealedParty:
    """Seal a person with the 32-byte vault key. The same person gives the same token, hash and sealed text, so that an
    order sent again after a crash is byte for byte the same. The nonce is derived from key and content (as in SIV): it
    repeats only with the very same text, which is the one repetition AES-GCM survives, and the token shows that anyway."""
    plain = person_json(person)
    digest = hmac.digest(key, plain, hashlib.sha256).hex()
    nonce = hmac.digest(key, b"nonce\0" + plain, hashlib.sha256)[:12]
    sealed = base64.b64encode(nonce + _cipher(key).encrypt(nonce, plain, None)).decode()
    return SealedParty(token=f"per_{digest[32:56]}", hash=digest[:32], sealed=sealed,
                       identity=identity_hash(person.identity_no, key))


def identity_hash(number: str, key: bytes) -> str:
    """The same for one number, whatever else is told of its person; empty for none."""
    number = unicodedata.normalize("NFKC", number).strip()
    return _keyed("identity", number, key) if number else ""


def consignee_of(person: bytes, key: bytes) -> Consignee:
    """Of a person as `check` gives it, what customs compares, each on its own."""
    told = json.loads(person)
    return Consignee.model_construct(**{part: _keyed(part, told[part], key) for part in Consignee.model_fields})


def _keyed(what: str, text: str, key: bytes) -> str:
    return hmac.digest(key, f"{what}\0{text}".encode(), hashlib.sha256).hex()[:32]


def unseal(party: SealedParty, key: bytes) -> Person:
    """Open a sealed person; raises SealBroken when it was altered, or sealed with another key."""
    return Person.model_validate_json(_open(party, key))


def check(party: SealedParty, key: bytes) -> bytes:
    """Raise SealBroken unless the party opens and its hash and token are those of the person inside; the person, as JSON."""
    plain = _open(party, key)
    digest = hmac.digest(key, plain, hashlib.sha256).hex()
    if party.hash != digest[:32] or party.token != f"per_{digest[32:56]}":
        raise SealBroken("token or hash do not belong to the sealed person")
    return plain


def _open(party: SealedParty, key: bytes) -> bytes:
    try:
        raw = base64.b64decode(party.sealed, validate=True)
        return _cipher(key).decrypt(raw[:12], raw[12:], None)
    except (InvalidTag, ValueError) as why:
        raise SealBroken("the sealed person cannot be opened with this vault key; seal it again") from why


def person_json(person: Person) -> bytes:
    """As a seal holds it: what `check` gives."""
    fields = {k: " ".join(unicodedata.normalize("NFKC", v).split()) for k, v in person.model_dump().items()}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
