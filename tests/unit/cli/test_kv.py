"""get, put, del, incr and scan against a fake node."""

import json
import os
from pathlib import Path

import pytest

from edgekv.cli.options import CELL_CHARACTERS_MAX, as_cell, as_text
from tests.unit.cli.conftest import Program
from tests.unit.cli.fake_node import FakeNode

NOT_TEXT = b"\xff\x00\n"


def test_a_value_is_printed_byte_for_byte(node: FakeNode, edgekv: Program) -> None:
    node.rows[b"k"] = NOT_TEXT
    assert edgekv("get", "k").out == NOT_TEXT


def test_json_carries_other_bytes_as_base64(node: FakeNode, edgekv: Program) -> None:
    node.rows[b"k"] = NOT_TEXT
    assert json.loads(edgekv("get", "k", "-o", "json").out) == {
        "key": "k",
        "value": {"base64": "/wAK"},
        "etag": '"1-a"',
    }


def test_a_missing_key_is_named_and_exit_code_3(node: FakeNode, edgekv: Program) -> None:
    ended = edgekv("get", "room/9")
    assert (ended.exit_code, ended.out, ended.err) == (3, b"", "edgekv: there is no key room/9\n")


@pytest.mark.parametrize("key", ["a/b", "..", "a?b=c#d", "%2F", "ü", os.fsdecode(b"\xff\x01")])
def test_a_key_is_the_bytes_that_the_shell_passed(node: FakeNode, edgekv: Program, key: str) -> None:
    assert edgekv("put", key, "v").exit_code == 0
    assert node.rows == {os.fsencode(key): b"v"}
    assert edgekv("get", key).out == b"v"


