"""Who may sell a protected brand, and where: commands on orders.intake.v1, events on orders.order.v1.

Their `order_id`, key and subject is `brand:<key of the name>` (see `brand_key`). A brand that is registered is protected: its
goods are sold by its owner, and by whoever an unbroken chain of authorisations leads to.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from datetime import date
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from schemas.merchants import BrandName
from schemas.model import Command, Event, Id, Part, Text

BRAND = "brand:"
EVERYWHERE = "*"
Territory = Annotated[str, Field(pattern=r"^([A-Z]{2}|\*)$", description="ISO 3166-1 alpha-2, EU for its members, * for everywhere")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the document, in hex")]
Day = Annotated[date, Field(strict=False)]
_NO_WORD = re.compile(r"[^a-z0-9]+")


@lru_cache(maxsize=4096)
def brand_key(name: str) -> str:
    """The same for all ways to write one brand: without case, accents and punctuation. What is no Latin letter is hashed."""
    bare = "".join(" " if unicodedata.category(c)[0] == "S" else c for c in name)  # ™ would become two letters
    plain = "".join(c for c in unicodedata.normalize("NFKD", bare.casefold()) if not unicodedata.combining(c))
    words = _NO_WORD.sub("-", plain).strip("-")
    if words and len(words) <= 54 and not any(c.isalnum() and not c.isascii() for c in plain):
        return f"{BRAND}{words}"
    return f"{BRAND}{words[:37].rstrip('-') or 'x'}-{hashlib.blake2b(plain.encode(), digest_size=8).hexdigest()}"


class RegisterBrand(Command):
    """Protect a brand: from now on its goods are accepted only of its owner, and of whom a chain of authorisations covers."""

    name: Annotated[BrandName, Field(min_length=1)]
    owner: Id
    decided_by: Id


class GrantAuthorisation(Command):
    """`grantor` lets `grantee` sell the brand into `territory`, from `valid_from` to `valid_to`, both included. The chain need
    not be complete: a link that hangs in the air authorises nobody."""

    authorisation_id: Id
    grantor: Id
    grantee: Id
    territory: Annotated[list[Territory], Field(min_length=1, max_length=250)]
    valid_from: Day
    valid_to: Day
    doc_hash: Hash
    decided_by: Id


class RevokeAuthorisation(Command):
    """This link is void, also for orders that were accepted by it and have not ended."""

    authorisation_id: Id
    reason: Text = ""
    decided_by: Id


class BrandAuthorisation(Part):
    """One link of the chain."""

    authorisation_id: str
    brand: str
    grantor: str
    grantee: str
    territory: list[str]
    valid_from: date
    valid_to: date
    doc_hash: str


class BrandChain(Part):
    """By which an order's lines of a protected brand were accepted: the ids of its `links`, from the brand's owner to the
    merchant; none where he is the owner."""

    brand: str
    lines: list[int]
    links: list[str]


class BrandRegistered(Event):
    name: str
    owner: str
    decided_by: str


class AuthorisationGranted(Event):
    authorisation: BrandAuthorisation
    decided_by: str


class AuthorisationRevoked(Event):
    """Open orders that stood on it are held until another chain covers them, or three days are over."""

    authorisation_id: str
    reason: Text = ""
    decided_by: str


COMMANDS = (RegisterBrand, GrantAuthorisation, RevokeAuthorisation)
EVENTS = (BrandRegistered, AuthorisationGranted, AuthorisationRevoked)
