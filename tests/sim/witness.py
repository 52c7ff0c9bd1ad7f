"""What watches a simulated cluster from outside: it knows every change and every promise, and what each step may show.

After each step that it is asked about, of the node that moved:
- readers are shown exactly what the changes say that the node has seen (`oracle.History.truth`);
- a run that was taken in is, byte for byte, what its maker made; no change of its actor was left out before it; everything its maker
  had seen is there (causality), whatever the way it came by;
- what the node calls durable never becomes less, over a crash either, and holds every change that was acknowledged to a client and
  every one that another node has got;
- a reply to a reader leaves when all that it showed is durable here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from edgekv.crdt.counter import Part
from edgekv.crdt.elements import Clear, Element
from edgekv.crdt.operation import EXPIRE, PUT, Row
from edgekv.crdt.register import Cell
from edgekv.crdt.siblings import Siblings
from edgekv.engine.frame import Run
from edgekv.engine.keyspaces import Head, Keyspace, successor
from edgekv.ids import Actor, KeyspaceId
from edgekv.node.digest import Digest
from edgekv.replication.acks import Acks, Peer
from edgekv.replication.members import Members
from edgekv.replication.replication import Replication
from edgekv.store import layout
from edgekv.wal.record import Changes
from tests.sim.held import Held
from tests.sim.late import may_show
from tests.sim.oracle import NOTHING, Change, History, Shown, changes_of, changes_of_run, replayed, shown
from tests.sim.sim_node import SimNode

_PAGE_KEYS: Final = 7
Vector = dict[Actor, int]
Dot = tuple[KeyspaceId, Actor, int]


class Violation(Exception):
    """The cluster broke a promise."""


class Promise(NamedTuple):
    """What the reply to one call rests on, by keyspace: the own changes it made, and what could be read at that time."""

    made: dict[KeyspaceId, int]
    seen: dict[KeyspaceId, Vector]
    keys: Sequence[bytes]
    ttl_ms: int


class Witness:
    """Of one cluster. ``keys``: what is looked at."""

    def __init__(self, keyspaces: Iterable[KeyspaceId]) -> None:
        self.histories: Final = {keyspace: History() for keyspace in keyspaces}
        self.acknowledged: Final[dict[tuple[KeyspaceId, Actor], int]] = {}
        self.checks = 0
        """How many keys were looked at."""
        self._held: Final = Held()
        self._seen_by_maker: Final[dict[Dot, Vector]] = {}
        self._durable: Final[dict[tuple[str, KeyspaceId], Vector]] = {}
        self._checked: Final[dict[str, dict[KeyspaceId, dict[Actor, Head]]]] = {}
        """By node, the vectors that `check_durable` was last asked about."""
        self._judged: Final[dict[tuple[KeyspaceId, Actor, int], bytes]] = {}
        """The bodies of runs that were found to be what their maker made, by their first seqs."""
        self._got: Final[dict[tuple[KeyspaceId, Actor], int]] = {}
        """How far anybody else has an actor's changes."""
        self._touched: Final[dict[str, dict[bytes, None]]] = {}
        self._ever_set_back: Final[set[str]] = set()
        self._set_back: Final[set[tuple[str, str]]] = set()
        """(node, other): the other one was set back, and the node has not met what it is since."""
        self._lost: Final[set[Actor]] = set()
        """Actors whose disk is gone. A node may come to know of one afterwards."""
        self._left: Final[dict[tuple[KeyspaceId, Actor], int]] = {}
        """By actors whose disk is gone, how far others had them durably: no more must be left of them."""
        self._system: Final[dict[Dot, Change]] = {}
        self.left: Final[set[tuple[KeyspaceId, Actor]]] = set()
        """Who may have deleted its copy of a keyspace, now or earlier: the leader has all that it had."""
        self._left_at: Final[dict[tuple[KeyspaceId, Actor], int]] = {}
        """The revision of meta that said so, the last time."""
        self._gone: tuple[frozenset[tuple[KeyspaceId, Actor]], Actor | None] = frozenset(), None
        """Of those, who may now, by which incarnation of the leader."""
        self.revision_at: Callable[[str], int] = lambda name: 1 << 60
        """Set by the cluster: the revision of meta that a node knows."""
        self._late_from: Final[dict[Actor, dict[int, int]]] = {}
        """By actor that was settled and came back, or may, and keyspace: what it made later than that is late."""
        self._forgotten: Final[dict[int, Vector]] = {}
        """By keyspace what may have been forgotten: the cuts that were ever announced."""
        self._announced = 0
        self._returned: Final[set[tuple[Actor, int]]] = set()

    def created(self, keyspace: KeyspaceId) -> None:
        """A keyspace came into being while the cluster ran."""
        self.histories.setdefault(keyspace, History())

    def history_of(self, node: SimNode, number: KeyspaceId) -> History:
        """By which the node is judged."""
        return self.histories[number]

    # -- what is made

    def made(self, node: SimNode, *, system: bool = False) -> None:
        """The node may have made changes; those that are new are written down. ``system``: no client asked for them."""
        for frame in reversed(node.engine.commit.overlays):
            for run in frame.runs:
                if isinstance(run, Run) and run.keyspace.id in self.histories:
                    self._take(node, run, system=system)

    def _take(self, node: SimNode, run: Run, *, system: bool) -> None:
        history = self.history_of(node, run.keyspace.id)
        known = len(history.made_by(node.actor))
        if run.first_seq + run.count - 1 <= known:
            return
        before = _seen(run.keyspace, node.actor)
        before.pop(node.actor, None)
        for change in changes_of_run(run, node.actor):
            if change.seq > known:
                history.add(change)
                self._touch(node, change)
                if system:
                    self._system[run.keyspace.id, node.actor, change.seq] = change
                self._remember(node, run.keyspace.id, change, before)

    def _remember(self, node: SimNode, number: KeyspaceId, change: Change, seen: Vector) -> None:
        """What the maker of a change had seen."""
        self._seen_by_maker[number, node.actor, change.seq] = seen

    # -- what is taken in

    def watch_intake(self, node: SimNode) -> None:
        """Every run that the node takes in is judged from now on, and every acknowledgement, until it is started again."""
        intake = node.engine.intake
        receive: Callable[[Changes], bool] = intake.receive

        def judged(run: Changes) -> bool:
            if node.keyspace(run.keyspace).absent:
                raise Violation(f"residency: {node.name} takes in changes of a keyspace that is not at its site")
            taken = receive(run)
            if taken and run.keyspace in self.histories:
                self._judge(node, run)
            return taken

        intake.receive = judged  # type: ignore[method-assign] # a spy
        acks = node.node.acks
        met, heard = acks.met, acks.heard

        def judged_met(peer: Peer, vectors: Mapping[KeyspaceId, Mapping[Actor, int]]) -> None:
            met(peer, vectors)
            if peer.actor not in self._lost:
                self._set_back.discard((node.name, peer.name))
            for number in self.histories:
                self.check_acks(node, number)

        def judged_heard(peer: Peer, keyspace: KeyspaceId, vector: Mapping[Actor, int]) -> None:
            heard(peer, keyspace, vector)
            if keyspace in self.histories:
                self.check_acks(node, keyspace)

        acks.met, acks.heard = judged_met, judged_heard  # type: ignore[method-assign] # spies

    def watch_links(self, node: SimNode, replication: Replication) -> None:
        """The same of what comes on the node's links."""

    def _judge(self, node: SimNode, run: Changes) -> None:
        keyspace = KeyspaceId(run.keyspace)
        made = self.histories[keyspace].made.get(run.actor, [])
        last = run.first_seq + run.changes - 1
        if last > len(made):
            raise Violation(f"{node.name} got changes up to {last} that their maker does not remember")
        seen = _seen(node.keyspace(keyspace), node.actor)
        originals = made[run.first_seq - 1 : last]
        if self._judged.get((keyspace, run.actor, run.first_seq)) != run.body:
            for change, original in zip(changes_of(run), originals, strict=True):
                if _plain(change.operations) != _plain(original.operations):
                    raise Violation(f"{node.name} got another change {change.seq} than its maker made")
            self._judged[keyspace, run.actor, run.first_seq] = run.body
        for i, change in enumerate(originals):
            if change.hlc != run.base_hlc + i:
                raise Violation(f"{node.name} got another change {change.seq} than its maker made")
            self._touch(node, change)
            lacking = _lacking(seen, self._seen_by_maker[keyspace, run.actor, change.seq])
            if lacking:
                raise Violation(f"causality: {node.name} got a change whose maker had seen {lacking} changes more")
        self._got[keyspace, run.actor] = max(self._got.get((keyspace, run.actor), 0), last)

    def _touch(self, node: SimNode, change: Change) -> None:
        touched = self._touched.setdefault(node.name, {})
        for operation in change.operations:
            touched[operation[1]] = None
            self._held.touch(node, operation[1])

    def touched(self, node: SimNode) -> list[bytes]:
        """The keys that changes have touched at the node since it was asked last."""
        return list(self._touched.pop(node.name, ()))

    def see_members(self, members: Members, nodes: Iterable[SimNode]) -> int:
        """What the leader has written; how many members have brought something late since."""
        for member in members.members.values():
            if member.state in ("settled", "returning"):
                known = self._late_from.setdefault(member.actor, {})
                for number in self.histories:
                    known[number] = min(member.heads.get(number, 0), known.get(number, 1 << 60))
        if members.announced is not None and members.announced.number != self._announced:
            self._announced = members.announced.number
            self._check_wall(members, members.announced.stable.wall_ms, nodes)
            for keyspace, cut in (members.announced.stable.cuts or {}).items():
                vector = self._forgotten.setdefault(keyspace, {})
                vector.update({actor: max(seq, vector.get(actor, 0)) for actor, seq in cut.cut.items()})
        late = {(m.actor, last) for m in members.members.values() for _, last, _ in m.late.values()}
        news = len(late - self._returned)
        self._returned.update(late)
        return news

    def see_left(self, members: Members, *, leads: bool) -> None:
        """Look who may delete its copy of a keyspace. ``leads``: the node that these members are from writes it down."""
        gone = frozenset((entry.policy.id, actor) for entry in members.keyspaces.values() for actor in entry.left)
        self.left.update(gone)
        if leads and (gone, members.writer) != self._gone:
            if members.writer != self._gone[1]:
                self._left_at.clear()  # the revisions of another line are used again
            self._left_at.update(dict.fromkeys(gone - self._gone[0], members.next_revision - 1))
            self._gone = gone, members.writer

    def _check_wall(self, members: Members, wall_ms: int, nodes: Iterable[SimNode]) -> None:
        """Keys end for all when they have ended for every member: a clock that is ahead ends none for the others."""
        for node in nodes:
            if node.up and members.is_open(node.actor) and node.engine.ttl_now_ms() < wall_ms:
                raise Violation(f"keys end by a time that {node.name} has not come to yet")

    def _is_late(self, number: KeyspaceId, actor: Actor, seq: int) -> bool:
        return seq > self._late_from.get(actor, {}).get(number, 1 << 60)

    def _may_show(self, number: KeyspaceId, key: bytes, vector: Vector, now_ms: int) -> list[Shown]:
        """What else readers may be shown: of late values those that were older than what had been forgotten (tests/sim/late.py)."""
        forgotten = self._forgotten.get(number, {})
        covered = [c for c in self.histories[number].of_key(key) if c.seq <= vector.get(c.actor, 0)]
        return may_show(
            key,
            covered,
            now_ms,
            is_late=lambda actor, seq: self._is_late(number, actor, seq),
            is_forgotten=lambda actor, seq: seq <= forgotten.get(actor, 0),
        )

    def is_idle(self, node: SimNode) -> bool:
        """As `Held.is_idle`."""
        return self._held.is_idle(node)

    # -- what is promised

    def seqs(self, node: SimNode) -> dict[KeyspaceId, int]:
        """How many changes the node has made."""
        return {number: node.keyspace(number).seq for number in self.histories}

    def promise(self, node: SimNode, keys: Sequence[bytes], before: dict[KeyspaceId, int]) -> Promise:
        """Taken when a call returns, ``before`` it began; its reply is held by the node's barrier."""
        keyspaces = [node.keyspace(number) for number in self.histories]
        return Promise(
            {keyspace.id: keyspace.seq for keyspace in keyspaces if keyspace.seq != before.get(keyspace.id, 0)},
            {keyspace.id: _seen(keyspace, node.actor) for keyspace in keyspaces} if keys else {},
            keys,
            node.engine.ttl_now_ms(),
        )

    def replied(self, node: SimNode, promise: Promise) -> None:
        """The reply left."""
        for number in self.histories:
            history = self.history_of(node, number)
            if not node.keyspace(number).fsync or (number, node.actor) in self.left:
                continue
            durable, made = node.durable(number), promise.made.get(number, 0)
            self.acknowledge(node, number, made)
            seen = promise.seen.get(number, {})
            both = {actor: min(seq, durable.get(actor, 0)) for actor, seq in seen.items()}
            if both == seen:
                continue
            for key in promise.keys:
                if node.engine.keyspaces.owner(key).id != number:
                    continue
                was_shown = history.truth(key, seen, promise.ttl_ms)
                if was_shown != history.truth(key, both, promise.ttl_ms):
                    raise Violation(f"{node.name} replied with what is not durable here of {key!r}:\n  {was_shown}")

    def acknowledge(self, node: SimNode, number: KeyspaceId, made: int) -> None:
        """A client was told that the node's changes are durable up to this one."""
        self.acknowledged[number, node.actor] = max(self.acknowledged.get((number, node.actor), 0), made)

    # -- what must be so

    def check(self, node: SimNode, keys: Iterable[bytes], *, anew: bool = False) -> None:
        """Readers of these keys are shown what they must be. ``anew``: of those, too, of which nothing has moved."""
        self.check_durable(node)
        engine = node.engine
        now_ms = engine.ttl_now_ms()
        seen: dict[KeyspaceId, Vector] = {}
        for key in keys:
            keyspace = engine.keyspaces.owner(key)
            if keyspace.absent:
                continue
            if keyspace.id not in seen:
                seen[keyspace.id] = _seen(keyspace, node.actor)
            must = self._truth(node, key, self.history_of(node, keyspace.id), seen[keyspace.id], now_ms)
            if anew or not self._held.is_same(node, keyspace, key, must):
                self._check_key(node, key, must, keyspace.id, seen[keyspace.id], now_ms)

    def _truth(self, node: SimNode, key: bytes, history: History, seen: Vector, now_ms: int) -> Shown:
        try:
            return history.truth(key, seen, now_ms)
        except AssertionError as contradiction:
            raise Violation(f"{node.name}: {key!r}: {contradiction}") from contradiction

    def _check_key(self, node: SimNode, key: bytes, must: Shown, number: KeyspaceId, seen: Vector, now_ms: int) -> None:
        self.checks += 1
        try:
            is_shown = shown(node.node, key)
        except AssertionError as contradiction:
            raise Violation(f"{node.name}: {key!r}: {contradiction}") from contradiction
        if is_shown != must and is_shown not in self._may_show(number, key, seen, now_ms):
            raise Violation(
                f"{node.name} shows of {key!r} what its changes do not say\n  it is shown {is_shown}\n  they say    {must}"
            )

    def _check_list(self, node: SimNode, keys: Iterable[bytes]) -> None:
        """A walk over all keys finds those that have something to show, in order, and no others."""
        listed: list[bytes] = []
        start: bytes | None = b""
        while start is not None:
            page, start = node.operations.keys_page(start, b"", _PAGE_KEYS)
            listed += page
        owner = node.engine.keyspaces.owner
        listed = [key for key in listed if not owner(key).policy.system]
        there = sorted(key for key in set(keys) if not owner(key).absent and shown(node.node, key) != NOTHING)
        if listed != there:
            differ = set(listed) ^ set(there) or "another order, or one twice"
            raise Violation(f"{node.name} lists other keys than it shows: {differ}")

    def _check_digests(self, nodes: Sequence[SimNode]) -> None:
        """Equal vectors mean equal contents, as `edgekv cluster verify` compares them: at the time of the node that is furthest."""
        ttl_ms = max(node.engine.ttl_now_ms() for node in nodes)
        for number in self.histories:
            digests = {}
            for node in nodes:
                # A leader that was set back may have forgotten one in which there is nothing.
                if _holds(node, number) and number in node.engine.keyspaces.by_id:
                    digest = Digest(node.operations, node.keyspace(number).name, ttl_ms, b"")
                    while digest.step():
                        pass
                    if digest.moved:
                        raise Violation(
                            f"{node.name} has a digest of no moment of keyspace {number} although nothing moves"
                        )
                    digests[node.name] = digest.figures()["digest"]
            if len(set(digests.values())) > 1:
                raise Violation(f"digests of keyspace {number} differ: {digests}")

    def check_durable(self, node: SimNode) -> None:
        """What is durable never becomes less, and not more than its maker has."""
        checked, keyspaces = self._checked.setdefault(node.name, {}), node.engine.keyspaces.by_id
        for number in self.histories:
            keyspace = keyspaces.get(number)
            vector = {} if keyspace is None else keyspace.vector
            if checked.get(number) == vector:
                continue
            checked[number] = vector.copy()
            durable = node.durable(number)
            before = self._durable.get((node.name, number), {})
            if (number, node.actor) in self.left and node.keyspace(number).absent:
                self._durable[node.name, number] = (
                    durable  # its copy goes, and another one begins with what is left of it
                )
                continue
            if lacking := _lacking(durable, before):
                raise Violation(f"{node.name} called {lacking} changes durable that it does not have any more")
            if lacking := _lacking(self.history_of(node, number).heads(), durable):
                raise Violation(f"{node.name} has {lacking} changes that nobody made")
            self._durable[node.name, number] = durable
            for actor, seq in durable.items():
                if actor != node.actor:
                    self._got[number, actor] = max(self._got.get((number, actor), 0), seq)

    def check_acks(self, node: SimNode, number: KeyspaceId) -> None:
        """What the node believes others to have durably of its changes, they have; or had, and it is not told that they left."""
        acks, made = node.node.acks, len(self.history_of(node, number).made_by(node.actor))
        for name, actor in {(peer.name, peer.actor) for peer in acks.covered_by({})}:
            has = self._durable.get((name, number), {}).get(node.actor, 0)
            if has >= made or (node.name, name) in self._set_back or not _has(acks, name, number, has + 1):
                continue
            if self.revision_at(node.name) >= self._left_at.get((number, actor), 0):
                raise Violation(f"{node.name} believes that {name} has more of its changes durably than {has}")

    def check_system_clears(self) -> None:
        """What the cluster itself cleared was hidden already: without that change readers are shown the same.

        Asked of keys to which nobody wrote who had seen the clear: what such a one writes rests on it; and which have no late values:
        those may be older than the clear, and it may have been forgotten when they came.
        """
        for (number, actor, seq), change in self._system.items():
            history = self.histories[number]
            for key in {operation[1] for operation in change.operations}:
                others = [other for other in history.of_key(key) if (other.actor, other.seq) != (actor, seq)]
                if any(self._is_late(number, other.actor, other.seq) for other in others):
                    continue
                if any(self._has_seen(number, other, actor, seq) for other in others):
                    continue
                ends = [o[2] for other in others for o in other.operations if (o[0], o[1]) == (EXPIRE, key)]
                # A value with an end of its own, which another end hid before, is gone by then, and not deleted once more.
                ends += [o[3] for other in others for o in other.operations if (o[0], o[1]) == (PUT, key)]
                end = max(ends)  # of what it has seen: whoever wrote another one later had seen this one pass
                if replayed(key, others).shown(end) != replayed(key, [*others, change]).shown(end):
                    raise Violation(f"a clear of {key!r} that nobody asked for removed what it had not seen")

    def _has_seen(self, number: KeyspaceId, change: Change, actor: Actor, seq: int) -> bool:
        if change.actor == actor:
            return change.seq > seq
        return self._seen_by_maker[number, change.actor, change.seq].get(actor, 0) >= seq

    def restarted(self, node: SimNode) -> None:
        """The node is back: all it forgets of its own are changes that nobody was told of."""
        for number, history in self.histories.items():
            if (number, node.actor) in self.left:
                continue
            seq = node.keyspace(number).seq
            acknowledged = self.acknowledged.get((number, node.actor), 0)
            if seq < acknowledged:
                raise Violation(f"{node.name} lost {acknowledged - seq} acknowledged changes in keyspace {number}")
            got = self._got.get((number, node.actor), 0)
            if seq < got:
                raise Violation(f"{node.name} lost {got - seq} changes in keyspace {number} that others have got")
            for change in history.forget_above(node.actor, seq):
                self._seen_by_maker.pop((number, node.actor, change.seq), None)
                self._system.pop((number, node.actor, change.seq), None)
        self._touched.pop(node.name, None)
        self._held.forget(node)
        # It may have forgotten that it has met the others since, and hear of what their lost disks had from those between.
        self._set_back.update((node.name, name) for name in self._ever_set_back)
        self.check_durable(node)

    def set_back(self, node: SimNode, nodes: Sequence[SimNode]) -> None:
        """The node is about to lose its disk, and goes on under another actor: of this one is left what others have."""
        self._ever_set_back.add(node.name)
        self._lost.add(node.actor)
        self._set_back.update((other.name, node.name) for other in nodes if other is not node)
        self._checked.pop(node.name, None)
        for number in self.histories:
            self._left[number, node.actor] = 1 << 60
            self._durable.pop((node.name, number), None)
        for gone in self.left:
            self._left.setdefault(gone, 1 << 60)  # its copy went since this node, perhaps alone, has what was in it
        for (number, actor), left in self._left.items():
            others = [
                self._durable.get((other.name, number), {})
                for other in nodes
                if other is not node and (number, other.actor) not in self.left
            ]
            self._left[number, actor] = min(left, max((vector.get(actor, 0) for vector in others), default=0))

    def agreed(self, nodes: Sequence[SimNode]) -> bool:
        """Whether everybody has durably all that there is, and knows the same keyspaces: else one hides keys that others show."""
        if len({frozenset(node.engine.keyspaces.by_id) for node in nodes}) > 1:
            return False
        return all(
            node.durable(number) == (self._all(number, nodes) if _holds(node, number) else {})
            and (_holds(node, number) or not _rows(node, number))
            for number in self.histories
            for node in nodes
        )

    def _all(self, number: KeyspaceId, nodes: Sequence[SimNode]) -> Vector:
        """All changes; of actors whose disk is gone, those that anybody has."""
        heads = self.histories[number].heads()
        vectors = [node.durable(number) for node in nodes]
        for ks, actor in self._left:
            if ks == number and actor in heads:
                heads[actor] = max(vector.get(actor, 0) for vector in vectors)
        return {actor: seq for actor, seq in heads.items() if seq}

    def agree(self, nodes: Sequence[SimNode], keys: Iterable[bytes], *, everything_expired: bool) -> None:
        """In the end: everybody has everything, and shows it, all of them the same."""
        keys = list(keys)
        for number, history in self.histories.items():
            everything = self._all(number, nodes)
            for node in nodes:
                if not _holds(node, number):
                    if node.durable(number) or _rows(node, number):
                        raise Violation(f"residency: {node.name} holds keyspace {number}, which is not at its site")
                elif node.durable(number) != everything:
                    raise Violation(f"{node.name} never got all: {node.durable(number)} of {everything}")
            for (ks, actor), left in self._left.items():
                if ks == number:
                    if everything.get(actor, 0) < left:
                        raise Violation(
                            f"{left} changes of an actor that is gone were durable elsewhere; now {everything}"
                        )
                    history.forget_above(actor, everything.get(actor, 0))
        for node in nodes:
            self.check(node, keys, anew=True)
        for node in nodes:
            self._check_list(node, keys)
        self._check_digests(nodes)
        for key in keys if everything_expired else ():  # else it depends on the time which all have by themselves
            each = {node.name: shown(node.node, key) for node in nodes if not node.engine.keyspaces.owner(key).absent}
            if len(set(each.values())) > 1:
                raise Violation(f"nodes that have the same changes show of {key!r}: {each}")


