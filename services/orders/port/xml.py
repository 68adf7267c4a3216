"""A paper to XML and back, held against the schema beside it, signed (XML Signature, enveloped, RSA-SHA256) and checked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml import InvalidDigest, InvalidSignature, XMLSigner, XMLVerifier

from services.orders.port.messages import CEB311, CEB411, CEB511, CEB621, Paper

NAMESPACE = "http://www.chinaport.gov.cn/ceb"
SIGNATURE = "{http://www.w3.org/2000/09/xmldsig#}Signature"
KINDS: dict[str, type[Paper]] = {kind.ROOT: kind for kind in (CEB311, CEB411, CEB511, CEB621)}
VALID_FOR = timedelta(days=3650)


class BadPaper(ValueError):
    """XML that customs would not take, or that somebody changed: what is wrong with it."""


@lru_cache(maxsize=1)
def schema() -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(str(Path(__file__).with_name("ceb.xsd"))))


def _parser() -> etree.XMLParser:
    """Nothing is fetched or expanded of what others send."""
    return etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)


def to_xml(paper: Paper) -> etree._Element:
    """Raises BadPaper when it is not as the schema says."""
    root = etree.Element(_name(paper.ROOT), nsmap={"ceb": NAMESPACE})
    for field in type(paper).model_fields:
        value = getattr(paper, field)
        for line in value if field == "lines" else ():
            goods = etree.SubElement(root, _name(paper.GOODS))
            for part in type(line).model_fields:
                etree.SubElement(goods, _name(part)).text = _text(getattr(line, part))
        if field != "lines":
            etree.SubElement(root, _name(field)).text = _text(value)
    _valid(root)
    return root


def from_xml(root: etree._Element) -> Paper:
    """The paper that `to_xml` made this of. Raises BadPaper."""
    _valid(root)
    kind = KINDS[etree.QName(root).localname]
    fields: dict[str, Any] = {"lines": []} if "lines" in kind.model_fields else {}
    for child in root:
        name = etree.QName(child).localname
        if name == kind.GOODS:
            fields["lines"].append({etree.QName(part).localname: part.text or "" for part in child})
        elif child.tag != SIGNATURE:
            fields[name] = child.text or ""
    return kind.model_validate({name: _whole(kind, name, value) for name, value in fields.items()})


def _whole(kind: type[Paper], name: str, value: Any) -> Any:
    """A literal number comes back as one."""
    choices = get_args(kind.model_fields[name].annotation) if get_origin(kind.model_fields[name].annotation) is not UnionType else ()
    return int(value) if choices and all(isinstance(choice, int) for choice in choices) else value


def _name(local: str) -> str:
    return f"{{{NAMESPACE}}}{local}"


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)


def _valid(root: etree._Element) -> None:
    plain = etree.fromstring(etree.tostring(root), _parser())
    for signature in plain.findall(SIGNATURE):
        plain.remove(signature)
    if not schema().validate(plain):
        error = schema().error_log[0]
        raise BadPaper(f"{etree.QName(root).localname}: {error.message}".replace(f"{{{NAMESPACE}}}", ""))


# -- signed ---------------------------------------------------------------------------------------------------------------


def sign(root: etree._Element, key_pem: bytes, certificate_pem: bytes) -> bytes:
    signed = XMLSigner(signature_algorithm="rsa-sha256", digest_algorithm="sha256").sign(root, key=key_pem, cert=certificate_pem.decode())
    return etree.tostring(signed, xml_declaration=True, encoding="UTF-8")


def verified(data: bytes, certificate_pem: bytes) -> Paper:
    """What the holder of this certificate signed. Raises BadPaper for anything that was changed, or signed by somebody else."""
    try:
        root = etree.fromstring(data, _parser())
        signed = XMLVerifier().verify(root, x509_cert=certificate_pem.decode()).signed_xml
    except etree.XMLSyntaxError as why:
        raise BadPaper(f"not XML: {why}") from why
    except (InvalidDigest, InvalidSignature, ValueError) as why:
        raise BadPaper(f"the signature does not hold: {why}") from why
    return from_xml(signed)


def new_key(name: str, at: datetime) -> tuple[bytes, bytes]:
    """(private key, self-signed certificate), PEM: for a port of our own; customs' card is another thing."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(at - timedelta(days=1)).not_valid_after(at + VALID_FOR)
                   .sign(key, hashes.SHA256()))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(serialization.Encoding.PEM)
