"""The messages between a node and its applier, as they cross a pipe. Pure.

Both ways msgpack behind a u32 length (little-endian):

    request    [lsn, nil | [wall_ms, nil | {keyspace: [cut, need, parked]}, [keyspace that is dropped, ...]]]
    response   ["opened"]
               ["applied", lsn, previous_lsn, reusable_bytes, reserved, cleared, nil | lost]
                lost: [keyspace, total, [[key, nil | field, nil | kept, discarded], ...]], each of both as in store/lost_values.py
               ["failed", text, disk_full]

Both ends are of one release: the node starts its applier itself, so there is no version in here.
"""

from struct import Struct
from typing import Any, Final

from edgekv.codec import pack, unpack
from edgekv.errors import FormatUnknown
from edgekv.ids import Actor
from edgekv.store.applied import Cut, Failed, Opened, Progress, Stable
from edgekv.store.lost_values import Lost, LostValue, Version

MESSAGE_LENGTH: Final = Struct("<I")


def frame_message(message: list[object]) -> bytes:
    """A message as it crosses a pipe."""
    body = pack(message)
    return MESSAGE_LENGTH.pack(len(body)) + body


def take_messages(received: bytearray) -> list[list[object]]:
    """Remove the whole messages from the front of what was received, and decode them."""
    messages: list[list[object]] = []
    offset = 0
    while len(received) - offset >= MESSAGE_LENGTH.size:
        (length,) = MESSAGE_LENGTH.unpack_from(received, offset)
        end = offset + MESSAGE_LENGTH.size + length
        if len(received) < end:
            break
        messages.append(unpack(bytes(received[offset + MESSAGE_LENGTH.size : end])))
        offset = end
    del received[:offset]
    return messages


def pack_request(lsn: int, stable: Stable | None) -> list[object]:
    """Apply everything below ``lsn``."""
    if stable is None:
        return [lsn, None]
    if stable.cuts is None:
        return [lsn, [stable.wall_ms, None, sorted(stable.dropped)]]
    cuts = {keyspace: [cut.cut, cut.need, sorted(cut.parked)] for keyspace, cut in stable.cuts.items()}
    return [lsn, [stable.wall_ms, cuts, sorted(stable.dropped)]]


def parse_request(message: list[object]) -> tuple[int, Stable | None]:
    """The inverse of ``pack_request``."""
    match message:
        case [int(lsn), None]:
            return lsn, None
        case [int(lsn), [int(wall_ms), None, list(dropped)]]:
            return lsn, Stable(wall_ms, None, frozenset(dropped))
        case [int(lsn), [int(wall_ms), dict(cuts), list(dropped)]]:
            parsed = {keyspace: Cut(cut, need, frozenset(parked)) for keyspace, (cut, need, parked) in cuts.items()}
            return lsn, Stable(wall_ms, parsed, frozenset(dropped))
    raise FormatUnknown(f"a request that the applier does not know: {message!r}. Use one release for both.")


def pack_response(message: Opened | Progress | Failed) -> list[object]:
    """What the child says."""
    match message:
        case Opened():
            return ["opened"]
        case Progress():
            return ["applied", *message]
        case Failed():
            return ["failed", *message]


def parse_response(message: list[object]) -> Opened | Progress | Failed:
    """The inverse of ``pack_response``."""
    match message:
        case ["opened"]:
            return Opened()
        case ["applied", int(lsn), int(previous_lsn), int(reusable_bytes), bool(reserved), bool(cleared), lost]:
            return Progress(lsn, previous_lsn, reusable_bytes, reserved, cleared, None if lost is None else _lost(lost))
        case ["failed", str(text), bool(disk_full)]:
            return Failed(text, disk_full)
    raise FormatUnknown(f"a message that the node does not know: {message!r}. Use one release for both.")


def _lost(fields: Any) -> Lost:
    keyspace, total, newest = fields
    values = (
        LostValue(key, field, None if kept is None else _version(kept), _version(discarded))
        for key, field, kept, discarded in newest
    )
    return Lost(keyspace, total, tuple(values))


def _version(fields: Any) -> Version:
    value, value_bytes, actor, seq, hlc = fields
    return Version(value, value_bytes, Actor(actor), seq, hlc)
