"""What a test leaves open is closed after it: for a node that was killed nobody else does it, and select() stops at 1,024."""

from collections.abc import Iterator

import pytest

from edgekv.wal.disk import RealDisk, RealFile


@pytest.fixture(autouse=True)
def closed_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened: list[RealDisk | RealFile] = []
    open_disk, open_file = RealDisk.__init__, RealFile.__init__

    def disk(self: RealDisk, *arguments: object, **options: object) -> None:
        open_disk(self, *arguments, **options)  # type: ignore[arg-type] # as it was called
        opened.append(self)

    def file(self: RealFile, fd: int) -> None:
        open_file(self, fd)
        opened.append(self)

    monkeypatch.setattr(RealDisk, "__init__", disk)
    monkeypatch.setattr(RealFile, "__init__", file)
    yield
    for one in opened:
        one.close()
