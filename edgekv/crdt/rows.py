"""The rows of a key: how they are addressed, and how a delta merges into each.

Rows of a key are addressed by (key, suffix), suffix = one tag byte and more:

    0x01                          register              Cell
    0x02                          the key's expiry x    Cell: value b"" and expiry_ms, or a tombstone
    0x03 actor                    counter part          Part
    0x04 element                  set element           Element
    0x05 field                    map field             Cell without expiry
    0x06 field~ 0x00 0x00 actor   part of a map field   Part; field~ is the field with each 0x00 as 0x00 0xFF, so a field's parts
                                                        lie together, in the order of the fields
    0x07                          clear of the set      Clear
    0x08                          clear of the map      Cell, a tombstone: it hides fields with a lower stamp
    0x09                          siblings              Siblings, instead of the register where a keyspace keeps concurrent values

An actor has 25 bytes. An element and a field are any bytes, also none.

A row is complete; what merges into it is a *delta*, which for an element or siblings may be more than a row can be (``Removal``,
``Edit``, ``SiblingsEdit``).
``merge_row`` joins a delta into a row. Applied in causal order, however grouped and repeated, deltas give the same rows everywhere.
``join`` merges deltas among themselves before they meet the row: it keeps what ``merge_row`` may forget, the baseline of a reset
whose part is not in sight and the dots that were removed. Cells, parts and clears are also joined row with row; elements and
siblings are not, since a row does not say what was removed.
"""

from typing import Final, overload

from edgekv.crdt import counter, elements, register, siblings
from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Clear, Edit, Element, Removal
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import Siblings, SiblingsEdit
from edgekv.ids import ACTOR_BYTES, Actor

TAG_REGISTER: Final = 0x01
TAG_EXPIRY: Final = 0x02
TAG_COUNTER: Final = 0x03
TAG_ELEMENT: Final = 0x04
TAG_FIELD: Final = 0x05
TAG_FIELD_PART: Final = 0x06
TAG_SET_CLEAR: Final = 0x07
TAG_MAP_CLEAR: Final = 0x08
TAG_SIBLINGS: Final = 0x09

SUFFIX_REGISTER: Final = bytes([TAG_REGISTER])
SUFFIX_EXPIRY: Final = bytes([TAG_EXPIRY])
SUFFIX_SET_CLEAR: Final = bytes([TAG_SET_CLEAR])
SUFFIX_MAP_CLEAR: Final = bytes([TAG_MAP_CLEAR])
SUFFIX_SIBLINGS: Final = bytes([TAG_SIBLINGS])

_COUNTER: Final = bytes([TAG_COUNTER])
_ELEMENT: Final = bytes([TAG_ELEMENT])
_FIELD: Final = bytes([TAG_FIELD])
_FIELD_PART: Final = bytes([TAG_FIELD_PART])
_FIELD_END: Final = b"\x00\x00"

Row = Cell | Part | Element | Clear | Siblings
RowDelta = Row | Removal | Edit | SiblingsEdit
Delta = tuple[bytes, bytes, RowDelta]  # key, suffix, what merges into the row


def counter_suffix(actor: Actor) -> bytes:
    """The suffix of an actor's counter part."""
    return _COUNTER + actor


def element_suffix(element: bytes) -> bytes:
    """The suffix of a set element. In the order of the elements, above those of registers, parts and x."""
    return _ELEMENT + element


def element_of_suffix(suffix: bytes) -> bytes:
    """The inverse of ``element_suffix``."""
    return suffix[1:]


def field_suffix(field: bytes) -> bytes:
    """The suffix of a map field's cell. In the order of the fields."""
    return _FIELD + field


def field_part_suffix(field: bytes, actor: Actor) -> bytes:
    """The suffix of an actor's part of a map field."""
    return field_parts_prefix(field) + actor


def field_parts_prefix(field: bytes) -> bytes:
    """What the suffixes of all parts of a map field begin with, and no other suffix."""
    return _FIELD_PART + field.replace(b"\x00", b"\x00\xff") + _FIELD_END


def field_of_suffix(suffix: bytes) -> bytes:
    """The map field of a cell's or of a part's suffix."""
    if suffix[0] == TAG_FIELD:
        return suffix[1:]
    return suffix[1 : -ACTOR_BYTES - len(_FIELD_END)].replace(b"\x00\xff", b"\x00")


def actor_of_suffix(suffix: bytes) -> Actor:
    """The actor of a part's suffix, of the key or of a map field."""
    return Actor(suffix[-ACTOR_BYTES:])


@overload
def join(older: Row | None, newer: Row) -> Row: ...
@overload
def join(older: RowDelta | None, newer: RowDelta) -> RowDelta: ...
def join(older: RowDelta | None, newer: RowDelta) -> RowDelta:
    """Merge two deltas of one row, or two rows that are no elements and no siblings. Associative, commutative, idempotent."""
    if older is None:
        return newer
    if isinstance(newer, Cell):
        assert isinstance(older, Cell)
        return register.merge(older, newer)
    if isinstance(newer, Part):
        assert isinstance(older, Part)
        return counter.merge(older, newer)
    if isinstance(newer, Clear):
        assert isinstance(older, Clear)
        return elements.join_clears(older, newer)
    if isinstance(newer, SiblingsEdit):
        assert isinstance(older, SiblingsEdit)
        return siblings.join(older, newer)
    assert isinstance(older, (Element, Removal, Edit)) and isinstance(newer, (Element, Removal, Edit))
    return elements.join(older, newer)


def merge_row(row: Row | None, delta: RowDelta) -> Row | None:
    """The complete row after a delta (None: no row, and none now). An element that was removed is one without dots.

    A baseline without a part is dropped: that part was purged as inert. Siblings that were all removed are a row without values.
    """
    if isinstance(delta, SiblingsEdit):
        assert row is None or isinstance(row, Siblings)
        return siblings.apply(row, delta)
    if isinstance(delta, (Element, Removal, Edit)):
        assert row is None or isinstance(row, Element)
        return elements.apply(row, delta)
    if row is None:
        return None if isinstance(delta, Part) and delta.seq == 0 else delta
    merged = join(row, delta)
    assert not isinstance(merged, (Removal, Edit, SiblingsEdit))
    return merged
