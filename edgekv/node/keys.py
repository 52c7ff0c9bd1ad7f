"""The verbs on keys, whatever they hold, and the walks over ranges of them."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from edgekv.crdt.operation import ADD_ELEMENTS, EXPIRE, PUT_FIELDS, Operation
from edgekv.crdt.strings import (
    NEVER,
    clear_key_operations,
    delete_operations,
    expire_operations,
    put_operations,
)
from edgekv.engine.draft import Draft
from edgekv.engine.keyspaces import Keyspace, successor
from edgekv.engine.reads import Found
from edgekv.errors import Denied, NotFound, TooLarge
from edgekv.limits import SCAN_EXAMINED_KEYS_MAX
from edgekv.node.strings import Entry, Strings
from edgekv.node.verbs import allowed, check_one_value, text

EXPIRY_MS_MAX: Final = (1 << 63) - 1
RENAME_ROWS_MAX: Final = 10_000
"""Elements and fields: all are read, and written again, at once."""
_RENAME_PAGES_MAX: Final = 3
"""Each passes by some 2,000 deleted ones."""
_RANDOM_KEY_PAGES_MAX: Final = 4
"""How far a random key is looked for among deleted ones: some 10,000 keys."""


class Listed(NamedTuple):
    """A key and what it holds: a string, a set of ``elements``, a map of ``fields``, or, rarely, more than one of them."""

    key: bytes
    string: Entry | None
    elements: int
    fields: int
    expiry_ms: int
    """Of the set and the map, absolute, 0 for none; the string has its own."""


class Page(NamedTuple):
    """Keys in order, consistent among themselves; ``next_key`` begins the next page, None at the end."""

    listed: list[Listed]
    next_key: bytes | None


class Keys(Strings):
    """On one node."""

    # -- reading

    def exists(self, keys: Sequence[bytes]) -> int:
        """How many of the keys exist; a key named twice counts twice."""
        return sum(self.type_of(key) != "none" for key in keys)

    def type_of(self, key: bytes) -> str:
        """``none``, ``string``, ``set`` or ``hash``; of a key that holds several, the first."""
        keyspace = self.engine.keyspaces.of(key)
        if not keyspace.mixed:
            return "none" if self.engine.reads.value(keyspace, key) is None else "string"
        types = self.engine.reads.types(keyspace, key, self.now_ms())
        return types[0] if types else "none"

    def expiry_of(self, key: bytes) -> int:
        """When the key expires, absolute ms; -1: never; -2: there is no such key."""
        self.check_key(key)
        keyspace = self.engine.keyspaces.of(key)
        state, company = self.engine.reads.state(keyspace, key), self.counts(keyspace, key)
        if not state.live(self.now_ms(), company):
            return -2
        return state.expiry_ms(company) or -1

    # -- writing

    def delete(self, keys: Sequence[bytes]) -> int:
        """DEL: the number of keys that existed. One change per keyspace; allowed on a full disk."""
        self.engine.admission.check_relief()
        self.check_count(len(keys))
        now, by_keyspace, deleted = self.now_ms(), dict[Keyspace, list[Operation]](), 0
        for key in dict.fromkeys(keys):
            self.check_key(key)
            keyspace = allowed(self.engine.keyspaces.of(key))
            state, company = self.engine.reads.state(keyspace, key), self.company(keyspace, key)
            if state.live(now, company):
                deleted += 1
                by_keyspace.setdefault(keyspace, []).extend(delete_operations(state, key, now, company))
        self._check_changes(by_keyspace)
        for keyspace, operations in by_keyspace.items():
            self.commit.change(keyspace, operations)
        return deleted

    def _check_changes(self, by_keyspace: dict[Keyspace, list[Operation]]) -> None:
        """Whatever they are refused with, before the first is made."""
        for keyspace, operations in by_keyspace.items():
            self.check_change(operations)
            if isinstance(self.commit, Draft):
                self.commit.check(keyspace)
        if isinstance(self.commit, Draft) and len(by_keyspace) > 1:
            names = ", ".join(sorted(keyspace.name for keyspace in by_keyspace))
            raise Denied(f"the keys are in different keyspaces ({names}), and a change touches one. Split the call.")

    def set_expiry(self, key: bytes, expiry_ms: int) -> bool:
        """EXPIREAT in ms; one that has passed deletes the key. False: there is no such key."""
        keyspace = self.deletable(key)
        state, company, now = self.engine.reads.state(keyspace, key), self.counts(keyspace, key), self.now_ms()
        if not state.live(now, company):
            return False
        if expiry_ms <= now:
            self.change(keyspace, delete_operations(state, key, now, self.company(keyspace, key)))
        else:
            check_one_value(state, now)
            self.change(keyspace, expire_operations(state, key, expiry_ms, now, company))
        return True

    def persist(self, key: bytes) -> bool:
        """Remove the expiry. False: there is none, or no such key."""
        keyspace = self.writable(key)
        state, company, now = self.engine.reads.state(keyspace, key), self.counts(keyspace, key), self.now_ms()
        if not state.live(now, company) or not state.expiry_ms(company):
            return False
        check_one_value(state, now)
        self.change(keyspace, expire_operations(state, key, 0, now, company))
        return True

    def rename(self, old: bytes, new: bytes) -> None:
        """Move what a key holds, with its expiry, as one change. NotFound when there is nothing; Denied across keyspaces.

        TooLarge when it holds more than RENAME_ROWS_MAX elements and fields.
        """
        keyspace = self.writable(new)
        self.check_key(old)
        if self.engine.keyspaces.of(old) is not keyspace:
            raise Denied(
                "the two keys are in different keyspaces. Read the old key, write the new one, delete the old one."
            )
        now = self.now_ms()
        source, company = self.engine.reads.state(keyspace, old), self.company(keyspace, old)
        if not source.live(now, company):
            raise NotFound("no such key")
        check_one_value(source, now)
        if old == new:
            return
        moved: list[Operation] = []
        if not source.gone(now):
            moved = self._copied(keyspace, old, new)
        end = source.key_end if moved and source.key_end != NEVER else 0
        target, replaced = self.engine.reads.state(keyspace, new), self.company(keyspace, new)
        value = text(source.value(now))
        if value is None:
            written = clear_key_operations(target, new, replaced, end)
        else:
            written = put_operations(target, new, value, source.expiry_ms(), replaced)
            if end:
                written = [*(operation for operation in written if operation[0] != EXPIRE), (EXPIRE, new, end)]
        self.change(keyspace, [*delete_operations(source, old, now, company), *written, *moved])

    def _copied(self, keyspace: Keyspace, old: bytes, new: bytes) -> list[Operation]:
        """The set and the map of a key at another one."""
        elements, fields = self.engine.collections.counts(keyspace, old)
        if elements + fields > RENAME_ROWS_MAX:
            raise TooLarge(
                f"the key holds {elements + fields} elements and fields, and {RENAME_ROWS_MAX} can be renamed at once. "
                "Copy them to the new key in parts."
            )
        self.rows_read += elements + fields
        collections, operations = self.engine.collections, list[Operation]()
        if elements:
            members = list[bytes]()
            start: bytes | None = b""
            for _ in range(_RENAME_PAGES_MAX):
                if start is not None and len(members) < elements:
                    page, start = collections.members_page(keyspace, old, start, elements, 1 << 30)
                    members += page
            _check_all(len(members), elements)
            operations.append((ADD_ELEMENTS, new, members))
        if fields:
            pairs = list[tuple[bytes, bytes]]()
            start = b""
            for _ in range(_RENAME_PAGES_MAX):
                if start is not None and len(pairs) < fields:
                    found, start = collections.fields_page(keyspace, old, start, fields, 1 << 30)
                    pairs += found
                    self.check_change([(PUT_FIELDS, new, pairs)])
            _check_all(len(pairs), fields)
            operations.append((PUT_FIELDS, new, pairs))
        return operations

    # -- ranges

    def page(self, start: bytes, prefix: bytes, limit: int) -> Page:
        """Up to ``limit`` keys below ``prefix`` from ``start`` on, with what they hold. There are more unless ``next_key`` is None."""
        found = self.engine.reads.range(max(start, prefix), successor(prefix), limit)
        return Page([self._listed(item) for item in found.found], found.next_key)

    def _listed(self, found: Found) -> Listed:
        end = found.state.key_end
        string = self.entry(found.key, found.state)
        return Listed(found.key, string, found.elements, found.fields, 0 if end == NEVER else end)

    def keys_page(self, start: bytes, prefix: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        """As `page`, the keys alone."""
        found = self.engine.reads.range(max(start, prefix), successor(prefix), limit)
        self.rows_read += len(found.found)
        if len(found.found) < limit and found.next_key is not None:
            self.rows_read += SCAN_EXAMINED_KEYS_MAX
        return [item.key for item in found.found], found.next_key

    def random_key(self, dice: int) -> bytes | None:
        """Some existing key near the position that ``dice`` picks in the key order; None when none is found."""
        position = dice.to_bytes(8, "big", signed=False)
        for first in (position, b""):
            start: bytes | None = first
            for _ in range(_RANDOM_KEY_PAGES_MAX):
                if start is None:
                    break
                keys, start = self.keys_page(start, b"", 1 + dice % 16)
                if keys:
                    return keys[-1]
        return None


def _check_all(found: int, there: int) -> None:
    if found < there:
        raise TooLarge(
            "thousands of elements or fields of the key were deleted just now, and it cannot be renamed before they are cleaned up. "
            "Try again in a minute, or copy it to the new key in parts."
        )