def test_a_value_may_come_from_a_file(node: FakeNode, edgekv: Program, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(NOT_TEXT * 1000)
    edgekv("put", "k", "--file", str(tmp_path / "photo"))
    assert node.rows[b"k"] == NOT_TEXT * 1000


@pytest.mark.parametrize("value", ["-5", "-0.25", "-.5", "-1e-3"])
def test_a_negative_number_is_a_value(node: FakeNode, edgekv: Program, value: str) -> None:
    assert edgekv("put", "k", value, "--ttl-s", "60").exit_code == 0
    assert node.rows == {b"k": value.encode()}
    assert node.requests == ["PUT /v1/kv/k?ttl_s=60 HTTP/1.1"]


@pytest.mark.parametrize("mistyped", [["--fil=x"], ["--debug"], ["-5", "--tll-s", "9"]])
def test_a_mistyped_option_is_not_a_value(node: FakeNode, edgekv: Program, mistyped: list[str]) -> None:
    assert edgekv("put", "k", *mistyped).exit_code == 2
    assert node.rows == {}


def test_an_expiry_is_sent(node: FakeNode, edgekv: Program) -> None:
    edgekv("put", "k", "v", "--ttl-s", "60")
    assert node.requests == ["PUT /v1/kv/k?ttl_s=60 HTTP/1.1"]


def test_deleting_deletes_all_and_says_which_did_not_exist(node: FakeNode, edgekv: Program) -> None:
    node.rows = {b"a": b"1", b"b": b"2", b"c": b"3"}
    ended = edgekv("del", "a", "x", "b")
    assert (ended.exit_code, ended.err) == (3, "edgekv: no such key: x\n")
    assert node.rows == {b"c": b"3"}


def test_incr_adds_also_negative_amounts(node: FakeNode, edgekv: Program) -> None:
    assert edgekv("incr", "n").text == "1\n"
    assert edgekv("incr", "n", "-20").text == "-19\n"
    assert json.loads(edgekv("incr", "n", "5", "-o", "json").out) == {"key": "n", "value": -14}


def test_a_scan_follows_the_pages_to_its_limit(node: FakeNode, edgekv: Program) -> None:
    node.rows = {b"k%05d" % number: b"v" for number in range(2_500)} | {b"other": b"v"}
    keys = edgekv("scan", "k", "--keys-only", "--limit", "2400").text.split()
    assert keys == [f"k{number:05d}" for number in range(2_400)]
    assert len(node.requests) == 3


def test_a_scan_starts_where_it_is_told(node: FakeNode, edgekv: Program) -> None:
    node.rows = {b"a": b"1", b"b": NOT_TEXT, b"c": b"3"}
    assert edgekv("scan", "--start", "b").text == "KEY  TYPE    VALUE\nb    string  \\xff\\x00\\x0a\nc    string  3\n"
    assert json.loads(edgekv("scan", "--start", "c", "-o", "json").out) == [
        {"key": "c", "type": "string", "value": "3"}
    ]


def test_sets_and_maps_are_listed_with_how_much_they_hold(node: FakeNode, edgekv: Program) -> None:
    node.rows, node.sets = {b"a": b"1"}, {b"s": {b"x", b"y"}}
    node.maps = {b"m": {b"f": b"1"}}
    assert (
        edgekv("scan").text == "KEY  TYPE    VALUE\na    string  1\nm    hash    (1 field)\ns    set     (2 members)\n"
    )
    assert json.loads(edgekv("scan", "--type", "set", "-o", "json").out) == [{"key": "s", "type": "set", "count": 2}]
    assert edgekv("scan", "--type", "hash", "--keys-only").text == "m\n"
    assert edgekv("scan", "--type", "list").exit_code == 2


def test_an_empty_scan_is_no_error(node: FakeNode, edgekv: Program) -> None:
    ended = edgekv("scan", "nothing/", "-o", "json")
    assert (ended.exit_code, ended.text) == (0, "[]\n")


def test_a_scan_says_that_it_stopped_at_its_limit_and_only_then(node: FakeNode, edgekv: Program) -> None:
    node.rows = {b"a": b"1", b"b": b"2", b"c": b"3"}
    for more in ([], ["--keys-only"], ["-o", "json"]):
        stopped = edgekv("scan", "--limit", "2", *more)
        assert stopped.err == "edgekv: stopped at --limit 2; there are more\n"
        assert "c" not in stopped.text
        complete = edgekv("scan", "--limit", "3", *more)
        assert complete.err == "" and "c" in complete.text


def test_the_default_limit_costs_one_request(node: FakeNode, edgekv: Program) -> None:
    node.rows = {b"k%05d" % number: b"v" for number in range(1_001)}
    ended = edgekv("scan")
    assert len(ended.text.splitlines()) == 1 + 1_000 and "stopped at --limit 1000" in ended.err
    assert len(node.requests) == 1


def test_one_long_value_is_cut_in_the_table_and_makes_no_other_line_long(node: FakeNode, edgekv: Program) -> None:
    node.rows = {b"a": b"1", b"photo": b"\xff" * (1 << 20), b"text": "\u00e4".encode() * 5_000, b"z": b"2"}
    lines = edgekv("scan").text.splitlines()
    assert lines[1] == "a      string  1" and lines[4] == "z      string  2"
    assert lines[2] == "photo  string  " + "\\xff" * CELL_CHARACTERS_MAX + "... (1048576 bytes)"
    assert lines[3] == "text   string  " + "\u00e4" * CELL_CHARACTERS_MAX + "... (10000 bytes)"
    exact = json.loads(edgekv("scan", "text", "-o", "json").out)
    assert exact == [{"key": "text", "type": "string", "value": "\u00e4" * 5_000}]


@pytest.mark.parametrize("size", [0, 1, CELL_CHARACTERS_MAX])
@pytest.mark.parametrize("character", ["a", "\u00e4", "\U0001f321"])
def test_a_value_that_fits_is_not_cut(character: str, size: int) -> None:
    assert as_cell((character * size).encode()) == character * size
    assert as_cell((character * (size + CELL_CHARACTERS_MAX)).encode() + b"\xff\n").startswith(character * size)


def test_bytes_that_are_no_text_are_escaped_and_the_rest_is_left() -> None:
    assert as_text("a\u00e4\x7f\u200b\n".encode() + b"\xff\xc3") == "a\u00e4\\x7f\\xe2\\x80\\x8b\\x0a\\xff\\xc3"


NO_PAGE = [b"<html>hello</html>\n", b"5\n", b"[]\n", b"{}\n", b'{"key": "a", "value": "\\ud800"}\n', b'"key"\n']


@pytest.mark.parametrize("body", NO_PAGE)
def test_a_server_that_answers_a_scan_with_something_else_is_told(node: FakeNode, edgekv: Program, body: bytes) -> None:
    node.foreign = (200, body)
    ended = edgekv("scan")
    assert (ended.exit_code, ended.out) == (5, b"")
    assert ended.err == ("edgekv: the answer is not a page of a scan: is this the HTTP listener of an EdgeKV node?\n")


@pytest.mark.parametrize("status", [200, 201, 302, 404, 405, 501])
@pytest.mark.parametrize("command", [["put", "a", "b"], ["del", "a"], ["get", "a"]])
def test_a_server_that_is_no_node_is_told_from_a_missing_key(
    node: FakeNode, edgekv: Program, command: list[str], status: int
) -> None:
    if command[0] == "get" and status == 200:
        return  # nothing tells it from a value
    node.foreign = (status, b"404 page not found")
    ended = edgekv(*command)
    assert ended.exit_code == 5
    assert f"what listens at {node.http} is not an EdgeKV node (it answered {status})" in ended.err


@pytest.mark.parametrize("body", [b"hello", b"[1]", b"7"])
def test_a_counter_that_is_no_json_object_is_told(node: FakeNode, edgekv: Program, body: bytes) -> None:
    node.foreign = (200, body)
    ended = edgekv("incr", "n")
    assert (ended.exit_code, ended.err.count("\n")) == (5, 1)
    assert "is this the HTTP listener of an EdgeKV node?" in ended.err
