"""A keyspace as keyspaces.json, WELCOME and meta write it: a dict of plain values.

    {"id", "name", "prefix" (hex), "durability", "consistency", "conflict", "late_write", "ttl_s", "sites", "draining"}

Without ``late_write`` what comes late is kept, without ``sites`` every site holds it. ``draining`` are sites that were taken off it
and may still have a copy.
"""

from typing import Any, Final, get_args

from edgekv.config import Conflict, Consistency, Durability, LateWrite
from edgekv.engine.keyspaces import META_ID, KeyspacePolicy
from edgekv.ids import KeyspaceId

Entry = dict[str, Any]

_FIELDS: Final = {
    "id": int,
    "name": str,
    "prefix": str,
    "durability": str,
    "consistency": str,
    "conflict": str,
    "ttl_s": int,
}

_CHOICES: Final = {
    "durability": get_args(Durability),
    "consistency": get_args(Consistency),
    "conflict": get_args(Conflict),
}


def entry_of(policy: KeyspacePolicy) -> Entry:
    """As it is written."""
    return {
        "id": policy.id,
        "name": policy.name,
        "prefix": policy.prefix.hex(),
        "durability": "fsync" if policy.fsync else "buffered",
        "consistency": policy.consistency,
        "conflict": "siblings" if policy.siblings else "lww",
        "late_write": "drop" if policy.late_drop else "keep",
        "ttl_s": policy.ttl_ms // 1000,
        "sites": list(policy.sites),
        "draining": list(policy.draining),
    }


def policy_of(entry: Entry) -> KeyspacePolicy:
    """KeyError, TypeError or ValueError when a field is missing or is none that `entry_of` makes."""
    for field, kind in _FIELDS.items():
        if not isinstance(entry[field], kind):
            raise TypeError(f"{field} = {entry[field]!r}")
    for field, known in _CHOICES.items():
        if entry[field] not in known:
            raise ValueError(f"{field} = {entry[field]!r}")
    if not 0 <= entry["id"] < 1 << 32:
        raise ValueError(f"id = {entry['id']!r}")
    late_write = entry.get("late_write", "keep")
    if late_write not in get_args(LateWrite):
        raise ValueError(f"late_write = {late_write!r}")
    sites, draining = _sites(entry, "sites"), _sites(entry, "draining")
    return KeyspacePolicy(
        id=KeyspaceId(entry["id"]),
        name=entry["name"],
        prefix=bytes.fromhex(entry["prefix"]),
        fsync=entry["durability"] != "buffered",
        system=entry["id"] == META_ID,
        ttl_ms=entry["ttl_s"] * 1000,
        siblings=entry["conflict"] == "siblings",
        late_drop=late_write == "drop",
        consistency=entry["consistency"],
        sites=sites,
        draining=draining,
    )


def _sites(entry: Entry, field: str) -> tuple[str, ...]:
    sites = entry.get(field, [])
    if not isinstance(sites, list) or not all(isinstance(site, str) for site in sites):
        raise TypeError(f"{field} = {sites!r}")
    return tuple(sites)
