"""keyspaces.json: ids outlive configuration files, and a configuration that differs is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspace_entry import Entry
from edgekv.engine.keyspaces import DEFAULT_ID, META_ID
from edgekv.errors import ConfigError, Corruption, PeerFault
from edgekv.node.keyspace_file import FILE, entries, load, load_or_seed, take_over
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
        {"late_write": "drop"},
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


def test_a_keyspace_is_held_by_the_edges_of_its_sites_and_by_every_hub(tmp_path: Path) -> None:
    default, meta, rooms = load_or_seed(tmp_path, [DEFAULT, replace(ROOMS, sites=("shop-7", "shop-8"))])
    assert rooms.sites == ("shop-7", "shop-8")
    assert rooms.held_at("shop-7", "edge") and not rooms.held_at("shop-9", "edge") and rooms.held_at("shop-9", "hub")
    assert default.held_at("shop-9", "edge") and meta.held_at("shop-9", "edge")


def test_a_file_without_sites_is_of_every_site(tmp_path: Path) -> None:
    """Releases that ran single nodes wrote none."""
    load_or_seed(tmp_path, [DEFAULT, ROOMS])
    record = json.loads((tmp_path / FILE).read_text())
    for entry in record["keyspaces"]:
        del entry["sites"]
    (tmp_path / FILE).write_text(json.dumps(record))
    assert [policy.sites for policy in load_or_seed(tmp_path, [DEFAULT, ROOMS])] == [(), (), ()]


def test_who_joins_has_the_same_keyspaces_under_the_same_ids(tmp_path: Path) -> None:
    hub, edge = tmp_path / "hub", tmp_path / "edge"
    hub.mkdir()
    edge.mkdir()
    policies = load_or_seed(hub, [DEFAULT, replace(ROOMS, sites=("shop-7",), conflict="siblings")])
    take_over(edge, json.loads(json.dumps(entries(policies))))
    assert load(edge, []) == policies


def test_who_joined_may_repeat_a_keyspace_without_its_durability_and_else_as_it_is(tmp_path: Path) -> None:
    take_over(tmp_path, entries(load_or_seed(tmp_path, [replace(DEFAULT, durability="buffered"), ROOMS])))
    unsaid = replace(ROOMS, durability=None)
    assert load(tmp_path, [unsaid])
    with pytest.raises(ConfigError, match="ttl_s = 61"):
        load(tmp_path, [replace(unsaid, ttl_s=61)])
    with pytest.raises(ConfigError, match=r"durability = .fsync"):
        load(tmp_path, [DEFAULT])


def test_who_joined_never_takes_its_keyspaces_from_its_configuration(tmp_path: Path) -> None:
    with pytest.raises(Corruption, match="is missing"):
        load(tmp_path, [DEFAULT])
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    "change",
    [{"id": 0}, {"id": "2"}, {"prefix": "zz"}, {"prefix": b"_meta/x".hex()}, {"sites": "shop"}, {"conflict": "other"}],
)
def test_keyspaces_of_a_cluster_that_cannot_be_used_are_not_written_down(tmp_path: Path, change: Entry) -> None:
    welcomed = entries(load_or_seed(tmp_path, [DEFAULT, ROOMS]))
    (tmp_path / FILE).unlink()
    with pytest.raises(PeerFault, match="Upgrade the older"):
        take_over(tmp_path, [*welcomed[:2], {**welcomed[2], **change}])
    with pytest.raises(PeerFault, match="Upgrade the older"):
        take_over(tmp_path, welcomed[:1])
    assert not (tmp_path / FILE).exists()


def test_sites_may_have_changed_since_the_configuration_was_written(tmp_path: Path) -> None:
    load_or_seed(tmp_path, [DEFAULT, replace(ROOMS, sites=("shop-7",))])
    assert load_or_seed(tmp_path, [DEFAULT, replace(ROOMS, sites=("shop-8",))])[2].sites == ("shop-7",)


def test_a_file_of_before_keeps_what_comes_late(tmp_path: Path) -> None:
    load_or_seed(tmp_path, [DEFAULT, replace(ROOMS, late_write="drop")])
    assert [policy.late_drop for policy in load(tmp_path, [])] == [False, False, True]
    record = json.loads((tmp_path / FILE).read_text())
    for entry in record["keyspaces"]:
        del entry["late_write"]
    (tmp_path / FILE).write_text(json.dumps(record))
    assert not any(policy.late_drop for policy in load(tmp_path, []))
