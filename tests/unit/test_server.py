"""The shell of one node, in this process."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Literal

import pytest

from edgekv.config import Address, Config
from edgekv.errors import LogFailed
from edgekv.server import Server
from edgekv.wal.log import Log

_LOOPBACK = Address("127.0.0.1", 0)


@pytest.mark.parametrize("applier", ["inline", "process"])
def test_a_failure_of_the_very_last_sync_is_not_a_clean_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, applier: Literal["inline", "process"]
) -> None:
    def fail(_log: Log, _payload: bytes = b"", _records: int = 1) -> None:
        raise LogFailed("fdatasync of the log failed")

    def stop_when_ready(line: str) -> None:
        if line == "ready":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Log, "close_clean", fail)
    config = Config(
        data_dir=tmp_path / "node", http=_LOOPBACK, resp=_LOOPBACK, peer=_LOOPBACK, applier=applier, small_memory=True
    )
    with pytest.raises(LogFailed):
        asyncio.run(Server(config).run(stop_when_ready))
