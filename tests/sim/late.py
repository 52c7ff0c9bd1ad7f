"""What a key may show that has late values: written by a member that was parked, and brought when it came back.

A late value may be older than a deletion that the cluster had forgotten by then. Where the deletion is still known it wins, by its
stamp; where it was forgotten the late value stays. Both are right, and all nodes must come to show the same one (`Witness.agree`). Of
every other row there is one truth, and of dots (elements, increments, siblings) as well: they do not lose to what was forgotten.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import product
from typing import Any, Final, NamedTuple

from edgekv.ids import Actor
from tests.sim.oracle import Change, Key, Shown, Stamp, Version

Dots = Callable[[Actor, int], bool]
"""Whether a change is one of these."""


class _Made(NamedTuple):
    """A version of a cell, or a clear of the map."""

    version: Version
    late: bool
    forgotten: bool


class _LateKey(Key):
    """A key that remembers every version of its cells."""

    def __init__(self, is_late: Dots, is_forgotten: Dots) -> None:
        super().__init__()
        self._is_late: Final = is_late
        self._is_forgotten: Final = is_forgotten
        self._made: Final[dict[bytes | int, list[_Made]]] = {}
        """By field, or the number below, all versions."""
        self._taken: tuple[Actor, int] = Actor(b""), 0

    def take(self, actor: Actor, seq: int, hlc: int, operation: Sequence[Any]) -> None:
        self._taken = actor, seq
        super().take(actor, seq, hlc, operation)

    def _register_version(self, version: Version) -> None:
        super()._register_version(version)
        self._note(_REGISTER, version)

    def _expiry_version(self, version: Version) -> None:
        super()._expiry_version(version)
        self._note(_EXPIRY, version)

    def _field(self, field: bytes, version: Version) -> None:
        super()._field(field, version)
        self._note(field, version)

    def _map_clear_stamp(self, stamp: Stamp) -> None:
        super()._map_clear_stamp(stamp)
        self._note(_CLEAR, Version(stamp, None))

    def _note(self, row: bytes | int, version: Version) -> None:
        made = _Made(version, self._is_late(*self._taken), self._is_forgotten(*self._taken))
        self._made.setdefault(row, []).append(made)

    def alternatives(self) -> Iterator[Key]:
        """The key as it may be."""
        rows = list(self._made.keys() - {_CLEAR})
        for chosen in product(*(self._choices(row) for row in rows)):
            key = copy(self)
            key._fields, key._ends, key._shown = dict(self._fields), None, {}
            for row, version in zip(rows, chosen, strict=True):
                if row == _REGISTER:
                    key._register = version
                elif row == _EXPIRY:
                    key._expiry = version
                else:
                    assert isinstance(row, bytes)
                    key._fields[row] = version
            yield key

    def _choices(self, row: bytes | int) -> list[Version]:
        """What all changes say; if that is a deletion which had been forgotten, any late value: one may have come after another."""
        made = self._made[row]
        newest = max(made, key=_stamp)
        choices = [newest.version]
        is_gone = newest.version.value is None or newest.version.expiry_ms
        if isinstance(row, bytes) and newest.version.stamp < self._map_clear:
            is_gone = True
        if newest.forgotten and is_gone:
            choices += [each.version for each in made if each.late and each is not newest]
        if isinstance(row, bytes):
            choices += self._fields_that_outlived(choices, {each.version for each in made if each.late})
        return choices

    def _fields_that_outlived(self, choices: list[Version], late: set[Version]) -> list[Version]:
        """Late values of a field that a clear of the map hides, unless that was forgotten: the newest stands for all."""
        newest = max(self._made.get(_CLEAR, []), key=_stamp, default=None)
        left = None if newest is None or newest.forgotten else newest.version.stamp
        return [
            version._replace(stamp=max(version.stamp, self._map_clear))
            for version in choices
            if version in late and (left is None or version.stamp >= left)
        ]


_REGISTER, _EXPIRY, _CLEAR = 1, 2, 3


def _stamp(made: _Made) -> Stamp:
    return made.version.stamp


def may_show(key: bytes, changes: Iterable[Change], now_ms: int, *, is_late: Dots, is_forgotten: Dots) -> list[Shown]:
    """All that a reader may be shown of a key by these changes, those of one actor in their order."""
    state = _LateKey(is_late, is_forgotten)
    for change in changes:
        for operation in change.operations:
            if operation[1] == key:
                state.take(change.actor, change.seq, change.hlc, operation)
    return [key.shown(now_ms) for key in state.alternatives()]
