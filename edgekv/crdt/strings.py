"""Strings as clients see them: a register, the counter parts beside it and the key's expiry, and how each verb writes them.

Redis' strings are numbers too, and INCR must not lose an increment that another node makes at the same time. So a key's value is
its register (0 when there is none) *plus* the counter parts, and each verb becomes operations on what this node observed. Register and
parts may be decimal fractions (crdt.decimals); what INCR refuses of those is its caller's affair.

    SET       the register; resets the observed parts; removes x. INCRs elsewhere that SET did not see survive it.
    DEL       a tombstone if there is a register; resets the observed parts; removes x
    INCR      the own part; INCRBYFLOAT too. A register with an expiry hands it to x in the same change: now the whole key expires.
    EXPIRE    the whole register again with the new expiry, and x when the key has parts or an x. PERSIST: the same with 0.

``x``, the key's expiry cell, hides at its time the parts, the set and the map at the key (its `Company`) and a register with a lower
stamp. The first write after that clears what it observed and removes x in the same change, or what was hidden would come back; SET and
DEL do so anyhow, whatever the types.

In a keyspace that keeps concurrent values, siblings (crdt.siblings) stand in the register's place. The one with the highest stamp is
shown; SET and DEL remove all that they hold or, with the context of a read, those that were read (`put_after`, `delete_after`). EXPIRE
and INCR are for at most one value and none: whoever calls them sees to it.

Every function returns operations of ONE change, at most one per row, and leaves out those without an effect. All are pure: ``now`` is
TTL time in ms, and stamps and dots are given to the change by the engine. The merged value is always that of some serial order of
the calls (tests/unit/crdt/test_strings.py, exhaustively for two replicas), as long as INCR would take the registers: one that was set
to 1.5 elsewhere meanwhile is counted with, though INCR at that node would have been refused.
"""

from collections.abc import Container, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from edgekv.crdt import counter, decimals
from edgekv.crdt.checks import EncodedNumber
from edgekv.crdt.company import ALONE, Company, clear_operations, observed_parts, without
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.decimals import Number, whole
from edgekv.crdt.elements import Dot
from edgekv.crdt.operation import (
    ADD,
    DELETE,
    DELETE_SIBLINGS,
    EXPIRE,
    PUT,
    PUT_SIBLING,
    RESET,
    Operation,
    encode_number,
)
from edgekv.crdt.register import Cell, stamp, visible
from edgekv.crdt.siblings import Sibling, Siblings
from edgekv.ids import Actor

INTEGER_TEXT_BYTES_MAX: Final = 20
_PARTS_DIGEST_BYTES: Final = 8
NEVER: Final = 1 << 64  # later than any time


