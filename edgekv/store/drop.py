"""A keyspace that is not held any more goes from LMDB: its vector at once, its rows a bounded number at a time.

Called by the applier inside a transaction that has reached its LSN, below which the log has all runs of the keyspace that there will
ever be here. The node asks again until nothing is left, after a crash too, so nothing has to be remembered of how far this is.
"""

from collections.abc import Iterable
from itertools import islice

from edgekv.ids import KeyspaceId
from edgekv.store import layout
from edgekv.store.applied import Applied
from edgekv.store.lmdb_transactions import WriteTransaction
from edgekv.store.purge import index_entries


def drop(
    transaction: WriteTransaction, applied: Applied, keyspaces: Iterable[int], rows_max: int
) -> tuple[Applied, bool]:
    """Delete up to ``rows_max`` rows; what is to be stored beside the others, and whether there are more."""
    gone = frozenset(keyspaces)
    for number in sorted(gone):
        rows_max -= _drop_rows(transaction, KeyspaceId(number), rows_max)
    vectors = {number: vector for number, vector in applied.vectors.items() if number not in gone}
    return applied._replace(vectors=vectors, mixed=applied.mixed - gone), rows_max <= 0


def _drop_rows(transaction: WriteTransaction, keyspace: KeyspaceId, rows_max: int) -> int:
    low, high = layout.key_start(keyspace, b""), layout.key_start(KeyspaceId(keyspace + 1), b"")
    rows = list(islice(transaction.range(low, high), rows_max))
    for lmdb_key, data in rows:
        if not layout.is_count(data):
            row = layout.decode_row(data, transaction.actor_of)
            for index, (index_key, _) in index_entries(layout.row_key_of(lmdb_key, data), row, transaction.intern):
                transaction.index_delete(index, index_key)
        transaction.delete(lmdb_key)
    return len(rows)
