"""Sets and maps as verbs read them: single elements and fields, ordered pages, counts, random ones; and what a clear must name.

A lookup costs one dict access per layer and one point read of LMDB, however large the set. Nothing here judges the key's expiry but
``gone``: a verb asks that once, and treats a key that is gone as empty, though what is hidden is still counted and must be cleared by
the first write.

Every read marks the frames that its answer may rest on (engine/commit.py, invariant B): an element's frame is the one that holds its
row or has cleared its set; what speaks of the whole key rests on every frame that holds the key.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from edgekv.crdt import elements
from edgekv.crdt.counter import Part
from edgekv.crdt.decimals import text_of
from edgekv.crdt.elements import Dots, Element
from edgekv.crdt.operation import (
    SUFFIX_EXPIRY,
    Row,
    element_of_suffix,
    element_suffix,
    field_of_suffix,
    field_parts_prefix,
    field_suffix,
)
from edgekv.crdt.register import Cell
from edgekv.crdt.strings import StringState
from edgekv.engine.commit import Commit
from edgekv.engine.dice import numbers
from edgekv.engine.frame import Frame
from edgekv.engine.keyspaces import Keyspace, successor
from edgekv.ids import Actor
from edgekv.limits import SCAN_EXAMINED_KEYS_MAX
from edgekv.store import layout
from edgekv.store.collection import Collection
from edgekv.store.collection_rows import (
    ELEMENTS_END,
    FIELD_PARTS_END,
    FIELDS_END,
    CollectionRows,
    Field,
    StoredRows,
)
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.long_keys import LongKeys
from edgekv.store.memtable import Memtable

RANDOM_EXACT_ELEMENTS: Final = 1_000
RANDOM_LOOKED_AT_MAX: Final = RANDOM_EXACT_ELEMENTS + 2 * SCAN_EXAMINED_KEYS_MAX
"""Beyond those asked for, visible or not, in one go."""
_WALK_STEP: Final = 500
_RANDOM_STEPS: Final = 16
_RANDOM_PAGE: Final = 16
_RANDOM_TRIES: Final = 8
_RANDOM_TRIES_FOR_ONE: Final = 64
_ELEMENTS: Final = element_suffix(b"")
_FIELDS: Final = field_suffix(b"")
_NONE: Final = layout.Count(0, 0)
_NOBODY: Final[dict[Actor, Part]] = {}

_Page = tuple[list[bytes], bytes | None]


class _Names(NamedTuple):
    """The elements of a set or the fields of a map, as a draw sees them."""

    look: Callable[[bytes, int], _Page]
    """The visible ones among the next so many from a place on, and the place behind them, None at the end."""
    first: Callable[[bytes, bytes | None], bytes | None]
    """The first in [low, high), visible or not; None: no upper end."""
    last: Callable[[bytes, bytes | None], bytes | None]
    visible: int
    """How many can be seen."""


class Collections:
    """The sets and maps of one node, through every layer and LMDB."""

    def __init__(self, *, actor: Actor, commit: Commit, memtable: Memtable, store: LmdbStore) -> None:
        self._actor: Final = actor
        self._commit: Final = commit
        self._memtable: Final = memtable
        self._store: Final = store
        self._stored: Final = StoredRows(store, checked=False, long_keys=LongKeys(store, store.snapshot))

    # -- the key as a whole

    def set_count(self, keyspace: Keyspace, key: bytes) -> int:
        """How many elements the set has, hidden by the key's expiry or not."""
        return self._looked_at(keyspace, key).header.elements if keyspace.mixed else 0

    def map_count(self, keyspace: Keyspace, key: bytes) -> int:
        """How many fields the map has, hidden by the key's expiry or not."""
        return self._looked_at(keyspace, key).header.fields if keyspace.mixed else 0

    def counts(self, keyspace: Keyspace, key: bytes) -> layout.Count:
        """Both, by one lookup: what a verb of another type asks of each key."""
        if not keyspace.mixed:
            return _NONE
        header: Collection | None = None
        for frame in self._commit.overlays:
            if frame.layer.collections:
                found = frame.layer.collections.get(key)
                if found is not None:
                    self._look(frame)
                    header = found if header is None else header
        for layer in self._memtable.layers:
            if header is None and layer.collections:
                header = layer.collections.get(key)
        if header is None:
            return self._stored.counts(keyspace.id, key)
        return layout.Count(header.elements, header.fields)

    def gone(self, keyspace: Keyspace, key: bytes, now: int) -> bool:
        """Whether the key's expiry has passed: all its elements, fields and counter parts are hidden."""
        return keyspace.mixed and self.key_state(keyspace, key).gone(now)

    def key_state(self, keyspace: Keyspace, key: bytes) -> StringState:
        """The key's expiry, as a state that holds nothing else."""
        for frame in self._commit.overlays:
            rows = frame.layer.composites.get(key)
            if rows is not None and SUFFIX_EXPIRY in rows:
                self._look(frame)
                return _expiry_state(rows[SUFFIX_EXPIRY])
        for layer in self._memtable.layers:
            rows = layer.composites.get(key)
            if rows is not None and SUFFIX_EXPIRY in rows:
                return _expiry_state(rows[SUFFIX_EXPIRY])
        return _expiry_state(self._stored.row(keyspace.id, key, SUFFIX_EXPIRY))

    def observed(self, keyspace: Keyspace) -> Dots:
        """The vector that a clear names when it is made now: every change that readers here see, the undurable ones too."""
        seen = {actor: head.seq for actor, head in {**keyspace.vector, **keyspace.observed}.items()}
        seen[self._actor] = keyspace.seq
        return elements.dots_of(seen)

    def recount(self, keyspace: Keyspace, key: bytes) -> layout.Count:
        """The visible elements and fields counted one by one: what `set_count` and `map_count` must say."""
        rows = self._looked_at(keyspace, key)
        return layout.Count(rows.count_elements(), rows.count_fields())

    # -- elements

    def elements(self, keyspace: Keyspace, key: bytes, members: Sequence[bytes]) -> list[Element | None]:
        """The dots by which each element is in the set, which a remove must name; None when it is not there."""
        if not keyspace.mixed:
            return [None] * len(members)
        rows, frames = self._rows(keyspace, key), self._undurable(key)
        found: list[Element | None] = []
        for member in members:
            self._look_at_row(frames, element_suffix(member))
            found.append(rows.element(member))
        return found

    def members_page(
        self, keyspace: Keyspace, key: bytes, start: bytes, limit: int, bytes_max: int
    ) -> tuple[list[bytes], bytes | None]:
        """Up to ``limit`` elements from ``start`` on, in order, and where the next page starts, None at the end.

        A page has at least one element when there is one near; it ends at ``bytes_max``, and may be empty and still name a next one,
        as it passes by no more than SCAN_EXAMINED_KEYS_MAX elements that are not there any more.
        """
        rows = self._looked_at(keyspace, key)
        if not rows.header.elements:
            return [], None
        found: list[bytes] = []
        size = examined = 0
        low, step = start, limit
        while True:
            stretch = rows.lowest(element_suffix(low), ELEMENTS_END, step + 1)
            for suffix, row in stretch[:step]:
                element = element_of_suffix(suffix)
                if len(found) == limit:
                    return found, element
                if isinstance(row, Element) and rows.visible(row) is not None:
                    size += len(element)
                    if found and size > bytes_max:
                        return found, element
                    found.append(element)
            if len(stretch) <= step:
                return found, None
            low = element_of_suffix(stretch[-1][0])
            examined += step
            if len(found) == limit or examined >= limit + SCAN_EXAMINED_KEYS_MAX:
                return found, low
            step = max(limit - len(found), min(2 * step, _WALK_STEP))

    def random_members(self, keyspace: Keyspace, key: bytes, dice: int, count: int) -> list[bytes]:
        """Up to ``count`` different elements in random order, by a die of 64 bits.

        Of a set of up to RANDOM_EXACT_ELEMENTS each has the same chance. In a larger one, and among very many that are not there any
        more, they are looked for at random places of the order, so how likely an element is depends on its neighbours, and a few less
        than ``count`` may be found.
        """
        rows = self._looked_at(keyspace, key)

        def look(start: bytes, limit: int) -> _Page:
            stretch = rows.lowest(element_suffix(start), ELEMENTS_END, limit)
            found = [
                element_of_suffix(suffix)
                for suffix, row in stretch
                if isinstance(row, Element) and rows.visible(row) is not None
            ]
            return found, element_of_suffix(stretch[-1][0]) + b"\x00" if len(stretch) >= limit else None

        def first(low: bytes, high: bytes | None) -> bytes | None:
            found = rows.lowest(element_suffix(low), _end(_ELEMENTS, high, ELEMENTS_END), 1)
            return element_of_suffix(found[0][0]) if found else None

        def last(low: bytes, high: bytes | None) -> bytes | None:
            suffix = self._last_row(keyspace, key, element_suffix(low), _end(_ELEMENTS, high, ELEMENTS_END))
            return None if suffix is None else element_of_suffix(suffix)

        return _random(_Names(look, first, last, rows.header.elements), numbers(dice), count)

    def random_fields(self, keyspace: Keyspace, key: bytes, dice: int, count: int) -> list[bytes]:
        """The same of the names of a map's fields, those with a cell and those with counter parts alike."""
        rows = self._looked_at(keyspace, key)

        def look(start: bytes, limit: int) -> _Page:
            # A stretch may be short amid fields of many actors, so only an empty one is the end.
            fields = rows.lowest_fields(start, limit)
            return [name for name, field in fields if field.visible], fields[-1][0] + b"\x00" if fields else None

        def first(low: bytes, high: bytes | None) -> bytes | None:
            found = rows.lowest_fields(low, 1)
            return found[0][0] if found and (high is None or found[0][0] < high) else None

        def last(low: bytes, high: bytes | None) -> bytes | None:
            cell = self._last_row(keyspace, key, field_suffix(low), _end(_FIELDS, high, FIELDS_END))
            part_end = FIELD_PARTS_END if high is None else field_parts_prefix(high)
            part = self._last_stored(keyspace, key, field_parts_prefix(low), part_end)
            names = [layer.last_with_parts(low, high) for layer in self.layers(key)]
            names += [field_of_suffix(suffix) for suffix in (cell, part) if suffix is not None]
            return max((name for name in names if name is not None), default=None)

        return _random(_Names(look, first, last, rows.header.fields), numbers(dice), count)

    def _last_row(self, keyspace: Keyspace, key: bytes, low: bytes, high: bytes) -> bytes | None:
        """The last suffix of an element or cell in [low, high), visible or not."""
        lasts = [layer.last(low, high) for layer in self.layers(key)]
        lasts.append(self._last_stored(keyspace, key, low, high))
        return max((last for last in lasts if last is not None), default=None)

    def _last_stored(self, keyspace: Keyspace, key: bytes, low: bytes, high: bytes) -> bytes | None:
        """LMDB's last suffix in [low, high); among rows with one long beginning, some of the last."""
        start, end = layout.row_key(keyspace.id, key, low), layout.row_key(keyspace.id, key, high)
        walk = self._store.walk()
        if walk.seek_before(layout.order_prefix(end)):
            row_key = layout.row_key_of(walk.key, walk.value)
            if start <= row_key < end:
                return row_key[len(layout.row_key(keyspace.id, key, b"")) :]
        return None

    # -- fields

    def field(self, keyspace: Keyspace, key: bytes, field: bytes) -> StringState:
        """The cell and parts of a field; a string without an expiry."""
        if not keyspace.mixed:
            return _field_state(Field(None, _NOBODY))
        frames = self._undurable(key)
        self._look_at_row(frames, field_suffix(field))
        for frame, collection in frames:
            if field in collection.parts:
                self._look(frame)
        return _field_state(self._rows(keyspace, key).field(field))

    def fields_page(
        self, keyspace: Keyspace, key: bytes, start: bytes, limit: int, bytes_max: int
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Up to ``limit`` (field, value) from ``start`` on, in the order of the fields; otherwise as `members_page`."""
        rows = self._looked_at(keyspace, key)
        if not rows.header.fields:
            return [], None
        found: list[tuple[bytes, bytes]] = []
        size = examined = 0
        low, step = start, limit
        while True:
            stretch = rows.lowest_fields(low, step + 1)
            for name, field in stretch[:step]:
                if len(found) == limit:
                    return found, name
                value = _field_state(field).value(0)
                if value is not None:
                    text = value if isinstance(value, bytes) else text_of(value)
                    size += len(name) + len(text)
                    if found and size > bytes_max:
                        return found, name
                    found.append((name, text))
            if not stretch:
                return found, None
            # A stretch may be short amid fields of many actors, so only an empty one is the end.
            low = stretch[-1][0] if len(stretch) > step else stretch[-1][0] + b"\x00"
            examined += step
            if len(found) == limit or examined >= limit + SCAN_EXAMINED_KEYS_MAX:
                return found, low
            step = max(limit - len(found), min(2 * step, _WALK_STEP))

    def counter_fields(self, keyspace: Keyspace, key: bytes) -> dict[bytes, dict[Actor, Part]]:
        """Every field with live parts, and those: what a clear must reset."""
        return self._looked_at(keyspace, key).counter_fields() if keyspace.mixed else {}

    # -- for the commit pipeline

    def stores_counters(self, keyspace: Keyspace, key: bytes) -> bool:
        """Whether LMDB has parts of any field of the map."""
        return bool(self._stored.suffixes(keyspace.id, key, FIELDS_END, FIELD_PARTS_END, 1))

    def rows(self, keyspace: Keyspace, key: bytes) -> CollectionRows:
        """The rows of a key as they are now, no frame marked: for a change, which waits for a newer frame anyhow."""
        return self._rows(keyspace, key)

    def row(self, keyspace: Keyspace, key: bytes, suffix: bytes) -> Row | None:
        """One row with a tag of 0x04 and above, as it is now."""
        return self._rows(keyspace, key).row(suffix)

    # -- layers

    def layers(self, key: bytes) -> list[Collection]:
        """What the layers hold of a key, newest first, no frame marked."""
        layers = [frame.layer.collections.get(key) for frame in self._commit.overlays]
        layers += [layer.collections.get(key) for layer in self._memtable.layers]
        return [collection for collection in layers if collection is not None]

    def _rows(self, keyspace: Keyspace, key: bytes) -> CollectionRows:
        return CollectionRows(self._stored, keyspace.id, key, self.layers(key), keyspace.vector)  # LMDB lags behind it

    def _looked_at(self, keyspace: Keyspace, key: bytes) -> CollectionRows:
        for frame, _ in self._undurable(key):
            self._look(frame)
        return self._rows(keyspace, key)

    def _undurable(self, key: bytes) -> list[tuple[Frame, Collection]]:
        """The frames that hold the key, newest first."""
        frames = ((frame, frame.layer.collections.get(key)) for frame in self._commit.overlays)
        return [(frame, collection) for frame, collection in frames if collection is not None]

    def _look_at_row(self, frames: list[tuple[Frame, Collection]], suffix: bytes) -> None:
        for frame, collection in frames:
            cleared = collection.set_cleared or collection.map_cleared
            if cleared or suffix in collection.rows:
                self._look(frame)
                return

    def _look(self, frame: Frame) -> None:
        if not frame.shown:
            self._commit.looked(frame)


def _expiry_state(row: Row | None) -> StringState:
    return StringState(None, row if isinstance(row, Cell) else None, _NOBODY)


def _field_state(field: Field) -> StringState:
    return StringState(field.cell, None, field.parts)


def _end(tag: bytes, high: bytes | None, end: bytes) -> bytes:
    return end if high is None else tag + high


def _common_beginning(a: bytes, b: bytes) -> bytes:
    length = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:length]


def _random(names: _Names, rolled: Iterator[int], count: int) -> list[bytes]:
    """``count`` of them: of all of them when these are few, else at random places."""
    if names.visible <= max(RANDOM_EXACT_ELEMENTS, count):
        found, is_all = _walked(names, b"", count + RANDOM_LOOKED_AT_MAX, names.visible)
        if is_all:
            return _shuffled(found, rolled, count)
    return _found_near(names, rolled, count)


def _walked(names: _Names, start: bytes, rows_max: int, wanted: int) -> tuple[list[bytes], bool]:
    """Those from ``start`` on, up to ``wanted``, and whether this was all there is: no more than about ``rows_max`` are looked at."""
    found: list[bytes] = []
    place: bytes | None = start
    for _ in range(-(-rows_max // _WALK_STEP)):
        if place is None or len(found) >= wanted:
            break
        page, place = names.look(place, _WALK_STEP)
        found += page
    return found, place is None or len(found) >= wanted


def _shuffled(names: list[bytes], rolled: Iterator[int], count: int) -> list[bytes]:
    """``count`` of them, each with the same chance (Fisher and Yates)."""
    wanted = min(count, len(names))
    for i in range(wanted):
        other = i + next(rolled) % (len(names) - i)
        names[i], names[other] = names[other], names[i]
    return names[:wanted]


def _found_near(names: _Names, rolled: Iterator[int], count: int) -> list[bytes]:
    """Different ones, each out of a few at a random place. If there is none at many, the last, the next behind a place, or the first.

    None are found only where nearly all are not there any more, thousands at both the beginning and that place, and the last one.
    """
    chosen: dict[bytes, None] = {}
    place = b""
    for tries in range(max(_RANDOM_TRIES * count, _RANDOM_TRIES_FOR_ONE)):
        if len(chosen) == count or (chosen and tries >= _RANDOM_TRIES * count):
            break
        place = _random_place(names, rolled)
        page, _ = names.look(place, _RANDOM_PAGE)
        if page:
            chosen[page[next(rolled) % len(page)]] = None
    for start in (names.last(b"", None), place, b""):
        if not chosen and start is not None:
            found, _ = _walked(names, start, RANDOM_LOOKED_AT_MAX // 2, count)
            chosen.update(dict.fromkeys(found[:count]))
    return list(chosen)


def _random_place(names: _Names, rolled: Iterator[int]) -> bytes:
    """Descends from the common beginning of all to that of a random half, quarter, ... of them, one byte at a time."""
    low, high = b"", None
    for _ in range(_RANDOM_STEPS):
        first, last = names.first(low, high), names.last(low, high)
        if first is None or last is None or first >= last:
            break
        shared = _common_beginning(first, last)
        if len(shared) == len(first):  # the first one is the beginning of all others
            if next(rolled) % 8 == 0:
                break
            least = 0
        else:
            least = first[len(shared)]
        chosen = least + next(rolled) % (last[len(shared)] - least + 1)
        found = names.first(shared + bytes([chosen]), successor(shared))
        if found is None:
            break
        low = found[: len(shared) + 1]
        high = successor(low)
    return low
