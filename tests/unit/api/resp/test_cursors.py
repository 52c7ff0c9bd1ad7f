"""SCAN's cursors."""

import pytest

from edgekv.api.resp.cursors import Cursors
from edgekv.errors import InvalidRequest


def test_a_cursor_leads_back_to_its_key_as_often_as_it_is_used() -> None:
    cursors = Cursors(10, 1)
    cursor = cursors.issue(b"key")
    assert cursors.start(b"%d" % cursor) == cursors.start(b"%d" % cursor) == b"key"


def test_cursor_zero_is_the_beginning() -> None:
    assert Cursors(10, 5).start(b"0") == b""


def test_the_table_is_bounded_and_the_oldest_cursor_is_an_error_not_a_wrong_place() -> None:
    cursors = Cursors(3, 1)
    issued = [cursors.issue(b"%d" % i) for i in range(5)]
    assert len(cursors) == 3
    with pytest.raises(InvalidRequest, match="Start at 0 again"):
        cursors.start(b"%d" % issued[1])
    assert cursors.start(b"%d" % issued[2]) == b"2"


@pytest.mark.parametrize("argument", [b"", b"x", b"-1", b"1.0", b" 1", b"18446744073709551616", b"9" * 5000])
def test_what_is_no_cursor_is_refused(argument: bytes) -> None:
    with pytest.raises(InvalidRequest, match="invalid cursor"):
        Cursors(10, 1).start(argument)
