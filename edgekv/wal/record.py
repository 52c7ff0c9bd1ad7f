"""The records of the log: msgpack arrays, concatenated to the payload of a frame. Pure.

`engine.commit` packs them, `engine.recovery`, `store.applier` and the senders unpack them. The first element is the kind; the LSN of a
record is the frame's `first_lsn` plus its index in the payload.

    CHANGES  [1, keyspace_id u32, actor 25 B, first_seq u64, base_hlc u64, chain u32, changes, body, op_ids | nil]
             `changes` consecutive changes of one actor in one keyspace. Change i has dot (actor, first_seq + i) and HLC base_hlc + i.
             `chain` is the actor's chain value before first_seq; the one after the run is checksum.chain_next(chain, base_hlc, body).
             `op_ids` stays in this node's log: [[index, session 16 B, n u64, reply], ...].
    BARRIER  [2, keyspace_id u32, spool_id 8 B, [[actor, seq, chain], ...], hlc, repair | nil, [[actor, seq], ...]]
             the rows of a spool (store.spool) join those of the keyspace here; vector, chain values and HLC are the spool's. Until the
             applier has committed it, no run of another actor in this keyspace follows, and own ones have higher HLCs
             `repair` = [union, [prefix, ...], source, wall_ms]: at this very vector the spool's rows of the keys that begin with any
             of the prefixes take the place of the own ones, or with `union` are added to them (store.repair)
    RAFT     [3, ...]   reserved
    RAFT_STATE [4, ...] reserved
    MARK     [5, mark_kind, ...]
             [5, 1, actor]       INCARNATION: this node's own actor from here on
             [5, 2]              CLEAN: the node stopped here with everything durable; nothing follows it in the process's life
             [5, 3, ms]          TTL: the clock by which keys expire had reached this
             [5, 4, state]       CHECKPOINT: the first record of each segment
                                 state = [[[keyspace_id, [[actor, seq, chain], ...], hlc, own_seq, [[actor, seq], ...]], ...], ttl_ms]
                                 per keyspace its vector with the chain values, its HLC, the node's own last sequence, and its floor
             [5, 5, [[keyspace_id, hlc], ...]]
                                 HLCS: the node had folded these in, from another node than those whose changes it has

    body     [0, keys, values]   columns: change i is one plain PUT of values[i] under keys[i], without expiry
             [1, [change, ...]]  each change a list of operations (crdt.operation)

A body is shipped to peers and logged by them byte for byte, so it holds nothing that is local to a node.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from edgekv.codec import pack, unpack, unpack_all
from edgekv.errors import FormatUnknown
from edgekv.ids import Actor

CHANGES: Final = 1
BARRIER: Final = 2
RAFT: Final = 3
RAFT_STATE: Final = 4
MARK: Final = 5

INCARNATION: Final = 1
CLEAN: Final = 2
TTL: Final = 3
CHECKPOINT: Final = 4
HLCS: Final = 5

SPOOL_ID_BYTES: Final = 8

COLUMNS: Final = 0
OPERATIONS: Final = 1

OperationId = tuple[int, bytes, int, bytes]
"""(index of the change in its run, session, n, reply)."""


class Changes(NamedTuple):
    """A run of consecutive changes; see the module docstring for each field."""

    keyspace: int
    actor: Actor
    first_seq: int
    base_hlc: int
    chain: int
    changes: int
    body: bytes
    operation_ids: list[Any] | None = None


class Repair(NamedTuple):
    """What an operator asked for: rows that differ although both sides have the same changes are mended."""

    union: bool
    prefixes: Sequence[bytes]
    source: str
    """The name of the node whose rows the spool holds."""
    wall_ms: int
    """When it was asked for."""


class Barrier(NamedTuple):
    """Where the rows of a spool join a keyspace's own."""

    keyspace: int
    spool_id: bytes
    vector: Sequence[tuple[Actor, int, int]]  # (actor, seq, chain value after seq), of the spool
    hlc: int
    repair: Repair | None = None
    unseen: Sequence[tuple[Actor, int]] = ()
    """(actor, seq): for cells this side counts as one that has seen nothing of the actor beyond seq."""
    dropped: Sequence[tuple[Actor, int, int]] = ()
    """(actor, first, last): values that came late, and are dropped by the keyspace's rule."""


class KeyspaceState(NamedTuple):
    """A keyspace at the start of a segment."""

    keyspace: int
    vector: Sequence[tuple[Actor, int, int]]  # (actor, seq, chain value after seq)
    hlc: int
    own_seq: int
    floor: Sequence[tuple[Actor, int]] = ()


class Checkpoint(NamedTuple):
    """What the log before a segment amounts to, so that a reader may start at the segment."""

    keyspaces: Sequence[KeyspaceState]
    ttl_ms: int


class Mark(NamedTuple):
    """An event of the node itself. `value` by kind: an Actor, None, an int, a Checkpoint, a list of pairs."""

    kind: int
    value: Any


class Columns(NamedTuple):
    """The body of a run of plain PUTs."""

    keys: list[bytes]
    values: list[bytes]


class Operations(NamedTuple):
    """The body of any other run: per change its operations, as `crdt.operation` defines them."""

    changes: list[list[list[Any]]]


