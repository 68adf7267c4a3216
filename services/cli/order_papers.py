"""An order's papers as Chinese customs would get them: signed XML, written into a folder that only its owner can read.

The only place where persons leave the vault in clear; nothing of it is printed."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.orders_order import OrderDocumented
from schemas.parties import Person, SealedParty, unseal
from schemas.payments_payment import PaymentDocumentAmended, PaymentHeld
from schemas.shipping_shipment import DocumentsMatched
from services.cli.order_records import Event, database
from services.cli.output import Refused
from services.orders.port.messages import NotTheSame, papers
from services.orders.port.xml import new_key, sign, to_xml
from services.runtime.settings import Settings

KEY, CERTIFICATE = "customs.key", "customs.crt"


async def write(settings: Settings, order_id: str, events: list[Event], folder: Path) -> list[Path]:
    """The four papers of each parcel whose list was declared, of its newest list. Raises Refused, NotRunning, OSError."""
    declared = {e.data["parcel_id"]: DocumentsMatched.model_validate(e.data) for e in events
                if e.type == "DocumentsMatched" and e.dead is None and e.data.get("import_list")}
    if not declared:
        raise Refused("no_papers", order_id, "Only an order into China has papers, once its import list is declared (DocumentsMatched).")
    buyer, consignee = await _persons(settings, order_id)
    key, certificate = _signer(settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = [_put(folder / CERTIFICATE, certificate)]
    for parcel_id, matched in declared.items():
        order, payment = _newest(events, parcel_id, matched)
        try:
            made = papers(order, payment, matched.import_list, buyer, consignee, settings.vault_key_bytes(), datetime.now(UTC).replace(microsecond=0))
        except NotTheSame as why:
            raise Refused("not_the_same_person", parcel_id, f"{why}; look for who changed the vault.") from why
        written += [_put(folder / f"{parcel_id}.{paper.ROOT.removesuffix('Message')}.xml", sign(to_xml(paper), key, certificate))
                    for paper in made]
    return written


def _newest(events: list[Event], parcel_id: str, matched: DocumentsMatched) -> tuple[Any, Any]:
    """The order and payment documents that the newest list was made of."""
    units = [(line.gnum, line.gcode, line.quantity) for line in matched.import_list.lines]
    orders = [OrderDocumented.model_validate(e.data).document for e in events
              if e.type == "OrderDocumented" and e.data["parcel_id"] == parcel_id]
    order = next(document for document in reversed(orders)
                 if [(line.gnum, line.gcode, line.quantity) for line in document.lines] == units)
    payments = [PaymentHeld.model_validate(e.data).document for e in events if e.type == "PaymentHeld" and e.data.get("document")]
    payments += [PaymentDocumentAmended.model_validate(e.data).document for e in events if e.type == "PaymentDocumentAmended"]
    return order, next(p for p in reversed(payments) if p.order_no == parcel_id and p.amount == order.paid)


async def _persons(settings: Settings, order_id: str) -> tuple[Person, Person]:
    async with database(settings, "orders") as connection:
        rows = await connection.fetch("SELECT role, token, hash, sealed FROM vault WHERE order_id = $1", order_id)
    found = {role: unseal(SealedParty(token=row["token"], hash=row["hash"], sealed=row["sealed"]), settings.vault_key_bytes())
             for row in rows for role in row["role"].split("+")}
    return found["buyer"], found["consignee"]


def _signer(settings: Settings) -> tuple[bytes, bytes]:
    """This installation's own key and certificate, made once."""
    folder = settings.data_folder / "secrets"
    if not (folder / CERTIFICATE).exists():
        key, certificate = new_key("Tradewind customs port", datetime.now(UTC))
        _put(folder / KEY, key)
        _put(folder / CERTIFICATE, certificate)
    return (folder / KEY).read_bytes(), (folder / CERTIFICATE).read_bytes()


def _put(path: Path, data: bytes) -> Path:
    """Whole or not at all, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    draft.replace(path)
    return path
