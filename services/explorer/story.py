"""A list of actions as a story that a person can read."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from services.explorer.ownership import Ownership
from services.explorer.shared import moved
from services.explorer.system import SERVICES, Action, Step, System

WHO = {"/storefront": "the buyer", "/warehouse": "the warehouse", "/carrier": "the carrier", "/customs": "customs",
       "/finance": "finance", "/platform": "the platform", "payments-caller": "the provider", "payments-webhook": "the provider"}


def tell(system: System | Ownership, told: Iterable[tuple[Action, Step]], what: str) -> list[str]:
    """One line an action, numbered; the last says what is wrong."""
    say = system.say if isinstance(system, Ownership) else partial(_line, system)
    lines = [f"{n:3}. {say(action, step)}" for n, (action, step) in enumerate(told, 1)]
    return [*lines, f"  => {what}"]


def _line(system: System, action: Action, step: Step) -> str:
    kind = action[0]
    if kind == "resend":
        return f"{SERVICES[action[1]]} crashes before the broker's acknowledgement counts: its last batch is published again"
    if kind == "outside":
        offer = system.offer(action[1])
        way = offer.ways[action[2]]
        who = WHO.get(way.sends[0].source, way.sends[0].source) if way.sends else "somebody"
        sent = ", ".join(type(send.model).__name__ for send in way.sends)
        return f"{who} ({offer.key}): {way.label} [{sent}]"
    if kind == "read":
        service, topic = system.queues[action[1]]
        message = system.machines.messages[step.cue]
        begin = f"{service} reads {message.type} ({message.order_id}, {message.id})"
    else:
        service, order_id = system.slots[action[1]]
        fires = ("tells the order how its merchant stands" if kind == "tell" else
                 "all timers fire" if action[2] == "*" else f"the timer {action[2]} fires")
        begin = f"{service}: {fires} ({order_id})"
    return begin + _effect(system, step)


def _effect(system: System, step: Step) -> str:
    effect, parts = step.effect, []
    if effect is None:
        return ""
    if effect.said:
        parts.append({"parked": "too early: puts it aside"}.get(effect.said, effect.said))
    parts += [f"publishes {_event(system, number)}" for number in effect.out]
    parts += [f"asks the provider to {intent.kind} {intent.body['amount']} {intent.body['currency']}"
              for intent in effect.intents]
    for move in effect.moves:
        (key, place), _, units = moved(move)
        parts.append(f"{move.kind} {units} of {key}" + (f" in {place}" if place else ""))
    return "".join(f"\n       {part}" for part in parts)


def _event(system: System, number: int) -> str:
    message = system.machines.messages[number]
    model = message.model
    told = [f"{name} {getattr(model, name)}" for name in ("amount", "refund", "reason") if getattr(model, name, None)]
    return message.type + (f" ({', '.join(told)})" if told else "")
