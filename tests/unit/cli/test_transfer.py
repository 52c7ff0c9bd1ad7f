"""import and export: what each row becomes, and that an import that ends early goes on where it was acknowledged."""

import gzip
import json
from pathlib import Path

import pytest

from edgekv.cli.exported import LINE_BYTES_MAX
from edgekv.cli.listing import PAGE_ROWS
from edgekv.cli.resp_client import BATCH_COMMANDS
from edgekv.cli.rows import Row, Shape
from edgekv.errors import InvalidRequest
from tests.unit.cli.conftest import Program
from tests.unit.cli.fake_node import FakeNode

WEATHER = "origin,hour,temp\nEWR,1,39.02\nJFK,2,NA\n"


def csv_file(tmp_path: Path, text: str = WEATHER) -> str:
    file = tmp_path / "weather.csv"
    file.write_text(text)
    return str(file)


def many(tmp_path: Path, count: int) -> str:
    return csv_file(tmp_path, "n\n" + "".join(f"{number}\n" for number in range(count)))


def test_a_csv_row_becomes_a_key_from_the_template_and_json_of_the_row(
    node: FakeNode, edgekv: Program, tmp_path: Path
) -> None:
    ended = edgekv("import", csv_file(tmp_path), "--key", "weather/{origin}/{hour}")
    assert ended.exit_code == 0, ended.err
    assert ended.text.startswith("imported 2 rows in ")
    assert node.rows == {
        b"weather/EWR/1": b'{"origin":"EWR","hour":"1","temp":"39.02"}',
        b"weather/JFK/2": b'{"origin":"JFK","hour":"2","temp":"NA"}',
    }


def test_one_column_may_be_the_value_and_an_expiry_set(node: FakeNode, edgekv: Program, tmp_path: Path) -> None:
    edgekv("import", csv_file(tmp_path), "--key", "{origin}", "--value", "temp", "--ttl-s", "60")
    assert node.rows == {b"EWR": b"39.02", b"JFK": b"NA"}
    assert node.expiries == {b"EWR": b"EX 60", b"JFK": b"EX 60"}


def test_compressed_json_lines_are_read_by_their_name(node: FakeNode, edgekv: Program, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"id": 7, "at": {"x": 1}}\n{"id": "a", "at": null}\n'))
    edgekv("import", str(file), "--key", "{id}", "--value", "at")
    assert node.rows == {b"7": b'{"x":1}', b"a": b"null"}


def test_an_export_is_imported_again_without_a_template_and_unchanged(
    node: FakeNode, edgekv: Program, tmp_path: Path
) -> None:
    rows = {b"text": b"one", b"bytes\xff": b"\x00\xfe", b"json": b'{"a":1}', b"empty": b""}
    node.rows = dict(rows)
    exported = edgekv("export").out
    node.rows.clear()
    assert edgekv("import", "-", "--format", "jsonl", stdin=exported).exit_code == 0
    assert node.rows == rows


def test_an_export_has_sets_and_maps_too_and_an_import_restores_all_of_them(node: FakeNode, edgekv: Program) -> None:
    node.rows = {b"text": b"one"}
    node.sets = {b"s\xff": {b"", b"x", b"\xff\x00", b"{"}, b"large": {b"%05d" % i for i in range(2 * PAGE_ROWS + 7)}}
    node.maps = {b"m": {b"": b"", b"\xfe": b"\x00\xff", b"n": b"-12"}}
    node.ends = {b"large": 1893456000000, b"m": 1893456000001}
    held = (node.rows, node.sets, node.maps)
    exported = edgekv("export").out
    assert node.longest == PAGE_ROWS
    assert len(exported.splitlines()) == 1 + 1 + 3 + 1
    node.rows, node.sets, node.maps = {}, {}, {}
    ended = edgekv("import", "-", "--format", "jsonl", stdin=exported)
    assert ended.exit_code == 0 and "imported 6 rows" in ended.text
    assert (node.rows, node.sets, node.maps) == held
    assert node.expiries == {b"large": b"PEXPIREAT 1893456000000", b"m": b"PEXPIREAT 1893456000001"}


