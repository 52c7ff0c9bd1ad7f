"""get, put, del, incr and scan against a fake node."""

import json
import os
from pathlib import Path

import pytest

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
    assert edgekv("scan", "--start", "b").text == "KEY  VALUE\nb    \\xff\\x00\\x0a\nc    3\n"
    assert json.loads(edgekv("scan", "--start", "c", "-o", "json").out) == [{"key": "c", "value": "3"}]


def test_an_empty_scan_is_no_error(node: FakeNode, edgekv: Program) -> None:
    ended = edgekv("scan", "nothing/", "-o", "json")
    assert (ended.exit_code, ended.text) == (0, "[]\n")
