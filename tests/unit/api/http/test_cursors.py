"""Cursors: the promise that openapi/parameters.py makes of their form."""

import contextlib
import re

from hypothesis import given
from hypothesis import strategies as st

from edgekv.api.http.cursors import POSITION, POSITION_BYTES_MAX, position_of, position_text
from edgekv.errors import InvalidRequest


@given(st.binary(max_size=POSITION_BYTES_MAX))
def test_a_position_comes_back_as_it_was(position: bytes) -> None:
    text = position_text(position)
    assert position_of(text) == position and re.fullmatch(POSITION, text)


@given(st.from_regex(POSITION, fullmatch=True))
def test_every_text_of_the_documented_form_is_a_position(text: str) -> None:
    assert len(position_of(text)) == len(text) * 3 // 4


@given(st.text(st.characters(codec="utf-8"), max_size=30) | st.text("Aa0-_=+/.", max_size=12))
def test_every_other_text_is_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        position_of(text)
        assert re.fullmatch(POSITION, text)
