"""keyspaces.json: ids outlive configuration files, and a configuration that differs is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspaces import DEFAULT_ID, META_ID
from edgekv.errors import ConfigError, Corruption
from edgekv.node.keyspace_file import FILE, load_or_seed

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
    "change", [{"prefix": b"chamber/"}, {"durability": "fsync"}, {"ttl_s": 61}, {"conflict": "siblings"}]
)
def test_a_keyspace_that_differs_from_the_directory_is_a_start_up_error(
    tmp_path: Path, change: dict[str, object]
) -> None:
    load_or_seed(tmp_path, [DEFAULT, ROOMS])
    with pytest.raises(ConfigError, match="rooms"):
        load_or_seed(tmp_path, [DEFAULT, replace(ROOMS, **change)])  # type: ignore[arg-type] # one field of each type


def test_a_keyspace_that_came_after_the_first_start_is_refused_not_ignored(tmp_path: Path) -> None:
    load_or_seed(tmp_path, [DEFAULT])
    with pytest.raises(ConfigError, match="only seed a new data directory"):
        load_or_seed(tmp_path, [DEFAULT, ROOMS])


def test_a_damaged_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(Corruption):
        load_or_seed(tmp_path, [DEFAULT])
