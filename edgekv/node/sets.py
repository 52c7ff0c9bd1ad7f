"""The verbs on sets. An element has 0 to 4,096 bytes; ``dice`` are 64 random bits, all the chance that a call may use.

Each raises WrongType for a key that holds other types only; an absent key is an empty set. POP and MOVE decide by this node's state.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from edgekv.crdt.company import Company
from edgekv.crdt.operation import ADD_ELEMENTS, Operation
from edgekv.crdt.sets import add_operations, remove_operations, store_operations
from edgekv.crdt.strings import StringState, delete_operations
from edgekv.engine.dice import repeated
from edgekv.engine.keyspaces import Keyspace
from edgekv.errors import Denied, EdgeKVError
from edgekv.limits import KEY_BYTES_MAX, READ_RUN_BYTES_MAX
from edgekv.node.verbs import Verbs, attempt, stretches


class _Held(NamedTuple):
    """A key whose set a verb works on. ``visible``: how many can be seen of it."""

    keyspace: Keyspace
    key: bytes
    state: StringState
    company: Company
    visible: int


class Sets:
    """On one node."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs: Final = verbs
        self._collections: Final = verbs.engine.collections

    # -- reading

    def contains(self, key: bytes, members: Sequence[bytes]) -> list[bool]:
        """Of each, whether it is in the set."""
        keyspace = self._verbs.engine.keyspaces.of(key)
        if not self._visible(keyspace, key):
            return [False] * len(members)
        self._verbs.rows_read += len(members)
        return [element is not None for element in self._collections.elements(keyspace, key, members)]

    def count(self, key: bytes) -> int:
        """How many elements there are."""
        return self._visible(self._verbs.engine.keyspaces.of(key), key)

    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        """Up to ``limit`` from ``start`` on (included) in byte order, and where the next page starts; None: this was the last one.

        Fewer (even none) when they are large or many deleted ones lie between.
        """
        keyspace = self._verbs.engine.keyspaces.of(key)
        if not self._visible(keyspace, key):
            return [], None
        found, following = self._collections.members_page(keyspace, key, start, limit, READ_RUN_BYTES_MAX)
        desert = following is not None and 2 * sum(map(len, found)) < READ_RUN_BYTES_MAX
        self._verbs.looked(key, len(found), limit, desert=desert)
        return found, following

    def random(self, key: bytes, count: int, dice: int, *, repeat: bool) -> list[bytes]:
        """``count`` elements, drawn with replacement (``repeat``) or different ones; none of an empty set.

        In a set of more than 1,000 the chance of an element depends on its neighbours, and a few less may be found.
        """
        keyspace = self._verbs.engine.keyspaces.of(key)
        there = self._visible(keyspace, key)
        if not there or count < 1:
            return []
        self._verbs.drew(key, there, count)
        found = self._collections.random_members(keyspace, key, dice, min(count, there))
        return repeated(found, there, count, dice) if repeat else found

    def _visible(self, keyspace: Keyspace, key: bytes) -> int:
        company = self._verbs.counts(keyspace, key)
        if company.elements and not self._collections.gone(keyspace, key, self._verbs.now_ms()):
            return company.elements
        now = self._verbs.now_ms()
        self._verbs.check_no_string(self._verbs.engine.reads.state(keyspace, key), company, now, "set")
        return 0

    # -- writing

    def add(self, key: bytes, members: Sequence[bytes]) -> int:
        """How many are new. One may be named twice."""
        verbs = self._verbs
        keyspace = verbs.writable(key)
        distinct = list(dict.fromkeys(members))
        verbs.check_names(distinct, "element")
        verbs.check_count(len(distinct))
        if not distinct:
            return 0
        held = self._held(keyspace, key)
        verbs.change(keyspace, self._add_operations(held, distinct))
        return self._collections.counts(keyspace, key).elements - held.visible

    def add_run(self, keys: Sequence[bytes], members: Sequence[bytes]) -> list[int | EdgeKVError]:
        """`add` of one element each: a change each, and what each returned or raised. If the call raises, nothing happened."""
        self._verbs.engine.admission.check_client()
        results: list[int | EdgeKVError] = []
        for key, first, end in stretches(keys):
            results += self._add_stretch(key, members[first:end])
        return results

    def _add_stretch(self, key: bytes, members: Sequence[bytes]) -> list[int | EdgeKVError]:
        """The short way for a set that is there, or a key where nothing is; else one by one, and perhaps the rest the short way."""
        verbs, results = self._verbs, list[int | EdgeKVError]()
        for i, member in enumerate(members):
            if i < 2 and self._in_runs(key, members):
                keyspace, rest = verbs.engine.keyspaces.of(key), members[i:]
                new = verbs.is_new(keyspace, key)
                if new or (len(rest) > 1 and self._is_there(keyspace, key)):
                    return [*results, *verbs.engine.runs.add_elements(keyspace, key, rest, new=new)]
            results.append(attempt(partial(self.add, key, [member])))
        return results

    def _in_runs(self, key: bytes, members: Sequence[bytes]) -> bool:
        """Whether nothing of this can be refused."""
        size = sum(map(len, members)) + len(key) * len(members)
        return self._verbs.in_runs(size) and max(map(len, members)) <= KEY_BYTES_MAX

    def _is_there(self, keyspace: Keyspace, key: bytes) -> bool:
        """Whether adding is nothing but that: the set is there and stays."""
        there = self._collections.counts(keyspace, key).elements and not keyspace.policy.system
        return bool(there) and not self._collections.gone(keyspace, key, self._verbs.now_ms())

    def remove(self, key: bytes, members: Sequence[bytes]) -> int:
        """How many there were. One may be named twice; a set without elements is gone."""
        verbs = self._verbs
        keyspace = verbs.deletable(key)
        verbs.check_count(len(members))
        held = self._held(keyspace, key)
        operations, removed = self._remove_operations(held, members)
        if removed:
            verbs.change(keyspace, operations)
        return removed

    def pop(self, key: bytes, count: int, dice: int) -> list[bytes]:
        """Remove up to ``count`` elements, as one change."""
        self._verbs.check_count(count)
        self._verbs.deletable(key)
        found = self.random(key, count, dice, repeat=False)
        if found:
            self.remove(key, found)
        return found

    def move(self, source: bytes, target: bytes, member: bytes) -> bool:
        """As one change; False: it was not there. A missing ``source`` decides before the type of ``target`` does, as in Redis."""
        verbs = self._verbs
        keyspace = verbs.writable(target)
        verbs.check_key(source)
        verbs.check_names([member], "element")
        if verbs.engine.keyspaces.of(source) is not keyspace:
            raise Denied(
                "the two keys are in different keyspaces. Add the element to the one, remove it from the other."
            )
        held = self._held(keyspace, source)
        if not held.visible:
            return False
        other = self._held(keyspace, target)
        operations, removed = self._remove_operations(held, [member])
        if removed and source != target:
            verbs.change(keyspace, [*operations, *self._add_operations(other, [member])])
        return bool(removed)

    def store(self, key: bytes, members: Sequence[bytes]) -> None:
        """Replace whatever the key holds by this set, as one change; no members: delete it."""
        verbs = self._verbs
        distinct = list(dict.fromkeys(members))
        keyspace = verbs.writable(key) if distinct else verbs.deletable(key)
        verbs.check_names(distinct, "element")
        verbs.check_count(len(distinct))
        state, company = verbs.engine.reads.state(keyspace, key), verbs.company(keyspace, key)
        if distinct:
            operations = store_operations(state, company, key, distinct, verbs.default_expiry(keyspace))
        else:
            operations = delete_operations(state, key, verbs.now_ms(), company)
        if operations:
            verbs.change(keyspace, operations)

    # -- what they are made of

    def _held(self, keyspace: Keyspace, key: bytes) -> _Held:
        """A key that a verb will write to: what its expiry hides can be named."""
        verbs, now = self._verbs, self._verbs.now_ms()
        company = verbs.counts(keyspace, key)
        if company.elements:
            expiry = self._collections.key_state(keyspace, key)
            if not expiry.gone(now):
                return _Held(keyspace, key, expiry, company, company.elements)
        state = verbs.engine.reads.state(keyspace, key)
        verbs.check_no_string(state, company, now, "set")
        return _Held(keyspace, key, state, verbs.company(keyspace, key), 0)

    def _add_operations(self, held: _Held, members: list[bytes]) -> list[Operation]:
        if held.visible:
            return [(ADD_ELEMENTS, held.key, members)]
        now, expiry_ms = self._verbs.now_ms(), self._verbs.default_expiry(held.keyspace)
        return add_operations(held.state, held.company, held.key, members, now, expiry_ms)

    def _remove_operations(self, held: _Held, members: Sequence[bytes]) -> tuple[list[Operation], int]:
        if not held.visible:
            return [], 0
        distinct = list(dict.fromkeys(members))
        there = zip(distinct, self._collections.elements(held.keyspace, held.key, distinct), strict=True)
        observed = {member: element.dots for member, element in there if element is not None}
        state = self._verbs.engine.reads.state(held.keyspace, held.key)
        return remove_operations(state, held.company, held.key, observed, self._verbs.now_ms()), len(observed)
