"""What flows: the console's views, asked over HTTP and shown under the processes of `tradewind status`."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


from services.runtime.settings import Settings

ANSWER_WITHIN_S = 1.0
REFRESH_S = 0.5
LINE_EVERY_S = 1.0


@dataclass
class Views:
    """The last answer of the views. `stale_since`: when they stopped answering, None while they do."""

    settings: Settings
    funnel: dict[str, Any] | None = None
    rates: dict[str, Any] | None = None
    stale_since: datetime | None = None

    def ask(self) -> Views:
        try:
            self.funnel, self.rates = self._get("funnel"), self._get("rates")
            self.stale_since = None
        except (OSError, ValueError):  # nobody listens, too slow, or somebody else listens there
            self.stale_since = self.stale_since or datetime.now().astimezone()
        return self

    def _get(self, name: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.settings.console_port}/views/{name}"
        with urllib.request.urlopen(url, timeout=ANSWER_WITHIN_S) as answer:
            return json.load(answer)

    def as_dict(self) -> dict[str, Any]:
        return {"funnel": self.funnel, "rates": self.rates, "stale_since": self.stale_since}

    def lines(self) -> list[str]:
        """For people; nothing when the views never answered, which is no fault: they can be left out of `up`."""
        if self.funnel is None or self.rates is None:
            return []
        return ["", self._state(), "", *_table(self.funnel, self.rates), "", *_ends(self.funnel, self.rates)]

    def line(self) -> str:
        """The same in one line, for a log."""
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        if self.funnel is None:
            return f"{clock} the views do not answer"
        counts = " ".join(f"{s['stage']} {s['reached']}" for s in self.funnel["stages"])
        ended = " ".join(f"{name} {count}" for name, count in self.funnel["ended"].items() if name != "completed")
        return f"{clock} {counts} {ended} · held {money(self.funnel['held'])} · {self._state()}"

    def _state(self) -> str:
        if self.stale_since:
            return f"STALE since {self.stale_since:%H:%M:%S}: the views do not answer"
        behind = self.funnel["behind"]
        late = "position unknown" if behind is None else f"{behind} records behind" if behind else "up to date"
        if self.funnel["exact"]:
            return f"views: {late}"
        causes = [f"{self.funnel[name]} {name}" for name in ("missed", "resumed", "forgotten", "unreadable") if self.funnel[name]]
        return f"views: {late}, approximate ({', '.join(causes)})"


def _table(funnel: dict[str, Any], rates: dict[str, Any]) -> list[str]:
    lines = [f"  {'stage':18}{'orders':>10}{'here now':>10}{'a second':>10}{'p50':>10}{'p95':>10}"]
    for stage in funnel["stages"]:
        rate = rates["per_second"]["10s"].get(stage["stage"], 0)
        dwell = f"{duration(stage['p50_s']):>10}{duration(stage['p95_s']):>10}"
        lines.append(f"  {stage['stage']:18}{stage['reached']:>10}{stage['now']:>10}{rate:>10.1f}{dwell}")
    return lines


def _ends(funnel: dict[str, Any], rates: dict[str, Any]) -> list[str]:
    lines = [f"  {name:18}{count:>10}" for name, count in funnel["ended"].items() if name != "completed"]
    lines += [f"    {reason:56}{count:>7}{rates['per_second']['10s'].get(reason, 0):>7.1f}/s"
              for reason, count in funnel["exits"].items()]  # fmt: skip
    return [*lines, f"  money held: {money(funnel['held'])}"]


def money(held: dict[str, int]) -> str:
    """Minor units by currency, as people write them: `GBP 1,234.50, JPY 900`."""
    from services.cli.timeline import money as one  # only when there is something to show: it loads a broker's client

    return ", ".join(one(amount, code) for code, amount in held.items()) or "none"


def duration(seconds: float | None) -> str:
    """Two significant parts at most: `340 ms`, `12.5 s`, `3 h 20 m`, `9 d 4 h`; `-` for None."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    whole = timedelta(seconds=round(seconds))
    hours, rest = divmod(whole.seconds, 3600)
    if whole.days:
        return f"{whole.days} d {hours} h"
    return f"{hours} h {rest // 60} m" if hours else f"{rest // 60} m {rest % 60} s"


def watch(settings: Settings, header: Callable[[], list[str]], terminal: bool) -> None:
    """Until Ctrl-C: a live display on a terminal, else a line a second. `header` gives the lines about the processes."""
    views = Views(settings)
    if not terminal:
        repeat(LINE_EVERY_S, lambda: print(views.ask().line(), flush=True))
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        repeat(REFRESH_S, lambda: live.update(Text("\n".join(header() + views.ask().lines())), refresh=True))


def watch_json(settings: Settings, header: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Until Ctrl-C: a JSON object a second, each on a line. Returns the last, which the caller prints at the end."""
    views, last = Views(settings), {}

    def step() -> None:
        if last:
            print(json.dumps(last, default=str), flush=True)
        last.update(header() | {"views": views.ask().as_dict()})

    repeat(LINE_EVERY_S, step)
    return last


def repeat(every_s: float, step: Callable[[], None]) -> None:
    """Call `step` every so many seconds until Ctrl-C; a slow step is not made up for."""
    try:
        while True:
            started = time.monotonic()
            step()
            time.sleep(max(0.0, every_s - (time.monotonic() - started)))
    except KeyboardInterrupt:
        return
