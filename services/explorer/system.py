"""The whole system as one value: three services' orders, stock, what is on its way between them, what the world may do.

A state is a tuple of small integers and tuples of them, so that equal states are found by a dictionary. `actions` names what
may happen next, `apply` does it; both are deterministic, so a list of actions is a story that can be told again.

What is left out of the state, and why that loses nothing:
- A record of a type its reader does not handle never stands in a queue: `read` gives None for it, and only an offset moves.
- One record a transaction: a batch of several is the same steps with nothing in between (held against the real thing in
  `schedule.py`), so it shows less, not more. A crash before the commit is no step at all: nothing was changed.
- A record read twice in a row changes nothing: that is checked at every step (`machines.py`), so a repetition needs no state
  of its own. What comes again later is an action (`resend`, "answers twice").
- Orders on other partitions meet this one only in stock, which is one value for all.

`reduced` leaves out two things more:
- A record at the head of a queue that is a repetition, or that no coming state of its parcel allows, is read at once, before
  anything else is tried: what has been seen stays seen, and `Machine.answer` says "stale" only of what stays stale, so reading
  it now or later gives the same, and it enables and disables nothing.
- A report that no coming state of its parcel allows is not sent: the reader would drop it, by the same argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from schemas.brands import BRAND
from schemas.merchants import MERCHANT
from schemas.orders_intake import PlaceOrder
from schemas.shipping_report import LANE
from schemas.topics import REPORT
from services.explorer import rules, shared
from services.explorer.machines import TOLD, Effect, Machines, row_of
from services.explorer.offers import Offer, Send, Way
from services.explorer.outside import FOGGY, Outside
from services.explorer.simulation import MERCHANT_ID
from services.runtime.decision import LANES, PROTECTED, Standing

SERVICES = ("orders", "payments", "shipping")
MUST, MAY = True, False


@dataclass(frozen=True)
class Setting:
    """Where a story begins. `stock`: (warehouse, SKU) -> units; `words`: each order's alphabet; `inbound`: may arrive later."""

    orders: tuple[PlaceOrder, ...]
    words: tuple[frozenset[str], ...]
    stock: dict[tuple[str, str], int]
    inbound: tuple[tuple[str, str, int], ...] = ()
    timers: frozenset[str] | None = None  # kinds that may fire; None: all
    used: tuple[tuple[str, int], ...] = ()  # (key of a person's quota, fen used by other orders)
    before: tuple[Any, ...] = ()  # commands that stand on the intake topic before the orders
    placed: bool = True  # the orders stand on the intake topic; else each is placed at some moment


class State(NamedTuple):
    """`locals`: one number a slot; `stock`: of the shared rows; `queues`: unread messages of each (service, topic); `offers`: what the world may do, sorted;
    `last`: what each service published last, while it may still be published twice."""

    locals: tuple[int, ...]
    stock: int
    queues: tuple[tuple[int, ...], ...]
    offers: tuple[int, ...]
    last: tuple[tuple[int, ...], ...] = ()


Action = tuple  # ("read", queue) ("timer", slot, name) ("tell", slot) ("outside", offer, way) ("resend", service)


@dataclass
class Step:
    """What an action did. `effect` is None when only the world moved; `broken`: the rule that it broke."""

    state: State
    effect: Effect | None = None
    cue: int | str | None = None
    broken: str = ""