class StringState(NamedTuple):
    """All rows of a key that a string verb needs, merged."""

    register: Cell | None
    expiry: Cell | None
    parts: Mapping[Actor, Part]
    siblings: Siblings | None = None
    """In a keyspace that keeps concurrent values: those there are, instead of ``register``. None: elsewhere."""

    def value(self, now: int) -> Number | bytes | None:
        """The value shown: a number when parts count, else the register's bytes; None when there is no such key.

        A register that is no number (set at one node while another one counted) is shown as it is.
        """
        cell = self.visible_register(now)
        shown = None if cell is None else cell.value
        return self._counted(shown, {} if self.gone(now) else self.live_parts())

    def values(self, now: int) -> list[Number | bytes]:
        """All values shown, the one that `value` shows first: several only where concurrent ones are kept."""
        if self.siblings is None:
            value = self.value(now)
            return [] if value is None else [value]
        parts = {} if self.gone(now) else self.live_parts()
        cells = sorted((sibling.cell for sibling in self.visible_siblings(now)), key=stamp, reverse=True)
        shown = [self._counted(cell.value, parts) for cell in cells] or [self._counted(None, parts)]
        return [value for value in shown if value is not None]

    @staticmethod
    def _counted(shown: bytes | None, parts: Mapping[Actor, Part]) -> Number | bytes | None:
        """A value with what was counted beside it."""
        if not parts:
            return shown
        base = 0 if shown is None else decimals.parse(shown)
        if base is None:
            return shown
        total = base + counter.value(parts.values())
        return total if type(total) is int else whole(total)

    def live(self, now: int, company: Company = ALONE) -> bool:
        """Whether there is a string, or anything at the key with this company."""
        return self.visible_register(now) is not None or (
            not self.gone(now) and (bool(company) or bool(self.live_parts()))
        )

    def gone(self, now: int) -> bool:
        """Whether the key's expiry has passed: it hides the parts, and a register with a lower stamp than its own."""
        return self.key_end <= now

    @property
    def key_end(self) -> int:
        """When the key's expiry cell takes effect; NEVER without one."""
        return NEVER if self.expiry is None or self.expiry.value is None else self.expiry.expiry_ms

    def visible_register(self, now: int) -> Cell | None:
        """The register, if a reader is shown it; of siblings the one with the highest stamp."""
        if self.siblings is not None:
            return max((sibling.cell for sibling in self.visible_siblings(now)), key=stamp, default=None)
        cell = self.register
        if cell is None or not visible(cell, now) or (self.gone(now) and self._is_below_expiry(cell)):
            return None
        return cell

    def visible_siblings(self, now: int) -> list[Sibling]:
        """The siblings that a reader is shown, in the order of their dots."""
        gone = self.gone(now)
        return [
            sibling
            for sibling in (self.siblings.values if self.siblings is not None else ())
            if visible(sibling.cell, now) and not (gone and self._is_below_expiry(sibling.cell))
        ]

    def _is_below_expiry(self, cell: Cell) -> bool:
        return self.expiry is not None and stamp(cell) < stamp(self.expiry)

    def live_parts(self) -> dict[Actor, Part]:
        """The parts that are not reset to nothing, hidden or not: what a reset must name."""
        return {actor: part for actor, part in self.parts.items() if not is_inert(part)}

    def expiry_ms(self, company: Company = ALONE) -> int:
        """When a key that is live now ends: when the last of its rows is hidden. 0: never."""
        end = self.key_end if company or self.live_parts() else 0
        for cell in self._held():
            own_end = cell.expiry_ms or NEVER
            end = max(end, min(own_end, self.key_end) if self._is_below_expiry(cell) else own_end)
        return 0 if end == NEVER else end

    def _held(self) -> list[Cell]:
        """The register or the siblings, hidden or not."""
        if self.siblings is not None:
            return [sibling.cell for sibling in self.siblings.values]
        return [self.register] if self.register is not None and self.register.value is not None else []

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


def put_operations(
    state: StringState, key: bytes, value: bytes, expiry_ms: int, company: Company = ALONE
) -> list[Operation]:
    """SET: the value, with this expiry or none, instead of all that was observed. The time decides nothing here."""
    put = put_register(state, key, value, expiry_ms)
    return [put, *clear_besides_register(state, key, company), *renew_expiry(state, key)]


def put_register(state: StringState, key: bytes, value: bytes, expiry_ms: int) -> Operation:
    """The value in place of the register, or of all siblings that are held, hidden or not."""
    if state.siblings is None:
        return (PUT, key, value, expiry_ms)
    return (PUT_SIBLING, key, value, expiry_ms, list(state.siblings.dots))


def put_after(
    state: StringState,
    key: bytes,
    value: bytes,
    expiry_ms: int,
    context: Container[Dot],
    now: int,
    company: Company = ALONE,
) -> list[Operation]:
    """SET by a writer who had read the siblings with the dots of ``context``: the others stay, but for those that have expired."""
    removed = _seen(state, context, now)
    put = (PUT_SIBLING, key, value, expiry_ms, removed)
    return [put, *clear_besides_register(state, key, company), *renew_expiry(state, key)]


def delete_after(
    state: StringState, key: bytes, context: Container[Dot], now: int, company: Company = ALONE
) -> list[Operation]:
    """DEL of the siblings with the dots of ``context``. What else is at the key stays unless x hides it; x goes with it."""
    removed = _seen(state, context, now)
    if not removed:
        return []
    assert state.siblings is not None
    left = state._replace(siblings=Siblings(tuple(s for s in state.siblings.values if s.dot not in set(removed))))
    operations: list[Operation] = [(DELETE_SIBLINGS, key, removed)]
    if state.gone(now):
        operations += clear_besides_register(state, key, company)
    if state.gone(now) or not left.live(now, company):
        operations += renew_expiry(state, key)
    return operations