def test_a_line_of_an_export_has_a_bounded_size_and_a_large_field_one_of_its_own(
    node: FakeNode, edgekv: Program
) -> None:
    large = b"x" * (LINE_BYTES_MAX + 1)
    node.maps = {b"m": {b"a": b"1", b"b": large, b"c": b"2", **{b"d%d" % i: b"y" * 1000 for i in range(1000)}}}
    fields = dict(node.maps[b"m"])
    exported = edgekv("export").out
    lines = [json.loads(line)["fields"] for line in exported.splitlines()]
    assert [len(line) for line in lines[:2]] == [1, 1] and lines[1][0][0] == "b"
    assert max(len(line) for line in exported.splitlines()) < LINE_BYTES_MAX + 20_000
    node.maps = {}
    edgekv("import", "-", "--format", "jsonl", stdin=exported)
    assert node.maps == {b"m": fields}


def test_a_set_that_ends_while_it_is_exported_is_no_error(node: FakeNode, edgekv: Program) -> None:
    node.rows, node.sets, node.gone = {b"z": b"1"}, {b"s": {b"x"}}, {b"s"}
    ended = edgekv("export")
    assert (ended.exit_code, ended.out) == (0, b'{"key":"z","value":"1"}\n')


def test_lines_of_other_programs_may_be_long_and_have_fields_by_name(node: FakeNode, edgekv: Program) -> None:
    members = list(range(2_500))
    lines = [
        {"key": "s", "type": "set", "members": members},
        {"key": "h", "type": "hash", "fields": {"a": 1, "b": "x"}},
    ]
    ended = edgekv("import", "-", "--format", "jsonl", "--ttl-s", "9", stdin="\n".join(map(json.dumps, lines)).encode())
    assert ended.exit_code == 0, ended.err
    assert node.sets[b"s"] == {b"%d" % each for each in members}
    assert node.maps == {b"h": {b"a": b"1", b"b": b"x"}}
    assert node.expiries == {b"s": b"EXPIRE 9", b"h": b"EXPIRE 9"}
    assert node.commands == 3 + 1 + 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key": "k", "type": "set"}', 'row 1 is a set without a list of "members"'),
        ('{"key": "k", "type": "set", "members": "x"}', 'row 1 is a set without a list of "members"'),
        ('{"key": "k", "type": "hash", "fields": 7}', 'row 1 is a hash without a list of "fields"'),
        ('{"key": "k", "type": "hash", "fields": [["a"]]}', "row 1 has a field that is no [field, value] pair"),
        ('{"key": "", "type": "set", "members": []}', "row 1: its key has 0 bytes"),
        ('{"key": "k", "type": "list", "members": []}', 'row 1 has no column "value"'),
    ],
)
def test_a_line_of_a_set_or_map_that_is_none_is_named(node: FakeNode, edgekv: Program, line: str, message: str) -> None:
    ended = edgekv("import", "-", "--format", "jsonl", stdin=line.encode())
    assert ended.exit_code == 2 and ended.err.startswith(f"edgekv: {message}")
    assert (node.sets, node.maps) == ({}, {})


def test_a_row_with_a_value_is_a_string_whatever_its_type_column_says(node: FakeNode, edgekv: Program) -> None:
    edgekv("import", "-", "--format", "jsonl", stdin=b'{"key": "k", "value": "v", "type": "set"}\n')
    edgekv(
        "import", "-", "--format", "jsonl", "--key", "x/{key}", stdin=b'{"key": "k", "type": "set", "members": []}\n'
    )
    assert node.rows == {b"k": b"v", b"x/k": b'{"key":"k","type":"set","members":[]}'}


