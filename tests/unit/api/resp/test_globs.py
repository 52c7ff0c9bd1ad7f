"""Redis' patterns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.api.resp.globs import compiled, literal_prefix

letters = st.text("ab", max_size=8).map(str.encode)


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        (b"*", b"", True),
        (b"*", b"a\nb\xff", True),
        (b"h?llo", b"hello", True),
        (b"h?llo", b"hllo", False),
        (b"h*llo", b"heeeello", True),
        (b"h[ae]llo", b"hallo", True),
        (b"h[^e]llo", b"hello", False),
        (b"h[^e]llo", b"hallo", True),
        (b"h[a-c]llo", b"hbllo", True),
        (b"h[c-a]llo", b"hbllo", True),
        (b"h[a-c]llo", b"hdllo", False),
        (b"h\\*llo", b"h*llo", True),
        (b"h\\*llo", b"hello", False),
        (b"h[\\]]llo", b"h]llo", True),
        (b"a[]b", b"ab", False),
        (b"a[", b"a[", False),
        (b"a\\", b"a\\", True),
        (b"a.c", b"abc", False),
        (b"*a*b", b"xaxxb", True),
        (b"*a*b", b"xaxxbc", False),
        (b"a**b", b"ab", True),
        (b"[[]*[]]", b"[x]", False),
        (b"[&&~~||--]", b"&", True),
    ],
)
def test_a_pattern_fits_as_in_redis(pattern: bytes, key: bytes, fits: bool) -> None:
    assert (compiled(pattern).fullmatch(key) is not None) == fits


def oracle(pattern: bytes, key: bytes) -> bool:
    """The definition, for patterns of letters, stars and question marks."""
    if not pattern:
        return not key
    if pattern[:1] == b"*":
        return any(oracle(pattern[1:], key[i:]) for i in range(len(key) + 1))
    return bool(key) and pattern[:1] in (b"?", key[:1]) and oracle(pattern[1:], key[1:])


@given(st.text("ab*?", max_size=8).map(str.encode), letters)
def test_stars_match_what_the_definition_says(pattern: bytes, key: bytes) -> None:
    assert (compiled(pattern).fullmatch(key) is not None) == oracle(pattern, key)


@given(st.text("ab*?[]^\\-", max_size=10).map(str.encode), letters)
def test_every_key_that_fits_begins_with_the_literal_prefix(pattern: bytes, key: bytes) -> None:
    if compiled(pattern).fullmatch(key):
        assert key.startswith(literal_prefix(pattern))


def test_a_hostile_pattern_is_quick() -> None:
    assert compiled(b"*a" * 500 + b"b").fullmatch(b"a" * 2000) is None
