"""`tradewind dlq`: what no service could handle, why, and what to do about it. See docs/dead-letters.md."""

from __future__ import annotations

import asyncio
import base64
import difflib
import getpass
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import from_json
from rich.table import Table

from schemas.dead_letters import LOG, Reason
from services.cli import exits
from services.cli.dlq_letters import STATES, Choice, Letter, Place, grouped, letters
from services.cli.dlq_send import Sender, edit as corrected, in_turn, rehearse
from services.cli.order_records import kafka_errors
from services.cli.output import NotRunning, Output, Refused
from services.runtime.settings import Settings
from services.runtime.topics import partition_counts

app = typer.Typer(no_args_is_help=True)
OPEN = ("new", "failed again")
SHOWN = 50

Where = Annotated[list[str] | None, typer.Argument(
    metavar="[PLACE]...", help="topic/partition/offset, of the dead letter or of the record it was.", show_default=False)]
One = Annotated[str, typer.Argument(metavar="PLACE", help="topic/partition/offset, of the dead letter or of the record it was.",
                                    show_default=False)]
Topic = Annotated[str | None, typer.Option(help="Only of this topic.")]
WithReason = Annotated[str | None, typer.Option("--reason", help="Only with this reason.")]
Type = Annotated[str | None, typer.Option("--type", help="Only messages of this type.")]
Order = Annotated[str | None, typer.Option(help="Only of this order.")]
By = Annotated[str | None, typer.Option(help="Who does it; else the user of the operating system.")]
Yes = Annotated[bool, typer.Option("--yes", help="Also when it is more than one.")]
AsJson = Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")]