def _seen(state: StringState, context: Container[Dot], now: int) -> list[Dot]:
    """The dots that are held, and were read or are not shown any more. What is not held was removed before, or has not come yet."""
    assert state.siblings is not None
    shown = {sibling.dot for sibling in state.visible_siblings(now)}
    return [dot for dot in state.siblings.dots if dot in context or dot not in shown]


def delete_operations(state: StringState, key: bytes, now: int, company: Company = ALONE) -> list[Operation]:
    """DEL: nothing for a key that does not exist."""
    return clear_key_operations(state, key, company) if state.live(now, company) else []


def clear_key_operations(state: StringState, key: bytes, company: Company, new_expiry_ms: int = 0) -> list[Operation]:
    """Everything observed at the key, hidden or not, of every type; x goes, or is that of a key made anew in the same change.

    Elements and fields put in the same change stay. DEL and SINTERSTORE do this; SET all but the register, which it overwrites.
    """
    return [
        *delete_register(state, key),
        *clear_besides_register(state, key, company),
        *renew_expiry(state, key, new_expiry_ms),
    ]


def add_operations(
    state: StringState,
    key: bytes,
    delta: Number,
    own_actor: Actor,
    next_seq: int,
    now: int,
    company: Company = ALONE,
) -> list[Operation]:
    """INCR by ``delta`` in the own change ``next_seq``. Whether value and sum are in range, or integers, is the caller's check."""
    gone, cell = state.gone(now), state.visible_register(now)
    operations: list[Operation] = []
    if cell is None:  # hidden by its own expiry, perhaps: a clock that is set back must not add it to this sum
        operations += delete_register(state, key)
    if gone:
        operations += clear_besides_register(state._replace(parts=without(state.parts, own_actor)), key, company)
    if cell is not None and cell.expiry_ms and (gone or state.key_end == NEVER):
        operations.append((EXPIRE, key, cell.expiry_ms))
    elif gone or not state.live(now, company):
        operations += renew_expiry(state, key)
    return [*operations, (ADD, key, *increment_own({} if gone else state.parts, own_actor, delta, next_seq))]


def increment_own(
    parts: Mapping[Actor, Part], own_actor: Actor, delta: Number, next_seq: int
) -> tuple[EncodedNumber, int, EncodedNumber, int]:
    """Total, base_seq, base_total and fresh of the own part after adding ``delta``: what ADD and ADD_FIELD carry."""
    before = parts.get(own_actor)
    made_anew = before is None or is_inert(before)
    part = counter.increment(before, delta, next_seq)
    return encode_number(part.total), part.base_seq, encode_number(part.base_total), int(made_anew)


def expire_operations(
    state: StringState, key: bytes, expiry_ms: int, now: int, company: Company = ALONE
) -> list[Operation]:
    """EXPIRE at ``expiry_ms``, or PERSIST with 0: nothing for a key that does not exist. A time that has passed is a DEL."""
    cell = state.visible_register(now)
    operations: list[Operation] = []
    if cell is not None and cell.value is not None:
        operations.append(put_register(state, key, cell.value, expiry_ms))
    if not state.gone(now) and (company or state.live_parts() or (cell is not None and state.key_end != NEVER)):
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


def clear_besides_register(state: StringState, key: bytes, company: Company) -> list[Operation]:
    """The parts, the set and the map, hidden or not."""
    observed = observed_parts(state.parts)
    resets = [(RESET, key, observed)] if observed else []
    return [*resets, *clear_operations(company, key)]


def delete_register(state: StringState, key: bytes) -> list[Operation]:
    """A tombstone in place of a value, hidden or not; of siblings nothing is left."""
    if state.siblings is not None:
        return [(DELETE_SIBLINGS, key, list(state.siblings.dots))] if state.siblings.values else []
    return [(DELETE, key)] if state.register is not None and state.register.value is not None else []


def renew_expiry(state: StringState, key: bytes, expiry_ms: int = 0) -> list[Operation]:
    """This expiry of the key instead of the one that was observed; 0: none."""
    return [(EXPIRE, key, expiry_ms)] if expiry_ms or state.key_end != NEVER else []
