"""``keyspaces.json``: which keyspaces this directory holds, under which ids.

Records of the log and rows of the store name keyspaces by id, so ids outlive any configuration file. ``[[keyspace]]`` entries of a
configuration seed this file at the first start of a node that founds a cluster; later they may only repeat it (consistency and
conflict rule are fixed at creation, and a prefix that changed its owner would hide the keys below it). Sites change while the cluster
runs, so nothing is said of a configuration that still has other ones.

A node that joins a cluster takes the keyspaces over from it (`take_over`): all of them, also those that it will not hold. From then on
the file is this node's durable copy of the cluster's list (replication/subscriptions.py), which a start can read before meta: it is
written before the log has the first record of a new keyspace.

Format 1: ``{"format": 1, "keyspaces": [entry, ...]}``, entries as engine/keyspace_entry.py has them. Id 0 is the default keyspace,
id 1 is ``_meta/``, where EdgeKV keeps what belongs to itself.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspace_entry import Entry, entry_of, policy_of
from edgekv.engine.keyspaces import DEFAULT_ID, META_ID, META_NAME, META_PREFIX, KeyspacePolicy, Keyspaces
from edgekv.errors import ConfigError, Corruption, FormatUnknown, PeerFault
from edgekv.ids import KeyspaceId
from edgekv.node.directory import has_log, has_store
from edgekv.node.json_file import replace_file

FORMAT: Final = 1
FILE: Final = "keyspaces.json"


def load_or_seed(directory: Path, configured: Sequence[KeyspaceConfig]) -> list[KeyspacePolicy]:
    """The keyspaces of the directory; on the first start of a node that founds its cluster those of the configuration, written down.

    Call it before a log or a store is made: beside one, a missing file was lost, and what a configuration says today may give its ids
    to other prefixes. Raises as `load`.
    """
    path = directory / FILE
    if not path.exists() and not has_log(directory) and not has_store(directory):
        write(directory, _seed(configured))
    return load(directory, configured)


def load(directory: Path, configured: Sequence[KeyspaceConfig]) -> list[KeyspacePolicy]:
    """The keyspaces of the directory.

    Raises Corruption when the file is missing or cannot be read; ConfigError when the configuration names a keyspace that differs from
    the one held. A configured keyspace without a durability accepts any.
    """
    path = directory / FILE
    if not path.exists():
        raise Corruption(
            f"{path} is missing, and the identity, the log and the store beside it belong to the ids it gave to keyspaces. Restore it "
            "from a backup of this directory, or move the directory away and start with an empty one.",
            path=str(path),
        )
    policies = _read(path)
    _compare(path, policies, configured)
    return policies


def entries(policies: Sequence[KeyspacePolicy]) -> list[Entry]:
    """The keyspaces as a node that is welcomed takes them over."""
    return [entry_of(policy) for policy in policies]


def take_over(directory: Path, welcomed: Sequence[Entry]) -> None:
    """Write down the keyspaces of the cluster that an empty directory joins: fsynced on return. PeerFault when they are none."""
    try:
        Keyspaces(_policies(welcomed))
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise PeerFault(
            f"the keyspaces of the cluster cannot be used ({type(error).__name__}: {error}). Upgrade the older of the two nodes."
        ) from error
    write(directory, list(welcomed))


def write(directory: Path, keyspaces: list[Entry]) -> None:
    """Write the keyspaces down as the cluster has them now: fsynced on return."""
    replace_file(directory / FILE, lambda _: {"format": FORMAT, "keyspaces": keyspaces})


def _seed(configured: Sequence[KeyspaceConfig]) -> list[Entry]:
    meta = KeyspaceConfig(prefix=META_PREFIX, name=META_NAME, durability="fsync")
    default, *others = configured
    numbered = [_configured(KeyspaceId(META_ID + 1 + i), keyspace) for i, keyspace in enumerate(others)]
    return entries([_configured(DEFAULT_ID, default), _configured(META_ID, meta), *numbered])


def _configured(number: KeyspaceId, keyspace: KeyspaceConfig) -> KeyspacePolicy:
    return KeyspacePolicy(
        id=number,
        name=keyspace.name,
        prefix=keyspace.prefix,
        fsync=keyspace.durability != "buffered",
        system=number == META_ID,
        ttl_ms=keyspace.ttl_s * 1000,
        siblings=keyspace.conflict == "siblings",
        late_drop=keyspace.late_write == "drop",
        consistency=keyspace.consistency,
        sites=keyspace.sites,
    )


def _compare(path: Path, policies: Sequence[KeyspacePolicy], configured: Sequence[KeyspaceConfig]) -> None:
    held = {policy.name: entry_of(policy) for policy in policies}
    for keyspace in configured:
        mine = held.get(keyspace.name)
        if mine is None:
            raise ConfigError(
                f"the configuration names the keyspace {keyspace.name!r}, which {path} does not have: "
                "[[keyspace]] entries only seed a new data directory. Take the entry out, or start with an empty --data-dir."
            )
        wanted = entry_of(_configured(KeyspaceId(0), keyspace))
        for field in ("prefix", "consistency", "conflict", "late_write", "durability", "ttl_s"):
            if wanted[field] != mine[field] and not (field == "durability" and keyspace.durability is None):
                raise ConfigError(
                    f"keyspace {keyspace.name!r}: the configuration says {field} = {_shown(field, wanted)}, this directory was "
                    f"created with {_shown(field, mine)}. Set it back, or start with an empty --data-dir."
                )


def _shown(field: str, entry: Entry) -> str:
    """A field as a configuration would have it."""
    value = entry[field]
    if field == "prefix":
        value = bytes.fromhex(value).decode("utf-8", "backslashreplace")
    return json.dumps(value)


def _policies(keyspaces: Sequence[Entry]) -> list[KeyspacePolicy]:
    """Raises as `policy_of`."""
    policies = [policy_of(entry) for entry in keyspaces]
    ids = {policy.id for policy in policies}
    if not {DEFAULT_ID, META_ID} <= ids:
        raise ValueError(f"ids {DEFAULT_ID} and {META_ID} are not both there")
    if len(ids) < len(policies):
        raise ValueError("an id is there twice")
    return policies


def _read(path: Path) -> list[KeyspacePolicy]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise FormatUnknown(f"{path} has format {record['format']!r}; this release reads format {FORMAT}.")
        return _policies(record["keyspaces"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corruption(
            f"{path} cannot be read ({type(error).__name__}: {error}). Restore it from a backup of this directory.",
            path=str(path),
        ) from error
