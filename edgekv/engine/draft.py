"""A draft: what the verbs of one transaction have made so far, which nobody but they see, and the one change that it comes to.

A draft is a frame above all others, so that every read of the verbs sees what the earlier ones did; it is never written. Each verb
makes its change in here as it would in engine/commit.py, with the dots and stamps that follow the newest ones. At the end the frame
goes, dots and stamps with it, and what is left of each row that it touched becomes an operation of one real change: from the row
that was there before, to the row that the draft has. So a change has one operation per row whatever the verbs did, and a key that
came and went is not in it.

Everything happens in one turn of the loop, between `begin` and `end`; a draft may stand above another one.
"""

from collections.abc import Sequence
from typing import Final

from edgekv.crdt import elements
from edgekv.crdt.checks import EncodedNumber
from edgekv.crdt.company import observed_parts
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.elements import Element
from edgekv.crdt.maps import hidden
from edgekv.crdt.operation import (
    ADD,
    ADD_ELEMENTS,
    ADD_FIELD,
    CLEAR_MAP,
    CLEAR_SET,
    DELETE,
    DELETE_FIELDS,
    DELETE_SIBLINGS,
    EXPIRE,
    PUT,
    PUT_FIELDS,
    PUT_SIBLING,
    REMOVE_ELEMENTS,
    RESET,
    RESET_FIELDS,
    SUFFIX_EXPIRY,
    SUFFIX_SIBLINGS,
    TAG_COUNTER,
    Operation,
    Row,
    element_of_suffix,
    encode_number,
    field_of_suffix,
)
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import Siblings
from edgekv.crdt.strings import StringState
from edgekv.engine.collections import Collections
from edgekv.engine.commit import Commit
from edgekv.engine.frame import Frame
from edgekv.engine.keyspaces import Keyspace
from edgekv.engine.reads import Reads
from edgekv.errors import Denied, EdgeKVError, TooLarge
from edgekv.ids import Actor
from edgekv.limits import BATCH_OPERATIONS_MAX
from edgekv.store.collection import Collection

_ROWS_MAX: Final = 2 * BATCH_OPERATIONS_MAX  # an increment may write a part and an expiry
_PARTS = dict[Actor, Part]


