"""Whatever comes, in whatever interleaving and however often, is applied exactly once. Pure, with generated deliveries."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.track import Track
from tests.tally import NOW, STATE, Open, Tally, record
from tests.test_batch import SPEC, Book, add, fact


@st.composite
def deliveries(draw):
    """Two topics in their own order, each record once or again (as after a crash), cut into batches anyhow."""
    count = draw(st.integers(1, 6))
    facts = [fact(n, needs=draw(st.integers(0, 2 * n))) for n in range(1, count + 1)]
    adds = [add(f"a{n}", needs=draw(st.integers(0, n))) for n in range(1, draw(st.integers(1, 6)) + 1)]
    intake = [record(SPEC, Open(order_id="A"))] + adds
    draw(st.randoms()).shuffle(intake)

    def again(records):  # a reader that goes back to an earlier offset, any number of times
        sent = list(records)
        for _ in range(draw(st.integers(0, 3))):
            back = draw(st.integers(0, len(records) - 1))
            sent += records[back:]
        return sent

    left, mixed = [again(facts), again(intake)], []
    while any(left):
        side = draw(st.sampled_from([n for n in (0, 1) if left[n]]))
        mixed.append(left[side].pop(0))
    cuts = draw(st.lists(st.integers(0, len(mixed)), max_size=8))
    return mixed, sorted({0, len(mixed), *cuts}), count, len(adds)


@settings(max_examples=300, deadline=None)
@given(deliveries())
def test_whatever_comes_in_whatever_order_and_however_often_is_applied_once(delivered):
    mixed, cuts, facts, adds = delivered
    book = Book()
    for start, end in zip(cuts, cuts[1:]):
        book.do(*mixed[start:end])
    texts, entry = book.texts(), book.entries["A"]
    applied = [text for _, text in book.applied]
    assert applied == texts and len(set(texts)) == len(texts), "once"
    ours = [t for t in texts if t[0] == "f"]
    assert ours == [f"f{n}" for n in range(1, len(ours) + 1)], "in its source's order, without a gap"
    assert [out.sequence for out in book.out] == list(range(1, len(texts) + 1))
    waiting = [p.incoming.data.text for p in entry.parked]
    assert sorted(texts + waiting) == sorted([f"f{n}" for n in range(1, facts + 1)] + [f"a{n}" for n in range(1, adds + 1)])
    assert sum(entry.track.waiting.values()) == len(waiting) and not book.dead
    first = [p for p in entry.parked if p.incoming.sequence][:1]
    for record_ in first + [p for p in entry.parked if not p.incoming.sequence]:
        assert record_.incoming.data.needs > len(texts), "nobody waits without a reason"


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(), st.integers(0, 2**31)), st.dictionaries(st.text(max_size=16), st.text(max_size=8)),
       st.dictionaries(st.text(), st.integers(1, 99)), st.lists(st.text()), st.integers(0, 10**6))
def test_what_is_stored_comes_back_the_same(last, seen, waiting, texts, seconds):
    track = Track(last, seen, waiting)
    assert Track.decode(track.encode()) == track
    state = Tally("A", "open", True, "m", texts, NOW + timedelta(microseconds=seconds))
    assert STATE.validate_json(STATE.dump_json(state)) == state
