"""What a watch shows: events, and which of them an operation of the log becomes.

An event says what was *written*, in the words of its operation, not what the key holds: the log has no more, and a read for each event
would show a later state. So a mirror of keys that several sites write at the same time compares versions (a put of a register or field
counts when its version is the highest it has seen) or reads the key.

    PUT                               put     register   value, expiry_ms
    DELETE                            delete  register
    PUT_SIBLING, DELETE_SIBLINGS      put, delete  siblings   of a put value, expiry_ms; others may stay beside it
    ADD, RESET                        put, delete  counter    nothing more: the sum is of all sites
    EXPIRE                            expire  key        expiry_ms, 0: none any more
    ADD_ELEMENTS, REMOVE_ELEMENTS     put, delete  set   elements
    CLEAR_SET                         delete  set        without elements: all there were
    PUT_FIELDS, DELETE_FIELDS         put, delete  map   fields, of a put with their values
    ADD_FIELD, RESET_FIELDS           put, delete  map   fields, without values: they are counters
    CLEAR_MAP                         delete  map        without fields: all there were

When a key ends by its expiry nothing is written, and no event comes: whoever needs that has it from ``expiry_ms``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

from edgekv.crdt.operation import (
    ADD,
    ADD_ELEMENTS,
    ADD_FIELD,
    CLEAR_MAP,
    CLEAR_SET,
    DELETE,
    DELETE_FIELDS,
    DELETE_SIBLINGS,
    EXPIRE,
    PUT,
    PUT_FIELDS,
    PUT_SIBLING,
    REMOVE_ELEMENTS,
    RESET,
    RESET_FIELDS,
)
from edgekv.ids import Actor

Kind = Literal["put", "delete", "expire", "resync"]
Type = Literal["register", "siblings", "counter", "set", "map", "key"]
Phase = Literal["begin", "end"]
Field = tuple[bytes, bytes | None]
"""A field and, of a put, its value; None: it was deleted, or counts."""


class Written(NamedTuple):
    """What an event says of a key."""

    key: bytes
    type: Type
    version: str = ""
    """Of the change, "HLC-ACTOR" as in an ETag: later ones are greater."""
    value: bytes | None = None
    expiry_ms: int = 0
    """Absolute; of a put 0 for none, of an ``expire`` 0 for none any more."""
    elements: Sequence[bytes] | None = None
    fields: Sequence[Field] | None = None


class Event(NamedTuple):
    """One event. Its cursor resumes after it, or at the beginning of its change while others of that follow."""

    kind: Kind
    cursor: str
    written: Written | None = None
    """None: a ``resync``."""
    phase: Phase | None = None
    """Of a ``resync``: what is held of the prefix is void, and puts of all current rows follow; they were all."""

    def document(self) -> dict[str, object]:
        """Its data as an object of JSON; bytes stay bytes. Absent is what does not apply."""
        if self.written is None:
            return {"phase": self.phase}
        written = self.written
        found: dict[str, object] = {"key": written.key, "type": written.type}
        if written.version:
            found["version"] = written.version
        if written.value is not None:
            found["value"] = written.value
        if written.expiry_ms or self.kind == "expire":
            found["expiry_ms"] = written.expiry_ms
        if written.elements is not None:
            found["elements"] = written.elements
        if written.fields is not None:
            found["fields"] = [
                {"field": field} if value is None else {"field": field, "value": value}
                for field, value in written.fields
            ]
        return found

    @property
    def size(self) -> int:
        """Bytes of keys, values, elements and fields."""
        if self.written is None:
            return 0
        _, _, _, value, _, elements, fields = self.written
        size = len(self.written.key) + len(value or b"") + sum(map(len, elements or ()))
        return size + sum(len(field) + len(content or b"") for field, content in fields or ())


def version_text(hlc: int, actor: Actor) -> str:
    """The version of a change, as an ETag has it."""
    return f"{hlc:016x}-{actor[-8:].hex():0>16}"


def event_of(operation: Sequence[Any], version: str) -> tuple[Kind, Written]:
    """What an operation of the log is shown as."""
    return _SHOWN[operation[0]](operation, version)


def _plain(kind: Kind, name: Type) -> Callable[[Sequence[Any], str], tuple[Kind, Written]]:
    return lambda operation, version: (kind, Written(operation[1], name, version))


def _valued(name: Type) -> Callable[[Sequence[Any], str], tuple[Kind, Written]]:
    return lambda operation, version: ("put", Written(operation[1], name, version, operation[2], operation[3]))


def _expire(operation: Sequence[Any], version: str) -> tuple[Kind, Written]:
    return "expire", Written(operation[1], "key", version, expiry_ms=operation[2])


def _elements(kind: Kind, names: Callable[[Any], list[bytes]]) -> Callable[[Sequence[Any], str], tuple[Kind, Written]]:
    return lambda operation, version: (kind, Written(operation[1], "set", version, elements=names(operation[2])))


def _fields(kind: Kind, fields: Callable[[Any], list[Field]]) -> Callable[[Sequence[Any], str], tuple[Kind, Written]]:
    return lambda operation, version: (kind, Written(operation[1], "map", version, fields=fields(operation[2])))


_SHOWN: Final[dict[int, Callable[[Sequence[Any], str], tuple[Kind, Written]]]] = {
    PUT: _valued("register"),
    DELETE: _plain("delete", "register"),
    ADD: _plain("put", "counter"),
    RESET: _plain("delete", "counter"),
    EXPIRE: _expire,
    ADD_ELEMENTS: _elements("put", list),
    REMOVE_ELEMENTS: _elements("delete", lambda removed: [element for element, _ in removed]),
    CLEAR_SET: _plain("delete", "set"),
    PUT_FIELDS: _fields("put", lambda pairs: [(field, value) for field, value in pairs]),
    DELETE_FIELDS: _fields("delete", lambda names: [(field, None) for field in names]),
    ADD_FIELD: _fields("put", lambda field: [(field, None)]),
    RESET_FIELDS: _fields("delete", lambda resets: [(field, None) for field, _ in resets]),
    CLEAR_MAP: _plain("delete", "map"),
    PUT_SIBLING: _valued("siblings"),
    DELETE_SIBLINGS: _plain("delete", "siblings"),
}
