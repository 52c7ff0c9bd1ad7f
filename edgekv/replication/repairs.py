"""What an operator had mended: rows that differ between nodes which have the same changes (`edgekv cluster repair`).

The node whose rows are to be mended is asked, with the name of a node that it is linked to. It asks that one for a spool of the
keyspace (SYNC_ASK), takes it in as it does any (row_intake.py), and has the applier put its rows in the place of the own ones, or add
them (store/repair.py). Rows are exchanged at one vector only: when a change came between, nothing is done, and the operator is told.

One at a time. A crash before the record of it is durable leaves nothing done; after it the next start carries it out.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from edgekv.engine.engine import Engine
from edgekv.engine.keyspaces import Keyspace
from edgekv.errors import Denied, InvalidRequest, Unavailable
from edgekv.replication.link import Link
from edgekv.replication.link_table import LinkTable
from edgekv.replication.messages import SyncAsk, SyncDone
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.repair import Repaired, in_order, repairs
from edgekv.wal.record import Repair

REPAIR_MS_MAX: Final = 3_600_000
"""A repair that has not come to its end by then is given up: a keyspace of 100 GB needs so long on a fast line."""
PREFIXES_MAX: Final = 1_024


class Asked(NamedTuple):
    """The repair under way."""

    keyspace: Keyspace
    repair: Repair
    link: Link
    until_ms: int


class Failure(NamedTuple):
    """Of the last repair that did nothing."""

    wall_ms: int
    """When it was asked for, which names it."""
    sentence: str


class Repairs:
    """Of one node."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: LmdbStore,
        links: LinkTable,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
    ) -> None:
        self._engine: Final = engine
        self._store: Final = store
        self._links: Final = links
        self._now_ms: Final = now_ms
        self._monotonic_ms: Final = monotonic_ms
        self._asked: Asked | None = None
        self._failure: Failure | None = None
        self._named_ms = 0
        self.told: Callable[[str], None] = lambda sentence: None
        """Set once by the shell: a sentence for the log."""

    def begin(self, keyspace_name: str, prefixes: list[bytes], source: str, *, union: bool) -> int:
        """Have the rows of these keys mended by those of the node ``source``; the time that names this repair in `status`.

        InvalidRequest: there is no such keyspace, or a prefix is too long. Denied: this node is in no state for it, or has no link
        with that node. Unavailable: another repair is under way.
        """
        keyspace = self._keyspace(keyspace_name)
        if not 1 <= len(prefixes) <= PREFIXES_MAX or any(in_order(keyspace.id, each) is None for each in prefixes):
            raise InvalidRequest(f"name 1 to {PREFIXES_MAX} beginnings of keys, none longer than 400 bytes.")
        admission = self._engine.admission
        if admission.read_only is not None or admission.disk_full:
            raise Denied(f"nothing can be mended here: {admission.read_only or 'the disk is full'}")
        if self._asked is not None:
            raise Unavailable("another repair is under way here. See `edgekv cluster status`.")
        link = next((each for each in self._links if each.peer is not None and each.peer.name == source), None)
        if link is None or link.phase != "data":
            raise Denied(f"this node has no link with {source!r}. See `edgekv cluster status` for those it has.")
        assert link.peer is not None
        if keyspace.id not in link.peer.vectors:
            raise InvalidRequest(f"{source!r} does not hold keyspace {keyspace_name!r}.")
        self._named_ms = max(self._now_ms(), self._named_ms + 1)
        asked = Repair(union, prefixes, source, self._named_ms)
        self._asked = Asked(keyspace, asked, link, self._monotonic_ms() + REPAIR_MS_MAX)
        self._links.send(link, SyncAsk(keyspace.id))
        return asked.wall_ms

    def asked_of(self, link: Link, keyspace: int) -> Repair | None:
        """What is to be done with rows that come there, if they come for a repair."""
        asked = self._asked
        return asked.repair if asked is not None and asked.link is link and asked.keyspace.id == keyspace else None

    def waits_for(self, repair: Repair) -> bool:
        """Whether this is the one under way: it was not given up meanwhile."""
        return self._asked is not None and self._asked.repair is repair

    def done(self) -> None:
        """It is stored."""
        if self._asked is not None:
            self._asked = None
            self._tell(sentence_of(repairs(self._store)[-1], self._name))

    def failed(self, sentence: str) -> None:
        """Nothing was done."""
        asked, self._asked = self._asked, None
        if asked is not None:
            self._failure = Failure(asked.repair.wall_ms, sentence)
            self._tell(f"keyspace {asked.keyspace.name!r} was not repaired from {asked.repair.source}: {sentence}")

    def look(self) -> None:
        """About ten times a second: whether it can still come to its end."""
        asked = self._asked
        if asked is None or self._engine.flips.keyspace is asked.keyspace:
            return
        if not asked.link.is_up:
            self.failed("the link with it ended")
        elif self._monotonic_ms() > asked.until_ms:
            self.failed("its rows did not come in time")
            vector = {actor: (head.seq, head.chain) for actor, head in asked.keyspace.vector.items()}
            self._links.send(
                asked.link, SyncDone(asked.keyspace.id, vector)
            )  # else it goes on looking for a moment to offer them

    def status(self) -> dict[str, object]:
        """The one under way, what kept the last one from being done, and what was done, the newest last."""
        asked = self._asked
        return {
            "under_way": None if asked is None else {"keyspace": asked.keyspace.name, **asked.repair._asdict()},
            "failure": None if self._failure is None else self._failure._asdict(),
            "done": [
                {**each._asdict(), "spool_id": each.spool_id.hex(), "keyspace": self._name(each.keyspace)}
                for each in repairs(self._store)
            ],
        }

    def _tell(self, sentence: str) -> None:
        self._links.say(sentence)
        self.told(sentence)

    def _name(self, number: int) -> str:
        return next((k.name for k in self._engine.keyspaces.all if k.id == number), str(number))

    def _keyspace(self, name: str) -> Keyspace:
        for keyspace in self._engine.keyspaces.all:
            if keyspace.name == name and not keyspace.absent:
                return keyspace
        raise InvalidRequest(f"there is no keyspace named {name!r} here. See /v1/admin/keyspaces.")


def sentence_of(done: Repaired, name_of: Callable[[int], str]) -> str:
    """For the log and the list of events."""
    how = "united with" if done.union else "repaired from"
    damaged = f" ({done.damaged} could not be read)" if done.damaged else ""
    return (
        f"keyspace {name_of(done.keyspace)!r} was {how} {done.source}, {len(done.prefixes)} ranges: "
        f"{done.replaced} rows replaced, {done.added} added, {done.dropped} dropped{damaged}"
    )
