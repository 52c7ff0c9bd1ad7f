"""A key that holds a set or a map, as a whole: what its first row and its last row do to the rest of it.

Elements, fields and parts expire with the key, by its expiry cell x. Two rules follow, the same for both types:

    first write   to a key that is not there: clears what x hides, hidden as it is, or it would come back when x goes; and x goes, or
                  becomes what the keyspace gives to new keys
    last row      that this node sees at a key: takes x with it, or x would end whatever is written there next
"""

from edgekv.crdt.company import Company
from edgekv.crdt.operation import Operation
from edgekv.crdt.strings import StringState, clear_besides_register, delete_register, renew_expiry


def first_write_operations(
    state: StringState, company: Company, key: bytes, now: int, new_expiry_ms: int
) -> list[Operation]:
    """What goes with the writing of an element or a field: nothing when the key is there.

    A register that is above the passed expiry is seen and spared; then the key is not a new one.
    """
    live = state.live(now, company)
    if live and not state.gone(now):
        return []
    hidden_register = [] if live else delete_register(state, key)
    return [
        *hidden_register,
        *clear_besides_register(state, key, company),
        *renew_expiry(state, key, 0 if live else new_expiry_ms),
    ]


def last_row_operations(state: StringState, left: Company, key: bytes, now: int) -> list[Operation]:
    """What goes with the removal of elements or fields that leaves the company ``left``."""
    return [] if state.live(now, left) else renew_expiry(state, key)
