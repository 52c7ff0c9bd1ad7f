"""A walk over keys in pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.client.walk import Walk
from edgekv.errors import Denied, InvalidRequest

FORGOTTEN = InvalidRequest("invalid cursor: this scan was left too long ago, or the node restarted. Start at 0 again.")


@given(st.sets(st.binary(min_size=1, max_size=3), max_size=40), st.lists(st.booleans(), max_size=30), st.integers(1, 7))
def test_every_key_is_shown_once_whatever_cursors_are_forgotten(
    keys: set[bytes], forgets: list[bool], page: int
) -> None:
    ordered, walk, shown, forgotten = sorted(keys), Walk(b""), [], iter(forgets)
    while walk.more:
        words = walk.command().words
        at = int(words[1])
        if at and next(forgotten, False):
            walk.failed(FORGOTTEN)
            continue
        end = at + page
        shown += walk.page((end if end < len(ordered) else 0, ordered[at:end]))
    assert shown == ordered


def test_any_other_error_ends_the_walk() -> None:
    with pytest.raises(Denied):
        Walk(b"").failed(Denied("no"))
    with pytest.raises(InvalidRequest):
        Walk(b"").failed(FORGOTTEN)  # cursor 0 cannot be forgotten
