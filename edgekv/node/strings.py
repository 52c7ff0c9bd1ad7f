"""The verbs on strings. A number and a string at one key are one value: the register plus the counter parts.

SET replaces whatever the key holds; the other verbs work on the string of the key, and raise WrongType when it holds other types only.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final, Literal, NamedTuple

from edgekv.crdt.company import ALONE, Company
from edgekv.crdt.decimals import Number, text_of
from edgekv.crdt.operation import EXPIRE, Operation
from edgekv.crdt.strings import (
    NEVER,
    StringState,
    add_operations,
    clear_besides_register,
    put_operations,
    put_register,
)
from edgekv.engine.keyspaces import Keyspace
from edgekv.engine.reads import first_values
from edgekv.engine.runs import RUN_CHANGES_MAX
from edgekv.errors import ConcurrentValues, EdgeKVError, TooLarge
from edgekv.ids import Actor
from edgekv.node import decimals
from edgekv.node.verbs import Verbs, attempt, check_one_value, sum_of, text

_BLANK: Final = StringState(None, None, {})


class Version(NamedTuple):
    """Which writes a value comes from: the stamp of its register, and a digest of its counter parts; 0 where there is none."""

    hlc: int
    actor: Actor
    parts: int = 0


class Entry(NamedTuple):
    """A key that holds a string. ``expiry_ms`` is the string's, absolute, 0 for none."""

    key: bytes
    value: bytes
    version: Version
    expiry_ms: int