class Draft:
    """Takes changes as `Commit` does."""

    def __init__(self, actor: Actor, commit: Commit, reads: Reads, collections: Collections) -> None:
        self._actor: Final = actor
        self._commit: Final = commit
        self._reads: Final = reads
        self._collections: Final = collections
        self._frame: Final = Frame(0)
        self._frame.shown = True  # no reply waits for it
        self.keyspace: Keyspace | None = None
        """Which it writes to; None: it has not yet."""
        self._before = (0, 0, False)
        """The keyspace's ``seq``, ``hlc`` and ``mixed``."""
        self._refusal: EdgeKVError | None = None

    # -- as the commit pipeline

    def put_plain(self, keyspace: Keyspace, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """SET each key."""
        for key, value in zip(keys, values, strict=True):
            self.change(keyspace, [(PUT, key, value, 0)])

    def change(self, keyspace: Keyspace, operations: list[Operation]) -> None:
        """What one verb does. Denied in a second keyspace."""
        self.check(keyspace)
        if self._refusal is not None:
            raise self._refusal
        if self._frame.layer.rows > _ROWS_MAX:
            self._refusal = TooLarge(f"the call changes more than {_ROWS_MAX} rows as one change. Split it.")
            raise self._refusal
        if self.keyspace is None:
            self.keyspace, self._before = keyspace, (keyspace.seq, keyspace.hlc, keyspace.mixed)
        self._commit.take(self._frame, keyspace, operations)

    def check(self, keyspace: Keyspace) -> None:
        """Denied when it writes to another one."""
        if self.keyspace is not None and keyspace is not self.keyspace:
            names = ", ".join(sorted({keyspace.name, self.keyspace.name}))
            raise Denied(f"the keys are in different keyspaces ({names}), and a change touches one. Split the call.")

    def is_own(self, actor: Actor, seq: int) -> bool:
        """Whether a dot of its keyspace is one that it gave."""
        return self.keyspace is not None and actor == self._actor and seq > self._before[0]

    # -- its life

    def begin(self) -> None:
        """From here on reads see it."""
        self._commit.overlays.insert(0, self._frame)

    def end(self) -> None:
        """Nothing of it is to be seen any more."""
        self._commit.overlays.remove(self._frame)
        if self.keyspace is not None:
            self.keyspace.seq, self.keyspace.hlc, self.keyspace.mixed = self._before

    def operations(self) -> list[Operation]:
        """After the end: the change it comes to, perhaps nothing. Raises what it as a whole is refused with."""
        if self._refusal is not None:
            raise self._refusal
        found = list[Operation]()
        layer = self._frame.layer
        for key in dict.fromkeys([*layer.registers, *layer.composites, *layer.collections]):
            assert self.keyspace is not None
            found += self._of_string(self.keyspace, key)
            collection = layer.collections.get(key)
            if collection is not None:
                found += self._of_set(self.keyspace, key, collection)
                found += self._of_map(self.keyspace, key, collection)
        return found

    # -- from the rows before to the rows after

    def _of_string(self, keyspace: Keyspace, key: bytes) -> list[Operation]:
        before, layer, found = self._reads.state(keyspace, key), self._frame.layer, list[Operation]()
        cell = layer.registers.get(key)
        if isinstance(cell, Cell) and cell.value is not None:
            found.append((PUT, key, cell.value, cell.expiry_ms))
        elif cell is not None and before.register is not None and before.register.value is not None:
            found.append((DELETE, key))
        rows = layer.composites.get(key, {})
        found += _sibling_operations(key, rows.get(SUFFIX_SIBLINGS), before.siblings)
        expiry = rows.get(SUFFIX_EXPIRY)
        if isinstance(expiry, Cell) and self._is_of_draft(expiry):
            found += _expiry_operations(key, expiry, before)
        after = {
            Actor(suffix[1:]): row for suffix, row in rows.items() if suffix[0] == TAG_COUNTER and isinstance(row, Part)
        }
        number, observed = self._number(dict(before.parts), after)
        found += [(ADD, key, *number)] if number else []
        found += [(RESET, key, observed)] if observed else []
        return found

    def _of_set(self, keyspace: Keyspace, key: bytes, after: Collection) -> list[Operation]:
        cleared = after.set_cleared and bool(self._collections.set_count(keyspace, key))
        added, rest = list[bytes](), list[bytes]()
        for suffix, row in after.rows.items():
            if isinstance(row, Element):
                dots = elements.visible(row, after.clear)
                is_added = any(actor == self._actor and seq > self._before[0] for actor, seq in dots)
                if is_added or not dots:
                    (added if is_added else rest).append(element_of_suffix(suffix))
        found = list[Operation]()
        if cleared:
            found.append((CLEAR_SET, key, self._collections.observed(keyspace)))
        elif rest:
            there = zip(rest, self._collections.elements(keyspace, key, rest), strict=True)
            removed = [(member, element.dots) for member, element in there if element is not None]
            found += [(REMOVE_ELEMENTS, key, removed)] if removed else []
        found += [(ADD_ELEMENTS, key, added)] if added else []
        return found

    def _of_map(self, keyspace: Keyspace, key: bytes, after: Collection) -> list[Operation]:
        cleared = after.map_cleared and bool(self._collections.map_count(keyspace, key))
        rows = self._collections.rows(keyspace, key)
        put, deleted = list[tuple[bytes, bytes]](), list[bytes]()
        for suffix, cell in after.rows.items():
            if isinstance(cell, Cell):
                field = field_of_suffix(suffix)
                if cell.value is not None and self._is_of_draft(cell) and not hidden(cell, after.map_clear):
                    put.append((field, cell.value))
                elif not cleared:
                    before = rows.cell(field)
                    deleted += [field] if before is not None and before.value is not None else []
        found = list[Operation]()
        found += [(CLEAR_MAP, key)] if cleared else []
        found += [(PUT_FIELDS, key, put)] if put else []
        found += [(DELETE_FIELDS, key, deleted)] if deleted else []
        resets = list[tuple[bytes, list[tuple[Actor, int, EncodedNumber]]]]()
        for field, parts in after.parts.items():
            number, observed = self._number(rows.parts(field), parts)
            found += [(ADD_FIELD, key, field, *number)] if number else []
            resets += [(field, observed)] if observed else []
        found += [(RESET_FIELDS, key, resets)] if resets else []
        return found

    def _number(
        self, before: _PARTS, after: _PARTS
    ) -> tuple[tuple[EncodedNumber, int, EncodedNumber, int] | None, list[tuple[Actor, int, EncodedNumber]]]:
        """What the own part is added up to, and the parts that are reset. ``after``: those that the draft touched."""
        number = None
        own, seq = after.get(self._actor), self._before[0]
        if own is not None and not is_inert(own) and own != before.get(self._actor):
            made_anew = own.base_seq >= seq  # a part that was reset and counts again
            base_seq = seq if made_anew else own.base_seq
            number = encode_number(own.total), base_seq, encode_number(own.base_total), int(made_anew)
        return number, observed_parts(
            {actor: before[actor] for actor, p in after.items() if is_inert(p) and actor in before}
        )

    def _is_of_draft(self, cell: Cell) -> bool:
        return cell.hlc > self._before[1]


def _sibling_operations(key: bytes, after: Row | None, before: Siblings | None) -> list[Operation]:
    """A draft puts one value of a key at most: each of its puts removes what those before it put (`Draft.is_own`)."""
    if not isinstance(after, Siblings):
        return []
    assert before is not None
    dots = set(before.dots)
    removed = [dot for dot in before.dots if dot not in set(after.dots)]
    put = [sibling for sibling in after.values if sibling.dot not in dots]
    assert len(put) <= 1
    if put:
        return [(PUT_SIBLING, key, put[0].value, put[0].expiry_ms, removed)]
    return [(DELETE_SIBLINGS, key, removed)] if removed else []


def _expiry_operations(key: bytes, expiry: Cell, before: StringState) -> list[Operation]:
    if expiry.value is not None:
        return [(EXPIRE, key, expiry.expiry_ms)]
    return [(EXPIRE, key, 0)] if before.expiry is not None and before.expiry.value is not None else []
