"""How the rows of a key are addressed, and what merging may not forget."""

from hypothesis import given
from hypothesis import strategies as st

from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Edit, Element, Removal
from edgekv.crdt.rows import (
    SUFFIX_EXPIRY,
    SUFFIX_MAP_CLEAR,
    SUFFIX_REGISTER,
    SUFFIX_SET_CLEAR,
    actor_of_suffix,
    counter_suffix,
    element_of_suffix,
    element_suffix,
    field_of_suffix,
    field_part_suffix,
    field_parts_prefix,
    field_suffix,
    join,
    merge_row,
)
from edgekv.ids import Actor
from tests.unit.crdt.histories import actor

A, B = actor(1), actor(2)
names = st.binary(max_size=6) | st.lists(st.sampled_from([b"\x00", b"\xff", b"a", b"\x00\xff"]), max_size=4).map(
    b"".join
)
actors = st.binary(min_size=25, max_size=25).map(Actor)


def test_suffixes_sort_by_their_tags_the_register_first() -> None:
    suffixes = [
        SUFFIX_REGISTER,
        SUFFIX_EXPIRY,
        counter_suffix(A),
        element_suffix(b"\xff"),
        field_suffix(b""),
        field_part_suffix(b"", A),
        SUFFIX_SET_CLEAR,
        SUFFIX_MAP_CLEAR,
    ]
    assert suffixes == sorted(suffixes)
    assert [suffix[0] for suffix in suffixes] == list(range(1, 9))


@given(names, actors)
def test_a_suffix_says_what_it_addresses(name: bytes, owner: Actor) -> None:
    assert element_of_suffix(element_suffix(name)) == name
    assert field_of_suffix(field_suffix(name)) == name
    assert field_of_suffix(field_part_suffix(name, owner)) == name
    assert actor_of_suffix(field_part_suffix(name, owner)) == actor_of_suffix(counter_suffix(owner)) == owner


@given(names, names, actors, actors)
def test_the_parts_of_a_field_lie_together_in_the_order_of_the_fields(
    field: bytes, other: bytes, owner: Actor, another: Actor
) -> None:
    suffix = field_part_suffix(field, owner)
    assert suffix.startswith(field_parts_prefix(field))
    if field != other:
        assert not suffix.startswith(field_parts_prefix(other))
        assert (suffix < field_part_suffix(other, another)) == (field < other)


def test_an_element_that_was_removed_is_a_row_without_dots() -> None:
    there = merge_row(None, Element(((A, 1),)))
    assert there == Element(((A, 1),))
    assert merge_row(there, Removal(((A, 1),))) == Element(())
    assert merge_row(None, Removal(((A, 1),))) == Element(())


def test_joined_deltas_keep_what_a_row_forgets() -> None:
    assert join(Element(((A, 1),)), Removal(((A, 1),))) == Removal(((A, 1),))
    assert join(Removal(((A, 1),)), Element(((A, 2),))) == Edit(((A, 2),), ((A, 1),))
    assert merge_row(Element(((A, 1), (B, 1))), Edit(((A, 2),), ((B, 1),))) == Element(((A, 2),))
    baseline = Part(0, 0, 5, 1, (B, 1), fresh=False)
    assert join(None, baseline) == baseline
    assert merge_row(None, baseline) is None
