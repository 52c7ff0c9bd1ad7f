"""The laws of the set element and of the set's clear."""

from hypothesis import given
from hypothesis import strategies as st

from edgekv.crdt.elements import (
    Clear,
    Dots,
    Edit,
    Element,
    ElementDelta,
    Removal,
    add,
    apply,
    dots_of,
    join,
    join_clears,
    remove,
    visible,
)
from edgekv.ids import Actor
from tests.unit.crdt.histories import actor

A, B, C = actor(1), actor(2), actor(3)

some_dots = st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 4), max_size=3).map(dots_of)
edits = st.tuples(some_dots, some_dots).map(lambda halves: join(Element(halves[0]), Removal(halves[1])))
deltas: st.SearchStrategy[ElementDelta] = some_dots.map(Element) | some_dots.filter(bool).map(Removal) | edits


@given(deltas, deltas, deltas)
def test_joining_deltas_is_associative_commutative_and_idempotent(
    a: ElementDelta, b: ElementDelta, c: ElementDelta
) -> None:
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, b) == join(b, a)
    assert join(a, a) == a


@given(some_dots, some_dots, some_dots)
def test_joining_clears_is_associative_commutative_and_idempotent(x: Dots, y: Dots, z: Dots) -> None:
    a, b, c = Clear(x), Clear(y), Clear(z)
    assert join_clears(join_clears(a, b), c) == join_clears(a, join_clears(b, c))
    assert join_clears(a, b) == join_clears(b, a)
    assert join_clears(a, a) == a


def halves(delta: ElementDelta) -> list[Dots]:
    match delta:
        case Element(dots) | Removal(dots):
            return [dots]
        case Edit(added, removed):
            assert added and removed
            assert not any(seq <= dict(removed).get(owner, 0) for owner, seq in added)
            return [added, removed]


@given(deltas, deltas)
def test_dots_are_ascending_with_at_most_one_per_actor(a: ElementDelta, b: ElementDelta) -> None:
    for dots in [*halves(join(a, b)), apply(None, a).dots, apply(apply(None, a), b).dots]:
        assert list(dots) == sorted(dict(dots).items())


@given(some_dots, some_dots)
def test_what_a_clear_covers_is_not_seen(dots: Dots, vector: Dots) -> None:
    covered = dict(vector)
    assert visible(Element(dots), Clear(vector)) == tuple(dot for dot in dots if dot[1] > covered.get(dot[0], 0))
    assert visible(Element(dots), None) == dots


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Actor, int, ElementDelta]]:
    """Changes of one element in causal order: a remove names dots that came before it."""
    seqs = dict.fromkeys([A, B, C], 0)
    element: Element | None = None
    changes: list[tuple[Actor, int, ElementDelta]] = []
    for owner, removes in draw(st.lists(st.tuples(st.sampled_from([A, B, C]), st.booleans()), max_size=12)):
        seqs[owner] += 1
        seen = draw(st.sets(st.sampled_from(element.dots))) if element and element.dots else set()
        delta: ElementDelta = Removal(tuple(sorted(seen))) if removes and seen else Element(((owner, seqs[owner]),))
        element = apply(element, delta)
        changes.append((owner, seqs[owner], delta))
    return changes


@given(histories(), st.data())
def test_deltas_grouped_in_any_way_make_the_same_element(
    changes: list[tuple[Actor, int, ElementDelta]], data: st.DataObject
) -> None:
    one_by_one: Element | None = None
    grouped: Element | None = None
    group: ElementDelta | None = None
    for _, _, delta in changes:
        one_by_one = apply(one_by_one, delta)
        group = delta if group is None else join(group, delta)
        if data.draw(st.booleans()):
            grouped, group = apply(grouped, group), None
    if group is not None:
        grouped = apply(grouped, group)
    assert grouped == one_by_one


def test_an_add_replaces_the_older_dot_of_its_actor_only() -> None:
    assert add(add(add(None, (A, 1)), (B, 1)), (A, 3)) == Element(((A, 3), (B, 1)))
    assert add(Element(((A, 3),)), (A, 1)) == Element(((A, 3),)), "the older one arrives again"


def test_a_remove_takes_what_it_has_seen_and_what_its_actor_had_there_before() -> None:
    element = Element(((A, 2), (B, 5)))
    assert remove(element, ((A, 2),)) == Element(((B, 5),))
    assert remove(element, ((A, 3), (B, 4))) == Element(((B, 5),))
    assert remove(element, ((A, 2), (B, 5))) == remove(None, ((A, 2),)) == Element(())


def test_a_vector_leaves_out_actors_of_which_nothing_was_seen() -> None:
    assert dots_of({B: 2, C: 0, A: 7}) == ((A, 7), (B, 2))
