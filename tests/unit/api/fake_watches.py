"""Watches of which a test says what they show."""

from collections.abc import Callable

from edgekv.errors import Denied, InvalidRequest, TooLarge
from edgekv.limits import KEY_BYTES_MAX
from edgekv.node.watch import Step
from edgekv.node.watch_events import Event, Written


class FakeWatch:
    """Shows what is put into ``steps``; its cursor is the number of events that it has shown."""

    def __init__(self, prefix: bytes, cursor: str) -> None:
        self.prefix = prefix
        self.number = int(cursor or 0)
        self.steps: list[list[Event]] = []
        self.files: list[list[Event]] = []
        """What `load` brings."""
        self.durable_lsn = 0
        self.closed = False

    @property
    def cursor(self) -> str:
        return str(self.number)

    @property
    def lags(self) -> bool:
        return bool(self.files)

    def load(self, durable_lsn: int) -> None:
        self.steps.append(self.files.pop(0))

    def step(self) -> Step:
        if not self.steps:
            return Step([], more=False)
        events = self.steps.pop(0)
        self.number += len(events)
        return Step(events, more=True)

    def close(self) -> None:
        self.closed = True


class FakeWatches:
    def __init__(self) -> None:
        self.opened: list[FakeWatch] = []
        self.waiting: list[Callable[[], None]] = []

    @property
    def count(self) -> int:
        return len(self.opened)

    def open(self, prefix: bytes, cursor: str = "") -> FakeWatch:
        if cursor and not cursor.isdecimal():
            raise InvalidRequest("the cursor is not one that a watch has given.")
        if len(prefix) > KEY_BYTES_MAX:
            raise TooLarge("the prefix is too long.")
        if prefix == b"_meta/":
            raise Denied("keys below '_meta/' belong to EdgeKV itself.")
        watch = FakeWatch(prefix, cursor)
        self.opened.append(watch)
        return watch

    def when_durable(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        if callback in self.waiting:
            self.waiting.remove(callback)

    def write(self, *keys: bytes) -> None:
        """Something becomes durable: every watch shows it."""
        for watch in self.opened:
            first = watch.number + sum(map(len, watch.steps)) + 1
            watch.steps.append([put(key, str(i)) for i, key in enumerate(keys, first)])
        self.wake()

    def wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()


def put(key: bytes, cursor: str) -> Event:
    return Event("put", cursor, Written(key, "register", "0-0", b"v"))