def test_a_key_of_another_type_stops_an_import_there_and_it_goes_on_when_the_key_is_deleted(
    node: FakeNode, edgekv: Program, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"key": "a", "value": "1"}\n{"key": "s", "type": "set", "members": ["x"], "expiry_ms": 7}\n')
    node.rows = {b"s": b"a string"}
    ended = edgekv("import", str(file))
    assert (ended.exit_code, ended.err.partition(".")[0]) == (4, "edgekv: row 2: its key holds another type here")
    del node.rows[b"s"]
    assert "(resumed after 1)" in edgekv("import", str(file)).text
    assert (node.sets, node.expiries) == ({b"s": {b"x"}}, {b"s": b"PEXPIREAT 7"})


def test_an_import_that_dies_within_the_commands_of_a_row_repeats_that_row(
    node: FakeNode, edgekv: Program, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [{"key": f"s{i}", "type": "set", "members": ["x"], "expiry_ms": 7} for i in range(10)]
    file.write_text("\n".join(map(json.dumps, lines)))
    node.answer = lambda number, arguments: b"" if number == 8 else None  # the fourth row's expiry
    assert edgekv("import", str(file)).exit_code == 7
    assert len(node.sets) == 4 and len(node.expiries) == 3
    node.answer = lambda number, arguments: None
    assert "(resumed after 3)" in edgekv("import", str(file)).text
    assert len(node.sets) == len(node.expiries) == 10


def test_an_export_carries_expiries_and_an_import_takes_them_up(node: FakeNode, edgekv: Program) -> None:
    line = b'{"key": "k", "value": "v", "expiry_ms": 1893456000000}\n'
    edgekv("import", "-", "--format", "jsonl", stdin=line)
    assert node.expiries == {b"k": b"PXAT 1893456000000"}


def test_an_export_to_a_file_appears_when_it_is_complete(node: FakeNode, edgekv: Program, tmp_path: Path) -> None:
    node.rows = {b"a": b"1"}
    edgekv("export", "--file", str(tmp_path / "all.jsonl"))
    assert [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()] == [
        {"key": "a", "value": "1"}
    ]
    node.problem = (503, {"code": "unavailable", "detail": "no."})
    assert edgekv("export", "--file", str(tmp_path / "more.jsonl")).exit_code == 5
    assert edgekv("export", "--file", str(tmp_path / "more.jsonl"), "--http", "127.0.0.1:1").exit_code == 5
    assert [file.name for file in tmp_path.iterdir()] == ["all.jsonl"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (WEATHER, ["--key", "{orign}"], 'row 1 has no column "orign": did you mean "origin"?'),
        (WEATHER, ["--key", "{origin"], 'the key template "{origin" has a lone or empty brace'),
        (WEATHER, ["--key", "{}"], 'the key template "{}" has a lone or empty brace'),
        (WEATHER, [], 'row 1 has no column "key"'),
        ("a,b\n1\n", ["--key", "{a}"], "row 1 (line 2) does not have as many columns as the header"),
        ("a,b\n1,2,3\n", ["--key", "{a}"], "row 1 (line 2) does not have as many columns as the header"),
        ("a\n\n" + "x" * 5000 + "\n", ["--key", "{a}"], "row 1: its key has 5000 bytes"),
        ('a,b\n1,"2', ["--key", "{a}"], "row 1 is not CSV"),
        ("a,b,a\n1,2,3\n", ["--key", "{b}"], 'the header names the column "a" 2 times: give each its own name\n'),
    ],
)
def test_a_bad_row_is_named(
    node: FakeNode, edgekv: Program, tmp_path: Path, text: str, arguments: list[str], message: str
) -> None:
    ended = edgekv("import", csv_file(tmp_path, text), *arguments)
    assert ended.exit_code == 2
    assert ended.err.startswith(f"edgekv: {message}")


