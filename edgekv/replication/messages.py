"""What nodes say to each other: msgpack arrays, the first element the code. Pure.

    HELLO       [1, cluster 16 B, node 16 B, actor 25 B, name, site, role, wall_ms, revision, {keyspace: [[actor, seq, chain], ...]},
                 {keyspace: hlc}]
                the first message of both sides. The vectors are durable ones, of the keyspaces that the node holds: to these it
                subscribes. The HLCs are a hub's, else there are none (replication/wrong_clock.py)
    REFUSED     [2, code, sentence]                 the sender closes the link
    CHANGES     [3, [[keyspace, actor, first_seq, base_hlc, chain, changes, body], ...]]
                runs, whole, as their makers logged them (wal/record.py)
    ACK         [4, bytes, {keyspace: [[actor, seq], ...]}]
                bytes of CHANGES and SYNC_PIECE messages that were taken in so far; what moved in the durable vector
    HEARTBEAT   [5, wall_ms, sent_ms, echo_ms, held_ms]
                the last three now and then, else 0: the sender's monotonic clock, that of the receiver as it said it last, and
                how long ago that came (replication/hub_time.py)
    SEEN        [6, [[actor, number, ttl_ms, revision, {keyspace: [[actor, seq], ...]}], ...]]
                see replication/stability.py; of the vectors what moved since the last one on this link
    ADMIT       [7, [[node, actor, name, site, role], ...], late]
                a hub asks the leader to make these members; late: they come with changes that are, though meta does not know them
    SYNC_OFFER  [8, keyspace, spool 8 B, bytes, crc32c, [[actor, seq, chain], ...], hlc]
                the log does not reach back to what the receiver has: it is to take these rows
    SYNC_WANT   [9, keyspace, spool, offset]
    SYNC_PIECE  [10, keyspace, spool, offset, bytes]
    SYNC_DONE   [11, keyspace, [[actor, seq, chain], ...]]
                the rows are in; the log from this vector on is wanted
    SYNC_GONE   [14, keyspace, spool]
                this spool is not there any more; if the receiver still needs rows, another one is offered
    RETURN      [17, actor, revision, whole, {keyspace: [[actor, seq], ...]}, [keyspace, ...]]
                a parked member comes back (replication/returning.py): it wants rows, or has them all and says how far what is late
                reaches. Hubs pass it on to the leader. The keyspaces, as in keyspaces.json, are those that it has and the cluster's
                list has not, or not at its site. An open member says it for their sake alone, empty ones too
    SYNC_ASK    [16, keyspace]
                a repair (replication/repairs.py): offer rows although the receiver has all changes. SYNC_GONE with a spool of zeros
                says that the rows here are damaged
    WHO_HAS     [18]                                somebody at the sender waits for other nodes to have its changes: a hub tells it
                for a while who has them (replication/hearsay.py)
    OTHERS_HAVE [19, [[actor, {keyspace: seq}], ...]]
                how much of the receiver's own changes these other members have durably; what moved since the last one
    HOLDS       [15, {keyspace: [[actor, seq, chain], ...]}]
                what the sender holds besides, since a keyspace was created or its site was added to one
    JOIN        [12, name, site, role]              the only message of a node that has no cluster yet
    WELCOME     [13, cluster, [keyspace, ...]]      and its answer; keyspaces as in keyspaces.json

Nothing about a peer is known before `parse` has looked at what it sent. Later releases add codes; one that this release does not know
ends the link with a sentence, as an operation that it does not know does (engine/intake.py).
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from edgekv.codec import pack, unpack
from edgekv.errors import InvalidRequest, PeerFault
from edgekv.ids import ACTOR_BYTES, ID_BYTES, Actor, Vector
from edgekv.limits import HLC_FOLD_MAX, VECTOR_ENTRIES_MAX
from edgekv.wal.record import Changes

_NO_HLCS: Final[Mapping[int, int]] = {}

HELLO: Final = 1
REFUSED: Final = 2
CHANGES: Final = 3
ACK: Final = 4
HEARTBEAT: Final = 5
SEEN: Final = 6
ADMIT: Final = 7
SYNC_OFFER: Final = 8
SYNC_WANT: Final = 9
SYNC_PIECE: Final = 10
SYNC_DONE: Final = 11
JOIN: Final = 12
WELCOME: Final = 13
SYNC_GONE: Final = 14
RETURN: Final = 17
SYNC_ASK: Final = 16
HOLDS: Final = 15
WHO_HAS: Final = 18
OTHERS_HAVE: Final = 19

SPOOL_ID_BYTES: Final = 8
NO_SPOOL: Final = bytes(SPOOL_ID_BYTES)
ChainedVector = dict[Actor, tuple[int, int]]
"""Per actor its highest seq and the chain value after it."""


class Hello(NamedTuple):
    """Who the peer is, and what it has."""

    cluster: bytes
    node: bytes
    actor: Actor
    name: str
    site: str
    role: str
    wall_ms: int
    revision: int
    vectors: dict[int, ChainedVector]  # by keyspace
    hlcs: Mapping[int, int] = _NO_HLCS
    """Of a hub, by keyspace, above which it stamps; it takes no stamps that are more than a day above (wrong_clock.py)."""


class Refused(NamedTuple):
    """Why the peer ends the link."""

    code: str
    sentence: str


class Runs(NamedTuple):
    """CHANGES."""

    runs: list[Changes]


class Ack(NamedTuple):
    """What the peer has taken in and has durably."""

    bytes: int
    vectors: dict[int, Vector]


class Heartbeat(NamedTuple):
    """The peer is there."""

    wall_ms: int
    sent_ms: int = 0
    echo_ms: int = 0
    held_ms: int = 0


class Seen(NamedTuple):
    """What a member's durable log covers, at the LSN ``number``."""

    actor: Actor
    number: int
    ttl_ms: int
    revision: int
    vectors: dict[int, Vector]


