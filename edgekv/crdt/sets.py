"""Sets as clients see them, and how each verb writes them. Adding wins over a remove that has not seen it.

    SADD      a dot for each member, also for one that is there: a concurrent SREM must not take it
    SREM      the dots that are seen of each member. The last row of a key takes the key's expiry with it.
    clear     one operation with the vector, whatever the size
    store     SINTERSTORE and the like: everything at the key is cleared and the members are added, in one change

A set has no expiry of its own but the key's (crdt.key has what the first and the last row of a key do to it).

Every function returns operations of ONE change, at most one per row, and leaves out those without an effect. All are pure: ``now`` is
TTL time in ms. ``state`` and ``company`` are what this node sees at the key, and the caller has ruled out a wrong type.
"""

from collections.abc import Collection, Mapping

from edgekv.crdt.company import Company, clear_set_operations
from edgekv.crdt.elements import Dots
from edgekv.crdt.key import first_write_operations, last_row_operations
from edgekv.crdt.operation import ADD_ELEMENTS, REMOVE_ELEMENTS, Operation
from edgekv.crdt.strings import StringState, clear_key_operations


def add_operations(
    state: StringState, company: Company, key: bytes, members: Collection[bytes], now: int, new_expiry_ms: int = 0
) -> list[Operation]:
    """SADD of distinct members. A key that is made by it gets ``new_expiry_ms`` (the keyspace's default), or no expiry."""
    if not members:
        return []
    return [*first_write_operations(state, company, key, now, new_expiry_ms), (ADD_ELEMENTS, key, list(members))]


def remove_operations(
    state: StringState, company: Company, key: bytes, observed: Mapping[bytes, Dots], now: int
) -> list[Operation]:
    """SREM of members that are in the set, each with its visible dots (``elements.visible``)."""
    if not observed or state.gone(now):
        return []
    left = company._replace(elements=company.elements - len(observed))
    return [(REMOVE_ELEMENTS, key, list(observed.items())), *last_row_operations(state, left, key, now)]


def clear_operations(state: StringState, company: Company, key: bytes, now: int) -> list[Operation]:
    """The set alone; a string and a map at the key stay."""
    if not company.elements or state.gone(now):
        return []
    left = company._replace(elements=0)
    return [*clear_set_operations(company, key), *last_row_operations(state, left, key, now)]


def store_operations(
    state: StringState, company: Company, key: bytes, members: Collection[bytes], new_expiry_ms: int = 0
) -> list[Operation]:
    """These members, at least one, instead of everything at the key. (Storing none is a DEL.)"""
    return [*clear_key_operations(state, key, company, new_expiry_ms), (ADD_ELEMENTS, key, list(members))]
