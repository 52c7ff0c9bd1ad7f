"""The request target: every byte string is a key, and two keys never meet on the wire."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.api.http.target import bytes_parameter, integer_parameter, parameters, percent_decoded, split_target
from edgekv.errors import InvalidRequest
from tests.unit.api.http.site import Site, served

RAW_BYTES = set(range(0x21, 0x7F)) - set(b"%?#")
"""What a request line may carry unescaped, and what is a key's there."""


@st.composite
def spelled_keys(draw: st.DrawFn) -> tuple[bytes, str]:
    """A key, and one of its spellings: every byte may be escaped, in either case of hex."""
    key = draw(
        st.binary(min_size=1, max_size=60) | st.sampled_from([b"..", b"a/../b", b"//", b"%2F", b"\x00", b"a?b#c"])
    )
    styles = draw(st.lists(st.sampled_from(("raw", "%{:02x}", "%{:02X}")), min_size=len(key), max_size=len(key)))
    spelled = "".join(
        chr(byte) if style == "raw" and byte in RAW_BYTES else (style if style != "raw" else "%{:02x}").format(byte)
        for byte, style in zip(key, styles, strict=True)
    )
    return key, spelled


@given(spelled_keys())
def test_every_spelling_of_a_key_decodes_to_its_bytes(spelled: tuple[bytes, str]) -> None:
    key, text = spelled
    path, query = split_target(f"/v1/kv/{text}?ttl_s=1")
    assert (percent_decoded(path.removeprefix("/v1/kv/")), query) == (key, "ttl_s=1")


@settings(max_examples=30)  # each starts a server
@given(st.lists(spelled_keys(), min_size=1, max_size=6))
def test_any_key_bytes_make_the_round_trip_through_the_server(spelled: list[tuple[bytes, str]]) -> None:
    @served()
    async def round_trip(site: Site) -> None:
        for number, (_, text) in enumerate(spelled):
            assert (await site.call("PUT", f"/v1/kv/{text}", body=b"%d" % number)).status == 204
        last = {key: b"%d" % number for number, (key, _) in enumerate(spelled)}
        assert {key: row.value for key, row in site.node.operations.rows.items()} == last
        for key, text in spelled:
            assert (await site.call("GET", f"/v1/kv/{text}")).body == last[key]

    round_trip()


@pytest.mark.parametrize(
    ("one", "other"), [("a%2Fb", "a%252Fb"), ("%ff", "%25ff"), ("a/b", "a//b"), ("a/../b", "b"), ("+", "%20")]
)
def test_keys_that_other_servers_confuse_stay_apart(one: str, other: str) -> None:
    assert percent_decoded(one) != percent_decoded(other)


@pytest.mark.parametrize("text", ["%zz", "%", "%4", "a%2", "%%20"])
def test_a_percent_sign_that_begins_no_escape_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="%25"):
        percent_decoded(text)


def test_bytes_above_ascii_in_the_target_are_the_key_as_they_are() -> None:
    assert percent_decoded("caf\u00e9\udcff") == b"caf\xc3\xa9\xff"


def test_the_absolute_form_that_proxies_send_loses_its_origin() -> None:
    assert split_target("http://node:7480/v1/kv/http://x?ttl_s=1") == ("/v1/kv/http://x", "ttl_s=1")


def test_a_misspelled_parameter_is_refused_with_the_right_one() -> None:
    with pytest.raises(InvalidRequest, match='Did you mean "prefix"'):
        parameters("prefx=a", ("prefix", "start"))


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        parameters("limit=1&limit=2", ("limit",))


def test_a_bare_plus_in_a_query_is_refused_because_it_has_two_meanings() -> None:
    with pytest.raises(InvalidRequest, match="%2B"):
        bytes_parameter({"prefix": "a+b"}, "prefix")
    assert bytes_parameter({"prefix": "a%2Bb%20%ff"}, "prefix") == b"a+b \xff"


@pytest.mark.parametrize("text", ["", "0", "11", "1.5", "1e1", "\u0661", "9" * 5000])
def test_a_number_out_of_range_or_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="from 1 to 10"):
        integer_parameter({"limit": text}, "limit", low=1, high=10)
