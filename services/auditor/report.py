"""What an audit found, and how it is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

# Beyond it a rule's violations are counted but not kept: a broken run must not fill memory with evidence.
KEPT_OF_A_RULE = 100
SHOWN = 20


@dataclass(frozen=True)
class Violation:
    """One contradiction. `rule` is the invariant's number; `order` may be empty where it concerns no single one."""

    rule: int
    name: str
    order: str
    evidence: list[str]


@dataclass
class Report:
    """The result of one audit. `orders`: placed or rejected ones; `events`: of ours, without repetitions; `records`: all
    that was read. `checked` and `found`: rule -> things looked at, violations. Money in minor units by currency."""

    orders: int = 0
    events: int = 0
    records: int = 0
    dead_letters: int = 0
    seconds: float = 0.0
    live: bool = False
    checked: Counter[str] = field(default_factory=Counter)
    not_checked: list[str] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    money: dict[str, Counter[str]] = field(default_factory=dict)
    funnel: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def violation_count(self) -> int:
        return self.found.total()

    @property
    def clean(self) -> bool:
        return not self.found

    def add(self, violation: Violation) -> None:
        label = f"{violation.rule} {violation.name}"
        self.found[label] += 1
        if self.found[label] <= KEPT_OF_A_RULE:
            self.violations.append(violation)

    def as_json(self) -> dict[str, Any]:
        """One object; `violations` is their number, `details` those that were kept."""
        return {
            "orders": self.orders, "events": self.events, "violations": self.violation_count, "records": self.records,
            "seconds": round(self.seconds, 2), "live": self.live, "dead_letters": self.dead_letters,
            "found": dict(self.found), "details": [asdict(v) for v in self.violations],
            "checked": dict(self.checked), "not_checked": self.not_checked,
            "money": {currency: dict(sums) for currency, sums in sorted(self.money.items())},
            "funnel": dict(self.funnel), "exits": dict(self.exits.most_common()), "examples": self.examples,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The report as plain text, one string a line."""
        lines = [f"{self.orders} orders, {self.events} events ({self.records} records) in {self.seconds:.1f} s"
                 + (", while it runs" if self.live else "")]
        for label, count in sorted(self.checked.items(), key=lambda item: (int(item[0].split()[0]), item[0])):
            lines.append(f"  {'FAIL' if self.found[label] else 'ok':4} {label:58} {count:>10}"
                         + (f" {self.found[label]:>6} wrong" if self.found[label] else ""))
        lines += [f"  not checked: {what}" for what in self.not_checked]
        for currency, sums in sorted(self.money.items()):
            lines.append(f"  {currency}: " + ", ".join(f"{name} {amount}" for name, amount in sums.items()))
        for violation in self.violations[:SHOWN]:
            lines.append(f"rule {violation.rule} ({violation.name}) broken by order {violation.order or '-'}")
            lines += [f"    {text}" for text in violation.evidence]
        if self.violation_count > SHOWN:
            lines.append(f"… and {self.violation_count - SHOWN} more")
        lines.append(f"{self.violation_count} violations" if self.found else "no violation")
        return lines

    def rich(self) -> Any:
        """The same for a terminal."""
        from rich.text import Text

        text = Text()
        for line in self.lines():
            bad = line.startswith("rule ") or "FAIL" in line or line.endswith(" violations")
            text.append(line + "\n", style="bold red" if bad else "green" if line == "no violation" else "")
        return text
