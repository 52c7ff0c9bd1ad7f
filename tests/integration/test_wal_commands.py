"""`edgekv wal inspect` and `salvage` on the directory of a real node, before and after a byte of its log was flipped."""

import json
from pathlib import Path

from edgekv.cli.node_process import NodeProcess
from edgekv.cli.resp_client import RespConnection
from tests.unit.cli.conftest import Program

SMALL = (
    "--limits-value-bytes-max=65536",
    "--wal-segment-bytes=1048576",
    "--memory-bytes=4194304",
    "--small-memory=true",
)
KEYS = 20
DAMAGED = 10


def write_and_stop(data_dir: Path) -> None:
    with NodeProcess(data_dir, *SMALL) as node:
        with RespConnection(node.resp, 10) as connection:
            for number in range(KEYS):  # one frame each
                assert connection.call(b"SET", b"k%02d" % number, b"value-%02d" % number) == b"OK"
        assert node.stop() == 0


def flip_a_byte(data_dir: Path) -> None:
    wanted = b"value-%02d" % DAMAGED
    for segment in sorted((data_dir / "wal").glob("seg-*")):
        content = bytearray(segment.read_bytes())
        if (place := content.find(wanted)) >= 0:
            content[place] ^= 1
            segment.write_bytes(content)
            return
    raise AssertionError("the value is in no segment")


def test_a_sound_log_is_inspected_and_left_alone(edgekv: Program, tmp_path: Path) -> None:
    data_dir = tmp_path / "node"
    write_and_stop(data_dir)
    before = {file.name: file.read_bytes() for file in (data_dir / "wal").iterdir()}
    inspected = edgekv("wal", "inspect", "--data-dir", str(data_dir), "-o", "json")
    assert inspected.exit_code == 0, inspected.err
    found = json.loads(inspected.out)
    assert found["damage"] == []
    assert sum(segment["frames"] for segment in found["segments"]) >= KEYS
    assert found["segments"][-1]["clean"]
    assert "nothing was changed" in edgekv("wal", "salvage", "--data-dir", str(data_dir)).text
    assert {file.name: file.read_bytes() for file in (data_dir / "wal").iterdir()} == before


def test_damage_is_reported_and_given_up_only_when_that_is_accepted(edgekv: Program, tmp_path: Path) -> None:
    data_dir = tmp_path / "node"
    write_and_stop(data_dir)
    flip_a_byte(data_dir)
    inspected = edgekv("wal", "inspect", "--data-dir", str(data_dir))
    assert inspected.exit_code == 1
    assert "damaged" in inspected.text and "see edgekv wal salvage --help" in inspected.err
    actor = (data_dir / "identity.json").read_text()

    refused = edgekv("wal", "salvage", "--data-dir", str(data_dir))
    assert refused.exit_code == 2
    assert "Add --accept-data-loss" in refused.err
    assert (data_dir / "identity.json").read_text() == actor

    done = edgekv("wal", "salvage", "--data-dir", str(data_dir), "--accept-data-loss", "-o", "json")
    assert done.exit_code == 0, done.err
    assert json.loads(done.out)["first_lost_lsn"] > 0
    assert (data_dir / "identity.json").read_text() != actor, "the node must not issue its dots again"

    with NodeProcess(data_dir, *SMALL) as node, RespConnection(node.resp, 10) as connection:
        values = connection.call(b"MGET", *(b"k%02d" % number for number in range(KEYS)))
        assert values == [b"value-%02d" % number for number in range(DAMAGED)] + [None] * (KEYS - DAMAGED)
        assert connection.call(b"SET", b"k%02d" % DAMAGED, b"again") == b"OK"
        assert node.stop() == 0
    assert edgekv("wal", "inspect", "--data-dir", str(data_dir)).exit_code == 0


def test_the_log_of_a_running_node_is_left_alone(edgekv: Program, tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node", *SMALL):
        ended = edgekv("wal", "inspect", "--data-dir", str(tmp_path / "node"))
    assert ended.exit_code == 5
    assert "is in use by another edgekv process" in ended.err


def test_a_directory_that_is_no_node_s_is_said_and_not_made(edgekv: Program, tmp_path: Path) -> None:
    ended = edgekv("wal", "inspect", "--data-dir", str(tmp_path / "typo"))
    assert ended.exit_code == 2
    assert "is not the directory of a node" in ended.err
    assert not (tmp_path / "typo").exists()
