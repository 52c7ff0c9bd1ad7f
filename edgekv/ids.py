"""Small typed identities and their bytes.

An *actor* is the origin of a sequence of changes. It is 25 bytes, compared as bytes:

    offset  size  field
         0     1  kind          1 = a node incarnation, 2 = a Raft group
         1    16  id            the node's or group's id
        17     8  incarnation   u32 counter (big-endian) and 4 random bytes; for a group its epoch, u64

The random half lets one backup be restored twice without two nodes issuing the same dots.

A *session* of operation ids is made by a client. It is 16 bytes:

    offset  size  field
         0     8  stamp         u64 (big-endian): the durable LSN of its node when the client asked
         8     8  random
"""

from typing import Final, NewType

Actor = NewType("Actor", bytes)
Lsn = NewType("Lsn", int)
KeyspaceId = NewType("KeyspaceId", int)
Vector = dict[Actor, int]
"""Per keyspace: actor -> highest seq. It covers a dot when ``seq <= vector[actor]``."""

ACTOR_BYTES: Final = 25
ID_BYTES: Final = 16
INCARNATION_BYTES: Final = 8
SESSION_BYTES: Final = 16
STAMP_BYTES: Final = 8
KIND_NODE: Final = 1
KIND_GROUP: Final = 2


def node_actor(node_id: bytes, incarnation: bytes) -> Actor:
    """The actor of one incarnation of a node."""
    assert len(node_id) == ID_BYTES and len(incarnation) == INCARNATION_BYTES
    return Actor(bytes([KIND_NODE]) + node_id + incarnation)


def node_of(actor: Actor) -> bytes:
    """The id of the node, or group, whose actor it is."""
    return actor[1 : 1 + ID_BYTES]


def incarnation_of(actor: Actor) -> int:
    """Which one of its node's it is: the first is 1."""
    return int.from_bytes(actor[1 + ID_BYTES : 5 + ID_BYTES], "big")


def actor_text(actor: Actor) -> str:
    """A short, unique spelling for people: ``node-1a2b3c4d.7-9f8e7d6c``."""
    kind = {KIND_NODE: "node", KIND_GROUP: "group"}.get(actor[0], f"kind{actor[0]}")
    return f"{kind}-{actor[1:5].hex()}.{incarnation_of(actor)}-{actor[21:].hex()}"


def new_session(stamp: int, entropy: bytes) -> bytes:
    """The bytes of a session; ``entropy``: 8 random bytes."""
    assert len(entropy) == SESSION_BYTES - STAMP_BYTES
    return stamp.to_bytes(STAMP_BYTES, "big") + entropy


def stamp_of(session: bytes) -> int:
    """The durable LSN that a session was made at."""
    return int.from_bytes(session[:STAMP_BYTES], "big")