@pytest.mark.parametrize("line", ["{", "[1]", "7"])
def test_a_line_that_is_no_json_object_is_named(node: FakeNode, edgekv: Program, line: str) -> None:
    ended = edgekv("import", "-", "--format", "jsonl", "--key", "{a}", stdin=b'{"a": 1}\n' + line.encode() + b"\n")
    assert ended.err.startswith("edgekv: row 2 is not ")
    assert node.rows == {b"1": b'{"a":1}'}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{ ", "row 2 is not JSON: Expecting property name enclosed in double quotes at column"),
        (b'{"a": "x\\ud800"}', "row 2 has \\ud800, which is half of a character"),
        (b'{"a": 1, "b": {"c": "\\udc00\\ud800"}}', "row 2 has \\udc00, which is half of a character"),
        (b'{"a": ' + b"[" * 100_000, "row 2 cannot be read: maximum recursion depth exceeded"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "row 2 cannot be read: Exceeds the limit"),
    ],
    ids=["cut", "half a pair", "half a pair inside", "deep", "long number"],
)
def test_json_that_cannot_be_stored_is_one_line_with_one_position(
    node: FakeNode, edgekv: Program, line: bytes, message: str
) -> None:
    ended = edgekv("import", "-", "--format", "jsonl", "--key", "{a}", stdin=b'{"a": 1}\n\n \n' + line + b"\n")
    assert ended.exit_code == 2
    assert ended.err.startswith(f"edgekv: {message}") and ended.err.count("\n") == 1
    assert node.rows == {b"1": b'{"a":1}'}


def test_bytes_that_are_not_utf_8_go_through_json_unchanged(node: FakeNode, edgekv: Program) -> None:
    edgekv("import", "-", "--format", "jsonl", stdin=b'{"key": "a\xff", "value": {"x": "\xff"}}\n')
    assert node.rows == {b"a\xff": b'{"x":"\xff"}'}