class SeenList(NamedTuple):
    """SEEN."""

    members: list[Seen]


class Applicant(NamedTuple):
    """A node that wants to be a member."""

    node: bytes
    actor: Actor
    name: str
    site: str
    role: str


class Admit(NamedTuple):
    """ADMIT."""

    applicants: list[Applicant]
    late: bool = False


class SyncOffer(NamedTuple):
    """Rows of a keyspace, at this vector."""

    keyspace: int
    spool: bytes
    bytes: int
    crc: int
    vector: ChainedVector
    hlc: int


class SyncWant(NamedTuple):
    """Send the spool from this offset on."""

    keyspace: int
    spool: bytes
    offset: int


class SyncPiece(NamedTuple):
    """Bytes of a spool."""

    keyspace: int
    spool: bytes
    offset: int
    data: bytes


class SyncDone(NamedTuple):
    """The rows are in."""

    keyspace: int
    vector: ChainedVector


class SyncGone(NamedTuple):
    """The spool is not there any more."""

    keyspace: int
    spool: bytes


class Return(NamedTuple):
    """A member that was parked comes back; or an open one knows keyspaces that the list lacks."""

    actor: Actor
    revision: int
    """Of meta, that began this return, or opened it."""
    whole: bool
    """Whether it has all rows; False: it wants some."""
    late: dict[int, Vector]
    """By keyspace the last of the late changes that it has, by actor."""
    keyspaces: list[dict[str, Any]]
    """That the cluster's list lacks."""


class SyncAsk(NamedTuple):
    """Offer the rows of a keyspace."""

    keyspace: int


class Holds(NamedTuple):
    """What the peer has of keyspaces that its HELLO does not name."""

    vectors: dict[int, ChainedVector]


class WhoHas(NamedTuple):
    """Tell who else has the peer's changes."""


class OthersHave(NamedTuple):
    """By member how much it has of the changes of whoever is told, by keyspace."""

    members: dict[Actor, dict[int, int]]


class Join(NamedTuple):
    """A node without a cluster."""

    name: str
    site: str
    role: str


class Welcome(NamedTuple):
    """Which cluster it is, and its keyspaces."""

    cluster: bytes
    keyspaces: list[dict[str, Any]]


Message = (
    Hello
    | Refused
    | Runs
    | Ack
    | Heartbeat
    | SeenList
    | Admit
    | SyncOffer
    | SyncWant
    | SyncPiece
    | SyncDone
    | SyncGone
    | Return
    | SyncAsk
    | Holds
    | WhoHas
    | OthersHave
    | Join
    | Welcome
)


