"""Nodes run on uvloop, applications that embed one mostly on asyncio's own loop: both must do."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from tests.unit.net import sites


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def each_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    monkeypatch.setattr(sites, "new_loop", factory)
