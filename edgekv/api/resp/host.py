"""What the RESP listener needs of the node it serves. The real one is built by edgekv/server; tests have one made of dicts."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from edgekv.api.watch import Watches
from edgekv.config import Config
from edgekv.engine.frame import Frame
from edgekv.engine.keyspaces import Keyspaces
from edgekv.errors import EdgeKVError
from edgekv.metrics import Metrics
from edgekv.node.operations import Values
from edgekv.node.session import Sessions
from edgekv.replication.acks import Acks


class Engine(Protocol):
    """The state that calls share."""

    barrier: Frame | None
    """The newest frame that the calls since it was set to None wrote to or looked at."""

    @property
    def keyspaces(self) -> Keyspaces: ...

    @property
    def write_blocked(self) -> bool:
        """A bound is met: a write waits, and its connection with it."""

    @property
    def on_room(self) -> list[Callable[[], None]]:
        """Called once, each, when there is room again."""

    @property
    def repeated_total(self) -> int:
        """Operations that came again and got the reply of their first attempt."""

    @property
    def operation_reply_bytes_max(self) -> int:
        """How large the reply of an operation with an id may be."""

    def once(self, session: bytes, number: int, call: Callable[[], bytes]) -> bytes:
        """The reply of ``call``; or, without calling it, that of the operation with this id which was carried out before.

        ``call`` makes at most one change, and nothing happened when it raises. IdForgotten and InvalidRequest: it is not called.
        """


class Sets(Protocol):
    """The verbs on sets (node/sets.py). Each raises WrongType for a key that holds other types only; an absent key is an empty set.

    An element has 0 to 4,096 bytes. ``dice`` are 64 random bits: all the chance that a call may use.
    """

    def add(self, key: bytes, members: Sequence[bytes]) -> int:
        """How many are new. A member may be named twice."""

    def add_run(self, keys: Sequence[bytes], members: Sequence[bytes]) -> list[int | EdgeKVError]:
        """`add` of one member each: a change each, and what each returned or raised. If the call raises, nothing happened."""

    def remove(self, key: bytes, members: Sequence[bytes]) -> int:
        """How many there were. A member may be named twice; a set without members is gone."""

    def contains(self, key: bytes, members: Sequence[bytes]) -> list[bool]: ...
    def count(self, key: bytes) -> int: ...
    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        """Members from ``start`` on (included) in byte order, and where the next page starts; None: this was the last one.

        At most ``limit``, fewer (even none) when they are large or many deleted ones lie between.
        """

    def pop(self, key: bytes, count: int, dice: int) -> list[bytes]:
        """Remove up to ``count`` members, as one change."""

    def random(self, key: bytes, count: int, dice: int, *, repeat: bool) -> list[bytes]:
        """``count`` members, drawn with replacement (``repeat``) or distinct ones; none of an empty set."""

    def move(self, source: bytes, target: bytes, member: bytes) -> bool:
        """As one change; False: it was not there. A missing ``source`` decides before the type of ``target`` does, as in Redis."""

    def store(self, key: bytes, members: Sequence[bytes]) -> None:
        """Replace whatever the key holds by this set, as one change; no members: delete it."""


class Maps(Protocol):
    """The verbs on maps (node/maps.py), alike."""

    def put(self, key: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> int:
        """How many fields are new. A field may be named twice: the last value counts."""

    def put_run(
        self, keys: Sequence[bytes], fields: Sequence[bytes], values: Sequence[bytes]
    ) -> list[int | EdgeKVError]:
        """`put` of one field each, as `Sets.add_run`."""

    def put_if_absent(self, key: bytes, field: bytes, value: bytes) -> bool: ...
    def get(self, key: bytes, fields: Sequence[bytes]) -> list[bytes | None]:
        """The values of the first fields at least: fewer than asked for, and never none, when values are large."""

    def remove(self, key: bytes, fields: Sequence[bytes]) -> int: ...
    def count(self, key: bytes) -> int: ...
    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """As of sets, by field."""

    def increment(self, key: bytes, field: bytes, delta: int) -> int:
        """NotANumber: ``hash value is not an integer``, ``increment or decrement would overflow``."""

    def increment_float(self, key: bytes, field: bytes, delta: bytes) -> bytes:
        """NotANumber: ``value is not a valid float``, ``hash value is not a float``, ``value is NaN or Infinity``."""

    def random(self, key: bytes, count: int, dice: int, *, repeat: bool) -> list[tuple[bytes, bytes]]:
        """As of sets. TooLarge when the values together exceed CONNECTION_OUTPUT_BYTES_MAX."""


class Siblings(Protocol):
    """The verbs on concurrent values (node/siblings.py). Denied in a keyspace that keeps one value only."""

    def get(self, key: bytes) -> Values: ...
    def put(self, key: bytes, value: bytes, context: str, *, expiry_ms: int = 0) -> None: ...
    def delete(self, key: bytes, context: str) -> int: ...


class Operations(Protocol):
    """The verbs (node/operations.py). Each raises EdgeKVError; then nothing happened.

    Verbs on strings raise WrongType for a key that holds other types only, `get_run` if one of its keys does.
    """

    @property
    def engine(self) -> Engine: ...

    @property
    def value_bytes_max(self) -> int: ...

    @property
    def sets(self) -> Sets: ...

    @property
    def maps(self) -> Maps: ...

    @property
    def siblings(self) -> Siblings: ...

    @property
    def rows_read(self) -> int:
        """How many elements, fields and keys the walks and draws so far have looked at, about."""

    def transaction(self) -> AbstractContextManager[None]:
        """Make what the verbs inside change ONE change, at the end of the block.

        Each verb sees what those before it did, and answers as it would alone. A verb that raises adds nothing, and the block may go
        on; nothing at all happens when an exception leaves the block. A verb that would write to a second keyspace raises Denied.
        The end raises what the change as a whole is refused with (TooLarge). All of it is done in one turn of the loop.
        """

    def now_ms(self) -> int: ...
    def get_run(self, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def set_run(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None: ...
    def check_key(self, key: bytes) -> None: ...
    def get(self, key: bytes) -> bytes | None: ...
    def exists(self, keys: Sequence[bytes]) -> int: ...
    def type_of(self, key: bytes) -> str: ...
    def expiry_of(self, key: bytes) -> int: ...
    def set(
        self,
        key: bytes,
        value: bytes,
        *,
        expiry_ms: int = 0,
        keep_expiry: bool = False,
        only_if: Literal["", "exists"] = "",
    ) -> bool: ...
    def set_many(self, pairs: Sequence[tuple[bytes, bytes]]) -> None: ...
    def batch(self, operations: Sequence[tuple[object, ...]]) -> list[object]:
        """Several operations as one change (edgekv/node/operations.py). A refusal says which one it is about: nothing happened."""

    def delete(self, keys: Sequence[bytes]) -> int: ...
    def increment(self, key: bytes, delta: int) -> int: ...
    def increment_run(self, keys: Sequence[bytes], deltas: Sequence[int]) -> list[int | EdgeKVError]:
        """`increment` of each, as `Sets.add_run`."""

    def increment_float(self, key: bytes, delta: bytes) -> bytes: ...
    def append(self, key: bytes, value: bytes) -> int: ...
    def set_range(self, key: bytes, offset: int, value: bytes) -> int: ...
    def set_expiry(self, key: bytes, expiry_ms: int) -> bool: ...
    def persist(self, key: bytes) -> bool: ...
    def rename(self, old: bytes, new: bytes) -> None: ...
    def keys_page(self, start: bytes, prefix: bytes, limit: int) -> tuple[list[bytes], bytes | None]: ...
    def random_key(self, dice: int) -> bytes | None: ...
    def status(self) -> dict[str, object]: ...


class Host(Protocol):
    """The node, as its interfaces see it."""

    @property
    def operations(self) -> Operations: ...

    @property
    def watches(self) -> Watches: ...

    @property
    def acks(self) -> Acks:
        """What other nodes have."""

    @property
    def sessions(self) -> Sessions:
        """What clients have seen."""

    @property
    def metrics(self) -> Metrics: ...

    @property
    def config(self) -> Config: ...

    @property
    def node_name(self) -> str: ...

    @property
    def site_name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def started_ms(self) -> int: ...

    def monotonic_ms(self) -> int:
        """The clock of deadlines."""

    def kick_soon(self) -> None:
        """Start a flush in this turn of the loop, after the callbacks that are due."""

    async def run_slices(self, step: Callable[[], bool]) -> None:
        """Call ``step`` until it returns False, giving the loop back every SLICE_MS."""