def pack_message(message: Message) -> bytes:  # noqa: PLR0912 - one arm for each row of the table above
    """The bytes of a message."""
    match message:
        case Hello():
            vectors = {keyspace: _chained_list(vector) for keyspace, vector in message.vectors.items()}
            return pack([HELLO, *message[:8], vectors, message.hlcs])
        case Refused():
            return pack([REFUSED, *message])
        case Runs(runs):
            return pack([CHANGES, [run[:7] for run in runs]])
        case Ack():
            return pack([ACK, message.bytes, _vector_lists(message.vectors)])
        case Heartbeat():
            return pack([HEARTBEAT, *message])
        case SeenList(members):
            return pack([SEEN, [[*seen[:4], _vector_lists(seen.vectors)] for seen in members]])
        case Admit(applicants, late):
            return pack([ADMIT, applicants, late])
        case SyncOffer():
            return pack([SYNC_OFFER, *message[:4], _chained_list(message.vector), message.hlc])
        case SyncWant():
            return pack([SYNC_WANT, *message])
        case SyncPiece():
            return pack([SYNC_PIECE, *message])
        case SyncDone():
            return pack([SYNC_DONE, message.keyspace, _chained_list(message.vector)])
        case SyncGone():
            return pack([SYNC_GONE, *message])
        case Return():
            return pack([RETURN, *message[:3], _vector_lists(message.late), message.keyspaces])
        case SyncAsk():
            return pack([SYNC_ASK, *message])
        case Holds(vectors):
            return pack([HOLDS, {keyspace: _chained_list(vector) for keyspace, vector in vectors.items()}])
        case WhoHas():
            return pack([WHO_HAS])
        case OthersHave(members):
            return pack([OTHERS_HAVE, list(members.items())])
        case Join():
            return pack([JOIN, *message])
        case Welcome():
            return pack([WELCOME, *message])


def parse(data: bytes) -> Message:
    """A message, every field of it checked but the bodies of runs. PeerFault when it is none."""
    try:
        fields = unpack(data)
        message = _parse(fields)
    except (InvalidRequest, ValueError, TypeError, KeyError, IndexError) as error:
        raise PeerFault(f"it sent a message that cannot be read: {error}.") from error
    if message is None:
        code = fields[0] if isinstance(fields, list) and fields else fields
        raise PeerFault(f"it sent a message of a kind or shape that this release does not know ({code!r:.40}).")
    return message


def _parse(fields: Any) -> Message | None:  # noqa: PLR0912 - one arm for each row of the table above
    match fields:
        case [3, list(runs)]:
            return Runs([_run(run) for run in runs])
        case [4, int(taken), dict(vectors)]:
            return Ack(_number(taken), _vectors(vectors))
        case [5, int(), int(), int(), int()]:
            return Heartbeat(*map(_number, fields[1:]))
        case [6, list(members)]:
            return SeenList([_seen(member) for member in members])
        case [1, bytes(), bytes(), bytes(), str(), str(), str(), int(), int(), dict(vectors), dict(hlcs)]:
            _, cluster, node, actor, name, site, role, wall_ms, revision, _, _ = fields
            return Hello(
                *(_id(cluster), _id(node), _actor(actor), _text(name), _text(site), _role(role)),
                *(_number(wall_ms), _number(revision)),
                {_number(keyspace): _chained(vector) for keyspace, vector in _bounded(vectors).items()},
                {_number(keyspace): _number(hlc) for keyspace, hlc in hlcs.items()},
            )
        case [2, str(code), str(sentence)]:
            return Refused(code[:64], sentence[:1000])
        case [7, list(applicants), bool(late)]:
            return Admit([_applicant(applicant) for applicant in applicants], late)
        case [8, int(keyspace), bytes(spool), int(size), int(crc), list(vector), int(hlc)]:
            return SyncOffer(
                *(_number(keyspace), _spool(spool), _number(size), _number(crc), _chained(vector), _number(hlc))
            )
        case [9, int(keyspace), bytes(spool), int(offset)]:
            return SyncWant(_number(keyspace), _spool(spool), _number(offset))
        case [10, int(keyspace), bytes(spool), int(offset), bytes(data)]:
            return SyncPiece(_number(keyspace), _spool(spool), _number(offset), data)
        case [11, int(keyspace), list(vector)]:
            return SyncDone(_number(keyspace), _chained(vector))
        case [14, int(keyspace), bytes(spool)]:
            return SyncGone(_number(keyspace), _spool(spool))
        case [17, bytes(actor), int(revision), bool(whole), dict(late), list(keyspaces)] if all(
            isinstance(entry, dict) for entry in keyspaces
        ):
            return Return(_actor(actor), _number(revision), whole, _vectors(late), keyspaces)
        case [16, int(keyspace)]:
            return SyncAsk(_number(keyspace))
        case [15, dict(vectors)]:
            return Holds({_number(keyspace): _chained(vector) for keyspace, vector in vectors.items()})
        case [18]:
            return WhoHas()
        case [19, list(members)]:
            return OthersHave(
                {
                    _actor(actor): {_number(keyspace): _number(seq) for keyspace, seq in seqs.items()}
                    for actor, seqs in _bounded(dict(members)).items()
                }
            )
        case [12, str(name), str(site), str(role)]:
            return Join(_text(name), _text(site), _role(role))
        case [13, bytes(cluster), list(keyspaces)] if all(isinstance(entry, dict) for entry in keyspaces):
            return Welcome(_id(cluster), keyspaces)
        case _:
            return None


