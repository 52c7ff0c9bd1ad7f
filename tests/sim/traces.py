"""Short traces of a few nodes, step by step, each the shortest that is known to show one mistake in the rules of replication.

They come from the executable model of those rules, which named them after the mistakes. Here production nodes act them out: their
changes, logs, merging, SEENs, STABLEs and purges, with nothing between them but what a step says.

    put del putttl sexp add rem inc rst mput mclr   N       a client's call at node N, on key a (mclr: DEL, then HSET in one change)
    pull N M                                                N takes in what M's log has; meta first
    rows N M                                                N takes over the rows of M
    seen N, hear N M                                        N says what it has; N hears what M has heard
    stable N                                                the hub N announces what may be forgotten
    meta N M                                                N learns what M knows of meta
    sweep N                                                 N's applier works
    backup N, restore N, admit N M                          N is set back to what it was; the hub M makes its new actor a member
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

from edgekv.ids import KeyspaceId, Vector
from edgekv.replication.members import Member
from edgekv.replication.messages import Seen
from edgekv.replication.seen import SeenTable
from edgekv.replication.stability import compute_stable, settled_heads
from edgekv.store.applied import Stable, sync_path
from edgekv.store.spool import SpoolWriter, spool_file
from edgekv.wal.reader import LogReader
from edgekv.wal.record import Changes, unpack_records
from tests.sim.hurry import hurried
from tests.sim.sim_node import SimNode, fast_directory
from tests.sim.witness import Violation, Witness, garbage

START_MS: Final = 1_700_000_000_000
STEP_MS: Final = 1_000
KEY: Final = b"a"
DATA: Final = KeyspaceId(0)
_EVERYTHING_EXPIRED_MS: Final = 1_000_000
_ROUNDS: Final = 6
_CLEAR_ENTRIES: Final = 200

TRACES: Final = {
    "seen_out_of_band": (
        "put 2; put 1; del 1; pull 0 1; pull 2 0; seen 2; seen 1; hear 0 1; hear 0 2; stable 0; pull 0 2"
    ),
    "stable_out_of_band": (
        "put 2; put 1; del 1; pull 0 1; pull 0 2; pull 2 0; seen 1; seen 2; hear 0 1; hear 0 2; stable 0; meta 1 0; pull 1 2"
    ),
    "expiry_removes_silently": (
        "seen 2; put 2; putttl 1 0; pull 0 1; seen 1; hear 0 1; hear 0 2; stable 0; sweep 0; pull 0 2"
    ),
    "counter_restarts_at_zero": (
        "inc 1; pull 0 1; rst 0; pull 1 0; pull 2 0; seen 1; seen 2; hear 0 1; hear 0 2; stable 0; meta 1 0; inc 1; pull 2 1"
    ),
    "map_clear_by_vector": "mput 1; mput 2; mput 2; pull 0 2; mclr 0; pull 0 1",
    "clear_hides_equal_stamp": "mput 0; mclr 0; pull 1 0",
    "system_clear_own_stamp": (
        "mput 1; sexp 1 1; pull 0 1; pull 2 0; seen 1; seen 2; hear 0 1; hear 0 2; mput 1; stable 0; pull 0 1"
    ),
    "system_clear_unseen": (
        "mput 1; sexp 1 0; pull 0 1; seen 2; seen 1; hear 0 1; hear 0 2; mput 2; stable 0; pull 0 2"
    ),
    "keys_expire_silently": (
        "add 1; sexp 1 0; pull 0 1; pull 2 0; seen 1; seen 2; hear 0 1; hear 0 2; stable 0; add 0"
    ),
    "restored_leaves_cut_at_once": (
        "backup 1; put 1; put 0; del 0; pull 2 0; seen 2; pull 2 1; restore 1; admit 1 0; pull 1 0; seen 1; hear 0 1; hear 0 2; "
        "stable 0; meta 2 0; pull 0 2"
    ),
    "sync_keeps_elements": "add 1; pull 0 1; rem 0; rows 1 0",
    "sync_brings_back_elements": "add 0; pull 1 0; rem 1; rows 1 0",
    "sync_omits_map_clears": "mput 2; mput 1; pull 0 1; rst 0; rows 1 0; pull 1 2",
    "skip_by_node_id": "backup 1; put 1; pull 2 1; restore 1; admit 1 0; meta 2 0; pull 1 2",
}
"""By the mistake that each shows: one hub, node 0, and two edges."""

NOT_HERE: Final = {
    "stale_leader": "one node leads, and writes meta itself",
    "parked_leaves_cut_at_once, closed_may_ship, counter_purges_parked": "nobody is parked",
    "late_*, admission_does_not_fold, reissue_under_new_incarnation": "nobody writes before it is a member",
    "no_barrier, log_floor_per_actor": "a step decides what is sent, not a log that was cut: the clusters have those",
    "visible_fragments": "rows are taken over at one moment",
    "sync_compares_stamps_only": "it takes late writes",
    "sync_sends_unswept": "so small a set is swept in the transaction that stores its clear",
}
"""Traces of the model that this release has no place for, and why."""


class Actors:
    """The nodes of one trace."""

    def __init__(self, directory: Path, nodes: int = 3) -> None:
        self.now_ms = START_MS
        self.nodes: Final = [
            SimNode(directory / str(i), Random(f"trace {i}"), lambda: self.now_ms, name=f"node-{i}")
            for i in range(nodes)
        ]
        self.witness: Final = Witness([DATA])
        for node in self.nodes:
            self.witness.watch_intake(node)
        self._seen: Final = [SeenTable() for _ in self.nodes]
        self._members: Final = {node.actor: _member(node, 1) for node in self.nodes}
        self._stables: Final[dict[int, Stable]] = {}
        """By the revision of meta that announced it."""
        self._revision = 1
        self._knows: Final = [1] * nodes
        """By node, its revision of meta."""
        self._values = self._spools = 0
        self._calls: Final[dict[str, Callable[[SimNode, int], object]]] = {
            "put": lambda node, _: node.operations.set(KEY, self._value()),
            "putttl": lambda node, z: node.operations.set(KEY, self._value(), expiry_ms=self._end(z)),
            "sexp": lambda node, z: node.operations.set_expiry(KEY, self._end(z)),
            "del": lambda node, _: node.operations.delete([KEY]),
            "rst": lambda node, _: node.operations.delete([KEY]),
            "add": lambda node, _: node.operations.sets.add(KEY, [b"x"]),
            "rem": lambda node, _: node.operations.sets.remove(KEY, [b"x"]),
            "inc": lambda node, _: node.operations.increment(KEY, 1),
            "mput": lambda node, _: node.operations.maps.put(KEY, [(b"x", self._value())]),
            "mclr": lambda node, _: self._clear_map(node),
        }

    def play(self, steps: str) -> None:
        """All steps, then everybody gets everything, all expires, and what may be forgotten is. Raises Violation."""
        for step in steps.split("; "):
            verb, *arguments = step.split()
            first, *rest = map(int, arguments)
            self.now_ms += STEP_MS
            node = self.nodes[first]
            if verb in self._calls:
                self._calls[verb](node, rest[0] if rest else 0)
                self.witness.made(node)
            else:
                getattr(self, "_say" if verb == "seen" else f"_{verb}")(first, *rest)
            self._look(first)
        self._finish()

    def close(self) -> None:
        for node in self.nodes:
            node.stop()

    # -- steps

    def _value(self) -> bytes:
        self._values += 1
        return b"v%d" % self._values

    def _end(self, z: int) -> int:
        return self.now_ms + (1 + z) * STEP_MS

    @staticmethod
    def _clear_map(node: SimNode) -> None:
        with node.operations.transaction():
            node.operations.delete([KEY])
            node.operations.maps.put(KEY, [(b"x", b"new")])

    def _pull(self, number: int, source: int) -> None:
        node, other = self.nodes[number], self.nodes[source]
        other.settle()
        self._knows[number] = self._knows[source] = max(self._knows[number], self._knows[source])
        self._hear(number, source)
        reader = LogReader(other.disk)
        for _, _, payload in reader.read(other.first_lsn(), other.engine.commit.durable_lsn):
            for record in unpack_records(payload):
                if isinstance(record, Changes) and record.actor != node.actor:
                    node.engine.receive(record)
        reader.close()
        self._sweep(number)

    def _rows(self, number: int, source: int) -> None:
        node, other = self.nodes[number], self.nodes[source]
        self._sweep(source)
        node.settle()
        self._spools += 1
        spool = b"spool%3d" % self._spools
        writer = SpoolWriter(other.store, DATA, spool_file(sync_path(node.config.data_dir), spool))
        while writer.step():
            pass
        done: list[bool] = []
        head = writer.summary.head
        node.engine.flip(DATA, spool, head.vector, head.hlc, lambda: done.append(True))
        while not done:
            node.tick()
            node.settle()
            node.apply()

    def _seen_of(self, number: int) -> Seen:
        node = self.nodes[number]
        return Seen(
            node.actor,
            node.engine.commit.durable_lsn,
            node.engine.checkpoints.ttl_durable_ms,
            self._knows[number],
            self._vectors(node),
        )

    @staticmethod
    def _vectors(node: SimNode) -> dict[int, Vector]:
        return {DATA: node.durable(DATA)}

    def _say(self, number: int) -> None:
        self._sweep(number)
        self._seen[number].hear(self._seen_of(number))

    def _hear(self, number: int, source: int) -> None:
        for spoken in self._seen[source].spoken.values():
            self._seen[number].hear(spoken.whole())

    def _meta(self, number: int, source: int) -> None:
        self._knows[number] = max(self._knows[number], self._knows[source])
        self._sweep(number)

    def _stable(self, number: int) -> None:
        self._say(number)
        node = self.nodes[number]
        own = self._vectors(node)
        self._seen[number].prove(own)
        for actor, heads in settled_heads(self._members.values(), self._seen[number], own).items():
            self._members[actor] = replace(self._members[actor], state="settled", heads=heads)
        members = self._members.values()
        stable = compute_stable(members, self._seen[number], own, lambda member, keyspace: True)
        if stable is None or stable.cuts is None:
            return
        self._new_revision(number)
        self._stables[self._revision] = stable
        self._sweep(number)
        cut = stable.cuts[DATA].cut
        node.engine.expired_keys.clear({DATA: cut}, stable.wall_ms, _CLEAR_ENTRIES)
        self.witness.made(node, system=True)
        node.settle()

    def _new_revision(self, number: int) -> None:
        self._revision += 1
        self._knows[number] = self._revision

    def _backup(self, number: int) -> None:
        self.nodes[number].settle()
        self.nodes[number].back_up()

    def _restore(self, number: int) -> None:
        node = self.nodes[number]
        self.witness.set_back(node, self.nodes)
        node.restore()
        node.open()
        self.witness.watch_intake(node)
        self.witness.restarted(node)
        self._seen[number] = SeenTable()

    def _admit(self, number: int, hub: int) -> None:
        node = self.nodes[number]
        self._new_revision(hub)
        for actor, member in self._members.items():
            if member.node == node.node.identity.node:
                self._members[actor] = replace(member, state="closed", revision=self._revision)
        self._members[node.actor] = _member(node, self._revision)
        self._knows[number] = self._revision

    def _sweep(self, number: int) -> None:
        """Everything is durable and in LMDB, and what its newest STABLE allows is forgotten."""
        node, known = self.nodes[number], self._knows[number]
        newest = max((revision for revision in self._stables if revision <= known), default=0)
        node.engine.checkpoints.stable = self._stables.get(newest)
        for _ in range(2):  # the second freeze uses the TTL time that the first one logged
            node.settle()
            node.tick()
            node.settle()
            while node.apply():
                node.settle()
            self.now_ms += STEP_MS // 2

    def _look(self, number: int) -> None:
        self.nodes[number].engine.memtable.drop_cache()  # which may know better than LMDB
        self.witness.check(self.nodes[number], [KEY])

    def _finish(self) -> None:
        numbers = range(len(self.nodes))
        for round_number in range(_ROUNDS):
            for number in numbers:
                for source in numbers:
                    if number != source:
                        self._pull(number, source)
                        self._look(number)
            self.witness.agree(self.nodes, [KEY], everything_expired=False)
            self.witness.check_system_clears()
            if round_number == 0:
                self.now_ms += _EVERYTHING_EXPIRED_MS
            for number in numbers:
                self._say(number)
                self._hear(0, number)
            self._stable(0)
        for number in numbers:
            self._meta(number, 0)
        if left := {node.name: found for node in self.nodes if (found := garbage(node))}:
            raise Violation(f"garbage: {left}")


def _member(node: SimNode, revision: int) -> Member:
    return Member(
        actor=node.actor,
        node=node.node.identity.node,
        name=node.name,
        site="site-1",
        role="hub",
        state="open",
        revision=revision,
        heads={},
        hlcs={},
        ttl_ms=0,
        parked=False,
    )


def broken_by(steps: str) -> str:
    """What a trace breaks; empty: nothing."""
    directory = fast_directory("edgekv-trace-")
    actors = None
    try:
        with hurried(wanted=True):
            actors = Actors(directory)
            actors.play(steps)
    except Violation as violation:
        return str(violation)
    finally:
        if actors is not None:
            actors.close()
        shutil.rmtree(directory)
    return ""
