"""A page of keys in order, merged over the layers above LMDB and LMDB itself.

The order in which they are taken is the whole secret of a consistent page: first the references to the layers (the caller
hands them in), then the LMDB transaction (``page`` begins one), both in one tick. A generation applied in between is then seen
twice, which merging makes harmless; the other way round its rows would be in neither.

A set or map is not walked: what a layer or LMDB counts in it is enough to show its key, and the page goes on behind its rows.

Layers hold keys in order, LMDB nearly: rows with one long common beginning lie there in the order of their hashes
(``store.layout``), so such a group is read whole and the lowest keys are picked out. Memory is bounded by the page, not by the
group. A page is consistent in itself; a chain of pages is not a snapshot.

Tombstones and empty counters are left out. What has expired is not: that depends on the reader's time, and is the caller's.
"""

from collections.abc import Mapping, Sequence
from heapq import nsmallest
from typing import Final, NamedTuple

from edgekv.crdt import register
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.operation import SUFFIX_REGISTER, SUFFIX_SIBLINGS, TAG_ELEMENT, Row, join, merge_row
from edgekv.crdt.register import Cell, Register
from edgekv.crdt.siblings import Siblings
from edgekv.ids import KeyspaceId
from edgekv.limits import LMDB_KEY_BYTES_MAX, SCAN_EXAMINED_KEYS_MAX
from edgekv.store import layout
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.memtable import Layer, rows_in_layers

StoredKeys = dict[bytes, dict[bytes, bytes]]
"""key -> suffix -> row as LMDB has it: register, expiry, counter parts, siblings and the count."""

_NO_ROWS: Final[Mapping[bytes, bytes]] = {}


class Item(NamedTuple):
    """What there is at a key: a live register; counter parts, expiry cell and siblings by suffix; how many elements and fields."""

    key: bytes
    register: Register | None
    composites: dict[bytes, Row]
    elements: int = 0
    fields: int = 0


class ScanPage(NamedTuple):
    """Items in the order of their keys. ``next_key`` is where the next page starts; None: there is nothing after this one."""

    items: list[Item]
    next_key: bytes | None


def page(
    layers: Sequence[Layer], store: LmdbStore, keyspace: KeyspaceId, low: bytes, high: bytes | None, limit: int
) -> ScanPage:
    """Up to ``limit`` keys in [low, high) of one keyspace; ``layers`` newest first; ``high`` None: to the end of the keyspace.

    Renews the store's read transaction. May hold fewer, even no items, and still name a ``next_key``: a page looks at no more
    than SCAN_EXAMINED_KEYS_MAX keys beyond its own, so a desert of tombstones does not hold the event loop.
    """
    store.renew()
    items: list[Item] = []
    examined = 0
    while True:
        wanted = limit - len(items) + 1
        stored = _lowest_stored(store, keyspace, low, high, wanted)
        keys = set(stored)
        for layer in layers:
            # A layer may hold keys of several keyspaces, but never one of another keyspace between two of this one:
            # the caller's bounds lie within one keyspace's interval.
            keys.update(layer.sorted_keys(low, high, wanted))
        candidates = nsmallest(wanted, keys)
        # The last of a full set is where to go on: each source gave its lowest ones, so nothing is missed below it.
        following = candidates.pop() if len(candidates) == wanted else None
        for key in candidates:
            item = _item(layers, store, key, stored.get(key, _NO_ROWS))
            if item is not None:
                items.append(item)
        examined += len(candidates)
        if following is None or len(items) == limit or examined >= limit + SCAN_EXAMINED_KEYS_MAX:
            return ScanPage(items, following)
        low = following


