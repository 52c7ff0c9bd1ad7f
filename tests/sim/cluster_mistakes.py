"""Known mistakes in replication, as edits of the production code's text; tests/sim/cluster_mutants.py plants them.

Every `old` text must occur exactly once in its function, so a change of the production code that makes a mutant meaningless fails
loudly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edgekv.crdt import counter, joins, maps, strings
from edgekv.engine import expired_keys, recovery
from edgekv.engine.checkpoint import Checkpoints
from edgekv.engine.collections import Collections
from edgekv.engine.commit import Commit
from edgekv.engine.engine import Engine
from edgekv.engine.expired_keys import ExpiredKeys
from edgekv.engine.flip import Flips
from edgekv.engine.intake import Intake
from edgekv.engine.merging import RunMerger
from edgekv.engine.rebase import Rebase
from edgekv.node import identity
from edgekv.node.session import Sessions
from edgekv.replication import stability
from edgekv.replication.acks import Acks
from edgekv.replication.copies import Copies
from edgekv.replication.greeting import Greeting
from edgekv.replication.holdings import Holdings
from edgekv.replication.keyspace_orders import KeyspaceOrders
from edgekv.replication.late_changes import check_late
from edgekv.replication.leader import Leader
from edgekv.replication.lines import Lines
from edgekv.replication.log_source import LogSource
from edgekv.replication.lowest import _Columns
from edgekv.replication.members import Members
from edgekv.replication.membership import Membership
from edgekv.replication.returning import Returning
from edgekv.replication.seen import SeenTable
from edgekv.replication.sender import Sender
from edgekv.replication.streams import Streams
from edgekv.replication.subscriptions import Subscriptions
from edgekv.store import fold
from edgekv.store.fold import Fold
from edgekv.store.generation import Generation
from edgekv.store.purge import Cuts
from edgekv.store.spool import SpoolWriter
from edgekv.wal import group_commit
from tests.sim.plan import CLONING, FORGETTING, PARKING, TIGHT

Function = Callable[..., Any]


@dataclass(frozen=True)
class Mutant:
    """A mistake, and where it is planted: (function, old text, new text)."""

    why: str
    edits: tuple[tuple[Function, str, str], ...]
    seeds_max: int = 60
    """It is caught within so many seeds."""
    first: int = 0
    """Of them. A rare one begins near a seed that was seen to catch it; any other change of the code may move that."""
    rare: bool = False
    """It takes so many seeds that only the command looks for it."""


FIRST_MOVES: Final = 300
"""Where seeds begin that are looked through for mistakes with keyspaces."""

MUTANTS: Final[dict[str, Mutant]] = {
    # promises to clients and peers
    "ack_before_durable": Mutant(
        "a frame counts as durable when it is written",
        (
            (
                group_commit.execute,
                "if job.sync:",
                "if False:",
            ),
        ),
    ),
    "ship_before_durable": Mutant(
        "the log's tail has a frame before it is written",
        (
            (
                Commit.kick,
                "    self._flush(",
                "    self.on_durable(frame.first_lsn, payload)\n    self.durable_lsn = Lsn(frame.end_lsn)\n    self._flush(",
            ),
            (Commit.synced, "self.on_durable(frame.first_lsn, frame.payload)", "pass"),
        ),
    ),
    "vector_before_durable": Mutant(
        "the vector covers a run as soon as it was received",
        (
            (
                Intake.receive,
                "keyspace.observed[run.actor] = new_head",
                "keyspace.observed[run.actor] = keyspace.vector[run.actor] = new_head",
            ),
        ),
    ),
    "peer_ack_before_durable": Mutant(
        "a peer is told that its run is durable when it was received",
        (
            (
                Streams.acknowledge,
                "head is not None and head.seq >= seq:\n            vectors.setdefault(number, {})[actor] = head.seq",
                "True:\n            vectors.setdefault(number, {})[actor] = seq",
            ),
        ),
    ),
    "read_does_not_wait": Mutant(
        "a reader of a received row does not wait until that is durable",
        (
            (
                Commit.looked,
                "self.barrier = newer(self.barrier, frame)",
                "self.barrier = newer(self.barrier, frame if frame.heads or any(hasattr(r, 'keys') for r in frame.runs) else None)",
            ),
        ),
    ),
    "acks_of_another_life": Mutant(
        "what a node had acknowledged counts when it has come back from a backup",
        ((Acks.met, "self._seqs[peer.node] = {}", "pass"),),
        seeds_max=400,
    ),
    "acks_of_others": Mutant(
        "a node counts as having the changes of which any node was told",
        ((Acks.heard, "vector.get(self._actor, 0)", "max(vector.values(), default=0)"),),
    ),
    "session_is_let_in": Mutant(
        "a token is covered by a node that has its STABLE",
        ((Sessions._lacks, "if self._seq(number, name) < seq:", "if False:"),),
    ),
    # what is taken in
    "hlc_not_folded": Mutant(
        "a node does not stamp above what it received",
        ((Intake.receive, "    keyspace.hlc = max(keyspace.hlc, hlc)\n", ""),),
    ),
    "stamps_follow_the_clock_back": Mutant(
        "a node whose clock, or whose hub's, is behind what it has seen stamps by that clock",
        ((Commit._open_run, "max(keyspace.hlc, self.stamp_ms() << 16)", "self.stamp_ms() << 16"),),
    ),
    "hlc_not_folded_at_replay": Mutant(
        "after a restart a node does not stamp above what it had received",
        (
            (
                recovery.Replay._run,
                "keyspace.hlc = max(keyspace.hlc, run.base_hlc + count - 1)",
                "keyspace.hlc = max(keyspace.hlc, run.base_hlc + count - 1) if run.actor == self._actor else keyspace.hlc",
            ),
        ),
    ),
    "observed_lacks_undurable": Mutant(
        "a clear does not name what was received and is not durable yet",
        ((Collections.observed, "{**keyspace.vector, **keyspace.observed}", "keyspace.vector"),),
        rare=True,
    ),
    "received_always_wins": Mutant(
        "a received register replaces what is in memory without a look at the stamps",
        ((RunMerger.merge, "dominates = run.base_hlc > keyspace.hlc", "dominates = True"),),
    ),
    "applier_always_wins": Mutant(
        "the applier stores a received register without a look at the stamps",
        ((Generation._add_run, "dominates = run.base_hlc > self._hlcs.get(run.keyspace, 0)", "dominates = True"),),
    ),
    "run_in_parts": Mutant(
        "the last change of a received run of several is not merged",
        ((RunMerger.merge, "enumerate(body.changes)", "enumerate(body.changes[:-1] or body.changes)"),),
    ),
    # what is sent
    "relay_drops_others": Mutant(
        "a node sends its own changes only",
        (
            (
                Sender._read,
                "record.keyspace in self.keyspaces",
                "record.keyspace in self.keyspaces and (record.keyspace == 1 or record.actor == self._engine.actor)",
            ),
        ),
    ),
    "starts_too_late": Mutant(
        "the sender begins at its newest segment, whatever the receiver has",
        ((LogSource.begin, "begin = base_lsn", "begin = begin or base_lsn"),),
    ),
    "skips_what_is_lower": Mutant(
        "the sender takes runs for sent that the peer's vector does not cover",
        ((Sender._lacks, "last_seq <= known", "last_seq <= known + 1 and run.changes > 1"),),
    ),
    # forgetting
    "purge_at_once": Mutant(
        "tombstones and expired cells go at once",
        (
            (Cuts.covers, "return seq <= self._cuts.get(keyspace, {}).get(actor, 0)", "return keyspace != 1"),
            (Cuts.highest_seqs, "return highest", "return dict.fromkeys(highest, 1 << 60)"),
        ),
    ),
    "stable_out_of_band": Mutant(
        "a node purges by a STABLE whose need it does not cover",
        ((Cuts.__init__, "if all(seq <= vector.get(actor, 0) for actor, seq in cut.need.items()):", "if True:"),),
        seeds_max=400,
    ),
    "seen_out_of_band": Mutant(
        "the leader uses a SEEN that it does not cover",
        (
            (
                SeenTable.prove,
                "while spoken.ahead and _covers_all(own, spoken.ahead[0]):",
                "while spoken.ahead:",
            ),
        ),
        seeds_max=400,
    ),
    "silent_members_do_not_count": Mutant(
        "a member that has not spoken yet does not hold the cut",
        (
            (
                stability.compute_stable,
                "if any(member.actor not in seen for member in counted):",
                "counted = [member for member in counted if member.actor in seen]\n    if not counted:",
            ),
        ),
        seeds_max=400,
        rare=True,
    ),
    "slowest_does_not_count": Mutant(
        "the cut is what the leader has seen",
        (
            (
                _Columns.look,
                "lowest = min(seqs)",
                "lowest = max(seqs)",
            ),
        ),
    ),
    "seen_of_undurable": Mutant(
        "a member says SEEN of what is not durable",
        ((Holdings.vectors, "k.vector.items()", "{**k.vector, **k.observed}.items()"),),
        seeds_max=400,
    ),
    "wall_of_the_leader": Mutant(
        "keys end for all when they have ended for the leader",
        (
            (
                stability.compute_stable,
                "min(seen[member.actor].ttl_ms for member in counted)",
                "max(seen[member.actor].ttl_ms for member in counted)",
            ),
        ),
        seeds_max=400,
    ),
    "expiry_removes_silently": Mutant(
        "a node removes an expired register by its own clock, whoever has not seen it yet",
        (
            (
                Checkpoints._ask,
                "else self.stable",
                "else self.stable and self.stable._replace(wall_ms=self.ttl_logged_ms)",
            ),
            (
                Cuts.allow,
                "if not self.covers(keyspace, row.actor, row.seq):",
                "if not self.covers(keyspace, row.actor, row.seq) and not 0 < row.expiry_ms <= self.wall_ms:",
            ),
        ),
    ),
    "keys_expire_silently": Mutant(
        "a node that is not alone removes expired keys with all they held, and tells nobody",
        ((Cuts.__init__, "self.alone = stable.cuts is None", "self.alone = True"),),
    ),
    "lone_for_ever": Mutant(
        "the founder goes on announcing STABLE to itself when others have come",
        (
            (
                Membership.follow_meta,
                "engine.checkpoints.lone = self._founder and alone and not self._lines.waits",
                "engine.checkpoints.lone = self._founder",
            ),
        ),
    ),
    "system_clear_own_stamp": Mutant(
        "what the leader clears is stamped now",
        ((ExpiredKeys._operations, "hlc = max(cell.hlc for cell in company)", "hlc = (1 << 62)"),),
        seeds_max=400,
    ),
    "system_clear_unseen": Mutant(
        "the leader clears what not all have seen",
        ((expired_keys._covered, "all(seq <= cut.get(actor, 0) for actor, seq in dots)", "True"),),
        seeds_max=400,
    ),
    "map_clear_purged_at_once": Mutant(
        "a map's clear is not stored",
        (
            (
                Cuts.allow_unwritten,
                "return self.allow(row_key, row) and not row_key.endswith(_MAP_CLEAR_END)",
                "return self.allow(row_key, row) or row_key.endswith(_MAP_CLEAR_END)",
            ),
        ),
    ),
    "admission_does_not_fold": Mutant(
        "a new member does not stamp above what was deleted before it came",
        (
            (
                Membership._judge_writes,
                "engine.fold({KeyspaceId(k): hlc for k, hlc in me.hlcs.items() if k in known}, me.ttl_ms)",
                "pass",
            ),
        ),
        seeds_max=2_000,
        rare=True,
    ),
    # members
    "skip_by_node_id": Mutant(
        "a node does not take back changes that its earlier incarnation made",
        (
            (
                Intake.receive,
                "    if last_seq <= head.seq:",
                "    if last_seq <= head.seq or keyspace.id != 1 and run.actor[1:17] == self._actor[1:17]:",
            ),
        ),
        seeds_max=400,
    ),
    "restore_same_incarnation": Mutant(
        "a restored node goes on as it was",
        (
            (
                identity.load_or_create,
                "if is_original and (begins_anew or has_log(directory)):",
                "if begins_anew or has_log(directory):",
            ),
        ),
        seeds_max=400,
    ),
    "restored_leaves_cut_at_once": Mutant(
        "what an actor had seen does not count any more when its node goes on as another one",
        (
            (
                stability.compute_stable,
                '[member for member in members if member.state != "settled"]',
                '[member for member in members if member.state == "open"]',
            ),
        ),
        seeds_max=400,
    ),
    "writes_before_admission": Mutant(
        "a node takes writes before it is a member",
        ((Membership._judge_writes, "elif members.founded or not self._founder or self._lines.waits:", "elif False:"),),
        seeds_max=400,
        rare=True,
    ),
    # row sync
    "sync_keeps_registers": Mutant(
        "a row that the sender has deleted stays",
        (
            (Fold._join_mine, "if seq <= self._their_seqs.get(number, 0):", "if False:"),
            (joins._join_cells, "return None if mine_is_superseded else mine", "return mine"),
        ),
        seeds_max=400,
        first=70,
    ),
    "sync_keeps_elements": Mutant(
        "an element that the sender has removed stays",
        ((joins.surviving, "if dot in theirs or not _covers(their_vector, *dot)", "if True"),),
        seeds_max=400,
    ),
    "sync_brings_back_elements": Mutant(
        "an element that the receiver has removed comes back",
        ((joins.surviving, "if dot in mine or not _covers(my_vector, *dot)", "if True"),),
    ),
    "sync_omits_map_clears": Mutant(
        "a map's clear is not sent",
        (
            (
                SpoolWriter.step,
                "if left is not None and not layout.is_clear_or_count(left):",
                "if left is not None and not layout.is_clear_or_count(left) and not lmdb_key.endswith(SUFFIX_MAP_CLEAR):",
            ),
        ),
        seeds_max=400,
    ),
    "sync_does_not_fold_hlc": Mutant(
        "a node does not stamp above the rows that it took in",
        ((Flips._log, "keyspace.hlc = max(keyspace.hlc, barrier.hlc)", "pass"),),
        seeds_max=400,
        first=38,
    ),
    "sync_vector_is_theirs": Mutant(
        "after a row sync the vector is the sender's",
        ((fold.joined_vector, "joined = dict(mine)", "joined: ChainedVector = {}"),),
    ),
    "rebase_is_left_out": Mutant(
        "what was written while rows were joined hides what came with them",
        ((Rebase.put, "active.replace(self._placed(self._made), self._made.layer)", "pass"),),
        seeds_max=400,
        first=130,
    ),
    "rebase_leaves_out_the_undurable": Mutant(
        "what was written a moment before the joined rows were shown hides what came with them",
        ((Rebase.put, "frame.layer.replace(self._placed(made), made.layer)", "pass"),),
        seeds_max=400,
        first=10,
        rare=True,
    ),
    "runs_during_a_flip": Mutant(
        "runs of others come in while rows are joined",
        (
            (Flips._hold, "asked.keyspace.held = True", "pass"),
            (Flips.holds, "keyspace is not None and any(run.keyspace == keyspace.id for run in runs)", "False"),
        ),
        seeds_max=400,
    ),
    "no_barrier": Mutant(
        "the log goes on behind rows that came in, for a peer that has not got them",
        ((Sender._pass, "not covers(self.has[barrier.keyspace], need)", "False"),),
        seeds_max=400,
        first=30,
    ),
    "log_floor_ignored": Mutant(
        "a peer is sent the log from its begin on, although it lacks what was before",
        ((LogSource.begin, "return Begin(begin, beyond | left)", "return Begin(begin, beyond)"),),
    ),
    "fold_ends_with_its_first_commit": Mutant(
        "the first part of the rows that come in counts as all of them",
        ((Fold.run, "return False", "return True"),),
        first=TIGHT,
    ),
    # rows
    "counter_restarts_at_zero": Mutant(
        "a counter part that is made anew has no baseline",
        (
            (
                counter.increment,
                "Part(delta, seq, 0, seq - 1, None, fresh=True)",
                "Part(delta, seq, 0, 0, None, fresh=True)",
            ),
        ),
    ),
    "counter_ships_total_only": Mutant(
        "an increment travels without its baseline",
        (
            (
                strings.increment_own,
                "part.base_seq, encode_number(part.base_total), int(made_anew)",
                "0, 0, int(made_anew)",
            ),
        ),
    ),
    "clear_hides_equal_stamp": Mutant(
        "a map's clear hides what its own change puts",
        ((maps.hidden, "stamp(cell) < stamp(clear)", "stamp(cell) <= stamp(clear)"),),
    ),
    "counter_merge_adds": Mutant(
        "a part of another actor is added instead of replaced by the newer one",
        ((counter.merge, "return Part(upper.total,", "return Part(upper.total + (lower is not upper and 1),"),),
    ),
    # keyspaces that come to a site and leave it
    "left_rows_stay": Mutant(
        "a node whose site was taken off a keyspace keeps its copy",
        ((Subscriptions._hold, "self._engine.drops.begin(keyspace)", "pass"),),
        seeds_max=400,
        first=FIRST_MOVES,
    ),
    "leaves_without_draining": Mutant(
        "a node deletes its copy as soon as it knows that its site was taken off",
        ((Subscriptions._hold, "and not self._holdings.holds(keyspace)", ""),),
        first=680,
    ),
    "left_before_it_knew": Mutant(
        "the leader takes a SEEN for the last one that its member said before it knew that its site was taken off",
        ((KeyspaceOrders._has_left, "seen.revision >= since and", ""),),
        seeds_max=400,
        first=FIRST_MOVES,
    ),
    "misplaced_is_shown": Mutant(
        "a change of the default keyspace is shown below a prefix that another one has by now",
        (
            (
                Intake.receive,
                "placed(self._keyspaces, keyspace, _checked(keyspace, self._keyspaces, run))",
                "_checked(keyspace, self._keyspaces, run)",
            ),
        ),
        seeds_max=400,
        first=FIRST_MOVES,
    ),
    "created_over_memory": Mutant(
        "what was written below the prefix of a new keyspace stays in memory",
        ((Engine.create, "self.memtable.forget(low, high)", "pass"),),
        seeds_max=400,
        first=FIRST_MOVES,
    ),
    # parked members
    "late_changes_are_streamed": Mutant(
        "what a parked member wrote goes on from others as changes",
        ((Holdings.floors, "if known:", "if False:"),),
        seeds_max=400,
        first=PARKING + 40,
    ),
    "late_values_keep_out_of_the_join": Mutant(
        "a settled member is open again without having taken rows",
        ((Leader._take_back, 'if known is not None and known.state == "closed":', "if known is not None:"),),
        seeds_max=400,
        first=PARKING,
    ),
    "closed_may_ship": Mutant(
        "changes are exchanged with closed members as well",
        (
            (Members.is_open, 'member.state == "open"', "member is not None"),
            (check_late, 'member.state == "settled"', "False"),
        ),
        seeds_max=400,
        first=PARKING,
    ),
    "counter_purges_parked": Mutant(
        "parts of parked members are forgotten when they were reset to nothing",
        (
            (
                Cuts._allow_part,
                "owner in self._parked.get(keyspace, frozenset()) or not self.covers(keyspace, owner, part.seq)",
                "not self.covers(keyspace, owner, part.seq)",
            ),
        ),
        seeds_max=400,
        first=PARKING,
        rare=True,
    ),
    "late_increments_count_twice": Mutant(
        "what is late in a counter is added to what the rows of others hold",
        (
            (
                joins._join_parts,
                "        return counter.merge(mine, theirs)",
                "        return counter.merge(mine, theirs)._replace(total=mine.total + theirs.total)",
            ),
        ),
        seeds_max=400,
        first=PARKING,
    ),
    "sync_compares_stamps_only": Mutant(
        "where rows are joined the higher stamp stays, also of what was superseded",
        ((joins._join_cells, "if mine_is_superseded == theirs_is_superseded:", "if True:"),),
        seeds_max=400,
        first=PARKING,
        rare=True,
    ),
    "forgets_while_one_returns": Mutant(
        "the leader settles and announces while a member takes rows",
        ((Leader.tick, "is_calm = self._members.returning is None", "is_calm = True"),),
        seeds_max=400,
        first=PARKING,
        rare=True,
    ),
    "two_return_at_once": Mutant(
        "a member returns while the leader lacks what the last one brought",
        ((Leader._begin_return, "self._members.returning is not None or not brought(self._members, own)", "False"),),
        seeds_max=400,
        first=PARKING,
        rare=True,
    ),
    "stranded_by_a_restored_leader": Mutant(
        "who has entries of meta that a restored leader lacks keeps them",
        ((Lines._has_strayed, "return any(", "return False and any("),),
        seeds_max=400,
        first=FORGETTING + 120,
    ),
    "the_forgotten_are_newcomers": Mutant(
        "what a member had made whom a restored leader has forgotten is streamed as any change",
        ((Membership._brings_late, "if peer.actor in vector or (keyspace is None and vector):", "if False:"),),
        seeds_max=400,
        first=FORGETTING,
        rare=True,
    ),
    "late_is_decided_twice": Mutant(
        "who holds late values that others have brought compares them with what it still knows",
        ((Returning.unseen, "held.get(actor, 0) > before", "False"),),
        seeds_max=400,
        first=PARKING,
        rare=True,
    ),
    "unseen_counts_for_all_rows": Mutant(
        "elements and increments of a late range that others have brought count as not seen",
        (
            (
                Fold._join,
                "self._my_cells_vector if isinstance(mine or theirs, Cell) else self._my_vector",
                "self._my_cells_vector",
            ),
        ),
        seeds_max=400,
        first=PARKING,
        rare=True,
    ),
}

MUTANTS.update(
    {
        "chain_not_checked": Mutant(
            "a run is taken in by its number, whatever history it goes on from",
            ((Intake._check_continues, " or run.chain != head.chain", ""),),
            first=CLONING,
        ),
        "copies_do_not_listen": Mutant(
            "a node that is told that the cluster has another history of it goes on",
            ((Copies.refused, "if _is_believed(link) and", "if False and"),),
            first=CLONING,
        ),
        "tripwire_is_off": Mutant(
            "a node does not mind that others have changes of it that it has not",
            ((Greeting.compare, "if own > keyspace.seq:", "if False:"),),
            seeds_max=2_000,
            first=CLONING,
            rare=True,
        ),
        "arrivals_do_not_count": Mutant(
            "what a member came with is no word of it",
            ((Greeting._hold_to_word, "self._note(", "if False:\n        self._note("),),
            seeds_max=400,
            first=CLONING + 370,
        ),
        "one_copy_is_sent_away": Mutant(
            "of two copies that have each what the other has not only the one that comes later is told",
            ((Greeting._note, "if word is None or taken:", "if True:"),),
            seeds_max=400,
            first=CLONING + 370,
            rare=True,
        ),
        "aside_without_rows": Mutant(
            "what is set aside is the log, and the rows stay",
            (
                (
                    identity._move_aside,
                    "(wal_path(directory), store_path(directory), sync_path(directory))",
                    "(wal_path(directory), sync_path(directory))",
                ),
            ),
            first=CLONING,
        ),
    }
)

SKIPPED: Final[dict[str, str]] = {
    "new_subscriber_does_not_count": "no seed catches it, it speaks too soon; tests/unit/replication/test_keyspaces.py does",
    "system_clear_unseen_counts": "a seed in some thousands catches it (102324 was one); tests/unit/node/test_clearing.py does",
    "stable_cut_falls": "no seed catches it, rows come too soon; tests/unit/replication/test_promises.py does",
    "stale_leader": "one node writes meta and reads its own: there is no second leader",
    "map_clear_by_vector": "a map's clear holds a stamp, no vector: the mistake cannot be made by a small edit",
    "sync_below_the_cache (rows in memory hide those that came in)": "the row cache is dropped at random here, which mends it",
    "sync_sends_unswept": "so small a set is swept in the transaction that stores its clear",
    "reissue_under_new_incarnation, late_writes_keep_their_stamp": "late changes travel as rows, and nothing is written again",
}
"""Mistakes of the model of replication that this release has no place for."""
