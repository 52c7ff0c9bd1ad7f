"""Lines of words."""

import pytest

from edgekv.api.resp.inline import words


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", []),
        (b"  \t ", []),
        (b"SET key value\r", [b"SET", b"key", b"value"]),
        (b'SET key "a b"', [b"SET", b"key", b"a b"]),
        (b'ECHO "\\x41\\n\\r\\t\\b\\a\\q\\""', [b"ECHO", b'A\n\r\t\b\aq"']),
        (b"ECHO 'a\\'b\\n'", [b"ECHO", b"a'b\\n"]),
        (b'ECHO ""', [b"ECHO", b""]),
        (b'ECHO a"b c"', [b"ECHO", b"ab c"]),
        (b"ECHO \xff\x00", [b"ECHO", b"\xff\x00"]),
    ],
)
def test_a_line_is_split_as_redis_splits_it(line: bytes, expected: list[bytes]) -> None:
    assert words(line) == expected


@pytest.mark.parametrize("line", [b'"', b"'", b'ECHO "a', b"ECHO 'a'b", b'ECHO "a"b', b'ECHO "a\\"'])
def test_quotes_that_do_not_balance_are_refused(line: bytes) -> None:
    assert words(line) is None
