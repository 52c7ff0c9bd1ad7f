"""What names the nodes to talk to."""

import pytest

from edgekv.client.url import parse
from edgekv.errors import InvalidRequest


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("edgekv://127.0.0.1:7481", ["127.0.0.1:7481"]),
        ("edgekv://clinic-2", ["clinic-2:7481"]),
        ("edgekv://a:1,b:2,[::1]:3,[::2]", ["a:1", "b:2", "[::1]:3", "[::2]:7481"]),
    ],
)
def test_addresses_keep_their_order_and_a_port_may_be_left_out(url: str, addresses: list[str]) -> None:
    assert [str(address) for address in parse(url)] == addresses


@pytest.mark.parametrize(
    "url",
    ["", "edgekv://", "redis://a:1", "a:1", "edgekv://a:1/0", "edgekv://a:b", "edgekv://a:1,,b:2", "edgekv://u@a"],
)
def test_what_is_no_url_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(url)