@dataclass
class System:
    """All that may happen from `setting` on."""

    setting: Setting
    machines: Machines = field(default_factory=Machines)
    reduced: bool = True

    def __post_init__(self) -> None:
        m = self.machines
        self.queues = [(spec.name, topic.name) for spec in m.specs.values() for topic in spec.inputs]
        self._queue_numbers = {queue: n for n, queue in enumerate(self.queues)}
        self.order_ids = [order.order_id for order in self.setting.orders]
        stocked = [f"stock:{warehouse}:{sku}" for warehouse, sku, _ in self.setting.inbound]
        self.slots = [(service, order_id) for order_id in self.order_ids for service in SERVICES] + [
            ("shipping", key) for key in stocked]
        self._merchant: dict[str, int] = {}  # service -> the slot of the merchant's subject, where he may be frozen; or the brand's
        if any("freeze" in words for words in self.setting.words):
            self._merchant = {service: len(self.slots) + n for n, service in enumerate(SERVICES)}
            self.slots += [(service, f"{MERCHANT}{MERCHANT_ID}") for service in SERVICES]
        elif any("fog" in words for words in self.setting.words):
            self._merchant = {"shipping": len(self.slots)}
            self.slots.append(("shipping", f"{LANE}{FOGGY}"))
        elif self.setting.before:
            self._merchant = {"orders": len(self.slots)}
            self.slots.append(("orders", self.setting.before[0].order_id))
        self._slot_numbers = {slot: n for n, slot in enumerate(self.slots)}
        self._outsides = {order.order_id: Outside(words) for order, words in zip(self.setting.orders, self.setting.words)}
        self._resends = any("resend" in words for words in self.setting.words)
        self._offers: list[Offer] = []
        self._offer_numbers: dict[Offer, int] = {}
        self._ways: list[list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]] = []
        self._rows: list[shared.Counters] = []
        self._row_numbers: dict[tuple, int] = {}
        self._levels: list[shared.Levels] = []
        self._moved: dict[tuple, int] = {}
        self._routes: dict[int, tuple[int, ...]] = {}
        self._upon: dict[int, tuple[int, ...]] = {}
        self._asked: dict[tuple[str, str], int] = {}
        self._shared: dict[Any, Any] = {}
        self._futile: dict[tuple[int, int], bool] = {}

    # -- the beginning ----------------------------------------------------------------------------------------------

    def start(self) -> State:
        counters = {(sku, warehouse): {"received": units} for (warehouse, sku), units in self.setting.stock.items()}
        counters |= {(key, ""): {"reserved": fen, "committed": fen, "before": fen} for key, fen in self.setting.used}
        locals_ = tuple(self.machines.unborn(service, order_id) for service, order_id in self.slots)
        queues: list[tuple[int, ...]] = [()] * len(self.queues)
        offers: list[int] = []
        for n, command in enumerate(self.setting.before):
            self._put(queues, self._send(Send(command, "/platform", f"before-{n}")))
        for n, order in enumerate(self.setting.orders):
            send = Send(order, "/storefront", f"place-{order.order_id}")
            if self.setting.placed:
                self._put(queues, self._send(send))
            else:
                from_here = Offer(f"place {order.order_id}", (Way("places the order", (send,)),), must=True)
                offers.append(self._offer(from_here))
            first = self._outsides[order.order_id].at_first(order.order_id, self.setting.inbound if n == 0 else ())
            offers += [self._offer(offer) for offer in first]
        last = ((),) * len(SERVICES) if self._resends else ()
        return State(locals_, self._numbered(counters), tuple(queues), tuple(sorted(offers)), last)

    # -- what may happen --------------------------------------------------------------------------------------------

    def actions(self, state: State) -> list[tuple[Action, bool]]:
        """Each with MUST (a service's own step, or what the world owes) or MAY (what nobody can count on)."""
        found: list[tuple[Action, bool]] = [(("read", n), MUST) for n, queue in enumerate(state.queues) if queue]
        if self.reduced:
            for action in found:
                n = action[0][1]
                message = state.queues[n][0]
                slot = self._slot_numbers[self.queues[n][0], self.machines.messages[message].order_id]
                if self._stepped(state, slot, message).idle:
                    return [action]
        locals_, allowed = self.machines.locals, self.setting.timers
        for slot, local in enumerate(state.locals):
            timers = locals_[local].timers
            if timers and allowed is not None:
                timers = tuple(name for name in timers if name.partition(":")[0] in allowed)
            if timers:
                found += [(("timer", slot, name), MUST) for name in timers]
                if len(timers) > 1:
                    found.append((("timer", slot, "*"), MUST))
        if self._merchant:
            found += [(("tell", slot), MUST) for slot, local in enumerate(state.locals) if self._untold(state, slot, local)]
        before = None
        for number in state.offers:
            if number == before:
                continue  # two of a kind: one is enough
            before = number
            for way, (_, _, needs) in enumerate(self._ways[number]):
                if not needs or all(token in state.offers for token in needs):
                    found.append((("outside", number, way), self._offers[number].must))
        found += [(("resend", n), MAY) for n, batch in enumerate(state.last) if batch]
        return found

    def apply(self, state: State, action: Action) -> Step:
        kind = action[0]
        if kind == "read":
            return self._read(state, action[1])
        if kind == "timer":
            return self._advance(state, action[1], action[2], list(state.queues))
        if kind == "tell":
            return self._advance(state, action[1], TOLD, list(state.queues))
        queues = list(state.queues)
        if kind == "resend":
            for message in state.last[action[1]]:
                self._put(queues, message)
            # Published twice once in a story is enough: nothing that service publishes later is kept for it.
            last = state.last[:action[1]] + (None,) + state.last[action[1] + 1:]
            return Step(state._replace(queues=self._tuple(queues), last=last))
        sends, opens, needs = self._ways[action[1]][action[2]]
        offers = list(state.offers)
        for number in (action[1], *needs):
            offers.remove(number)
        for message in sends:
            self._put(queues, message)
        return Step(state._replace(queues=self._tuple(queues), offers=tuple(sorted((*offers, *opens)))))

    def _stepped(self, state: State, slot: int, cue: int | str) -> Effect:
        return self.machines.step(state.locals[slot], cue, self._levels[state.stock], self.standing(state, self.slots[slot][0]))

    def standing(self, state: State, service: str) -> Standing | None:
        """How the merchant stands with this service."""
        slot = self._merchant.get(service)
        return None if slot is None else self.machines.locals[state.locals[slot]].standing

    def _untold(self, state: State, slot: int, local: int) -> bool:
        """An owner's walk is still to come to this order."""
        service, order_id = self.slots[slot]
        row, entry = self.standing(state, service), self.machines.locals[local].entry
        if row is not None and row.status == PROTECTED:
            brands = entry.state.brands if entry is not None and not order_id.startswith(BRAND) else None
            return brands is not None and not entry.state.closed and brands.labels[row_of(row)] != row.label
        if row is not None and row.status == LANES:
            return (entry is not None and not entry.state.closed and order_id in self.order_ids
                    and entry.state.lanes != row.label)
        return (row is not None and entry is not None and not entry.state.closed and not order_id.startswith(MERCHANT)
                and entry.state.merchant_id == MERCHANT_ID and entry.state.standing != row.label
                and row.status in self.machines.specs[service].walked_for)

    def _read(self, state: State, queue: int) -> Step:
        message, rest = state.queues[queue][0], state.queues[queue][1:]
        queues = list(state.queues)
        queues[queue] = rest
        slot = self._slot_numbers[self.queues[queue][0], self.machines.messages[message].order_id]
        return self._advance(state, slot, message, queues)

    def _advance(self, state: State, slot: int, cue: int | str, queues: list[tuple[int, ...]]) -> Step:
        effect = self._stepped(state, slot, cue)
        if effect.broken:
            return Step(state, effect, cue, effect.broken)
        offers, stock, last = state.offers, state.stock, state.last
        if effect.moves:
            stock = self._moves(stock, effect.moves)
            if faults := rules.of_shared(self._rows[stock]):
                return Step(state, effect, cue, "; ".join(faults))
        if effect.out or effect.intents:
            order_id = self.slots[slot][1]
            made: list[int] = []
            for message in effect.out:
                self._put(queues, message)
                made += self._made_by(message)
            for intent in effect.intents:
                number = self._asked.get((order_id, intent.intent_id, intent.body["amount"]))
                if number is None:
                    number = self._offer(self._outsides[order_id].asked(order_id, intent))
                    self._asked[order_id, intent.intent_id, intent.body["amount"]] = number
                made.append(number)
            if made:
                offers = tuple(sorted((*offers, *made)))
            if last and effect.out and last[n := SERVICES.index(self.slots[slot][0])] is not None:
                last = last[:n] + (effect.out,) + last[n + 1:]
        locals_ = state.locals
        if effect.local != locals_[slot]:
            locals_ = locals_[:slot] + (effect.local,) + locals_[slot + 1:]
        if self.reduced and offers and (offers is not state.offers or self.slots[slot][0] == "shipping"):
            offers = tuple([number for number in offers if not self._is_futile(number, locals_, self._levels[stock])])
        return Step(State(locals_, stock, self._tuple(queues), offers, last), effect, cue)

    def _is_futile(self, number: int, locals_: tuple[int, ...], free: dict) -> bool:
        """All that this offer could send are reports that no coming state of their parcel allows."""
        ways = self._ways[number]
        if not ways or not ways[0][0]:
            return False
        first = self.machines.messages[ways[0][0][0]]
        slot = self._slot_numbers.get(("shipping", first.order_id))
        if first.topic != REPORT.name or slot is None:
            return False
        key = (number, locals_[slot])
        known = self._futile.get(key)
        if known is None:
            known = self._futile[key] = all(
                self.machines.step(locals_[slot], message, free).idle for sends, _, _ in ways for message in sends) and all(
                self._is_futile(opened, locals_, free) for _, opens, _ in ways for opened in opens)
        return known

    # -- the end ----------------------------------------------------------------------------------------------------

    def is_end(self, state: State) -> bool:
        """Nothing is on its way and every order has ended everywhere; the world may still wish for something."""
        locals_ = self.machines.locals
        if self._merchant and (row := self.standing(state, "orders")) is not None and row.frozen:
            return False  # somebody has yet to decide
        return not any(state.queues) and all(locals_[n].closed for n in state.locals) and all(
            locals_[state.locals[self._slot_numbers["orders", order_id]]].entry is not None for order_id in self.order_ids)

    @staticmethod
    def essence(state: State) -> tuple:
        """What `faults_of_end` depends on."""
        return state.locals, state.stock

    def faults_of_end(self, state: State) -> list[str]:
        return rules.of_end(list(self.trios(state).values()), self._rows[state.stock])

    def trios(self, state: State) -> dict[str, tuple]:
        """Order id -> its local at orders, payments and shipping."""
        return {order_id: tuple(self.machines.locals[state.locals[self._slot_numbers[service, order_id]]]
                                for service in SERVICES) for order_id in self.order_ids}

    def outcome(self, state: State) -> str:
        """How the orders ended, in words."""
        told = []
        for orders, _, _ in self.trios(state).values():
            end = orders.entry.state
            told.append(f"cancelled: {end.reason}" if end.status == "cancelled" else
                        f"rejected: {end.reason}" if end.status == "rejected" else end.status)
        return ", ".join(told)

    # -- names ------------------------------------------------------------------------------------------------------

    def offer(self, number: int) -> Offer:
        return self._offers[number]

    def name(self, action: Action) -> str:
        """A name that means the same in another process: there, other offers may have been first to get their numbers."""
        if action[0] == "outside":
            return f"o{action[2]}{self._offers[action[1]].key}"
        return {"read": "r", "timer": "t", "resend": "x", "tell": "s"}[action[0]] + " ".join(map(str, action[1:]))

    def named(self, names: Iterable[str]) -> Iterator[tuple[Action, Step]]:
        """(action, step) of each name that is possible where it stands, up to the first that breaks a rule; the others are
        passed over."""
        state = self.start()
        for name in names:
            action = next((action for action, _ in self.actions(state) if self.name(action) == name), None)
            if action is not None:
                step = self.apply(state, action)
                yield action, step
                if step.broken:
                    return
                state = step.state

    def ways(self, number: int) -> list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
        """(messages, offers it opens, tokens it takes) of each way to take an offer."""
        return self._ways[number]

    def free(self, state: State) -> dict[str, dict[str, int]]:
        """SKU -> warehouse -> units that nobody has reserved, and the persons' quota."""
        return self._levels[state.stock]

    def _tuple(self, queues: list[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
        found = tuple(queues)
        return self._shared.setdefault(found, found)

    def _put(self, queues: list[tuple[int, ...]], message: int) -> None:
        """Publish: the message stands in the queue of each service that handles its type."""
        routes = self._routes.get(message)
        if routes is None:
            name, topic = self.machines.messages[message].type, self.machines.messages[message].topic
            routes = self._routes[message] = tuple(self._queue_numbers[reader, topic] for reader in self.machines.readers[name])
        for n in routes:
            queues[n] = (*queues[n], message)

    def _made_by(self, message: int) -> tuple[int, ...]:
        offers = self._upon.get(message)
        if offers is None:
            outside = self._outsides.get(self.machines.messages[message].order_id)
            made = outside.upon(self.machines.messages[message].model) if outside else []
            offers = self._upon[message] = tuple(self._offer(offer) for offer in made)
        return offers

    def _offer(self, offer: Offer) -> int:
        key = offer.key, tuple(w.label for w in offer.ways), offer.must, repr(offer.ways)
        number = self._offer_numbers.get(key)
        if number is None:
            number = self._offer_numbers[key] = len(self._offers)
            self._offers.append(offer)
            self._ways.append([])
            for way in offer.ways:
                self._ways[number].append((
                    tuple(self._send(send) for send in way.sends), tuple(self._offer(o) for o in way.opens),
                    tuple(self._offer(Offer(token, ())) for token in way.needs)))
        return number

    def _send(self, send: Send) -> int:
        return self.machines.command(send.model, send.source, send.id, send.planted, send.late)

    def _numbered(self, counters: shared.Counters) -> int:
        key = tuple(sorted((row, tuple(sorted(counts.items()))) for row, counts in counters.items()))
        number = self._row_numbers.get(key)
        if number is None:
            number = self._row_numbers[key] = len(self._rows)
            self._rows.append(counters)
            levels: shared.Levels = {}
            for row, counts in counters.items():
                levels.setdefault(row[0], {})[row[1]] = shared.level(row, counts)
            self._levels.append(levels)
        return number

    def _moves(self, number: int, moves: tuple) -> int:
        after = self._moved.get((number, moves))
        if after is None:
            counters = {row: dict(counts) for row, counts in self._rows[number].items()}
            for move in moves:
                row, name, units = shared.moved(move)
                counts = counters.setdefault(row, {})
                counts[name] = counts.get(name, 0) + units
            after = self._moved[number, moves] = self._numbered(counters)
        return after
