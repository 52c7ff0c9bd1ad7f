"""Identity: one incarnation per life that remembers its dots, a new one for every copy."""

import json
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.errors import ConfigError, Corruption, FormatUnknown
from edgekv.node.identity import (
    FILE,
    Identity,
    WrongClock,
    clock_was_wrong,
    is_new,
    load_or_create,
    reincarnate,
    renewed_ms,
    set_aside,
)
from edgekv.wal.segment import segment_name

NOW_MS: Final = 1_800_000_000_000


def entropy() -> Callable[[int], bytes]:
    numbers = count(1)
    return lambda length: next(numbers).to_bytes(length, "big")


def load(directory: Path, name: str = "n", site: str = "s") -> Identity:
    return load_or_create(directory, name=name, site=site, entropy=entropy(), now_ms=0)


def begin_log(directory: Path) -> None:
    (directory / "wal").mkdir()
    (directory / "wal" / segment_name(1)).touch()


def test_a_restart_keeps_cluster_node_and_incarnation(tmp_path: Path) -> None:
    first = load(tmp_path)
    begin_log(tmp_path)
    assert load(tmp_path) == first


def test_a_new_node_can_be_of_a_cluster_that_is_there_and_stays_in_it(tmp_path: Path) -> None:
    joined = load_or_create(tmp_path, name="n", site="s", entropy=entropy(), now_ms=0, cluster=b"c" * 16)
    assert joined.cluster == b"c" * 16 != joined.node
    begin_log(tmp_path)
    assert load_or_create(tmp_path, name="n", site="s", entropy=entropy(), now_ms=0, cluster=b"d" * 16) == joined


def test_a_directory_is_new_until_it_has_an_identity_or_a_log(tmp_path: Path) -> None:
    assert is_new(tmp_path)
    begin_log(tmp_path)
    assert not is_new(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    load(other)
    assert not is_new(other)


@pytest.mark.parametrize("left", [None, "spare-1", "torn-00000001-00001000", "lost-seg-00000001.wal"])
def test_a_directory_without_its_log_takes_a_new_incarnation_and_says_so(
    tmp_path: Path, left: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    original = load(tmp_path)
    if left is not None:
        (tmp_path / "wal").mkdir()
        (tmp_path / "wal" / left).touch()
    renewed = load(tmp_path)
    assert renewed.node == original.node and renewed.past == (original.incarnation,)
    assert "there is no log beside it" in caplog.text


def test_a_copied_directory_takes_a_new_incarnation_of_the_same_node(tmp_path: Path) -> None:
    first, copy = tmp_path / "first", tmp_path / "copy"
    first.mkdir()
    original = load(first)
    begin_log(first)
    shutil.copytree(first, copy)
    copied = load(copy)
    assert copied.node == original.node and copied.incarnation != original.incarnation
    assert copied.incarnation[:4] > original.incarnation[:4] and copied.past == (original.incarnation,)
    assert load(copy) == copied, "once taken it stays"
    assert load(first) == original


def test_another_name_or_site_is_refused_with_what_to_do(tmp_path: Path) -> None:
    load(tmp_path)
    with pytest.raises(ConfigError, match="--node n"):
        load(tmp_path, name="other")
    with pytest.raises(ConfigError, match="--site s"):
        load(tmp_path, site="elsewhere")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}'])
def test_a_damaged_file_is_reported_and_never_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises((Corruption, FormatUnknown)):
        load(tmp_path)
    assert (tmp_path / FILE).read_text() == text


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    load(tmp_path)
    record = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(FormatUnknown, match="newer edgekv"):
        load(tmp_path)


def test_how_long_ago_an_incarnation_was_taken_is_known_after_a_restart(tmp_path: Path) -> None:
    first = load(tmp_path)
    at_ms = (tmp_path / FILE).stat().st_mtime_ns // 1_000_000
    assert renewed_ms(tmp_path, first, at_ms) > 1 << 60, "the first one was not taken by anybody's word"
    second = reincarnate(tmp_path, first, entropy(), 0)
    at_ms = (tmp_path / FILE).stat().st_mtime_ns // 1_000_000
    assert renewed_ms(tmp_path, second, at_ms + 5_000) == 5_000
    assert renewed_ms(tmp_path, second, at_ms - 5_000) == 0


def test_of_two_lives_from_one_backup_the_later_one_comes_after_the_other(tmp_path: Path) -> None:
    """Whatever the random bits of them are."""
    backup = load(tmp_path)
    lives = [
        reincarnate(tmp_path, backup, lambda size, low=low: bytes([low] * size), NOW_MS + at_ms)  # type: ignore[misc]
        for low, at_ms in ((0xFF, 0), (0, 1_000))
    ]
    assert backup.actor < lives[0].actor < lives[1].actor


@given(now_ms=st.integers(0, 1 << 60), later_ms=st.integers(0, 1 << 60))
def test_an_incarnation_comes_after_those_before_it_whatever_the_clock_says(now_ms: int, later_ms: int) -> None:
    with TemporaryDirectory() as folder:
        first = load(Path(folder))
        second = reincarnate(Path(folder), first, entropy(), now_ms)
        third = reincarnate(Path(folder), second, entropy(), later_ms)
    assert first.actor < second.actor < third.actor


@pytest.mark.parametrize("as_another", [True, False])
def test_who_begins_anew_has_no_stamps_to_put_right(tmp_path: Path, as_another: bool) -> None:
    who = load(tmp_path)
    begin_log(tmp_path)
    clock_was_wrong(tmp_path, who, WrongClock(stamps_max={0: 5}))
    wrong = load(tmp_path)
    assert wrong.clock is not None
    assert set_aside(tmp_path, wrong, entropy(), 0, as_another=as_another).clock is None
