"""What peers sent, on its way through the engine's one door.

A run of another actor enters whole, as its maker logged it: checked, its rows merged into the overlay of the frame being filled, its
record into the log as it is. The vector moves when that frame is durable; readers who see its rows before that wait for the frame, as
they do for a client's (engine/commit.py).

What is checked, since nothing about a peer is known: the run is the next of its actor and continues its chain (a hole, or another
history under the same dots, is never skipped); its operations are ones that every applier can carry out and that the keyspace's
conflict rule knows; its keys lie in the keyspace, or did when its maker had not heard of another one (engine/misplaced.py); its stamps
are ones that may be folded in.
"""

from collections.abc import Callable
from typing import Final

from edgekv.checksum import chain_next
from edgekv.crdt.operation import (
    DELETE,
    DELETE_SIBLINGS,
    PUT,
    PUT_SIBLING,
    validate_change,
)
from edgekv.engine.commit import Commit
from edgekv.engine.conflicts import Conflict, Conflicts
from edgekv.engine.frame import Frame, ReceivedRun
from edgekv.engine.keyspaces import Head, Keyspace, Keyspaces
from edgekv.engine.merging import RegisterReader, RunMerger
from edgekv.engine.misplaced import placed
from edgekv.errors import ClockTooFarAhead, EdgeKVError, Forked, PeerFault
from edgekv.ids import ACTOR_BYTES, Actor, KeyspaceId, actor_text, node_of
from edgekv.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX
from edgekv.wal.record import Changes, Columns, Operations, pack_changes, unpack_body

_NO_HEAD: Final = Head(0, 0)
_OF_LWW: Final = frozenset((PUT, DELETE))
_OF_SIBLINGS: Final = frozenset((PUT_SIBLING, DELETE_SIBLINGS))


class Intake:
    """Of one node."""

    def __init__(
        self,
        *,
        actor: Actor,
        commit: Commit,
        keyspaces: Keyspaces,
        read_register: RegisterReader,
        run_bytes_max: int,
        hlc_max: Callable[[Keyspace], int],
        conflicts: Conflicts,
    ) -> None:
        """``hlc_max``: the highest stamp that may be folded in now; a node that does not judge clocks says HLC_FOLD_MAX."""
        self._actor: Final = actor
        self._commit: Final = commit
        self._keyspaces: Final = keyspaces
        self._read_register: Final = read_register
        self._run_bytes_max: Final = run_bytes_max
        self._hlc_max: Final = hlc_max
        self._conflicts: Final = conflicts

    def receive(self, run: Changes) -> bool:
        """Take a run in; False when the node has it already. If it raises, nothing happened.

        PeerFault: it cannot be taken, and the peer that sent it must not be listened to any more. Forked: two histories of one actor
        have met. ClockTooFarAhead: its stamps are not folded in. Overloaded: the keyspace is held (`Engine.flips`), try again.
        """
        keyspace = self._keyspaces.by_id.get(KeyspaceId(run.keyspace))
        if keyspace is None:
            raise PeerFault(f"it sent changes of keyspace {run.keyspace}, which this node does not know.")
        keyspace.check_held()
        possible = run.first_seq > 0 and run.changes > 0 and run.base_hlc > 0 and 0 <= run.chain < 1 << 32
        if len(run.actor) != ACTOR_BYTES or not possible:
            raise PeerFault("it sent a run of changes with impossible numbers.")
        last_seq = run.first_seq + run.changes - 1
        head = self.head(keyspace, run.actor)
        if last_seq <= head.seq:
            self._check_same(keyspace, run, last_seq)
            return False
        self._check_continues(keyspace, run, head)
        hlc = run.base_hlc + run.changes - 1
        if hlc > self._hlc_max(keyspace):
            what = f"changes of {actor_text(run.actor)} in keyspace {keyspace.name!r}"
            raise ClockTooFarAhead.of(what, hlc, self._hlc_max(keyspace))
        if len(run.body) > self._run_bytes_max:
            raise PeerFault(
                f"a run has {len(run.body)} bytes, and this node's log takes {self._run_bytes_max}. "
                "Give it segments as large as its peers' (wal.segment_bytes)."
            )
        body = placed(self._keyspaces, keyspace, _checked(keyspace, self._keyspaces, run))
        self._commit.make_room(len(run.body))
        self._merge(keyspace, run, body)
        new_head = Head(last_seq, chain_next(run.chain, run.base_hlc, run.body))
        record = pack_changes(*run[:7])
        keyspace.hlc = max(keyspace.hlc, hlc)
        keyspace.observed[run.actor] = new_head
        self._commit.received(ReceivedRun(keyspace, run.actor, new_head, hlc, record), run.changes, len(run.body))
        return True

    def head(self, keyspace: Keyspace, actor: Actor) -> Head:
        """How far an actor's history reaches here, durable or not. The own chain is that of what was handed to the log."""
        if actor == self._actor:
            return Head(keyspace.seq, keyspace.chain)
        return keyspace.observed.get(actor) or keyspace.vector.get(actor, _NO_HEAD)

    def _check_continues(self, keyspace: Keyspace, run: Changes, head: Head) -> None:
        who = f"{actor_text(run.actor)} in keyspace {keyspace.name!r}"
        if run.actor == self._actor:
            sentence = f"it has changes of this node that this node does not know: {who}, up to {run.first_seq}."
            raise Forked.of(node_of(run.actor), sentence)
        if run.first_seq > head.seq + 1:
            raise PeerFault(f"it left out changes: {who} goes on at {run.first_seq}, here it ends at {head.seq}.")
        if run.first_seq <= head.seq or run.chain != head.chain:
            sentence = f"it has another history of {who} from {run.first_seq} on, where this node has {head.seq}."
            raise Forked.of(node_of(run.actor), sentence)

    def _check_same(self, keyspace: Keyspace, run: Changes, last_seq: int) -> None:
        """Of a run that ends where the history here does it can be told whether it is of the same one."""
        head = keyspace.observed.get(run.actor) or keyspace.vector.get(run.actor)
        if head is not None and head.seq == last_seq and chain_next(run.chain, run.base_hlc, run.body) != head.chain:
            sentence = (
                f"it has another history of {actor_text(run.actor)} in keyspace {keyspace.name!r} up to {last_seq}."
            )
            raise Forked.of(node_of(run.actor), sentence)

    def _merge(self, keyspace: Keyspace, run: Changes, body: Columns | Operations) -> None:
        """All rows of the run or none: they are made in a frame above, and moved down."""
        commit, mixed, barrier = self._commit, keyspace.mixed, self._commit.barrier
        above = Frame(0)
        above.shown = True  # no reply waits for it
        lost: list[Conflict] = []
        commit.overlays.insert(0, above)
        try:
            merger = RunMerger(
                *(above.layer, self._actor, self._read_register, commit.read_row, commit.read_collection), lost
            )
            merger.merge(keyspace, run, body, seen(keyspace, self._actor))
        except BaseException:
            keyspace.mixed = mixed
            raise
        finally:
            commit.overlays.remove(above)
            commit.barrier = barrier
        commit.filling.layer.merge_from(above.layer)
        for conflict in lost:
            self._conflicts.add(conflict)


