"""Synthetic orders of five small merchants who sell across borders: cherries, seafood, toys, baby products, cosmetics."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache

from schemas.numbers import resident_check
from schemas.orders_intake import Bonded, OrderLine, PlaceOrder
from schemas.parties import Person, SealedParty, seal
from services.simulators.scenario import (COLD, EXITS_PERMILLE, SCENARIOS, SEASONS, TAX_BACK, WAREHOUSES, backorder_of, brand_of, cold_of, destinations_of, forced_id, hs_code_of, is_bonded, merchant_of,
                                          name_of, on_shortage_of, season_of,
                                          payment_token_of, scenario_of, sku_of, warehouse_of)

ORIGIN = "US"
TWO_WAREHOUSES_PERMILLE = 200
PERSONS = 400
PERSONS_IN = {"CN": 20_000}  # a year's limit is a person's: 400 would have bought all they may before a benchmark ends
FEN_MAX = 480_000            # a parcel into China is worth CNY 5,000 at most, freight included

# merchant -> (description, HS code, price in US cents); its SKUs are the name, the product's number and a size.
MERCHANTS = {
    "cascade-cherries": (("Bing cherries", "080929", 2800), ("Rainier cherries", "080929", 3600),
                         ("Dried cherries", "081340", 1500)),
    "tidewater-seafood": (("Dungeness crab", "030633", 5200), ("Smoked salmon", "030541", 3900),
                          ("Geoduck", "030771", 8800)),
    "maple-toys": (("Wooden train", "950300", 3400), ("Building blocks", "950300", 2200), ("Puzzle", "950300", 1300)),
    "little-acorn": (("Infant cereal", "190110", 900), ("Baby bottle", "392410", 1400), ("Swaddle", "611120", 1900)),
    "still-lake-cosmetics": (("Face cream", "330499", 4200), ("Shampoo", "330510", 1600), ("Sunscreen", "330499", 2100)),
}
# merchant -> the fee plan and payout currency he registered with, and those that were agreed since; in terms.toml are the plans.
AGREED = {"cascade-cherries": [("food", "USD")], "maple-toys": [("food", "USD"), ("goods", "USD")],
          "still-lake-cosmetics": [("goods", "EUR")]}
SIZES = ("S", "M", "L", "XL")
# country -> (share in 100, currency, its minor units for a US cent, tax in percent)
MARKETS = {
    "CN": (30, "CNY", 7.1, 9), "DE": (16, "EUR", 0.92, 19), "GB": (14, "GBP", 0.79, 20), "JP": (12, "JPY", 1.5, 10),
    "KR": (8, "KRW", 13.4, 10), "CA": (8, "CAD", 1.36, 5), "AU": (6, "AUD", 1.5, 10), ORIGIN: (6, "USD", 1.0, 0),
}
# Ten digits of the European tariff, the first eight of which are the same in Great Britain.
EUROPEAN_CODES = {"080929": "0809290000", "081340": "0813409500", "030633": "0306339000", "030541": "0305410000",
                  "030771": "0307710000", "950300": "9503004900", "190110": "1901100000", "392410": "3924100000",
                  "611120": "6111209000", "330499": "3304990000", "330510": "3305100000"}
# Chinese customs asks for its own ten digits; where a code is not known to us it is filled up with zeros.
CHINESE_CODES = {hs_code: f"{hs_code}0000" for products in MERCHANTS.values() for _, hs_code, _ in products} | {
    "950300": "9503008900", "611120": "6111200090", "190110": "1901109000", "330499": "3304990029"}
CODES = {"CN": CHINESE_CODES, "DE": EUROPEAN_CODES, "GB": EUROPEAN_CODES}
_CITIES = {"CN": "Shanghai", "DE": "Hamburg", "GB": "Leeds", "JP": "Osaka", "KR": "Busan", "CA": "Calgary", "AU": "Perth",
           "US": "Boise"}


def _shelves() -> dict[tuple[str, str], list[tuple[str, str, str, int]]]:
    """(merchant, warehouse) -> its products there: SKU, description, HS code, price."""
    shelves: dict[tuple[str, str], list[tuple[str, str, str, int]]] = {}
    for merchant, products in MERCHANTS.items():
        for number, (text, hs_code, cents) in enumerate(products, 1):
            for step, size in enumerate(SIZES):
                sku = f"{merchant.split('-')[0].upper()}-{number}{size}"
                shelves.setdefault((merchant, warehouse_of(sku)), []).append(
                    (sku, f"{text}, {size}", hs_code, cents * (10 + 4 * step) // 10))
    assert len(shelves) == len(MERCHANTS) * len(WAREHOUSES), "a merchant has nothing in one of the warehouses"
    return shelves


SHELVES = _shelves()


@lru_cache(maxsize=PERSONS * len(MARKETS) + sum(PERSONS_IN.values()))
def _party(number: int, country: str, key: bytes, name: str = "") -> SealedParty:
    city = _CITIES[country]
    return seal(Person(name=name or f"Buyer {number} of {city}", phone=f"+0{number:09d}", address=f"{number} Harbour Road, {city}",
                       identity_no=_identity_no(number) if country == "CN" else ""), key)


def _identity_no(number: int) -> str:
    """Well written, and nobody's: there is no region 990000."""
    born = date(1950, 1, 1) + timedelta(days=number // 1000)
    first = f"990000{born:%Y%m%d}{number % 1000:03d}"
    return first + resident_check(first)


def demo_orders(seed: int, n: int, *, vault_key: bytes, placed_at: datetime, exits_permille: int = EXITS_PERMILLE,
                fast: bool = False, forced: bool = True, domestic: bool = True, prefix: str = "demo"
                ) -> Iterator[PlaceOrder]:
    """`n` orders that follow from the arguments alone (except the seals, which are fresh in each process).

    With `forced`, the first ones have one scenario each, in the table's order (`fast` leaves out those that need a
    deadline); the others draw. Without `domestic` all of them cross a border. A fifth has goods from both warehouses.
    """
    names = [s.name for s in SCENARIOS.values() if s.fast or not fast] if forced else []
    abroad = [c for c in MARKETS if c != ORIGIN]
    merchants = list(MERCHANTS)
    for number in range(n):
        rng = random.Random(f"{seed}:{prefix}:{number}")
        if number < len(names):
            order_id = forced_id(names[number], f"{prefix}-{seed}")
            countries = destinations_of(names[number], abroad)  # customs has a part in many
        else:
            order_id, countries = f"{prefix}-{seed}-{number}", list(MARKETS) if domestic else abroad
        yield _order(rng, order_id, scenario_of(order_id, seed, exits_permille, fast), rng.choice(merchants),
                     rng.choices(countries, [MARKETS[c][0] for c in countries])[0], vault_key, placed_at)


def corridor_orders(seed: int, n: int, *, vault_key: bytes, placed_at: datetime, prefix: str = "corridor") -> list[PlaceOrder]:
    """One order of each scenario to each country but the merchants' own, then as many drawn ones as make `n`.

    What waits longest for a deadline of the trade goes first, so that the others do their work meanwhile.
    """
    markets = [country for country in MARKETS if country != ORIGIN]
    pairs = sorted(((name, country) for name in SCENARIOS for country in markets
                    if country in destinations_of(name, markets)), key=lambda pair: SCENARIOS[pair[0]].fast)
    forced = []
    for name, country in pairs:
        rng = random.Random(f"{seed}:{prefix}:{name}:{country}")
        forced.append(_order(rng, forced_id(name, f"{prefix}-{seed}-{country}"), name, rng.choice(list(MERCHANTS)), country,
                             vault_key, placed_at))
    drawn = demo_orders(seed, max(0, n - len(forced)), vault_key=vault_key, placed_at=placed_at, forced=False, prefix=prefix)
    return [*forced, *drawn]


def _order(rng: random.Random, order_id: str, scenario: str, merchant: str, destination: str, key: bytes,
           placed_at: datetime) -> PlaceOrder:
    _, currency, rate, tax_percent = MARKETS[destination]
    merchant = "cascade-cherries" if scenario in COLD | SEASONS else "maple-toys" if scenario in TAX_BACK else merchant
    lines = _lines(rng, order_id, scenario, merchant, destination)
    goods = sum(line.amount for line in lines)
    freight, tax = round((900 + 300 * len(lines)) * rate), goods * tax_percent // 100
    persons = PERSONS_IN.get(destination, PERSONS)
    consignee = buyer = rng.randrange(persons)
    if rng.random() < 0.1:
        consignee = rng.randrange(persons)  # a gift
    return PlaceOrder(
        order_id=order_id, merchant_id=merchant_of(scenario, order_id, merchant), currency=currency, origin=ORIGIN, destination=destination, lines=lines,
        freight=freight, tax=tax, total=goods + freight + tax + (scenario == "refused"), on_shortage=on_shortage_of(scenario),
        backorder=backorder_of(scenario),
        payment_token=payment_token_of(scenario), buyer=_party(buyer, destination, key, name_of(scenario, "")),
        consignee=_party(consignee, destination, key), placed_at=placed_at, season=season_of(scenario, placed_at),
        bonded=Bonded(ems_no="T2231W000123", area_code="310066") if is_bonded(scenario) and destination == "CN" else None)


def _lines(rng: random.Random, order_id: str, scenario: str, merchant: str, destination: str) -> list[OrderLine]:
    """One to four lines, all from one warehouse or, in a fifth of the orders, from both."""
    rate, codes = MARKETS[destination][2], CODES.get(destination, {})
    first_sku = sku_of(scenario, order_id, "")
    home = warehouse_of(first_sku) if first_sku and not is_bonded(scenario) else rng.choice(WAREHOUSES)
    chosen = rng.sample(SHELVES[merchant, home], 1 if scenario == "no_stock" or scenario in SEASONS or is_bonded(scenario) else rng.randint(1, 3))
    if not first_sku and rng.randrange(1000) < TWO_WAREHOUSES_PERMILLE:
        away = WAREHOUSES[1 - WAREHOUSES.index(home)]
        chosen = [*chosen[:2], rng.choice(SHELVES[merchant, away])]
    lines: list[OrderLine] = []
    room = FEN_MAX if destination == "CN" else None
    for line_no, (sku, text, hs_code, cents) in enumerate(chosen, 1):
        short = scenario == "documents_code_short" and line_no == 1  # in a consignment of some value
        quantity = 20 if short else rng.randint(2, 4)  # so that one unit can be cancelled, missing or sent back, and something remains
        if room is not None:
            quantity = min(quantity, room // round(cents * rate))
            room -= quantity * round(cents * rate)
            if quantity < 2:
                break
        if line_no == 1:
            sku, hs_code = first_sku or sku, hs_code_of(scenario, hs_code)
        if not short and not (line_no == 1 and scenario.startswith("china_mismatch")):  # whose merchant gave no more than six digits
            hs_code = codes.get(hs_code, hs_code)
        lines.append(OrderLine(line_no=line_no, sku=sku, description=text, quantity=quantity, hs_code=hs_code,
                               amount=round(cents * rate) * quantity, cold=cold_of(scenario) if line_no == 1 else None,
                               brand=brand_of(scenario, order_id) if line_no == 1 else None,
                               item_record=f"R{line_no:05d}" if is_bonded(scenario) else None))
    return lines
