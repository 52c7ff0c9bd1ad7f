"""Operation ids in LMDB: what is loaded again knows or refuses all that was stored, and a transaction touches what it adds."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.engine.operation_ids import OperationIds
from edgekv.errors import IdForgotten
from edgekv.ids import new_session
from edgekv.limits import OPERATION_ID_BYTES, OPERATION_SESSION_BYTES, OPERATION_WINDOW
from edgekv.store import layout
from edgekv.store.lmdb_store import LmdbStore
from edgekv.store.operation_rows import load, save
from edgekv.wal.record import pack_changes, pack_operations
from tests.unit.store.node_log import OWN, NodeLog, applier_of, open_store

Ids = dict[bytes, dict[int, bytes]]
A, B, C = (new_session(stamp, b"s" * 8) for stamp in (1, 2, 3))


def store_ids(store: LmdbStore, added: Ids, **bounds: int) -> None:
    with store.write() as transaction:
        save(transaction, added, **bounds)
    store.renew()


def loaded(store: LmdbStore) -> OperationIds:
    """As recovery does it."""
    kept, ids = load(store), OperationIds()
    for session, replies in kept.sessions:
        for number, reply in replies:
            ids.add(session, number, reply)
    ids.oldest_stamp = max(ids.oldest_stamp, kept.oldest_stamp)
    return ids


def rows(store: LmdbStore) -> list[bytes]:
    return [key for key, _ in store.index_range(layout.DB_OPERATIONS, b"", None)]


def test_what_was_stored_is_loaded_in_the_order_of_use(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store_ids(store, {A: {1: b"a1", 2: b"a2"}, B: {1: b"b1"}})
    store_ids(store, {A: {3: b""}})
    assert load(store).sessions == [(B, [(1, b"b1")]), (A, [(1, b"a1"), (2, b"a2"), (3, b"")])]
    store.close()


def test_a_session_keeps_its_window_and_no_row_beyond_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for first in range(1, 4000, 700):
        store_ids(store, {A: dict.fromkeys(range(first, first + 700), b"r")})
    ((_, replies),) = load(store).sessions
    assert [number for number, _ in replies] == list(range(4201 - OPERATION_WINDOW, 4201))
    assert len(rows(store)) == OPERATION_WINDOW + 3
    store.close()


def test_the_session_used_longest_ago_goes_with_all_its_rows_and_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store_ids(store, {A: {1: b"r"}, B: {1: b"r", 2: b"r"}}, sessions_max=2)
    store_ids(store, {A: {2: b"r"}}, sessions_max=2)
    store_ids(store, {C: {1: b"r"}}, sessions_max=2)
    assert [session for session, _ in load(store).sessions] == [A, C] and load(store).oldest_stamp == 3
    store_ids(store, {B: {3: b"r"}}, sessions_max=2)  # it was on its way when B was forgotten
    assert [session for session, _ in load(store).sessions] == [A, C]
    store_ids(store, {}, sessions_max=2)
    assert not any(B in key for key in rows(store))
    store.close()


def test_a_bound_on_bytes_forgets_as_well(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    bytes_max = 2 * (OPERATION_SESSION_BYTES + OPERATION_ID_BYTES) + 100
    store_ids(store, {A: {1: b"r"}, B: {1: b"r" * 90}}, bytes_max=bytes_max)
    store_ids(store, {C: {1: b"r" * 50}}, bytes_max=bytes_max)
    assert [session for session, _ in load(store).sessions] == [C]
    store.close()


uses = st.lists(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from([1, 2, 1024, 1025, 3000])), max_size=6), max_size=6
)


@settings(max_examples=60)
@given(uses, st.integers(1, 3))
def test_however_the_log_is_cut_into_transactions_each_operation_is_known_or_refused(
    batches: list[list[tuple[bytes, int]]], sessions_max: int
) -> None:
    with TemporaryDirectory() as directory:
        store, done = open_store(Path(directory)), dict[tuple[bytes, int], bytes]()
        for batch in batches:
            added: Ids = {}
            for session, number in batch:
                if (session, number) in done:
                    continue
                done[session, number] = b"%d" % number
                added[session] = {**added.pop(session, {}), number: b"%d" % number}
            store_ids(store, added, sessions_max=sessions_max)
        ids = loaded(store)
        for (session, number), reply in done.items():
            try:
                assert ids.find(session, number, newest_stamp=9) == reply
            except IdForgotten:
                continue
        store.close()


def test_ids_are_applied_in_the_transaction_of_their_changes(tmp_path: Path) -> None:
    log, store = NodeLog(tmp_path), open_store(tmp_path)
    body = pack_operations([[(3, b"n", 5, 0, 0, 1)], [(3, b"n", 9, 0, 0, 0)]])
    log.frame([pack_changes(0, OWN, 1, log.hlc + 1, 0, 2, body, [(0, A, 1, b":5\r\n"), (1, A, 2, b":9\r\n")])])
    applier = applier_of(store, tmp_path)
    assert load(store).sessions == []
    assert applier.apply(log.lsn, None) is not None
    assert load(store).sessions == [(A, [(1, b":5\r\n"), (2, b":9\r\n")])] and store.applied().lsn == log.lsn
    store.close()