def seen(keyspace: Keyspace, own_actor: Actor) -> dict[Actor, Head]:
    """All that was applied here, durable or not."""
    return {**keyspace.vector, **keyspace.observed, own_actor: Head(keyspace.seq, keyspace.chain)}


def _checked(keyspace: Keyspace, keyspaces: Keyspaces, run: Changes) -> Columns | Operations:
    """The body of a run, of which an applier can carry out everything."""
    try:
        body = unpack_body(run.body)
        if isinstance(body, Columns):
            _check_columns(keyspace, keyspaces, body)
            count = len(body.keys)
        else:
            for operations in body.changes:
                _check_change(keyspace, keyspaces, run.actor, operations)
            count = len(body.changes)
    except EdgeKVError as error:
        raise PeerFault(f"it sent changes that cannot be carried out: {error}") from error
    except (ValueError, TypeError) as error:
        raise PeerFault("it sent a run of changes that cannot be read.") from error
    if count != run.changes:
        raise PeerFault(f"it sent a run of {run.changes} changes that holds {count}.")
    return body


def _check_columns(keyspace: Keyspace, keyspaces: Keyspaces, body: Columns) -> None:
    keys, values = body
    if set(map(type, keys)) != {bytes} or set(map(type, values)) != {bytes}:
        raise PeerFault("keys and values are byte strings.")
    lengths = list(map(len, keys))
    if not min(lengths) or max(lengths) > KEY_BYTES_MAX or max(map(len, values)) > VALUE_BYTES_MAX:
        raise PeerFault("a key or a value is too large, or a key is empty.")
    if not keyspaces.may_hold(keyspace, keys):
        raise PeerFault(f"a key does not lie in keyspace {keyspace.name!r}.")
    if keyspace.siblings:
        raise PeerFault(f"keyspace {keyspace.name!r} keeps siblings, and a plain value came.")


def _check_change(keyspace: Keyspace, keyspaces: Keyspaces, actor: Actor, operations: object) -> None:
    if not isinstance(operations, list):
        raise PeerFault("a change is a list of operations.")
    validate_change(operations, actor)
    foreign = _OF_LWW if keyspace.siblings else _OF_SIBLINGS
    for operation in operations:
        if operation[0] in foreign:
            raise PeerFault(f"operation {operation[0]} does not go with the conflict rule of {keyspace.name!r}.")
        if not keyspaces.may_hold(keyspace, operation[1:2]):
            raise PeerFault(f"the key {operation[1]!r} does not lie in keyspace {keyspace.name!r}.")
