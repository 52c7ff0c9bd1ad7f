"""Changes of an actor that turn up when the cluster has settled what there is of it.

They may have been deleted, and the deletion forgotten: so they do not come in as changes. Whoever has them brings them as rows, when
it returns as a member (replication/returning.py).
"""

from edgekv.engine.keyspaces import META_ID
from edgekv.errors import PeerFault, TooLate
from edgekv.ids import Actor, actor_text, node_of
from edgekv.replication.link import Link
from edgekv.replication.members import Members
from edgekv.replication.messages import SyncOffer


def check_late(members: Members, actor: Actor, keyspace: int, seq: int) -> None:
    """Whether an actor's changes up to this one may come in. TooLate: the actor is settled, and had fewer."""
    member = members.members.get(actor)
    if member is not None and member.state == "settled" and seq > member.heads.get(keyspace, 0):
        error = TooLate(
            f"it has changes of {actor_text(actor)} up to {seq}, and the cluster settled what there is of it at "
            f"{member.heads.get(keyspace, 0)}: they come too late as changes. "
            "Whoever has them brings them as rows, when it returns as a member."
        )
        error.node = node_of(actor)
        raise error


def check_offer(members: Members, link: Link, offer: SyncOffer) -> None:
    """Whether a peer's rows may come in: once it is closed, what it was on the way to bring is settled without them. PeerFault: no."""
    assert link.peer is not None
    if offer.keyspace != META_ID and not members.is_open(link.peer.actor):
        raise PeerFault(f"{actor_text(link.peer.actor)} sent rows, and is no member any more.")
    for actor, (seq, _) in offer.vector.items():
        check_late(members, actor, offer.keyspace, seq)
