"""Calls of clients on one key of any type, at a replica of a `World`: their operations, and what they mean by the specification."""

from fractions import Fraction
from random import Random
from typing import Final

from edgekv.crdt import maps, sets, strings
from edgekv.crdt.decimals import Number, text_of
from edgekv.crdt.operation import Operation
from tests.unit.crdt import specification
from tests.unit.crdt.histories import KEY, Replica, World
from tests.unit.crdt.specification import Event, Shown

MEMBERS: Final = (b"", b"a", b"b\x00")
VERBS: Final = (
    "set", "set ex", "del", "incr", "incrbyfloat", "expire", "persist", "sadd", "sadd", "srem", "clear set", "store",
    "hset", "hset", "hdel", "hincrby", "hincrbyfloat", "clear map",
)  # fmt: skip
FRACTIONS: Final = (Fraction(1, 10), Fraction(1, 2), Fraction(-1, 4), Fraction(-7, 2), Fraction(1, 10**17), 3)


def shown(replica: Replica, now: int) -> Shown:
    """What a reader of the rows is shown."""
    state, company = replica.state(), replica.company()
    value = state.value(now)
    gone = state.gone(now)
    fields = [(field, text(found.value(0))) for field, found in sorted(replica.fields().items())]
    return Shown(
        text(value),
        frozenset() if gone else frozenset(replica.elements()),
        () if gone else tuple((field, value) for field, value in fields if value is not None),
        state.expiry_ms(company) if state.live(now, company) else -1,
    )


def text(value: bytes | Number | None) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else text_of(value)


def call(world: World, replica: Replica, verb: str, dice: Random, now: int) -> None:
    """One call with arguments from the dice; a number is not added to a text."""
    operations, events = _call(world, replica, verb, dice, now)
    assert bool(operations) == bool(events), (verb, operations, events)
    world.make(replica, operations, events=events, hlc_step=dice.choice([1, 1, 2, 5]))


def _call(world: World, replica: Replica, verb: str, dice: Random, now: int) -> tuple[list[Operation], list[Event]]:
    key = specification.key_at(world, replica.vector)
    state, company = replica.state(), replica.company()
    step = dice.randint(1, 9)
    number: Number = step
    members = dice.sample(MEMBERS, dice.randint(1, len(MEMBERS)))
    later = now + step
    field, new_expiry_ms = members[0], dice.choice([0, 0, later])
    fields, value = replica.fields(), dice.choice([b"%d" % step, b"%d" % step, b"-.5", b"2.50e1"])
    match verb:
        case "set" | "set ex":
            expiry_ms = later if verb == "set ex" else 0
            operations = strings.put_operations(state, KEY, value, expiry_ms, company)
            return operations, specification.set_events(key, value, expiry_ms)
        case "del":
            return strings.delete_operations(state, KEY, now, company), specification.delete_events(key, now)
        case "incr" | "incrbyfloat":
            number = number if verb == "incr" else dice.choice(FRACTIONS)
            operations = strings.add_operations(state, KEY, number, replica.actor, replica.next_seq, now, company)
            return operations, specification.increment_events(key, number, now)
        case "expire" | "persist":
            expiry_ms = later if verb == "expire" else 0
            operations = strings.expire_operations(state, KEY, expiry_ms, now, company)
            return operations, specification.expire_events(key, expiry_ms, now)
        case "sadd":
            operations = sets.add_operations(state, company, KEY, members, now, new_expiry_ms)
            return operations, specification.add_members_events(key, members, now, new_expiry_ms)
        case "srem":
            observed = {member: dots for member, dots in replica.elements().items() if member in members}
            operations = sets.remove_operations(state, company, KEY, observed, now)
            return operations, specification.remove_members_events(key, members, now)
        case "clear set":
            return sets.clear_operations(state, company, KEY, now), specification.clear_set_events(key, now)
        case "store":
            operations = sets.store_operations(state, company, KEY, members, new_expiry_ms)
            return operations, specification.store_events(key, members, new_expiry_ms)
        case "hset":
            pairs = {name: dice.choice([value, b"text"]) for name in members}
            operations = maps.put_operations(state, company, KEY, pairs, fields, now, new_expiry_ms)
            return operations, specification.put_fields_events(key, pairs, now, new_expiry_ms)
        case "hdel":
            before = {name: found for name, found in fields.items() if name in members}
            operations = maps.delete_operations(state, company, KEY, before, now)
            return operations, specification.delete_fields_events(key, members, now)
        case "clear map":
            return maps.clear_operations(state, company, KEY, now), specification.clear_map_events(key, now)
    assert verb in {"hincrby", "hincrbyfloat"}
    found, number = fields.get(field, maps.NO_FIELD), number if verb == "hincrby" else dice.choice(FRACTIONS)
    if not state.gone(now) and specification.parsed(text(found.value(0)) or b"0") is None:
        return [], []
    operations = maps.increment_operations(
        state, company, KEY, field, found, number, replica.actor, replica.next_seq, now, new_expiry_ms
    )
    return operations, specification.increment_field_events(key, field, number, now, new_expiry_ms)
