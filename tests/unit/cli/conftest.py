"""A fake node, and the program called as a shell would."""

import io
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from edgekv.cli.main import run
from tests.unit.cli.fake_node import FakeNode


class Ended(NamedTuple):
    """How a call of the program ended."""

    exit_code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


class Program:
    """``edgekv`` in this process, pointed at the fake node by its variables."""

    def __init__(self, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capture, self._patch = capfdbinary, monkeypatch

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ended:
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capture.readouterr()
        exit_code = run(list(arguments))
        out, err = self._capture.readouterr()
        return Ended(exit_code, out, err.decode())


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    with FakeNode() as fake:
        monkeypatch.setenv("EDGEKV_HTTP", str(fake.http))
        monkeypatch.setenv("EDGEKV_RESP", str(fake.resp))
        yield fake


@pytest.fixture
def edgekv(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(capfdbinary, monkeypatch)