@pytest.mark.parametrize(
    "content", [b"a\n1\n", gzip.compress(b"a\n" + bytes(range(48, 58)) * 999)[:-9]], ids=["none", "cut"]
)
def test_a_gzip_file_that_is_none_or_is_cut_is_named(
    node: FakeNode, edgekv: Program, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "rows.csv.gz"
    file.write_bytes(content)
    ended = edgekv("import", str(file), "--key", "{a}")
    assert (ended.exit_code, ended.err.count("\n")) == (2, 1)
    assert ended.err.startswith(f"edgekv: {file} cannot be decompressed")


def test_rows_before_a_bad_one_are_stored(node: FakeNode, edgekv: Program, tmp_path: Path) -> None:
    edgekv("import", csv_file(tmp_path, "a\n1\n2\n" + "x" * 5000 + "\n"), "--key", "{a}")
    assert node.rows.keys() == {b"1", b"2"}


def test_braces_can_be_part_of_a_key() -> None:
    shape = Shape(key="{{{a}}}/{{b}}", value="a")
    assert shape.row_key({"a": "x"}, 1) == b"{x}/{b}"


@pytest.mark.parametrize("template", ["{a.__class__}", "{a[0]}", "{a!r}", "{a:>9}"])
def test_a_template_only_names_columns_and_reaches_nothing_else(template: str) -> None:
    row: Row = {"a": "x"}
    with pytest.raises(InvalidRequest, match="row 1 has no column"):
        Shape(key=template).row_key(row, 1)


def test_an_import_that_lost_its_node_goes_on_after_the_last_acknowledged_row(
    node: FakeNode, edgekv: Program, tmp_path: Path
) -> None:
    count, dies_at = 5 * BATCH_COMMANDS, 2 * BATCH_COMMANDS + 7
    file = many(tmp_path, count)
    node.answer = lambda number, arguments: b"" if number == dies_at else None
    ended = edgekv("import", file, "--key", "{n}")
    assert ended.exit_code == 7
    assert "run the same command again to go on" in ended.err
    acknowledged = json.loads(Path(file + ".import-state").read_text())["rows"]
    assert acknowledged <= len(node.rows) == dies_at - 1
    node.commands, stored = 0, dict(node.rows)
    node.answer = lambda number, arguments: None
    again = edgekv("import", file, "--key", "{n}")
    assert f"imported {count - acknowledged} rows" in again.text
    assert f"(resumed after {acknowledged})" in again.text
    assert node.commands == count - acknowledged
    assert len(node.rows) == count and stored.items() <= node.rows.items()
    assert not Path(file + ".import-state").exists()


def test_an_import_that_was_refused_says_which_row_and_resumes_there(
    node: FakeNode, edgekv: Program, tmp_path: Path
) -> None:
    file = many(tmp_path, 2000)
    node.answer = lambda number, arguments: b"-ERR no such luck\r\n" if number == 1500 else None
    ended = edgekv("import", file, "--key", "{n}")
    assert (ended.exit_code, ended.err) == (2, "edgekv: row 1500: no such luck\n")
    assert json.loads(Path(file + ".import-state").read_text())["rows"] == 1499


def test_a_full_disk_ends_an_import_as_unavailable(node: FakeNode, edgekv: Program, tmp_path: Path) -> None:
    node.answer = lambda number, arguments: b"-DISKFULL the disk is full\r\n" if number > 10 else None
    ended = edgekv("import", many(tmp_path, 50), "--key", "{n}")
    assert (ended.exit_code, ended.err) == (5, "edgekv: the disk is full\n")


def test_the_state_of_another_import_is_refused_unless_restarted(
    node: FakeNode, edgekv: Program, tmp_path: Path
) -> None:
    file = csv_file(tmp_path)
    node.answer = lambda number, arguments: b"" if number == 2 else None
    assert edgekv("import", file, "--key", "{origin}").exit_code == 7
    node.answer = lambda number, arguments: None
    refused = edgekv("import", file, "--key", "other/{origin}")
    assert refused.exit_code == 2
    assert "belongs to another import (key differs)" in refused.err
    refused = edgekv("import", file, "--key", "other/{origin}", "--value", "temp")
    assert "belongs to another import (key, value differ)" in refused.err
    assert node.rows == {b"EWR": b'{"origin":"EWR","hour":"1","temp":"39.02"}'}
    node.rows.clear()
    assert edgekv("import", file, "--key", "other/{origin}", "--restart").exit_code == 0
    assert node.rows.keys() == {b"other/EWR", b"other/JFK"}


@pytest.mark.parametrize(
    "first", [b"-DENIED no\r\n", b"-OVERLOADED wait\r\n", b"-UNKNOWN lost\r\n", b"-ERR no\r\n", b"-CORRUPT no\r\n", b""]
)
def test_an_import_of_which_nothing_is_acknowledged_leaves_no_state(
    node: FakeNode, edgekv: Program, tmp_path: Path, first: bytes
) -> None:
    file = csv_file(tmp_path)
    node.answer = lambda number, arguments: first
    assert edgekv("import", file, "--key", "_meta/{origin}").exit_code != 0
    assert not Path(file + ".import-state").exists()
    node.answer = lambda number, arguments: None
    assert edgekv("import", file, "--key", "{origin}").exit_code == 0


@pytest.mark.parametrize(
    "content", ['{"job": 5, "rows": 1}', '{"job": {}, "rows": -3}', '{"job": {}, "rows": null}', "[]", "", "\udcff"]
)
def test_a_file_that_is_no_state_is_said_to_be_none(
    node: FakeNode, edgekv: Program, tmp_path: Path, content: str
) -> None:
    file = csv_file(tmp_path)
    Path(file + ".import-state").write_text(content, errors="surrogateescape")
    ended = edgekv("import", file, "--key", "{origin}")
    assert ended.exit_code == 2
    assert "is not the state of an import: remove it or use --restart" in ended.err
    assert node.rows == {}