class Strings(Verbs):
    """On one node."""

    # -- runs of one verb (the hot path)

    def get_run(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of checked keys, in order: all, or those of the first keys (at least one) up to READ_RUN_BYTES_MAX."""
        keyspace = self.engine.keyspaces.of_run(keys)
        if keyspace is None or keyspace.mixed:
            return first_values(self.get(key) for key in keys)
        return self.engine.reads.values(keyspace, keys)

    def set_run(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """SET each key, one change per key. Keys and values are checked by the caller."""
        self.engine.admission.check_client()
        keyspace = self.engine.keyspaces.of_run(keys)
        if keyspace is None or keyspace.mixed or keyspace.ttl_ms or keyspace.policy.system:
            for key, value in zip(keys, values, strict=True):
                self.set(key, value)
        else:
            self.commit.put_plain(keyspace, keys, values)

    def increment_run(self, keys: Sequence[bytes], deltas: Sequence[int]) -> list[int | EdgeKVError]:
        """`increment` of each: a change each, and what each returned or raised. If the call raises, nothing happened."""
        self.engine.admission.check_client()
        keyspace = self.engine.keyspaces.of_run(keys)
        plain = keyspace is not None and not (keyspace.ttl_ms or keyspace.siblings or keyspace.policy.system)
        results: list[int | EdgeKVError] = []
        while len(results) < len(keys):
            done = len(results)
            if plain and keyspace is not None and self.in_runs(sum(map(len, keys[done : done + RUN_CHANGES_MAX]))):
                end = done + RUN_CHANGES_MAX
                results += self.engine.runs.increment(keyspace, keys[done:end], deltas[done:end])
                done = len(results)
            if done < len(keys):
                results.append(attempt(partial(self.increment, keys[done], deltas[done])))
        return results

    # -- reading

    def get(self, key: bytes) -> bytes | None:
        """The value as bytes (a number in decimal), or None."""
        keyspace = self.engine.keyspaces.of(key)
        if not keyspace.mixed:
            return self.engine.reads.value(keyspace, key)
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        value = state.value(now)
        if value is None:
            self.check_nothing_else(keyspace, key, state, now)
        return text(value)

    def get_entry(self, key: bytes) -> Entry | None:
        """The value with its version and expiry, or None."""
        self.check_key(key)
        keyspace = self.engine.keyspaces.of(key)
        state = self.engine.reads.state(keyspace, key)
        found = self.entry(key, state)
        if found is None:
            self.check_nothing_else(keyspace, key, state, self.now_ms())
        return found

    def entry(self, key: bytes, state: StringState) -> Entry | None:
        """The string of a key, if there is one."""
        now = self.now_ms()
        value = text(state.value(now))
        if value is None:
            return None
        return Entry(key, value, Version(*state.version(now)), state.expiry_ms())

    # -- writing

    def set(
        self,
        key: bytes,
        value: bytes,
        *,
        expiry_ms: int = 0,
        keep_expiry: bool = False,
        only_if: Literal["", "exists"] = "",
    ) -> bool:
        """SET. Clears the expiry unless one is given or kept. False: ``only_if`` did not hold and nothing happened."""
        keyspace = self.writable(key)
        self.check_value(value)
        expiry_ms = expiry_ms or self.default_expiry(keyspace)
        if not (keyspace.mixed or expiry_ms or keep_expiry or only_if):
            self.commit.put_plain(keyspace, [key], [value])
            return True
        state = self.engine.reads.state(keyspace, key) if keyspace.mixed or keep_expiry or only_if else _BLANK
        company, now = self.company(keyspace, key), self.now_ms()
        if only_if and not state.live(now, company):
            return False
        if keep_expiry and state.live(now, company):
            expiry_ms = state.expiry_ms(company)
        self.change(keyspace, put_operations(state, key, value, expiry_ms, company))
        return True

    def increment(self, key: bytes, delta: int) -> int:
        """Add to the number at the key (0 when absent) and return the sum that this node sees.

        NotANumber when the value is not a 64-bit integer or the sum would leave 64 bits. ConcurrentValues where the key holds a value
        in a keyspace that keeps concurrent ones: a sum belongs to one value.
        """
        keyspace = self.writable(key)
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        value = state.value(now)
        company = self._string_company(keyspace, key, state, value, now)
        _check_no_sibling(state, now)
        total = sum_of(value, delta)
        self._add(keyspace, key, state, company, delta, now, is_new=value is None)
        return total

    def increment_float(self, key: bytes, delta: bytes) -> bytes:
        """Add a decimal fraction to the number at the key (0 when absent) and return the sum that this node sees.

        NotANumber: ``value is not a valid float``, ``increment would produce NaN or Infinity``.
        """
        keyspace = self.writable(key)
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        value = state.value(now)
        company = self._string_company(keyspace, key, state, value, now)
        _check_no_sibling(state, now)
        added, total = decimals.sum_of(value, delta)
        shown = text_of(total)
        self.check_value(shown)
        self._add(keyspace, key, state, company, added, now, is_new=value is None)
        return shown

    def _add(
        self,
        keyspace: Keyspace,
        key: bytes,
        state: StringState,
        company: Company,
        delta: Number,
        now: int,
        *,
        is_new: bool,
    ) -> None:
        """Add to the own part. A number that is made by this gets the keyspace's default expiry."""
        operations = add_operations(state, key, delta, self.engine.actor, keyspace.seq + 1, now, company)
        expiry_ms = self.default_expiry(keyspace) if is_new else 0
        if expiry_ms:
            operations = [operation for operation in operations if operation[0] != EXPIRE]
            operations.append((EXPIRE, key, expiry_ms))
        self.change(keyspace, operations)

    def append(self, key: bytes, value: bytes) -> int:
        """APPEND: the length of the new value."""
        keyspace = self.writable(key)
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        old = state.value(now)
        company = self._string_company(keyspace, key, state, old, now)
        whole = (text(old) or b"") + value
        self._replace(keyspace, key, state, company, whole, now)
        return len(whole)

    def set_range(self, key: bytes, offset: int, value: bytes) -> int:
        """SETRANGE: overwrite from ``offset``, padding with zero bytes; the length of the new value."""
        keyspace = self.writable(key)
        state, now = self.engine.reads.state(keyspace, key), self.now_ms()
        before = state.value(now)
        company = self._string_company(keyspace, key, state, before, now)
        if offset + len(value) > self.value_bytes_max:
            raise TooLarge("string exceeds maximum allowed size (limits.value_bytes_max)")
        old = text(before) or b""
        if not value:
            return len(old)
        whole = old[:offset].ljust(offset, b"\x00") + value + old[offset + len(value) :]
        self._replace(keyspace, key, state, company, whole, now)
        return len(whole)

    def _string_company(
        self, keyspace: Keyspace, key: bytes, state: StringState, value: bytes | Number | None, now: int
    ) -> Company:
        """What is beside the string that a verb is about to change, as far as it must know. WrongType when there is only that."""
        if state.gone(now):
            return self.company(keyspace, key)  # to be cleared
        if value is None:
            self.check_nothing_else(keyspace, key, state, now)
            return ALONE
        return ALONE if state.key_end == NEVER else self.counts(keyspace, key)

    def _replace(
        self, keyspace: Keyspace, key: bytes, state: StringState, company: Company, value: bytes, now: int
    ) -> None:
        """Write a value computed from the old one; the expiry stays, and so do a set and a map at the key."""
        self.check_value(value)
        check_one_value(state, now)
        expiry_ms = state.expiry_ms() if state.live(now) else self.default_expiry(keyspace)
        if company and not state.gone(now):
            put = put_register(state, key, value, expiry_ms)
            operations: list[Operation] = [put, *clear_besides_register(state, key, ALONE)]
        else:
            operations = put_operations(state, key, value, expiry_ms, company)
        self.change(keyspace, operations)


def _check_no_sibling(state: StringState, now: int) -> None:
    if state.visible_siblings(now):
        raise ConcurrentValues(
            "the key holds a value in a keyspace that keeps concurrent ones, and counting works on keys that hold none. "
            "Use another key for the number, or delete the value first."
        )