def _has(acks: Acks, name: str, number: KeyspaceId, seq: int) -> bool:
    """Whether a node of this name is believed to have an own change."""
    return any(peer.name == name for peer in acks.covered_by({number: seq}))


def _holds(node: SimNode, number: KeyspaceId) -> bool:
    return not node.keyspace(number).absent


def _rows(node: SimNode, number: KeyspaceId) -> bool:
    """Whether LMDB has any row of a keyspace."""
    node.store.renew()
    low = node.keyspace(number).row_prefix
    return any(True for _ in node.store.range(low, successor(low)))


def garbage(node: SimNode) -> list[str]:
    """Rows in LMDB that show nothing to anybody, but for those of meta."""
    if not node.up:
        return [f"{node.name} is down"]
    node.store.renew()
    found: list[str] = []
    for keyspace in node.engine.keyspaces.all:
        if keyspace.policy.system:
            continue
        low = keyspace.row_prefix
        for lmdb_key, data in node.store.range(low, successor(low)):
            if not layout.is_count(data):
                row = layout.decode_row(data, node.store.actor_of)
                key = layout.split(layout.row_key_of(lmdb_key, data))[1]
                if node.engine.keyspaces.owner(key) is not keyspace:
                    continue  # misplaced: nobody clears it when its time has passed
                if _shows_nothing(row, node.engine.ttl_now_ms()):
                    found.append(f"{lmdb_key!r}: {row}")
    return found


def _shows_nothing(row: Row, ttl_ms: int) -> bool:
    match row:
        case Cell(value=None) | Element(dots=()) | Siblings(values=()) | Clear():
            return True
        case Cell(expiry_ms=end):
            return 0 < end <= ttl_ms
        case Part(seq=seq, base_seq=base_seq):
            return seq <= base_seq
        case Siblings(values=values):
            return any(0 < sibling.expiry_ms <= ttl_ms for sibling in values)
    return False


def _seen(keyspace: Keyspace, own: Actor) -> Vector:
    """All that readers of the node see, durable or not."""
    seen = {actor: head.seq for actor, head in keyspace.vector.items()}
    for actor, head in keyspace.observed.items():
        seen[actor] = head.seq
    if keyspace.seq:
        seen[own] = keyspace.seq
    return seen


def _lacking(vector: Vector, wanted: Vector) -> int:
    """How many of the wanted changes the vector does not cover."""
    lacking = 0
    for actor, seq in wanted.items():
        has = vector.get(actor, 0)
        if has < seq:
            lacking += seq - has
    return lacking


def _plain(item: object) -> object:
    """Without the difference between lists and tuples."""
    return [_plain(part) for part in item] if isinstance(item, (list, tuple)) else item
