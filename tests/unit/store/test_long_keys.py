"""The order of the rows of long keys: as sorting says, found once for each state of LMDB, and never kept beyond it."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.ids import KeyspaceId
from edgekv.store import layout, long_keys
from edgekv.store.long_keys import KEYS_MAX, LongKeys

KS = KeyspaceId(1)
KEY = b"k" * 480
OTHERS = (KEY + b"\x00", KEY + b"1", KEY[:-1] + b"l")


class Rows:
    """LMDB, as a dict of row keys, which counts how often it is walked."""

    def __init__(self) -> None:
        self.stored: dict[bytes, bytes] = {}
        self.state = 0
        self.walks = 0

    def put(self, key: bytes, *suffixes: bytes) -> None:
        self.state += 1
        for suffix in suffixes:
            row_key = layout.row_key(KS, key, suffix)
            lmdb_key = layout.lmdb_key_of(row_key)
            self.stored[lmdb_key] = layout.encode_row(row_key, layout.Count(1, 0), lambda _: 0)

    def range(self, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        self.walks += 1
        return iter([(key, row) for key, row in sorted(self.stored.items()) if key >= low and (not high or key < high)])

    def ordered(self) -> LongKeys:
        return LongKeys(self, lambda: self.state)


tags = st.integers(0x01, 0xFE).map(lambda tag: bytes([tag]))
suffixes = st.sets(st.builds(bytes.__add__, tags, st.binary(max_size=39)), max_size=20)
places = st.builds(bytes.__add__, tags, st.binary(max_size=2))


@given(suffixes, suffixes, st.just(b"") | places, st.just(b"\xff") | places, st.integers(0, 25))
def test_the_lowest_suffixes_of_a_long_key_are_those_that_sorting_finds(
    mine: set[bytes], theirs: set[bytes], low: bytes, high: bytes, wanted: int
) -> None:
    rows = Rows()
    for key in OTHERS:
        rows.put(key, *theirs)
    rows.put(KEY, *mine)
    expected = [suffix for suffix in sorted(mine) if low <= suffix < high][:wanted]
    assert rows.ordered().lowest(KS, KEY, low, high, wanted) == expected


def test_pages_of_one_state_read_the_rows_once_and_another_state_reads_them_again() -> None:
    rows = Rows()
    rows.put(KEY, *(b"%04d" % i for i in range(500)))
    ordered = rows.ordered()
    pages = [ordered.lowest(KS, KEY, b"%04d" % first, b"\xff", 50) for first in range(0, 500, 50)]
    assert [suffix for page in pages for suffix in page] == [b"%04d" % i for i in range(500)] and rows.walks == 1
    rows.put(KEY, b"0000\x00")
    assert ordered.lowest(KS, KEY, b"0000", b"\xff", 2) == [b"0000", b"0000\x00"] and rows.walks == 2


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, keys = Rows(), [KEY + b"%d" % i for i in range(KEYS_MAX + 1)]
    for key in keys:
        rows.put(key, b"a", b"b")
    ordered = rows.ordered()
    for key in (*keys, keys[-1], keys[0]):
        assert ordered.lowest(KS, key, b"", b"\xff", 9) == [b"a", b"b"]
    assert rows.walks == len(keys) + 1  # the first one was given up for the last one
    monkeypatch.setattr(long_keys, "BYTES_MAX", 1)
    large = rows.ordered()
    for _ in range(2):
        assert large.lowest(KS, KEY + b"0", b"", b"\xff", 9) == [b"a", b"b"]
    assert rows.walks == len(keys) + 3


def test_a_key_is_long_when_lmdb_orders_none_of_its_rows() -> None:
    longest = next(n for n in range(4096) if LongKeys.has(KS, b"k" * n))
    assert len(layout.row_key(KS, b"k" * longest, b"")) == layout.ORDER_BYTES
    assert not LongKeys.has(KS, b"k" * (longest - 1))
