import threading
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from edgekv.limits import SPARE_FREE_BYTES_MIN
from edgekv.wal import spares as spares_module
from edgekv.wal.log import Log
from edgekv.wal.spares import SpareMaker
from tests.sim.disk import SimDisk
from tests.unit.wal.logs import SEGMENT_BYTES, entropy, new_disk, open_log


def maker(disk: SimDisk, log: Log, wanted: int) -> tuple[SpareMaker, "SimpleQueue[int]"]:
    """A maker, and a queue of how many spares there were at each change it told of."""
    changes: SimpleQueue[int] = SimpleQueue()
    made = SpareMaker(
        disk,
        log,
        segment_bytes=SEGMENT_BYTES,
        entropy=entropy(5),
        wanted=wanted,
        on_change=lambda: changes.put(log.spares),
    )
    return made, changes


def test_spares_are_made_until_there_are_enough_and_again_when_one_was_used() -> None:
    disk = new_disk()
    log = open_log(disk)
    spare_maker, changes = maker(disk, log, wanted=3)
    spare_maker.start()
    assert [changes.get(timeout=10) for _ in range(3)] == [1, 2, 3]
    log.roll()
    assert log.spares == 2
    spare_maker.wake()
    assert changes.get(timeout=10) == 3
    spare_maker.close()
    assert log.spares == sum(name.startswith("spare-") for name in disk.names()) == 3


@pytest.mark.parametrize("free_bytes", [SEGMENT_BYTES + SPARE_FREE_BYTES_MIN - 1, "enospc"])
def test_a_full_disk_is_said_and_ends_when_there_is_room(free_bytes: int | str) -> None:
    disk = new_disk()
    log = open_log(disk)
    if isinstance(free_bytes, int):
        disk.free_bytes = lambda: free_bytes  # type: ignore[method-assign]
    else:
        disk.arm = free_bytes
    spare_maker, changes = maker(disk, log, wanted=1)
    spare_maker.start()
    said = [(changes.get(timeout=10), spare_maker.full)]
    disk.free_bytes = lambda: 1 << 40  # type: ignore[method-assign]
    spare_maker.wake()
    said.append((changes.get(timeout=10), spare_maker.full))
    assert said == [(0, True), (1, False)]
    spare_maker.close()


def test_a_full_disk_is_tried_again_without_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares_module, "SPARE_RETRY_MS", 1)
    disk = new_disk()
    log = open_log(disk)
    disk.arm = "enospc"
    spare_maker, changes = maker(disk, log, wanted=1)
    spare_maker.start()
    assert [changes.get(timeout=10) for _ in range(2)] == [0, 1]
    spare_maker.close()


def test_closing_ends_a_spare_that_is_being_made() -> None:
    started = threading.Event()

    class SlowDisk(SimDisk):
        def create(self, name: str, size: int, pause: Callable[[], None] = lambda: None):  # type: ignore[no-untyped-def]
            started.set()
            while True:
                pause()

    log = open_log(new_disk())
    disk = SlowDisk(new_disk().rng)
    spare_maker, _ = maker(disk, log, wanted=1)
    spare_maker.start()
    assert started.wait(10)
    spare_maker.close()
    assert disk.names() == [] and log.spares == 0
