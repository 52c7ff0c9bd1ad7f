"""The verbs of a keyspace that keeps concurrent values: read all of them with a context, put or delete what a context names.

The other verbs work there too: reads show the value with the highest stamp, SET and DEL remove all values that this node holds. With a
context a write removes what its writer has read, no more. So of two writers who have read the same, both values stay.
"""

from collections.abc import Container
from typing import TYPE_CHECKING, Final, NamedTuple

from edgekv.crdt.elements import Dot
from edgekv.crdt.operation import PUT_SIBLING
from edgekv.crdt.strings import StringState, delete_after, put_after
from edgekv.engine.draft import Draft
from edgekv.engine.keyspaces import Keyspace
from edgekv.errors import Denied, TooLarge
from edgekv.limits import CHANGE_OVERHEAD_BYTES, SIBLINGS_MAX
from edgekv.node.context import context_dots, context_text
from edgekv.node.verbs import text

if TYPE_CHECKING:
    from edgekv.node.operations import Operations


class Values(NamedTuple):
    """What a key holds: every concurrent value, the one that GET shows first. No value: there is no string."""

    context: str
    values: list[bytes]


class SiblingVerbs:
    """On one node. Each raises Denied in a keyspace that keeps one value only; InvalidRequest for what is no context of the key."""

    def __init__(self, verbs: "Operations") -> None:
        self._verbs: Final = verbs

    def kept(self, key: bytes) -> bool:
        """Whether the key's keyspace keeps concurrent values."""
        return self._verbs.engine.keyspaces.of(key).siblings

    def get(self, key: bytes) -> Values:
        """All values, and the context to write with. WrongType when the key holds other types only.

        Within a transaction the context leaves out what the transaction itself has put: that has no dot yet, and the one that it goes
        by here will be that of another change.
        """
        verbs = self._verbs
        verbs.check_key(key)
        keyspace = _keeping(verbs.engine.keyspaces.of(key))
        state, now = verbs.engine.reads.state(keyspace, key), verbs.now_ms()
        values = [value for value in map(text, state.values(now)) if value is not None]
        if not values:
            verbs.check_nothing_else(keyspace, key, state, now)
        own = self._own(state, keyspace)
        dots = tuple(sibling.dot for sibling in state.visible_siblings(now) if sibling.dot not in own)
        return Values(context_text(keyspace.id, key, dots), values)

    def put(self, key: bytes, value: bytes, context: str, *, expiry_ms: int = 0) -> None:
        """Put a value in place of those that the context names, and of all else that the key holds but its other values.

        TooLarge when the key would hold more than SIBLINGS_MAX values, or more bytes of them than one change may have.
        """
        verbs = self._verbs
        keyspace = _keeping(verbs.writable(key))
        verbs.check_value(value)
        seen = context_dots(context, keyspace.id, key)
        state, company, now = verbs.engine.reads.state(keyspace, key), verbs.company(keyspace, key), verbs.now_ms()
        expiry_ms = expiry_ms or verbs.default_expiry(keyspace)
        operations = put_after(state, key, value, expiry_ms, seen | self._own(state, keyspace), now, company)
        assert operations[0][0] == PUT_SIBLING
        self._check_room(state, set(operations[0][4]), value)
        verbs.change(keyspace, operations)

    def delete(self, key: bytes, context: str) -> int:
        """Delete the values that the context names; how many of them were there. What else the key holds stays."""
        verbs = self._verbs
        keyspace = _keeping(verbs.deletable(key))
        seen = context_dots(context, keyspace.id, key)
        state, now = verbs.engine.reads.state(keyspace, key), verbs.now_ms()
        company = verbs.company(keyspace, key) if state.gone(now) else verbs.counts(keyspace, key)
        there = sum(sibling.dot in seen for sibling in state.visible_siblings(now))
        if there:
            verbs.change(keyspace, delete_after(state, key, seen, now, company))
        return there

    def _own(self, state: StringState, keyspace: Keyspace) -> frozenset[Dot]:
        """Within a transaction what the transaction itself has put. A put removes it: a change has one value of a key."""
        commit = self._verbs.commit
        if not isinstance(commit, Draft) or commit.keyspace is not keyspace or state.siblings is None:
            return frozenset()
        return frozenset(dot for dot in state.siblings.dots if commit.is_own(*dot))

    def _check_room(self, state: StringState, removed: Container[Dot], value: bytes) -> None:
        assert state.siblings is not None
        kept = [sibling for sibling in state.siblings.values if sibling.dot not in removed]
        size = len(value) + sum(len(sibling.value) for sibling in kept)
        if len(kept) >= SIBLINGS_MAX or size > self._verbs.value_bytes_max + CHANGE_OVERHEAD_BYTES:
            raise TooLarge(
                f"the key would hold {len(kept) + 1} concurrent values of {size} bytes; the limits are {SIBLINGS_MAX} and "
                f"{self._verbs.value_bytes_max + CHANGE_OVERHEAD_BYTES}. Read them, and put one value with the context of that read."
            )


def _keeping(keyspace: Keyspace) -> Keyspace:
    """The same; Denied when it keeps one value only."""
    if not keyspace.siblings:
        raise Denied(
            f"the keyspace {keyspace.name!r} keeps the last of concurrent values only, so there is nothing to resolve. "
            'Write without a context, or use a key of a keyspace with conflict = "siblings".'
        )
    return keyspace
