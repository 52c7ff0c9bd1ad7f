"""What a key holds beside its string rows, as far as the verbs of all types must know it, and how it is cleared.

A verb writes what follows from what its node observed. SET, DEL and the first write to an expired key clear every type, so they
must know of sets and maps: of the set the vector alone (one operation, whatever its size), of the map the fields that are counters,
whose parts are reset one by one.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from edgekv.crdt.checks import EncodedNumber
from edgekv.crdt.counter import Part, is_inert
from edgekv.crdt.elements import dots_of
from edgekv.crdt.operation import CLEAR_MAP, CLEAR_SET, RESET_FIELDS, Operation, encode_number
from edgekv.ids import Actor

Parts = Mapping[Actor, Part]


class Company(NamedTuple):
    """The set and the map at a key. What is hidden by the key's expiry counts here; what a clear hides does not.

    ``counter_fields`` and ``vector`` are needed where something is cleared: by SET, DEL and a clear, and by any write once the key's
    expiry has passed. Elsewhere the counts will do.
    """

    elements: int = 0  # of the set
    fields: int = 0  # of the map: those with a value
    counter_fields: Mapping[bytes, Parts] = {}  # the fields with live parts, each with its parts
    vector: Mapping[Actor, int] = {}  # of the keyspace, before the change that is being made

    def __bool__(self) -> bool:
        """Whether there is a set or a map."""
        return bool(self.elements or self.fields)


ALONE: Final = Company()


def clear_operations(company: Company, key: bytes) -> list[Operation]:
    """Clear the set and the map. What the same change adds or puts stays: above the vector, and not below the clear's stamp."""
    return [*clear_set_operations(company, key), *clear_map_operations(company, key)]


def clear_set_operations(company: Company, key: bytes) -> list[Operation]:
    """Clear the set, if there is one."""
    if not company.elements:
        return []
    assert company.vector, "whoever sees an element has seen a change"
    return [(CLEAR_SET, key, dots_of(company.vector))]


def clear_map_operations(company: Company, key: bytes) -> list[Operation]:
    """Clear the map, if there is one."""
    if not company.fields:
        return []
    return [(CLEAR_MAP, key), *reset_fields_operations(company.counter_fields, key)]


def reset_fields_operations(fields: Mapping[bytes, Parts], key: bytes) -> list[Operation]:
    """Reset the observed parts of these fields."""
    observed = [(field, observed_parts(parts)) for field, parts in sorted(fields.items())]
    resets = [(field, parts) for field, parts in observed if parts]
    return [(RESET_FIELDS, key, resets)] if resets else []


def observed_parts(parts: Parts) -> list[tuple[Actor, int, EncodedNumber]]:
    """What a reset names: the live parts."""
    return [(actor, part.seq, encode_number(part.total)) for actor, part in sorted(parts.items()) if not is_inert(part)]


def without(parts: Parts, actor: Actor) -> Parts:
    """The parts but one: a change that clears a key and makes its own part anew must not reset that one as well."""
    return {owner: part for owner, part in parts.items() if owner != actor}
