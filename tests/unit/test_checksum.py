"""CRC-32C: the published vector, and two implementations that must not differ by a bit."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.checksum import chain_next, crc32c, crcmod_crc32c
from edgekv.errors import ConfigError


def test_both_implementations_give_the_published_check_value() -> None:
    assert crc32c(b"123456789") == crcmod_crc32c()(b"123456789") == 0xE3069283


@given(st.binary(max_size=2000))
def test_both_implementations_agree(data: bytes) -> None:
    assert crc32c(data) == crcmod_crc32c()(data)


def test_the_pure_python_mode_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    crcmod_crc32c()
    monkeypatch.setattr(sys.modules["crcmod.crcmod"], "_usingExtension", False)
    with pytest.raises(ConfigError, match="Install google-crc32c"):
        crcmod_crc32c()


def test_a_chain_tells_histories_apart_that_differ_anywhere() -> None:
    histories = [[b"a", b"b"], [b"b", b"a"], [b"ab"], [b"a", b"c"]]
    ends = set()
    for bodies in histories:
        chain = 0
        for body in bodies:
            chain = chain_next(chain, 7, body)
        ends.add(chain)
    assert len(ends) == len(histories)


def test_a_chain_tells_the_same_changes_apart_that_were_made_at_other_times() -> None:
    assert chain_next(0, 7, b"a") != chain_next(0, 8, b"a")
