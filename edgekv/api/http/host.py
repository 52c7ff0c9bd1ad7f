"""What the HTTP front end needs of the node it fronts: structural types, so that tests run it over a dict.

server.py of the package gives the real one. Attributes are read-only properties here, so an implementation may be narrower.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from edgekv.api.watch import Watches
from edgekv.config import Config
from edgekv.engine.conflicts import Conflicts
from edgekv.engine.frame import Frame
from edgekv.errors import EdgeKVError
from edgekv.ids import Actor, KeyspaceId
from edgekv.metrics import Metrics
from edgekv.node.operations import Entry, Page, Values
from edgekv.node.session import Sessions
from edgekv.replication.acks import Acks


class Keyspace(Protocol):
    """A keyspace's id, its name, for metrics, and its newest stamp, which is that of the last change made in it."""

    @property
    def id(self) -> KeyspaceId: ...

    @property
    def name(self) -> str: ...

    @property
    def hlc(self) -> int: ...


class Keyspaces(Protocol):
    """Which keyspace a key belongs to."""

    def of(self, key: bytes, /) -> Keyspace: ...


class Admission(Protocol):
    """Why the node takes no client writes, for /readyz."""

    @property
    def read_only(self) -> EdgeKVError | None: ...

    @property
    def outsider(self) -> EdgeKVError | None: ...


class Engine(Protocol):
    """The barrier of the last calls, and back-pressure."""

    barrier: Frame | None

    @property
    def actor(self) -> Actor: ...

    @property
    def write_blocked(self) -> bool: ...

    @property
    def on_room(self) -> list[Callable[[], None]]: ...

    @property
    def keyspaces(self) -> Keyspaces: ...

    @property
    def admission(self) -> Admission: ...

    @property
    def conflicts(self) -> Conflicts: ...


class Sets(Protocol):
    """Reading sets (edgekv/node/sets.py). WrongType when the key holds other types only."""

    def contains(self, key: bytes, members: Sequence[bytes]) -> list[bool]: ...

    def count(self, key: bytes) -> int: ...

    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[bytes], bytes | None]: ...


class Maps(Protocol):
    """Reading maps (edgekv/node/maps.py). WrongType as above."""

    def get(self, key: bytes, fields: Sequence[bytes]) -> list[bytes | None]: ...

    def count(self, key: bytes) -> int: ...

    def page(self, key: bytes, start: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]: ...


class Siblings(Protocol):
    """Concurrent values (edgekv/node/siblings.py)."""

    def kept(self, key: bytes) -> bool: ...

    def get(self, key: bytes) -> Values: ...

    def put(self, key: bytes, value: bytes, context: str, *, expiry_ms: int = 0) -> None: ...

    def delete(self, key: bytes, context: str) -> int: ...


class Digest(Protocol):
    """What a keyspace holds, digested in steps (edgekv/node/digest.py)."""

    def step(self) -> bool: ...

    def figures(self) -> dict[str, object]: ...


class Operations(Protocol):
    """The verbs that HTTP offers (edgekv/node/operations.py). What changes sets and maps goes through `batch`."""

    @property
    def engine(self) -> Engine: ...

    @property
    def sets(self) -> Sets: ...

    @property
    def maps(self) -> Maps: ...

    @property
    def siblings(self) -> Siblings: ...

    @property
    def value_bytes_max(self) -> int: ...

    def now_ms(self) -> int: ...

    def check_key(self, key: bytes) -> None: ...

    def get(self, key: bytes) -> bytes | None: ...

    def get_entry(self, key: bytes) -> Entry | None: ...

    def set(self, key: bytes, value: bytes, *, expiry_ms: int = 0) -> bool: ...

    def delete(self, keys: Sequence[bytes]) -> int: ...

    def increment(self, key: bytes, delta: int) -> int: ...

    def increment_float(self, key: bytes, delta: bytes) -> bytes: ...

    def page(self, start: bytes, prefix: bytes, limit: int) -> Page: ...

    def batch(self, operations: Sequence[tuple[object, ...]]) -> list[object]: ...

    def status(self) -> dict[str, object]: ...

    def keyspaces(self) -> list[dict[str, object]]: ...

    def vectors(self) -> dict[str, dict[str, int]]: ...

    def digest(self, keyspace: str, ttl_ms: int | None = None, prefix: bytes = b"") -> Digest: ...


class Membership(Protocol):
    """What an operator decides about members (edgekv/replication/membership.py)."""

    def remove(self, name: str, /) -> bool: ...

    def readmit(self, name: str, /) -> bool: ...

    def lead(self) -> bool: ...


class Repairs(Protocol):
    """What operators have mended (edgekv/replication/repairs.py)."""

    def begin(self, keyspace_name: str, prefixes: list[bytes], source: str, *, union: bool) -> int: ...


class KeyspaceOrders(Protocol):
    """What an operator decides about keyspaces (edgekv/replication/keyspace_orders.py)."""

    def create(self, name: str, prefix: bytes, sites: tuple[str, ...], /, *, siblings: bool) -> None: ...

    def add_site(self, name: str, site: str, /) -> bool: ...

    def unknown(self, sites: Iterable[str], /) -> list[str]: ...

    def remove_site(self, name: str, site: str, /) -> bool: ...


class Replication(Protocol):
    """Other nodes (edgekv/replication/replication.py)."""

    @property
    def keyspaces(self) -> KeyspaceOrders: ...

    @property
    def membership(self) -> Membership: ...

    @property
    def repairs(self) -> Repairs: ...

    def status(self) -> dict[str, object]: ...


class Host(Protocol):
    """The node and the loop that serve HTTP."""

    @property
    def operations(self) -> Operations: ...

    @property
    def watches(self) -> Watches: ...

    @property
    def acks(self) -> Acks: ...

    @property
    def sessions(self) -> Sessions: ...

    @property
    def replication(self) -> Replication | None:
        """None: a node that has nothing to do with others."""

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

    def kick_soon(self) -> None: ...

    def ready(self) -> bool: ...

    async def run_slices(self, step: Callable[[], bool], /) -> None: ...
