"""Disputes at a provider under test: which stage follows, and when. Pure; the courses are the contract's (`COURSES`).

What comes next follows from what has happened and when, so that a provider that was killed goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from schemas.provider_api import BY_THE_BANK, COURSES, EVIDENCE_DAYS, ProviderDispute

_ASKS = ("request_for_information", "chargeback")  # for evidence
# Of a stage that asks: what follows when the course does not say, with evidence in time and without.
_ANSWERED = {"request_for_information": "inquiry_closed", "chargeback": "chargeback_reversed"}
_SILENCE = {"request_for_information": "chargeback", "chargeback": "lost"}
_DECIDES = ("inquiry_closed", "chargeback_reversed", "lost")  # about what was asked for or taken before
DECISION = timedelta(hours=24)
REASON = "goods not received"


@dataclass(slots=True)
class Dispute:
    """Of one payment. `course`: a key of COURSES; `at`: a call ("capture"), a stage, or "evidence:<stage>" -> trade time;
    `stages`: those that have come, with their amounts. `partition`: where it is told, by a provider without webhooks."""

    order_id: str
    payment_id: str
    currency: str
    course: str
    at: dict[str, datetime] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    partition: int = 0

    @property
    def id(self) -> str:
        return f"dsp-{self.payment_id}"

    @property
    def last(self) -> str:
        return next(reversed(self.stages), "")

    @property
    def due(self) -> datetime:
        """Until when evidence for the last stage is taken."""
        return self.at[self.last] + timedelta(days=EVIDENCE_DAYS)

    def following(self) -> tuple[str, datetime] | None:
        """The next stage, and when; None: there is none, or it waits for a call."""
        steps, last = COURSES[self.course], self.last
        if not last:
            step = steps[0]
            return (step.stage, self.at[step.after] + timedelta(hours=step.hours)) if step.after in self.at else None
        step = next((step for step, before in zip(steps[1:], steps) if before.stage == last), None)
        if step is not None and step.after != "evidence":
            return step.stage, self.at[last] + timedelta(hours=step.hours)
        if last not in _ASKS:
            return None
        sent = self.at.get(f"evidence:{last}")
        if sent is None:
            return _SILENCE[last], self.due
        return (step.stage, sent + timedelta(hours=step.hours)) if step else (_ANSWERED[last], sent + DECISION)

    def amount_of(self, stage: str, left: int) -> int:
        """What the next stage is about; `left`: of what was captured, nobody has had back."""
        return self.stages[self.last] if stage in _DECIDES else left

    def enter(self, stage: str, amount: int, now: datetime) -> int:
        """It has come to this stage. By how much more of the payment is with the bank."""
        self.at[stage], self.stages[stage] = now, amount
        return 0 if stage not in BY_THE_BANK else -amount if stage == "chargeback_reversed" else amount

    def called(self, kind: str, now: datetime) -> None:
        """A call about its payment; the first of each kind counts, of evidence for each stage."""
        self.at.setdefault(f"evidence:{self.last}" if kind == "evidence" else kind, now)

    def refusal(self, reference: str, now: datetime) -> str:
        """Why evidence is not taken; empty when it is."""
        if reference != self.id or self.last not in _ASKS or f"evidence:{self.last}" in self.at:
            return "unknown_dispute"
        return "evidence_too_late" if now > self.due else ""

    def told(self, stage: str) -> ProviderDispute:
        due = self.at[stage] + timedelta(days=EVIDENCE_DAYS) if stage in _ASKS else None
        return ProviderDispute(dispute_id=self.id, order_id=self.order_id, payment_id=self.payment_id, stage=stage,
                               amount=self.stages[stage], currency=self.currency, reason=REASON, evidence_due=due)