Record = Changes | Barrier | Mark
Body = Columns | Operations

CLEAN_RECORD: Final = pack([MARK, CLEAN])


def pack_columns(keys: Sequence[bytes], values: Sequence[bytes]) -> bytes:
    """The body of a run of plain PUTs, one change each."""
    assert len(keys) == len(values)
    return pack((COLUMNS, keys, values))


def pack_operations(changes: Sequence[Sequence[Sequence[object]]]) -> bytes:
    """The body of a run of changes, each a sequence of operations."""
    return pack((OPERATIONS, changes))


def is_columns(body: bytes) -> bool:
    """Whether a body is a run of plain PUTs, by its second byte."""
    return body[1] == COLUMNS


def unpack_body(body: bytes) -> Body:
    """The two forms of a body; FormatUnknown for a third."""
    match unpack(body):
        case [0, list(keys), list(values)] if len(keys) == len(values):
            return Columns(keys, values)
        case [1, list(changes)]:
            return Operations(changes)
        case _:
            raise FormatUnknown(
                "a body of changes has a form that this release does not know. Start the release that wrote it."
            )


def pack_changes(
    keyspace: int,
    actor: Actor,
    first_seq: int,
    base_hlc: int,
    chain: int,
    changes: int,
    body: bytes,
    operation_ids: Sequence[OperationId] | None = None,
) -> bytes:
    """One CHANGES record."""
    return pack((CHANGES, keyspace, actor, first_seq, base_hlc, chain, changes, body, operation_ids))


def pack_barrier(barrier: Barrier) -> bytes:
    """One BARRIER record."""
    return pack((BARRIER, *barrier[: 6 + bool(barrier.dropped)]))


def pack_incarnation(actor: Actor) -> bytes:
    """The mark with which an incarnation begins."""
    return pack((MARK, INCARNATION, actor))


def pack_ttl(ttl_ms: int) -> bytes:
    """The mark that keeps TTL time from going backwards over a restart."""
    return pack((MARK, TTL, ttl_ms))


def pack_hlcs(hlcs: Sequence[tuple[int, int]]) -> bytes:
    """The mark that keeps stamps above what other nodes had seen, over a restart: (keyspace id, HLC)."""
    return pack((MARK, HLCS, hlcs))


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The mark that is the first record of a segment."""
    return pack((MARK, CHECKPOINT, checkpoint))


def unpack_records(payload: bytes) -> list[Record]:
    """All records of a payload, in order of their LSNs; FormatUnknown when one is of a kind or shape from a later release."""
    return [_record(fields) for fields in unpack_all(payload)]


def ends_clean(payload: bytes) -> bool:
    """Whether the last record is the CLEAN mark. A value may end in the mark's bytes by accident, so the records decide."""
    return payload.endswith(CLEAN_RECORD) and unpack_records(payload)[-1] == Mark(CLEAN, None)


def _record(fields: Any) -> Record:
    match fields:
        case [1, int(), bytes(actor), int(), int(), int(), int(), bytes(), None | list()]:
            return Changes(fields[1], Actor(actor), *fields[3:])
        case [2, int(), bytes(), list(vector), int(), repair, list(unseen), *dropped] if len(dropped) <= 1:
            entries = [(Actor(actor), seq, chain) for actor, seq, chain in vector]
            mended = None if repair is None else _repair(repair)
            before = [(Actor(actor), seq) for actor, seq in unseen]
            late = [(Actor(actor), first, last) for ranges in dropped for actor, first, last in ranges]
            return Barrier(fields[1], fields[2], entries, fields[4], mended, before, late)
        case [5, 1, bytes(actor)]:
            return Mark(INCARNATION, Actor(actor))
        case [5, 2]:
            return Mark(CLEAN, None)
        case [5, 3, int(ttl_ms)]:
            return Mark(TTL, ttl_ms)
        case [5, 5, list(hlcs)]:
            return Mark(HLCS, [(keyspace, hlc) for keyspace, hlc in hlcs])
        case [5, 4, [list(keyspaces), int(ttl_ms)]]:
            return Mark(CHECKPOINT, Checkpoint([_keyspace_state(state) for state in keyspaces], ttl_ms))
        case _:
            raise FormatUnknown(
                "the log holds a record of a kind that this release does not know. Start the release that wrote it."
            )


def _repair(fields: Any) -> Repair:
    match fields:
        case [bool(union), list(prefixes), str(source), int(wall_ms)]:
            return Repair(union, prefixes, source, wall_ms)
        case _:
            raise FormatUnknown(
                "a repair has a shape that this release does not know. Start the release that wrote it."
            )


def _keyspace_state(fields: Any) -> KeyspaceState:
    match fields:
        case [int(keyspace), list(vector), int(hlc), int(own_seq), list(floor)]:
            entries = [(Actor(actor), seq, chain) for actor, seq, chain in vector]
            return KeyspaceState(keyspace, entries, hlc, own_seq, [(Actor(actor), seq) for actor, seq in floor])
        case _:
            raise FormatUnknown("a checkpoint holds a keyspace in a shape that this release does not know.")
