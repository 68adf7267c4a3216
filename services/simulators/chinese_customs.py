"""Chinese customs as it tells what it does with an import list: in receipts (CEB622), some late, doubled or contradictory. Pure."""

from __future__ import annotations

from schemas import shipping_report as report
from schemas.topics import REPORT
from services.simulators.outsiders import Heard, Memory, Reaction, after, hours, moment_of, said_id

SOURCE = "/customs/CN"
SCENARIOS = frozenset({"china_receipts"})
# What becomes of an import list: by scenario, for the first and for all later ones, (status, trade hours, why). Elsewhere it is
# taken. The list that was never got comes again at once; the one that is rejected when the merchant has corrected it.
TAKEN = (("120", 0.1, ""),)
RELEASED = (*TAKEN, ("800", 0.5, ""))  # from a bonded warehouse, where the goods lie already
LISTS: dict[str, tuple[tuple[tuple[str, float, str], ...], ...]] = {
    "china_receipts": ((("1", 0.02, ""), ("4", 0.06, "no connection"), ("120", 3.0, "")),
                       (("2", 0.05, ""), ("300", 0.1, ""), ("120", 0.3, ""), ("3", 0.4, ""))),
    "china_bonded": ((*TAKEN, ("300", 0.2, ""), ("500", 0.5, "inspection"), ("800", 4.0, "")),),
    "china_bonded_refused": ((*TAKEN, ("501", 0.5, "detained"), ("700", 6.0, "returned")),),
    "china_list_rejected": ((("100", 0.2, "lines.1.gcode"),), TAKEN),
    "china_over_limit": ((("2", 0.05, ""), ("-621018", 0.5, "above the person's limit per year"), ("120", 1.0, "")),),
}
# (status, trade hours after what they answer, why); 100 after 800 contradicts it, the second 500 is a copy that was held up.
ARRIVED = (("1", 0.02, ""), ("2", 0.04, ""), ("4", 0.06, ""), ("3", 0.2, ""), ("120", 0.4, ""))
PRESENTED = {
    "china_receipts": (("300", 0.5, ""), ("500", 1.0, "inspection"), ("501", 2.0, "detained"), ("399", 20.0, ""), ("800", 21.0, ""),
                       ("500", 22.0, "inspection"), ("100", 23.0, "rejected"), ("899", 24.0, "")),
}


def speaks(heard: Heard, scenario: str) -> bool:
    """Whether it is Chinese customs that has the parcel, and tells of it in receipts."""
    return scenario in SCENARIOS and heard.data.destination == "CN"


def answer_list(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """What the office says of a list that was declared."""
    listed = heard.data.import_list
    if listed is None:
        return []
    known = LISTS.get(scenario, (RELEASED if listed.mode == "1210" else TAKEN,))
    return receipts(heard, known[0] if not listed.replaces else known[-1], memory, listed.list_no)


def withdraw(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """A list is revoked (CEB624), or goods of it are returned (CEB626)."""
    event = heard.data
    form, list_no = ("CEB624", event.revokes) if hasattr(event, "revokes") else ("CEB626", event.returns_list)
    if not list_no:
        return []
    return_id, kept = getattr(event, "return_id", ""), scenario == "china_return_kept"
    message = report.ListWithdrawalReported(order_id=event.order_id, parcel_id=event.parcel_id, list_no=list_no, form=form,
                                            return_id=return_id, accepted=not kept, reason="not as they were let in" if kept else "")
    return [after(0.5, 6, memory, REPORT.name, SOURCE, said_id(form, f"{list_no}:{return_id}"), message)]


def receipts(heard: Heard, told: tuple[tuple[str, float, str], ...], memory: Memory, list_no: str = "") -> list[Reaction]:
    """One receipt after another, of the list or, without one, of the parcel at the border."""
    order_id, parcel_id, said = heard.data.order_id, heard.data.parcel_id, []
    for n, (status, wait, why) in enumerate(told):
        name = f"ceb622:{status}:{n}:{list_no or parcel_id}"
        after_s = hours(memory, name, wait, wait * 1.01)
        receipt = report.CarrierScanReported(order_id=order_id, parcel_id=parcel_id, dialect="ceb622", code=status,
                                             at=moment_of(heard, after_s), reason=why, tracking_no=list_no or None)
        said.append(Reaction(after_s, REPORT.name, receipt, name, SOURCE))
    return said