def _run(fields: Any) -> Changes:
    match fields:
        case [int(), bytes(actor), int(), int(), int(), int(), bytes()]:
            return Changes(fields[0], _actor(actor), *fields[2:])
        case _:
            raise ValueError("a run of changes has another shape")


def _seen(fields: Any) -> Seen:
    match fields:
        case [bytes(actor), int(number), int(ttl_ms), int(revision), dict(vectors)]:
            return Seen(_actor(actor), _number(number), _number(ttl_ms), _number(revision), _vectors(vectors))
        case _:
            raise ValueError("what a member has seen has another shape")


def _applicant(fields: Any) -> Applicant:
    match fields:
        case [bytes(node), bytes(actor), str(name), str(site), str(role)]:
            return Applicant(_id(node), _actor(actor), _text(name), _text(site), _role(role))
        case _:
            raise ValueError("an applicant has another shape")


def _bounded(vectors: Mapping[Any, Any]) -> Mapping[Any, Any]:
    if sum(map(len, vectors.values()), len(vectors)) > VECTOR_ENTRIES_MAX:
        raise ValueError(f"vectors have more than {VECTOR_ENTRIES_MAX} entries")
    return vectors


def _vectors(vectors: Mapping[Any, Any]) -> dict[int, Vector]:
    _bounded(vectors)
    return {_number(keyspace): {_actor(a): _number(seq) for a, seq in vector} for keyspace, vector in vectors.items()}


def _chained(vector: list[Any]) -> ChainedVector:
    _bounded({0: vector})
    return {_actor(actor): (_number(seq), _number(chain)) for actor, seq, chain in vector}


def _vector_lists(vectors: Mapping[int, Vector]) -> dict[int, list[tuple[Actor, int]]]:
    return {keyspace: list(vector.items()) for keyspace, vector in vectors.items()}


def _chained_list(vector: ChainedVector) -> list[tuple[Actor, int, int]]:
    return [(actor, seq, chain) for actor, (seq, chain) in vector.items()]


def _id(value: bytes) -> bytes:
    if len(value) != ID_BYTES:
        raise ValueError(f"an id has {ID_BYTES} bytes")
    return value


def _spool(value: bytes) -> bytes:
    if len(value) != SPOOL_ID_BYTES:
        raise ValueError(f"the id of a spool has {SPOOL_ID_BYTES} bytes")
    return value


def _actor(value: object) -> Actor:
    if type(value) is not bytes or len(value) != ACTOR_BYTES:
        raise ValueError(f"an actor has {ACTOR_BYTES} bytes")
    return Actor(value)


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < HLC_FOLD_MAX:
        raise ValueError("a number is out of range")
    return value


def _text(value: str) -> str:
    if not 1 <= len(value) <= 63:
        raise ValueError("a name has 1 to 63 characters")
    return value


def _role(value: str) -> str:
    if value not in ("hub", "edge"):
        raise ValueError(f"there is no role {value!r:.20}")
    return value
