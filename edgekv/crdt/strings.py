"""Strings as clients see them: a register, the counter parts beside it and the key's expiry, and how each verb writes them.

Redis' strings are numbers too, and INCR must not lose an increment that another node makes at the same time. So a key's value is
its register (0 when there is none) *plus* the counter parts, and each verb becomes operations on what this node observed:

    SET       the register; resets the observed parts; removes x. INCRs elsewhere that SET did not see survive it.
    DEL       a tombstone if there is a register; resets the observed parts; removes x
    INCR      the own part. A register with an expiry hands it to x in the same change: now the whole key expires.
    EXPIRE    the whole register again with the new expiry, and x when the key has parts or an x. PERSIST: the same with 0.

``x``, the key's expiry cell, hides at its time the parts and a register with a lower stamp. The first INCR after that clears what it
observed and removes x in the same change, or what was hidden would come back; SET and DEL do so anyhow.

Every function returns operations of ONE change, at most one per row, and leaves out those without an effect. All are pure: ``now`` is
TTL time in ms, and stamps and dots are given to the change by the engine. The merged value is always that of some serial order of
the calls (tests/unit/crdt/test_strings.py, exhaustively for two replicas).
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from edgekv.crdt import counter
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.operation import ADD, DELETE, EXPIRE, PUT, RESET, Operation, encode_integer
from edgekv.crdt.register import Cell, stamp, visible
from edgekv.ids import Actor

INTEGER_TEXT_BYTES_MAX: Final = 20
_PARTS_DIGEST_BYTES: Final = 8
NEVER: Final = 1 << 64  # later than any time


class StringState(NamedTuple):
    """All rows of a key that a string verb needs, merged."""

    register: Cell | None
    expiry: Cell | None
    parts: Mapping[Actor, Part]

    def value(self, now: int) -> int | bytes | None:
        """The value shown: an integer when parts count, else the register's bytes; None when there is no such key.

        A register that is not an integer (set at one node while another one counted) is shown as it is.
        """
        cell = self.visible_register(now)
        shown = None if cell is None else cell.value
        parts = {} if self.gone(now) else self.live_parts()
        if not parts:
            return shown
        base = 0 if shown is None else parse_integer(shown)
        return shown if base is None else base + counter.value(parts.values())

    def live(self, now: int) -> bool:
        """Whether the key exists."""
        return self.visible_register(now) is not None or (not self.gone(now) and bool(self.live_parts()))

    def gone(self, now: int) -> bool:
        """Whether the key's expiry has passed: it hides the parts, and a register with a lower stamp than its own."""
        return self.key_end <= now

    @property
    def key_end(self) -> int:
        """When the key's expiry cell takes effect; NEVER without one."""
        return NEVER if self.expiry is None or self.expiry.value is None else self.expiry.expiry_ms

    def visible_register(self, now: int) -> Cell | None:
        """The register, if a reader is shown it."""
        cell = self.register
        if cell is None or not visible(cell, now) or (self.gone(now) and self._is_below_expiry(cell)):
            return None
        return cell

    def _is_below_expiry(self, cell: Cell) -> bool:
        return self.expiry is not None and stamp(cell) < stamp(self.expiry)

    def live_parts(self) -> dict[Actor, Part]:
        """The parts that are not reset to nothing, hidden or not: what a reset must name."""
        return {actor: part for actor, part in self.parts.items() if not is_inert(part)}

    def expiry_ms(self) -> int:
        """When a key that is live now ends: when the last of its rows is hidden. 0: never."""
        end = self.key_end if self.live_parts() else 0
        cell = self.register
        if cell is not None and cell.value is not None:
            own_end = cell.expiry_ms or NEVER
            end = max(end, min(own_end, self.key_end) if self._is_below_expiry(cell) else own_end)
        return 0 if end == NEVER else end

    def version(self, now: int) -> tuple[int, Actor, int]:
        """What is another one whenever the value shown is: the stamp of the register, and a digest of the parts beside it.

        Either is nothing (0 and no actor; 0) where nothing of it is shown. A sum of sequence numbers instead of the digest would come
        again: after a reset, another node's part begins at any number.
        """
        cell = self.visible_register(now)
        hlc, actor = (0, Actor(b"")) if cell is None else (cell.hlc, cell.actor)
        parts = {} if self.gone(now) else self.live_parts()
        if not parts:
            return hlc, actor, 0
        rows = b"".join(
            b"%b%d,%d,%d;" % (owner, part.seq, part.base_seq, part.fresh) for owner, part in sorted(parts.items())
        )
        return hlc, actor, int.from_bytes(blake2b(rows, digest_size=_PARTS_DIGEST_BYTES).digest())


