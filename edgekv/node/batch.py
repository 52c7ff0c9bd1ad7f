"""A client's call of several operations as one change: all of them or, when one is refused, nothing. The refusal says which one."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from edgekv.crdt.operation import PUT, Operation
from edgekv.engine.keyspaces import Keyspace
from edgekv.errors import Denied, InvalidRequest, NotANumber, WrongType
from edgekv.node.verbs import allowed

if TYPE_CHECKING:
    from edgekv.node.operations import Operations

Item = tuple[object, ...]
T = TypeVar("T")


def run(operations: "Operations", items: Sequence[Item]) -> list[object]:
    """See `Operations.batch`."""
    if not items:
        return []
    operations.check_count(len(items))
    keyspaces = {_named(index, partial(_keyspace, operations, item)) for index, item in enumerate(items)}
    _check_one(keyspaces)
    with operations.transaction():
        return [_named(index, partial(_step, operations, item)) for index, item in enumerate(items)]


def put_all(operations: "Operations", pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """See `Operations.set_many`. Where keys hold nothing but registers nothing needs to be read."""
    keyspace = operations.engine.keyspaces.of_run([key for key, _ in pairs]) if pairs else None
    if keyspace is None or keyspace.mixed:
        run(operations, [("put", key, value, 0) for key, value in pairs])
        return
    operations.check_count(len(pairs))
    for index, (key, value) in enumerate(pairs):
        _named(index, partial(_check_put, operations, key, value))
    expiry_ms = operations.default_expiry(keyspace)
    change: list[Operation] = [(PUT, key, value, expiry_ms) for key, value in dict(pairs).items()]
    operations.change(keyspace, change)


def _check_put(operations: "Operations", key: bytes, value: bytes) -> None:
    operations.writable(key)
    operations.check_value(value)


def _keyspace(operations: "Operations", item: Item) -> Keyspace:
    key = item[1]
    assert isinstance(key, bytes)
    operations.check_key(key)
    return allowed(operations.engine.keyspaces.of(key))


def _check_one(keyspaces: set[Keyspace]) -> None:
    if len(keyspaces) > 1:
        names = ", ".join(sorted(keyspace.name for keyspace in keyspaces))
        raise Denied(f"the keys are in different keyspaces ({names}), and a change touches one. Split the call.")


def _named(index: int, step: Callable[[], T]) -> T:
    """A step for one of the operations, whose refusal says which it was."""
    try:
        return step()
    except (InvalidRequest, NotANumber, WrongType, Denied) as error:
        raise type(error)(f"operation {index}: {error}") from error


def _step(operations: "Operations", item: Item) -> object:
    match item:
        case ("put", bytes(key), bytes(value), int(expiry_ms)):
            operations.set(key, value, expiry_ms=expiry_ms)
            return None
        case ("delete", bytes(key)):
            return bool(operations.delete([key]))
        case ("add", bytes(key), int(delta)):
            return operations.increment(key, delta)
        case ("sadd", bytes(key), list(members)):
            return operations.sets.add(key, members)
        case ("srem", bytes(key), list(members)):
            return operations.sets.remove(key, members)
        case ("hset", bytes(key), list(pairs)):
            return operations.maps.put(key, pairs)
        case ("hdel", bytes(key), list(fields)):
            return operations.maps.remove(key, fields)
        case ("hadd", bytes(key), bytes(field), int(delta)):
            return operations.maps.increment(key, field, delta)
    raise InvalidRequest(f"a batch has no operation {item[0]!r}. Use put, delete, add, sadd, srem, hset, hdel or hadd.")
