"""The verbs on maps. A field has 0 to 4,096 bytes; its value is a register plus counter parts, as a string's.

Each raises WrongType for a key that holds other types only; an absent key is an empty map. PUT IF ABSENT decides by this node's state.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from edgekv.crdt.company import Company
from edgekv.crdt.decimals import Number, text_of
from edgekv.crdt.maps import NO_FIELD, delete_operations, increment_operations, put_operations
from edgekv.crdt.strings import StringState
from edgekv.engine.dice import repeated
from edgekv.engine.keyspaces import Keyspace
from edgekv.engine.reads import first_values
from edgekv.errors import EdgeKVError, TooLarge
from edgekv.limits import CONNECTION_OUTPUT_BYTES_MAX, KEY_BYTES_MAX, READ_RUN_BYTES_MAX
from edgekv.node import decimals
from edgekv.node.verbs import Verbs, attempt, stretches, sum_of, text

_NOT_AN_INTEGER: Final = "hash value is not an integer"
_NOT_A_FLOAT: Final = "hash value is not a float"


class _Held(NamedTuple):
    """A key whose map a verb works on. ``visible``: how many can be seen of it."""

    state: StringState
    company: Company
    visible: int


class Maps:
    """On one node."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs: Final = verbs
        self._collections: Final = verbs.engine.collections

    # -- reading

    def get(self, key: bytes, fields: Sequence[bytes]) -> list[bytes | None]:
        """The values of the first fields at least: fewer than asked for, and never none, when values are large."""
        keyspace = self._verbs.engine.keyspaces.of(key)
        if not self._visible(keyspace, key):
            return [None] * len(fields)
        self._verbs.rows_read += len(fields)
        return first_values(text(self._collections.field(keyspace, key, field).value(0)) for field in fields)

    def count(self, key: bytes) -> int:
        """How many fields there are."""
        return self._visible(self._verbs.engine.keyspaces.of(key), key)

    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Up to ``limit`` (field, value) from ``start`` on in the order of the fields; otherwise as `Sets.page`."""
        keyspace = self._verbs.engine.keyspaces.of(key)
        if not self._visible(keyspace, key):
            return [], None
        found, following = self._collections.fields_page(keyspace, key, start, limit, READ_RUN_BYTES_MAX)
        desert = following is not None and 2 * sum(len(part) for pair in found for part in pair) < READ_RUN_BYTES_MAX
        self._verbs.looked(key, len(found), limit, desert=desert)
        return found, following

    def random(self, key: bytes, count: int, dice: int, *, repeat: bool) -> list[tuple[bytes, bytes]]:
        """As `Sets.random`. TooLarge when the values together exceed CONNECTION_OUTPUT_BYTES_MAX."""
        keyspace = self._verbs.engine.keyspaces.of(key)
        there = self._visible(keyspace, key)
        if not there or count < 1:
            return []
        self._verbs.drew(key, there, count)
        names = self._collections.random_fields(keyspace, key, dice, min(count, there))
        found, size = dict[bytes, bytes](), 0
        drawn = repeated(names, there, count, dice) if repeat else names
        for name in drawn:
            if name not in found:
                found[name] = text(self._collections.field(keyspace, key, name).value(0)) or b""
            size += len(name) + len(found[name])
            if size > CONNECTION_OUTPUT_BYTES_MAX:
                raise TooLarge(f"the values would exceed {CONNECTION_OUTPUT_BYTES_MAX} bytes. Ask for fewer fields.")
        return [(name, found[name]) for name in drawn]

    def _visible(self, keyspace: Keyspace, key: bytes) -> int:
        company, now = self._verbs.counts(keyspace, key), self._verbs.now_ms()
        if company.fields and not self._collections.gone(keyspace, key, now):
            return company.fields
        self._verbs.check_no_string(self._verbs.engine.reads.state(keyspace, key), company, now, "hash")
        return 0

    # -- writing

    def put(self, key: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> int:
        """How many fields are new. One may be named twice: the last value counts."""
        verbs = self._verbs
        keyspace = verbs.writable(key)
        values = dict(pairs)
        verbs.check_names(values, "field")
        verbs.check_count(len(values))
        for value in values.values():
            verbs.check_value(value)
        if not values:
            return 0
        held = self._held(keyspace, key)
        observed = self._with_parts(keyspace, key, values) if held.visible else {}
        expiry_ms = 0 if held.visible else verbs.default_expiry(keyspace)
        operations = put_operations(held.state, held.company, key, values, observed, verbs.now_ms(), expiry_ms)
        verbs.change(keyspace, operations)
        return self._collections.counts(keyspace, key).fields - held.visible

    def put_run(
        self, keys: Sequence[bytes], fields: Sequence[bytes], values: Sequence[bytes]
    ) -> list[int | EdgeKVError]:
        """`put` of one field each: a change each, and what each returned or raised. If the call raises, nothing happened."""
        self._verbs.engine.admission.check_client()
        results: list[int | EdgeKVError] = []
        for key, first, end in stretches(keys):
            results += self._put_stretch(key, fields[first:end], values[first:end])
        return results

    def _put_stretch(self, key: bytes, fields: Sequence[bytes], values: Sequence[bytes]) -> list[int | EdgeKVError]:
        """The short way for a map that counts nothing, or a key where nothing is; else one by one, and perhaps the rest so."""
        verbs, results = self._verbs, list[int | EdgeKVError]()
        for i, (field, value) in enumerate(zip(fields, values, strict=True)):
            if i < 2 and self._in_runs(key, fields, values):
                keyspace = verbs.engine.keyspaces.of(key)
                new = verbs.is_new(keyspace, key)
                if new or (len(fields) - i > 1 and self._is_there(keyspace, key)):
                    rest = verbs.engine.runs.put_fields(keyspace, key, fields[i:], values[i:], new=new)
                    if rest is not None:
                        return [*results, *rest]
            results.append(attempt(partial(self.put, key, [(field, value)])))
        return results

    def _in_runs(self, key: bytes, fields: Sequence[bytes], values: Sequence[bytes]) -> bool:
        """Whether nothing of this can be refused."""
        size = sum(map(len, fields)) + sum(map(len, values)) + len(key) * len(fields)
        fits = self._verbs.in_runs(size) and max(map(len, fields)) <= KEY_BYTES_MAX
        return fits and max(map(len, values)) <= self._verbs.value_bytes_max

    def _is_there(self, keyspace: Keyspace, key: bytes) -> bool:
        """Whether putting is nothing but that: the map is there and stays."""
        there = self._collections.counts(keyspace, key).fields and not keyspace.policy.system
        return bool(there) and not self._collections.gone(keyspace, key, self._verbs.now_ms())

    def put_if_absent(self, key: bytes, field: bytes, value: bytes) -> bool:
        """Whether it was absent, and is there now."""
        verbs = self._verbs
        keyspace = verbs.writable(key)
        if self._visible(keyspace, key) and self._collections.field(keyspace, key, field).value(0) is not None:
            return False
        self.put(key, [(field, value)])
        return True

    def remove(self, key: bytes, fields: Sequence[bytes]) -> int:
        """How many there were. One may be named twice; a map without fields is gone."""
        verbs = self._verbs
        keyspace = verbs.deletable(key)
        verbs.check_count(len(fields))
        if not self._held(keyspace, key).visible:
            return 0
        there = {field: self._collections.field(keyspace, key, field) for field in dict.fromkeys(fields)}
        observed = {field: state for field, state in there.items() if state.value(0) is not None}
        if observed:
            state, company = verbs.engine.reads.state(keyspace, key), verbs.counts(keyspace, key)
            operations = delete_operations(state, company, key, observed, verbs.now_ms())
            verbs.change(keyspace, operations)
        return len(observed)

    def increment(self, key: bytes, field: bytes, delta: int) -> int:
        """Add to the number at the field (0 when absent) and return the sum that this node sees.

        NotANumber: ``hash value is not an integer``, ``increment or decrement would overflow``.
        """
        verbs = self._verbs
        keyspace = verbs.writable(key)
        verbs.check_names([field], "field")
        held = self._held(keyspace, key)
        before = self._collections.field(keyspace, key, field) if held.company.fields else NO_FIELD
        total = sum_of(before.value(0) if held.visible else None, delta, _NOT_AN_INTEGER)
        self._add(keyspace, key, field, held, before, delta)
        return total

    def increment_float(self, key: bytes, field: bytes, delta: bytes) -> bytes:
        """Add a decimal fraction to the number at the field (0 when absent) and return the sum that this node sees.

        NotANumber: ``value is not a valid float``, ``hash value is not a float``, ``value is NaN or Infinity``, ``increment would
        produce NaN or Infinity``.
        """
        verbs = self._verbs
        keyspace = verbs.writable(key)
        decimals.check_increment(delta)
        verbs.check_names([field], "field")
        held = self._held(keyspace, key)
        before = self._collections.field(keyspace, key, field) if held.company.fields else NO_FIELD
        value = before.value(0) if held.visible else None
        added, total = decimals.sum_of(value, delta, not_a_number=_NOT_A_FLOAT)
        shown = text_of(total)
        verbs.check_value(shown)
        self._add(keyspace, key, field, held, before, added)
        return shown

    def _add(
        self, keyspace: Keyspace, key: bytes, field: bytes, held: _Held, before: StringState, delta: Number
    ) -> None:
        """Add to the own part of a field."""
        verbs = self._verbs
        expiry_ms = 0 if held.visible else verbs.default_expiry(keyspace)
        operations = increment_operations(
            held.state,
            held.company,
            key,
            field,
            before,
            delta,
            verbs.engine.actor,
            keyspace.seq + 1,
            verbs.now_ms(),
            expiry_ms,
        )
        verbs.change(keyspace, operations)

    # -- what they are made of

    def _held(self, keyspace: Keyspace, key: bytes) -> _Held:
        """A key that a verb will write to: what its expiry hides can be named."""
        verbs, now = self._verbs, self._verbs.now_ms()
        company = verbs.counts(keyspace, key)
        if company.fields:
            expiry = self._collections.key_state(keyspace, key)
            if not expiry.gone(now):
                return _Held(expiry, company, company.fields)
        state = verbs.engine.reads.state(keyspace, key)
        verbs.check_no_string(state, company, now, "hash")
        return _Held(state, verbs.company(keyspace, key), 0)

    def _with_parts(self, keyspace: Keyspace, key: bytes, fields: Iterable[bytes]) -> dict[bytes, StringState]:
        states = ((field, self._collections.field(keyspace, key, field)) for field in fields)
        return {field: state for field, state in states if state.parts}