def put_operations(state: StringState, key: bytes, value: bytes, expiry_ms: int) -> list[Operation]:
    """SET: the value, with this expiry or none, instead of all that was observed. The time decides nothing here."""
    return [(PUT, key, value, expiry_ms), *_reset(state, key), *_remove_expiry(state, key)]


def delete_operations(state: StringState, key: bytes, now: int) -> list[Operation]:
    """DEL: nothing for a key that does not exist."""
    if not state.live(now):
        return []
    return [*_delete_register(state, key), *_reset(state, key), *_remove_expiry(state, key)]


def add_operations(
    state: StringState, key: bytes, delta: int, own_actor: Actor, next_seq: int, now: int
) -> list[Operation]:
    """INCR by ``delta`` in the own change ``next_seq``. Whether value and sum are 64-bit integers is the caller's check."""
    gone, cell = state.gone(now), state.visible_register(now)
    operations: list[Operation] = []
    if cell is None:  # hidden by its own expiry, perhaps: a clock that is set back must not add it to this sum
        operations += _delete_register(state, key)
    if gone:
        operations += _reset(state, key, besides=own_actor)
    if cell is not None and cell.expiry_ms and (gone or state.key_end == NEVER):
        operations.append((EXPIRE, key, cell.expiry_ms))
    elif gone:
        operations.append((EXPIRE, key, 0))
    before = None if gone else state.parts.get(own_actor)
    made_anew = before is None or is_inert(before)
    part = counter.increment(before, delta, next_seq)
    total, base_total = encode_integer(part.total), encode_integer(part.base_total)
    return [*operations, (ADD, key, total, part.base_seq, base_total, int(made_anew))]


def expire_operations(state: StringState, key: bytes, expiry_ms: int, now: int) -> list[Operation]:
    """EXPIRE at ``expiry_ms``, or PERSIST with 0: nothing for a key that does not exist. A time that has passed is a DEL."""
    cell = state.visible_register(now)
    operations: list[Operation] = [] if cell is None else [(PUT, key, cell.value, expiry_ms)]
    if not state.gone(now) and (state.live_parts() or (cell is not None and state.key_end != NEVER)):
        operations.append((EXPIRE, key, expiry_ms))
    return operations


def parse_integer(text: bytes) -> int | None:
    """A number as Redis reads it (64 bits, no plus sign, leading zeros or spaces), or None."""
    if not text or len(text) > INTEGER_TEXT_BYTES_MAX:
        return None
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[:1] == b"0" and text != b"0"):
        return None
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 63 else None


def _delete_register(state: StringState, key: bytes) -> list[Operation]:
    return [(DELETE, key)] if state.register is not None and state.register.value is not None else []


def _reset(state: StringState, key: bytes, besides: Actor | None = None) -> list[Operation]:
    observed = [
        (actor, part.seq, encode_integer(part.total)) for actor, part in state.live_parts().items() if actor != besides
    ]
    return [(RESET, key, observed)] if observed else []


def _remove_expiry(state: StringState, key: bytes) -> list[Operation]:
    return [] if state.key_end == NEVER else [(EXPIRE, key, 0)]