def _lowest_stored(store: LmdbStore, keyspace: KeyspaceId, low: bytes, high: bytes | None, wanted: int) -> StoredKeys:
    """The ``wanted`` lowest stored keys in [low, high), if there are that many, with all rows of all but the highest."""
    start = layout.key_start(keyspace, low)
    end = layout.key_start(KeyspaceId(keyspace + 1), b"") if high is None else layout.key_start(keyspace, high)
    last = layout.order_prefix(end)
    found: StoredKeys = {}
    group = b""
    walk = store.walk()
    there = walk.seek(layout.order_prefix(start))
    while there:
        lmdb_key = walk.key
        prefix = layout.order_prefix(lmdb_key)
        if prefix > last:
            break
        row_key = lmdb_key if len(lmdb_key) < LMDB_KEY_BYTES_MAX else layout.row_key_of(lmdb_key, walk.value)
        _, key, suffix = layout.split(row_key)
        if prefix != group:
            if len(found) >= wanted:
                break  # Perhaps amid the rows of the highest key found, which is only where the next page starts.
            group = prefix
        behind = b""
        if start <= row_key < end:
            rows = found.setdefault(key, {})
            if suffix[0] < TAG_ELEMENT:
                rows[suffix] = walk.value
            else:
                _add_behind(rows, store, keyspace, key)
                behind = layout.key_end(keyspace, key)
            if len(found) > 2 * wanted:  # Inside a large group: the lowest so far stay, whatever comes.
                found = {lowest: found[lowest] for lowest in nsmallest(wanted, found)}
        there = walk.seek(behind) if behind and len(behind) <= layout.ORDER_BYTES else walk.next()
    return found


def _add_behind(rows: dict[bytes, bytes], store: LmdbStore, keyspace: KeyspaceId, key: bytes) -> None:
    """What stands behind the rows that are not walked: siblings and the count."""
    for suffix in (SUFFIX_SIBLINGS, layout.SUFFIX_COUNT):
        if suffix not in rows:
            row = store.get(layout.lmdb_key(keyspace, key, suffix))
            if row is not None:
                rows[suffix] = row


def _item(layers: Sequence[Layer], store: LmdbStore, key: bytes, stored: Mapping[bytes, bytes]) -> Item | None:
    """The rows of a key joined over all layers and LMDB; None when a reader is shown nothing at any time."""
    above, deltas = rows_in_layers(layers, key)
    count = _count(layers, key, stored)
    # A reset of a part that LMDB does not have changes nothing, hence merge_row and not the layers' rows as they are.
    composites = {suffix: row for suffix, delta in deltas.items() if (row := merge_row(None, delta)) is not None}
    for suffix, data in stored.items():
        if suffix == SUFFIX_REGISTER:
            above = _join_register(above, data, store)
            continue
        if suffix == layout.SUFFIX_COUNT or (suffix == SUFFIX_SIBLINGS and suffix in deltas):
            continue
        row = layout.decode_row(data, store.actor_of)
        composites[suffix] = join(row, deltas[suffix]) if suffix in deltas else row
    live = above if above is not None and above[0] is not None else None
    holds = live is not None or any(count) or any(map(_is_of_string, composites.values()))
    return Item(key, live, composites, *count) if holds else None


def _is_of_string(row: Row) -> bool:
    """Whether it makes its key one with a string: a part that counts, or siblings."""
    return (isinstance(row, Part) and not is_inert(row)) or (isinstance(row, Siblings) and bool(row.values))


def _count(layers: Sequence[Layer], key: bytes, stored: Mapping[bytes, bytes]) -> layout.Count:
    """The newest layer that knows the key's set and map answers for both."""
    for layer in layers:
        collection = layer.collections.get(key)
        if collection is not None:
            return layout.Count(collection.elements, collection.fields)
    data = stored.get(layout.SUFFIX_COUNT)
    return layout.Count(0, 0) if data is None else layout.decode_count(data)


def _join_register(above: Register | None, data: bytes, store: LmdbStore) -> Register:
    """A plain local SET dominates what LMDB has; a whole cell may have come from elsewhere and is compared."""
    if above is not None and not isinstance(above, Cell):
        return above
    row = layout.decode_row(data, store.actor_of)
    assert isinstance(row, Cell)
    return row if above is None else register.merge(row, above)
