"""One machine of a simulated cluster: its clock, its disk's pace, its node while that is up, its clients, and its connections.

It is the shell: it carries out the flusher's jobs and the applier's transactions some time after they were asked for, ticks, dials,
and hands messages in and out.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspaces import META_ID
from edgekv.errors import EdgeKVError, Unavailable
from edgekv.limits import PEER_IDLE_S
from edgekv.node import identity, keyspace_file
from edgekv.replication.log_source import LogSource
from edgekv.replication.messages import Applicant
from edgekv.replication.replication import Replication
from edgekv.store.applied import sync_path
from edgekv.store.spool_transfer import SpoolFolder
from tests.sim.clients import Clients
from tests.sim.plan import PARK
from tests.sim.sim_node import START_MS, Image, Reply, SimNode
from tests.sim.witness import Promise, Violation

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster, Keys

CLUSTER: Final = b"a simulated one!"
TICK_US: Final = 100_000
DIAL_US: Final = (100_000, 1_500_000)
OFFLINE_MS: Final = 3_000
IDLE_US: Final = int(PEER_IDLE_S * 1e6)
AGAIN_US: Final = 2_000_000
"""After which a node believes once more that the cluster knows better who it is."""
CACHE_DROPPED: Final = 0.3
"""Of how many events the applied generations in memory are gone."""


class Machine:
    """Number ``number`` of a cluster. Hubs come first, then edges."""

    def __init__(
        self,
        cluster: "Cluster",
        number: int,
        directory: Path,
        keyspaces: tuple[KeyspaceConfig, ...],
        *,
        of: "Machine | None" = None,
        image: Image | None = None,
        unnoticed: bool = False,
    ) -> None:
        """``of``: the machine whose directory it has a copy of, ``image``, with its inodes too if ``unnoticed``."""
        plan = cluster.plan
        self._cluster: Final = cluster
        self.number: Final = number
        self.is_hub: Final = number < plan.hubs
        self.skew_ms: int = plan.skews_ms[number] if of is None else of.skew_ms
        self.stalled_until_us = 0
        self.life = 0
        """Of the process: what an earlier one had planned does not happen. 0: it was never started."""
        self._rng: Final = Random(f"machine {number} {cluster.seed}")
        self._clients: Final = Clients(Random(f"clients {number} {cluster.seed}"))
        self._checked_us = 0
        self._flushing = False
        self._applying = False
        self._syncs = 0
        self._anew = False
        self.ends = False
        """Whether the process is about to end by itself."""
        self._renewed_us: dict[str, int] = {}
        """When it last took a new incarnation because of a peer's word, by which word."""
        self._forked = False
        """Whether its next start is on an earlier state of its disk, and it does not notice."""
        self._dialed: dict[int, int] = {}
        """The links of the connections that this machine made, by the other's number."""
        self.node: Final[SimNode] = SimNode(
            directory,
            Random(f"node {number} {cluster.seed}"),
            self.now_ms,
            name=f"{'hub' if self.is_hub else 'edge'}-{number}",
            site="cloud" if self.is_hub else f"site-{number}" if of is None else of.node.config.site,
            role="hub" if self.is_hub else "edge",
            keyspaces=keyspaces,
            segment_bytes=plan.segment_bytes,
            retain_bytes=plan.retain_segments * plan.segment_bytes,
            called="" if of is None else of.node.called,
            image=image,
            unnoticed=unnoticed,
        )

    @property
    def is_member(self) -> bool:
        """Whether its node is up, and an open member as far as it knows."""
        return self.life > 0 and self.node.up and self.replication.members.is_open(self.node.actor)

    @property
    def is_leading(self) -> bool:
        """Whether its node is up and writes meta."""
        return self.life > 0 and self.node.up and self.replication.leader.leads

    @property
    def dialed(self) -> set[int]:
        """Whom it has dialed, and is linked to."""
        return set(self._dialed)

    def knows(self, other: "Machine") -> bool:
        """Whether the other one is an open member as far as this one knows."""
        return self.replication.members.is_open(other.node.actor)

    def park(self, names: list[str]) -> None:
        """As the leader: these are away, and may come back."""
        for name in names:
            self.replication.membership.remove(name)
            self.replication.membership.readmit(name)
        self._turn()

    def now_ms(self) -> int:
        """The wall clock, right or wrong."""
        return START_MS + self._cluster.now_us // 1000 + self.skew_ms

    def begin(self) -> None:
        """The process is up: start what it does by itself."""
        self.life += 1
        self._flushing = self._applying = False
        self._dialed = {}
        self._syncs = 0
        self._anew = False
        self.ends = False
        self._cluster.witness.watch_intake(self.node)
        who = self.node.node.identity
        self.replication = Replication(
            engine=self.node.engine,
            source=LogSource(self.node.engine.tail, self.node.disk),
            cluster=CLUSTER,
            myself=Applicant(who.node, who.actor, who.name, who.site, "hub" if self.is_hub else "edge"),
            founder=self.number == 0,
            remember=partial(keyspace_file.write, self.node.config.data_dir),
            transport=self,
            now_ms=self.now_ms,
            monotonic_ms=lambda: self._cluster.now_us // 1000,
            kick=lambda: None,  # every event ends with a flush
            rolled_back=self._rolled_back,
            acks=self.node.node.acks,
            store=self.node.store,
            folder=SpoolFolder(sync_path(self.node.config.data_dir)),
            entropy=self.node.rng.randbytes,
            max_offline_ms=OFFLINE_MS if PARK in self._cluster.plan.faults else 0,
        )
        self._cluster.witness.watch_links(self.node, self.replication)
        if self._cluster.plan.forks:
            self.replication.copies.copied = self._copied
        self.node.node.sessions.announced = lambda: self.replication.members.announced
        self._at(self._rng.randrange(TICK_US), self._tick)
        self._at(self._pause_us(), self._call)
        for other in self._upstreams():
            self._at(self._rng.randrange(DIAL_US[0]), partial(self._dial, other))

    def crash(self, *, power: bool) -> None:
        """The process or the whole machine dies, and is back after a while."""
        self._note(f"dies{' without power' if power else ''}")
        self.replication.close()
        self.node.crash(power=power)
        self._down(silent=power)

    def restore(self) -> None:
        """It dies, and an older copy of its directory is started."""
        self._note("is restored")
        self._cluster.witness.set_back(self.node, [machine.node for machine in self._cluster.machines])
        self.replication.close()
        self.node.restore()
        self._down(silent=False)

    def fork(self, image: Image) -> None:
        """It dies, and is set back to an earlier state of its disk, without noticing."""
        self._note("is set back")
        self.replication.close()
        self.node.set_back(image)
        self._forked = True
        self._down(silent=False)

    def _down(self, *, silent: bool) -> None:
        self._cluster.network.drop(self, silent=silent)
        self.life += 1
        down_us = self._rng.choice((20_000, 300_000, 1_000_000, 4_000_000))
        self._cluster.at(down_us, self._start)

    def _start(self) -> None:
        self.node.open()
        self._note(f"starts with {sorted(self.node.durable().values())}")
        if self._forked:
            self._forked = False
            self._cluster.forks.went_back(self)
        if self.node.aside is not None:
            self._cluster.forks.found(self)
        self._cluster.witness.restarted(self.node)
        self.begin()
        self._turn(whole=True)

    def repair(self, *, union: bool) -> bool:
        """Have its rows mended by those of a node that it has a link with; False: none can be."""
        repairs, links = self.replication.repairs, self.replication.links.values()
        sources = sorted({link.peer.name for link in links if link.phase == "data" and link.peer is not None})
        names = sorted(k.name for k in self.node.engine.keyspaces.all if not k.policy.system and not k.absent)
        if not sources:
            return False
        try:
            repairs.begin(self._rng.choice(names), [b""], self._rng.choice(sources), union=union)
        except EdgeKVError:
            return False  # one is under way, or that node does not hold the keyspace
        self._note("is repaired")
        self._turn()
        return True

    def duplicate(self) -> bool:
        """Make one of its connections once more, beside the one there is; False when there is none."""
        machines, network = self._cluster.machines, self._cluster.network
        others = [n for n in sorted(self._dialed) if machines[n].node.up and network.can_connect(self.number, n)]
        if not self.node.up or not others:
            return False
        self._connect(self._rng.choice(others))
        return True

    # -- the network's side, and the core's

    def connected(self, link: int, *, outgoing: bool) -> None:
        self._note(f"link {link} connected")
        self.replication.connected(link, outgoing=outgoing)

    def received(self, link: int, message: bytes) -> None:
        self.replication.received(link, message)
        self._note(f"link {link} got {len(message)} bytes")
        self._turn()

    def disconnected(self, link: int) -> None:
        self._note(f"link {link} is gone")
        self.replication.disconnected(link)
        for other, dialed in list(self._dialed.items()):
            if dialed == link:
                del self._dialed[other]
                self._at(self._rng.randrange(*DIAL_US), partial(self._dial, other))
        self._turn()

    def send(self, link: int, message: bytes) -> None:
        """As `Transport`."""
        self._cluster.network.send(link, message)

    def close(self, link: int, reason: str, *, instead: int = 0) -> None:
        """As `Transport`."""
        self._note(f"link {link} closed: {reason}")
        self._cluster.network.close(link)

    def _rolled_back(self) -> bool:
        """As the shell, at its own pace (server/shell.py)."""
        if not self._cluster.plan.forks:
            raise Violation(f"{self.node.name} is told of changes of its own that it has forgotten")
        if self.ends:
            return True
        if self.number and any(keyspace.seq for keyspace in self.node.engine.keyspaces.all):
            return self._begin_anew(runs_elsewhere=False)
        if self._is_too_soon("set back"):
            return False
        identity.reincarnate(
            self.node.config.data_dir, self.node.node.identity, self.node.rng.randbytes, self.node.start_ms
        )
        self._end("was set back")
        return True

    def _copied(self, runs_elsewhere: bool) -> None:
        """As the shell."""
        if not self.ends and self.number:
            self._begin_anew(runs_elsewhere=runs_elsewhere)

    def _begin_anew(self, *, runs_elsewhere: bool) -> bool:
        if self._is_too_soon("copied"):
            return False
        self._cluster.forks.leaves(self)
        directory, who = self.node.config.data_dir, self.node.node.identity
        identity.set_aside(directory, who, self.node.rng.randbytes, self.node.start_ms, as_another=runs_elsewhere)
        if runs_elsewhere:
            self.node.called = f"{self.node.name}.{self.life}"
        self._end(f"begins anew{' as another node' if runs_elsewhere else ''}")
        return True

    def _is_too_soon(self, word: str) -> bool:
        """A peer's word is not taken again at once; else it is being taken now."""
        now_us, last_us = self._cluster.now_us, self._renewed_us.get(word, -AGAIN_US)
        if now_us - last_us < AGAIN_US:
            return True
        self._renewed_us[word] = now_us
        return False

    def _end(self, why: str) -> None:
        self._note(why)
        self.ends = True
        self.node.engine.admission.read_only = Unavailable("it is about to end")
        self._at(0, lambda: self.crash(power=False))

    def _upstreams(self) -> list[int]:
        """Whom it dials: an edge a hub, a hub the hubs before it."""
        hubs = self._cluster.plan.hubs
        return list(range(self.number)) if self.is_hub else [self._rng.randrange(hubs)]

    def _dial(self, other: int) -> None:
        machine = self._cluster.machines[other]
        if machine.node.up and self._cluster.network.can_connect(self.number, other):
            self._connect(other)
        elif self.is_hub:
            self._at(self._rng.randrange(*DIAL_US), lambda: self._dial(other))
        else:
            another = self._rng.randrange(self._cluster.plan.hubs)
            self._at(self._rng.randrange(*DIAL_US), lambda: self._dial(another))

    def _connect(self, other: int) -> None:
        machine = self._cluster.machines[other]
        link = self._dialed[other] = self._cluster.network.connect(self.number, self, other, machine)
        if not self.is_hub and self._cluster.plan.hubs > 1:
            self._at(IDLE_US, lambda: self._leave_idle(other, link))
        self._turn()

    def _leave_idle(self, other: int, link: int) -> None:
        """As the dialer: an edge does not stay with a hub that is no member."""
        if self._dialed.get(other) != link:
            return
        if not self.replication.is_idle(link):
            self._at(IDLE_US, lambda: self._leave_idle(other, link))
            return
        del self._dialed[other]
        self._cluster.network.close(link)
        self._dial((other + 1) % self._cluster.plan.hubs)

    # -- clients

    def _pause_us(self) -> int:
        return int(self._rng.expovariate(self._cluster.plan.calls_per_s) * 1e6)

    def _call(self) -> None:
        if not self._cluster.calling:
            return
        self._at(self._pause_us(), self._call)
        self._cluster.calls += 1
        engine = self.node.engine
        founded = self.replication.members.founded
        if engine.write_blocked or not (founded or self.number == 0):
            return
        engine.barrier = None
        keys = self._here(self._cluster.keys)
        witness, before = self._cluster.witness, self._cluster.witness.seqs(self.node)
        self._clients.lasting = not founded
        done = self._clients.call(self.node.operations, keys.plain, keys.siblings)
        witness.made(self.node)
        self._note(done)
        self._reply(witness.promise(self.node, (), before))
        if not self._cluster.check_ms:
            key = self._rng.choice(keys.plain)
            engine.barrier = None
            witness.check(self.node, [key], anew=True)
            self._reply(witness.promise(self.node, (key,), witness.seqs(self.node)))
        self._turn()

    def _here(self, keys: "Keys") -> "Keys":
        """Those that the node does not send elsewhere."""
        owner = self.node.engine.keyspaces.owner
        return keys._replace(plain=[key for key in keys.plain if not owner(key).absent])

    def _reply(self, promise: Promise) -> None:
        """The reply leaves when the engine says so."""
        frame = self.node.engine.barrier
        life = self.life

        def leave(_: Reply) -> None:
            if life == self.life:
                self._replied(promise)

        if frame is None or frame.done:
            self._replied(promise)
        else:
            frame.waiters.append((Reply(leave), None))

    def _replied(self, promise: Promise) -> None:
        self._cluster.witness.replied(self.node, promise)
        broken = "" if self._cluster.plan.forks else self._cluster.sessions.visit(self.node)
        if broken:
            raise Violation(broken)

    # -- the shell's work

    def _turn(self, *, whole: bool = False) -> None:
        """The end of a turn of the loop: start what was asked for, and have a look."""
        node, cluster = self.node, self._cluster
        if self.replication.row_sync.syncs_total > self._syncs:
            self._syncs += 1
            cluster.row_syncs += 1
            self._note("has the rows of another node")
            whole = True
        anew = node.keyspace(META_ID).absent
        if anew and not self._anew:
            cluster.anew += 1
            self._note("takes meta anew")
        self._anew = anew
        cluster.witness.see_left(self.replication.members, leads=self.is_leading)
        if self.is_leading:
            cluster.returns += cluster.witness.see_members(
                self.replication.members, [machine.node for machine in cluster.machines]
            )
        cluster.witness.made(node, system=True)
        cluster.witness.check_durable(node)
        node.engine.kick()
        if node.jobs and not self._flushing:
            self._flushing = True
            stall_us = max(0, self.stalled_until_us - cluster.now_us)
            self._at(stall_us + int(cluster.plan.sync_us * (0.5 + self._rng.random())), self._flush)
        if node.wants_apply and not self._applying:
            self._applying = True
            self._at(self._rng.randrange(500, 30_000), self._apply)
        self._look(whole=whole)

    def _look(self, *, whole: bool) -> None:
        """Check what this event touched and one key more; everything that is in use after a start, an apply or a row sync."""
        cluster = self._cluster
        if self._rng.random() < CACHE_DROPPED:
            self.node.engine.memtable.drop_cache()  # as when memory is short: it hides what is wrong in LMDB
        touched, in_use = cluster.witness.touched(self.node), cluster.keys.all
        another = self._rng.choice(in_use)  # in any case: what is looked at is not to decide what happens
        if cluster.check_ms:
            whole |= cluster.now_us - self._checked_us >= cluster.check_ms * 1000
        if whole:
            self._checked_us = cluster.now_us
            cluster.witness.check(self.node, in_use)
        elif not cluster.check_ms and (not cluster.witness.is_idle(self.node) or touched):
            cluster.witness.check(self.node, dict.fromkeys([*touched, another]))

    def _flush(self) -> None:
        self._flushing = False
        self.node.flush()
        self.node.node.durable()
        self.replication.durable()
        self._note(f"flushed up to {self.node.engine.commit.durable_lsn}")
        self._turn()

    def _apply(self) -> None:
        self._applying = False
        if self.node.apply():
            self._note(f"applied up to {self.node.engine.checkpoints.applied_lsn}")
        self._turn(whole=not self._cluster.check_ms)

    def _tick(self) -> None:
        self._at(TICK_US, self._tick)
        self.node.tick()
        self.node.node.tick(self._cluster.now_us // 1000)
        self.replication.tick()
        self._turn()

    def _at(self, delay_us: int, do: Callable[[], None]) -> None:
        """Later in this life."""
        life = self.life
        self._cluster.at(delay_us, lambda: do() if life == self.life else None)

    def _note(self, event: str) -> None:
        self._cluster.note(f"{self.node.name} {event}")