@app.command("list")
def list_(
    topic: Topic = None, reason: WithReason = None, type_: Type = None, order: Order = None,
    state: Annotated[str | None, typer.Option(help=f"Only in this state: {', '.join(STATES)}.")] = None,
    each: Annotated[bool, typer.Option("--each", help="One line a dead letter instead of one a group.")] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters, grouped by topic, reason, type and schema version.

    `holding`: how many of them have later events of their order queueing behind them.

    Example:  tradewind dlq list --topic orders.intake.v1 --state new
    """
    with Output(as_json) as out:
        found = [l for l in asyncio.run(letters(Settings())) if _choice([], topic, reason, type_, order, state).fits(l)]
        states = Counter(letter.state for letter in found)
        if not found:
            out.say("no dead letters" if not any((topic, reason, type_, order, state)) else "no such dead letters")
        elif each:
            for letter in found:
                out.say(f"{str(letter.place):44} {letter.state:12} {letter.origin.reason:16} {_safe(letter.type.encode()):22} {_safe(letter.key)}"
                        + (f"  (others wait behind {letter.holds.split(' ')[0]})" if letter.holds and letter.state in OPEN else ""))
        else:
            for line in _lines(grouped(found)):
                out.say(line)
            out.say("One of them: `tradewind dlq show PLACE`; each in a line: --each")
        out.result({"dead_letters": len(found), "states": dict(states), "groups": [group.as_json() for group in grouped(found)],
                    **({"letters": [letter.as_json() for letter in found]} if each else {})})


def _lines(groups: list[Any]) -> list[str]:
    """Two a group, narrow enough for any terminal."""
    lines = []
    for g in groups[:SHOWN]:
        states = ", ".join(f"{g.states[state]} {state}" for state in STATES if g.states[state])
        holding = f", {g.holding} holding others" if g.holding else ""
        lines += [f"{g.topic}  {g.reason}  {_safe(g.type.encode())} {_safe(g.version.encode())}",
                  f"    {states}{holding}, {g.oldest.recorded:%d %b %H:%M} to {g.newest.recorded:%d %b %H:%M}, as {g.newest.place}"]
    return lines + ([f"and {len(groups) - SHOWN} groups more; --json has all"] if len(groups) > SHOWN else [])


@app.command()
def show(place: One, as_json: AsJson = False) -> None:
    """Show one dead letter: where it was, why it could not be handled, what to do, its content, and what was done so far.

    Example:  tradewind dlq show orders.intake.v1.dlq/3/17
    """
    with Output(as_json) as out:
        letter = asyncio.run(_one(Settings(), place))
        origin, known = letter.origin, {reason.value: reason for reason in Reason}.get(letter.origin.reason)
        out.say(f"{letter.place}  {letter.state}" + (f": it came back as {letter.came_back}" if letter.came_back else ""))
        out.say(f"was      {letter.origin_place}  ({origin.dialect} headers), refused by {origin.service or '?'} {letter.recorded:%Y-%m-%d %H:%M:%S} UTC")
        out.say(f"reason   {origin.reason}: {known.meaning if known else 'not one of ours'}")
        out.say(f"detail   {origin.detail}")
        out.say(f"remedy   {letter.remedy}")
        if letter.holds and letter.state not in ("resolved", "discarded"):
            out.say(f"holding  later events of {letter.holds.split(' ')[1]} for this order wait in {origin.service} for sequence {letter.holds.split(' ')[0]}")
        if letter.cut:
            out.say(f"cut      {letter.cut}")
        out.say(f"key      {_safe(letter.key)}")
        for name, value in letter.headers:
            out.say(f"  {name}: {_safe(value or b'')}")
        out.say("")
        out.say(_body(letter))
        for mark in letter.marks:
            out.say(f"{mark.at:%Y-%m-%d %H:%M:%S} UTC  {mark.action} by {mark.by}" + (f" to {mark.copy_at}" if mark.copy_at else "")
                    + (f": {mark.reason}" if mark.reason else ""))
        out.result(letter.as_json() | {
            "meaning": known.meaning if known else "", "remedy": letter.remedy, "headers": {k: _safe(v or b"") for k, v in letter.headers},
            "key": _safe(letter.key), "body": letter.shown(), "hex": None if letter.body() is not None else letter.value.hex(),
            "history": [mark.model_dump(mode="json", exclude={"edited"}) for mark in letter.marks]})


def _safe(value: bytes) -> str:
    """Text for a terminal: whatever is not printable is escaped."""
    text = value.decode(errors="backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _body(letter: Letter) -> str:
    if (body := letter.shown()) is not None:
        return json.dumps(body, indent=2, ensure_ascii=True)
    rows = [letter.value[n:n + 16] for n in range(0, min(len(letter.value), 512), 16)]
    more = f"\n… {len(letter.value)} bytes in all" if len(letter.value) > 512 else ""
    return "\n".join(f"{16 * n:06x}  {row.hex(' '):47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in row)}"
                     for n, row in enumerate(rows)) + more if rows else "(no value)"


@app.command("edit")
def edit_(
    place: One,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A field, dotted for inner ones; VALUE is JSON or text.")] = None,
    unset: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Take a field away.")] = None,
    body: Annotated[Path | None, typer.Option(metavar="FILE.json", help="The whole new body; - reads stdin.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="What message it is, when it does not say so or says so wrongly.")] = None,
    merchant: Annotated[str | None, typer.Option(help="The merchant it belongs to, when it does not say so.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare; keep nothing.")] = False,
    by: By = None, as_json: AsJson = False,
) -> None:
    """Make a corrected copy, checked against its schema, for `replay` to send. It gets a new id that names the old one.

    Without --set, --unset or --body an editor opens on a terminal; elsewhere the body stays, and key, partition and
    envelope are made anew. The dead letter itself is never changed.

    Example:  tradewind dlq edit orders.intake.v1.dlq/3/17 --set total=4700
    """
    with Output(as_json) as out:
        settings = Settings()
        letter = asyncio.run(_one(settings, place))
        old = letter.body()
        new = _new_body(letter, old, set_ or [], unset or [], body, interactive=out.interactive and not (set_ or unset or type_ or merchant))
        copy = corrected(letter, new, type_, merchant, asyncio.run(_partitions(settings)), settings)
        out.say(_side_by_side(old if old is not None else letter.value.hex(), new))
        if not dry_run:
            asyncio.run(_with(settings, by, lambda sender: sender.mark(letter, "edited", edited=copy)))
        id_ = base64.b64decode(dict(copy.headers)["ce_id"]).decode()
        out.say(("checked, not kept" if dry_run else f"kept; send it with: tradewind dlq replay {letter.place}") + f"  (id {id_})")
        out.result({"place": str(letter.place), "kept": not dry_run, "id": id_, "replaces": letter.header("ce_id"), "body": new})


def _new_body(letter: Letter, old: Any, sets: list[str], unsets: list[str], file: Path | None, interactive: bool) -> Any:
    """Raises Refused."""
    def wrong(what: str, remedy: str) -> Refused:
        return Refused(what, str(letter.place), remedy)
    new = old
    if file is not None or (interactive and file is None):
        text = sys.stdin.read() if str(file) == "-" else file.read_text() if file is not None else typer.edit(
            json.dumps(old, indent=2, ensure_ascii=False) if old is not None else "{}", extension=".json")
        if text is None:
            raise wrong("nothing was saved in the editor", "Change something and save, or use --set.")
        try:
            new = from_json(text)
        except ValueError as bad:
            raise wrong(f"the new body is not JSON: {bad}", "Mend it and try again.") from bad
    if not isinstance(new, dict):
        raise wrong("its body is no JSON object, so that there is no field to set", "Give a whole body with --body FILE.json.")
    new = json.loads(json.dumps(new))
    for text in sets:
        name, found, value = text.partition("=")
        if not found:
            raise wrong(f"--set {text!r} has no =", "Write --set name=value.")
        _reach(new, name, wrong)[_step(name.split(".")[-1])] = _value(value)
    for name in unsets:
        inner, last = _reach(new, name, wrong), _step(name.split(".")[-1])
        if isinstance(inner, dict):
            inner.pop(last, None)
    return new


def _step(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _reach(body: Any, name: str, wrong: Callable[[str, str], Refused]) -> Any:
    """What holds the last part of a dotted name: `lines.0.quantity`."""
    for part in name.split(".")[:-1]:
        try:
            body = body[_step(part)]
        except (KeyError, IndexError, TypeError):
            raise wrong(f"there is no {part!r} in {name!r}", "Look with `tradewind dlq show`.") from None
    if not isinstance(body, (dict, list)):
        raise wrong(f"{name!r} leads into a plain value", "Look with `tradewind dlq show`.")
    return body


def _side_by_side(old: Any, new: Any) -> Table:
    """Old and new, line by line; lines that differ are marked, so that it reads without colour too."""
    left, right = (json.dumps(side, indent=2, ensure_ascii=True, sort_keys=False).splitlines() for side in (old, new))
    table = Table("as it came", "", "corrected", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for tag, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for n in range(max(b - a, d - c)):
            one, two = left[a + n] if a + n < b else "", right[c + n] if c + n < d else ""
            table.add_row(one, {"equal": " ", "replace": "|", "delete": "<", "insert": ">"}[tag], two, style=None if tag == "equal" else "bold")
    return table


@app.command()
def replay(
    places: Where = None, topic: Topic = None, reason: WithReason = None, type_: Type = None, order: Order = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask today's handler what it would do; send nothing.")] = False,
    original: Annotated[bool, typer.Option("--original", help="As it came, even if there is a corrected copy.")] = False,
    per_second: Annotated[float, typer.Option(min=0.01, help="How many a second at most.")] = 50.0,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Real seconds to wait for what becomes of them.")] = 10.0,
    by: By = None, yes: Yes = False, as_json: AsJson = False,
) -> None:
    """Send dead letters again, to their own topic, key and partition; the corrected copy where there is one.

    Only those that are new or failed again. Each is copied, acknowledged, then marked; a letter sent twice is applied once.
    Exit code 6 when one of them failed again.

    Example:  tradewind dlq replay --topic orders.intake.v1 --reason handler_error --dry-run
    """
    with Output(as_json) as out:
        settings, choice = Settings(), _choice(places, topic, reason, type_, order)
        chosen = in_turn(asyncio.run(_open(settings, choice)))
        if dry_run:
            told = asyncio.run(_rehearse_all(settings, chosen))
            for letter, what in told:
                out.say(f"{str(letter.place):44} {letter.type:22} {_safe(letter.key)}\n    {what}")
            out.result({"dry_run": True, "letters": [{"place": str(letter.place), "would": what} for letter, what in told]})
            return
        _sure(chosen, yes, "replayed")
        copies = asyncio.run(_send_all(settings, by, chosen, original, per_second, out))
        states = asyncio.run(_outcome(settings, chosen, wait_s))
        for letter in chosen:
            came_back = states[letter.place].came_back
            out.say(f"{str(letter.place):44} → {copies[letter.place]}  {states[letter.place].state}" + (f": {came_back}" if came_back else ""))
        counts = Counter(letter.state for letter in states.values())
        line = {"replayed": len(chosen), "states": dict(counts),
                "letters": [states[l.place].as_json() | {"copy": copies[l.place]} for l in chosen[:1000]]}
        out.result(line, exits.REFUSED if counts["failed again"] else exits.OK)


@app.command()
def discard(
    places: Where = None,
    because: Annotated[str, typer.Option("--because", help="Why; it is recorded.", show_default=False)] = "",
    topic: Topic = None, reason: WithReason = None, type_: Type = None, order: Order = None,
    by: By = None, yes: Yes = False, as_json: AsJson = False,
) -> None:
    """Give dead letters up. What queues behind one goes on without it. The letter stays on its topic, marked.

    Example:  tradewind dlq discard orders.intake.v1.dlq/3/17 --because "sent by a test"
    """
    with Output(as_json) as out:
        if not because.strip():
            raise Refused("a discard needs its reason", "--because", "Say why, for whoever asks later.")
        settings = Settings()
        chosen = in_turn(asyncio.run(_open(settings, _choice(places, topic, reason, type_, order))))
        _sure(chosen, yes, "discarded")

        async def each(sender: Sender) -> None:
            for letter in chosen:
                await sender.discard(letter, because[:500])
        asyncio.run(_with(settings, by, each))
        for letter in chosen:
            out.say(f"{letter.place}  discarded" + ("; what queues behind it goes on" if letter.holds else ""))
        out.result({"discarded": len(chosen), "letters": [str(letter.place) for letter in chosen]})


# -- what they share ----------------------------------------------------------------------------------------------------


def _choice(places: list[str] | None, topic: str | None, reason: str | None, type_: str | None, order: str | None,
            state: str | None = None) -> Choice:
    """Raises Refused."""
    if state is not None and state not in STATES:
        raise Refused(f"no state is called {state!r}", "--state", f"There are: {', '.join(STATES)}.")
    return Choice(topic, reason, type_, order, state, frozenset(_place(text) for text in places or ()))


def _place(text: str) -> Place:
    try:
        return Place.of(text)
    except ValueError:
        raise Refused(f"{text!r} is no place", "PLACE", "Write topic/partition/offset; `tradewind dlq list --each` shows them.") from None


async def _one(settings: Settings, text: str) -> Letter:
    place = _place(text)
    found = [letter for letter in await letters(settings) if Choice(places=frozenset([place])).fits(letter)]
    if len(found) > 1:
        raise Refused(f"{len(found)} services refused the record at {text}", text,
                      f"Name one dead letter: {', '.join(str(letter.place) for letter in found)}.")
    if not found:
        raise Refused(f"there is no dead letter at {text}", text, "`tradewind dlq list --each` shows them all.")
    return found[0]


async def _open(settings: Settings, choice: Choice) -> list[Letter]:
    """The chosen letters that somebody may still decide about. Raises Refused when there are none."""
    if choice == Choice():
        raise Refused("nothing is chosen", "dlq", "Name places, or choose with --topic, --reason, --type or --order.")
    fitting = [letter for letter in await letters(settings) if choice.fits(letter)]
    if found := [letter for letter in fitting if letter.state in OPEN and letter.came_back is None]:
        return found
    told = ", ".join(sorted({f"{letter.place} is {letter.state}" + (f" as {letter.came_back}" if letter.came_back else "")
                             for letter in fitting})[:5])
    raise Refused(f"nothing to decide: {told}" if fitting else "there are no such dead letters", "dlq",
                  "Name the one it came back as." if any(l.came_back for l in fitting) else "Look with `tradewind dlq list --each`.")


def _sure(chosen: list[Letter], yes: bool, done: str) -> None:
    if len(chosen) > 1 and not yes:
        raise Refused(f"{len(chosen)} dead letters would be {done}", "dlq", "Look with --dry-run or `dlq list`, then say --yes.")


async def _with(settings: Settings, by: str | None, do: Callable[[Sender], Awaitable[Any]]) -> Any:
    async with kafka_errors(settings):
        if not (await partition_counts(settings.bootstrap, {LOG: {}})).get(LOG):
            raise NotRunning(f"there is no topic {LOG}", settings.bootstrap, "Make it with `tradewind prepare` or `tradewind up`.")
        async with Sender(settings, by or getpass.getuser()) as sender:
            return await do(sender)


async def _partitions(settings: Settings) -> int:
    async with kafka_errors(settings):
        return max((await partition_counts(settings.bootstrap)).values(), default=settings.partitions)


async def _rehearse_all(settings: Settings, chosen: list[Letter]) -> list[tuple[Letter, str]]:
    partitions = await _partitions(settings)
    told = []
    for letter in chosen:
        try:
            told.append((letter, await rehearse(settings, letter, partitions)))
        except Refused as why:
            told.append((letter, f"cannot be tried: {why.what}"))
    return told


async def _send_all(settings: Settings, by: str | None, chosen: list[Letter], original: bool, per_second: float,
                    out: Output) -> dict[Place, str]:
    async def each(sender: Sender) -> dict[Place, str]:
        copies, began = {}, time.monotonic()
        for n, letter in enumerate(chosen):
            await asyncio.sleep(max(0.0, began + n / per_second - time.monotonic()))
            copies[letter.place] = await sender.replay(letter, original)
            if n % 100 == 99:
                out.progress(f"{n + 1} of {len(chosen)} sent")
        return copies
    return await _with(settings, by, each)


async def _outcome(settings: Settings, sent: list[Letter], wait_s: float) -> dict[Place, Letter]:
    """The letters as they are once each is resolved or failed again, or after `wait_s`."""
    end, wanted = time.monotonic() + wait_s, {letter.place for letter in sent}
    while True:
        found = {letter.place: letter for letter in await letters(settings) if letter.place in wanted}
        if time.monotonic() >= end or all(letter.state != "replayed" for letter in found.values()):
            return found
        await asyncio.sleep(0.5)
