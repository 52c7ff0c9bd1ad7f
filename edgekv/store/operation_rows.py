"""Operation ids in LMDB: the table of engine/operation_ids.py as of the applied LSN, stored in one transaction with their changes.

Written by the applier (``save``), read once by recovery (``load``). What a transaction costs follows the ids that it adds: their rows,
those that leave a window or go with a forgotten session (each once), and the row of each session that was used. Like the table, it
forgets the session that was used longest ago, and raises the oldest stamp above that of all it forgot. It need not forget the same
ones: the table forgets after each change, this after each transaction, and both know or refuse whatever was carried out.

DB_OPERATIONS
    "t"                        [oldest stamp, uses, sessions, bytes]   uses: how often a transaction found a session used
    "s" session                [use, highest n, bytes]                 use: the number of its last one
    "u" use u64 big-endian     session
    "n" session n u64 b.-e.    reply
"""

from typing import Final, NamedTuple

from edgekv.codec import pack, unpack
from edgekv.ids import SESSION_BYTES, stamp_of
from edgekv.limits import (
    OPERATION_BYTES_MAX,
    OPERATION_ID_BYTES,
    OPERATION_SESSION_BYTES,
    OPERATION_SESSIONS_MAX,
    OPERATION_WINDOW,
)
from edgekv.store.layout import DB_OPERATIONS
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.lmdb_transactions import WriteTransaction

_TOTALS: Final = b"t"
_SESSION: Final = b"s"
_USE: Final = b"u"
_NUMBER: Final = b"n"


class Kept(NamedTuple):
    """What a store remembers."""

    oldest_stamp: int
    sessions: list[tuple[bytes, list[tuple[int, bytes]]]]
    """Each with its n and replies, ascending; the one that was used last is the last one."""


class _Totals(NamedTuple):
    oldest_stamp: int
    uses: int
    sessions: int
    bytes: int


class _Session(NamedTuple):
    use: int
    highest: int
    bytes: int


_NOTHING: Final = _Totals(0, 0, 0, 0)
_NEW: Final = _Session(0, 0, OPERATION_SESSION_BYTES)


def load(store: LmdbStore) -> Kept:
    """All of it, as the held read transaction shows it."""
    totals = _NOTHING
    replies: dict[bytes, list[tuple[int, bytes]]] = {}
    for key, value in store.index_range(DB_OPERATIONS, b"", _USE):
        if key[:1] == _NUMBER:
            session, number = key[1 : 1 + SESSION_BYTES], int.from_bytes(key[1 + SESSION_BYTES :], "big")
            replies.setdefault(session, []).append((number, value))
        elif key == _TOTALS:
            totals = _Totals(*unpack(value))
    by_use = [session for _, session in store.index_range(DB_OPERATIONS, _USE, None)]
    return Kept(totals.oldest_stamp, [(session, replies[session]) for session in by_use])


def save(
    transaction: WriteTransaction,
    added: dict[bytes, dict[int, bytes]],
    *,
    sessions_max: int = OPERATION_SESSIONS_MAX,
    bytes_max: int = OPERATION_BYTES_MAX,
) -> None:
    """Store ids, by session and n; the session that was used last is the last one."""
    if not added:
        return
    found = transaction.index_get(DB_OPERATIONS, _TOTALS)
    totals = _NOTHING if found is None else _Totals(*unpack(found))
    for session, replies in added.items():
        totals = _add(transaction, totals, session, replies)
    while totals.sessions > sessions_max or totals.bytes > bytes_max:
        totals = _forget(transaction, totals)
    transaction.index_put(DB_OPERATIONS, [(_TOTALS, pack(totals))])


def _add(transaction: WriteTransaction, totals: _Totals, session: bytes, replies: dict[int, bytes]) -> _Totals:
    found = transaction.index_get(DB_OPERATIONS, _SESSION + session)
    if found is not None:
        known = _Session(*unpack(found))
        transaction.index_delete(DB_OPERATIONS, _use_key(known.use))
    elif stamp_of(session) < totals.oldest_stamp:
        return totals
    else:
        known = _NEW
        totals = totals._replace(sessions=totals.sessions + 1, bytes=totals.bytes + _NEW.bytes)
    highest = max(known.highest, *replies)
    lowest = max(highest - OPERATION_WINDOW + 1, 0)
    size = -_remove(transaction, session, lowest)
    kept = [(number, reply) for number, reply in sorted(replies.items()) if number >= lowest]
    size += sum(OPERATION_ID_BYTES + len(reply) for _, reply in kept)
    use = totals.uses + 1
    transaction.index_put(
        DB_OPERATIONS,
        [
            *((_number_key(session, number), reply) for number, reply in kept),
            (_SESSION + session, pack(_Session(use, highest, known.bytes + size))),
            (_use_key(use), session),
        ],
    )
    return totals._replace(uses=use, bytes=totals.bytes + size)


def _forget(transaction: WriteTransaction, totals: _Totals) -> _Totals:
    """Remove the session that was used longest ago."""
    ((use_key, session),) = transaction.index_range(DB_OPERATIONS, _USE, None, 1)
    found = transaction.index_get(DB_OPERATIONS, _SESSION + session)
    assert found is not None
    known = _Session(*unpack(found))
    _remove(transaction, session, known.highest + 1)
    transaction.index_delete(DB_OPERATIONS, _SESSION + session)
    transaction.index_delete(DB_OPERATIONS, use_key)
    return totals._replace(
        oldest_stamp=max(totals.oldest_stamp, stamp_of(session) + 1),
        sessions=totals.sessions - 1,
        bytes=totals.bytes - known.bytes,
    )


def _remove(transaction: WriteTransaction, session: bytes, below: int) -> int:
    """Remove a session's ids below a number; the bytes that they counted for."""
    start = _NUMBER + session
    gone = transaction.index_range(DB_OPERATIONS, start, start + below.to_bytes(8, "big"), OPERATION_WINDOW)
    for key, _ in gone:
        transaction.index_delete(DB_OPERATIONS, key)
    return sum(OPERATION_ID_BYTES + len(reply) for _, reply in gone)


def _use_key(use: int) -> bytes:
    return _USE + use.to_bytes(8, "big")


def _number_key(session: bytes, number: int) -> bytes:
    return _NUMBER + session + number.to_bytes(8, "big")
