"""keyspaces.json: ids outlive configuration files, and a configuration that differs is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspaces import DEFAULT_ID, META_ID
from edgekv.errors import ConfigError, Corruption
from edgekv.node.keyspace_file import FILE, load_or_seed
from edgekv.wal.segment import segment_name

DEFAULT = KeyspaceConfig(prefix=b"", name="default", durability="fsync")
ROOMS = KeyspaceConfig(prefix=b"room/", name="rooms", durability="buffered", ttl_s=60)


def test_the_first_start_gives_ids_that_later_starts_find(tmp_path: Path) -> None:
    seeded = load_or_seed(tmp_path, [DEFAULT, ROOMS])
    assert load_or_seed(tmp_path, [DEFAULT]) == seeded, "an entry left out of the configuration stays"
    assert [(p.id, p.name) for p in seeded] == [(DEFAULT_ID, "default"), (META_ID, "_meta"), (2, "rooms")]
    rooms = seeded[2]
    assert not rooms.fsync and rooms.ttl_ms == 60_000 and not rooms.system
    assert seeded[1].system


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": b"chamber/"},
        {"durability": "fsync"},
        {"ttl_s": 61},
        {"conflict": "siblings"},
        {"consistency": "strong"},
    ],
)
def test_a_keyspace_that_differs_from_the_directory_is_a_start_up_error(
    tmp_path: Path, change: dict[str, object]
) -> None:
    load_or_seed(tmp_path, [DEFAULT, ROOMS])
    ((field, value),) = change.items()
    said = re.escape(json.dumps(value.decode() if isinstance(value, bytes) else value))
    with pytest.raises(ConfigError, match=rf"'rooms': the configuration says {field} = {said}, .*Set it back"):
        load_or_seed(tmp_path, [DEFAULT, replace(ROOMS, **change)])  # type: ignore[arg-type] # one field of each type


def test_a_keyspace_that_came_after_the_first_start_is_refused_not_ignored(tmp_path: Path) -> None:
    load_or_seed(tmp_path, [DEFAULT])
    with pytest.raises(ConfigError, match="only seed a new data directory"):
        load_or_seed(tmp_path, [DEFAULT, ROOMS])


def test_a_damaged_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(Corruption):
        load_or_seed(tmp_path, [DEFAULT])


@pytest.mark.parametrize("file", [f"wal/{segment_name(1)}", "store/data.mdb"])
def test_a_file_that_was_lost_beside_a_log_or_a_store_is_not_seeded_again(tmp_path: Path, file: str) -> None:
    """The configuration of today may give the ids to other prefixes."""
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).touch()
    with pytest.raises(Corruption, match=r"is missing.*Restore it from a backup"):
        load_or_seed(tmp_path, [DEFAULT, ROOMS])
    assert not (tmp_path / FILE).exists()


def test_empty_folders_and_spares_are_what_a_first_start_may_find(tmp_path: Path) -> None:
    for folder in ("wal", "store"):
        (tmp_path / folder).mkdir()
    (tmp_path / "wal" / "spare-1").touch()
    assert load_or_seed(tmp_path, [DEFAULT])


@pytest.mark.parametrize("field", ["id", "name", "prefix", "durability", "consistency", "conflict", "ttl_s"])
@pytest.mark.parametrize("value", [None, []])
def test_an_entry_that_lacks_a_field_is_reported(tmp_path: Path, field: str, value: object) -> None:
    load_or_seed(tmp_path, [DEFAULT, ROOMS])
    record = json.loads((tmp_path / FILE).read_text())
    record["keyspaces"][2][field] = value
    if value is None:
        del record["keyspaces"][2][field]
    (tmp_path / FILE).write_text(json.dumps(record))
    with pytest.raises(Corruption, match=rf"{field}.*Restore it from a backup"):
        load_or_seed(tmp_path, [DEFAULT, ROOMS])


@pytest.mark.parametrize("field", ["durability", "consistency", "conflict"])
def test_an_entry_that_this_release_does_not_know_is_reported(tmp_path: Path, field: str) -> None:
    load_or_seed(tmp_path, [DEFAULT, ROOMS])
    record = json.loads((tmp_path / FILE).read_text())
    record["keyspaces"][2][field] = "other"
    (tmp_path / FILE).write_text(json.dumps(record))
    with pytest.raises(Corruption, match=f"{field} = 'other'"):
        load_or_seed(tmp_path, [DEFAULT])


def test_how_values_conflict_is_as_it_was_created(tmp_path: Path) -> None:
    load_or_seed(tmp_path, [DEFAULT, replace(ROOMS, conflict="siblings")])
    assert [policy.siblings for policy in load_or_seed(tmp_path, [DEFAULT])] == [False, False, True]


def test_a_file_without_the_default_keyspace_is_reported(tmp_path: Path) -> None:
    load_or_seed(tmp_path, [DEFAULT])
    record = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**record, "keyspaces": record["keyspaces"][1:]}))
    with pytest.raises(Corruption, match="ids 0 and 1"):
        load_or_seed(tmp_path, [])
