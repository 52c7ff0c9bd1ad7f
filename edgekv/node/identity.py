"""Who this node is: ``identity.json``, and the proof that it is the file this directory was born with.

A dot is issued once, for one content. A directory that was restored or copied may have forgotten dots that it issued, so a node
takes a new *incarnation* whenever ``identity.json`` is not the inode with the birth time that it records, and whenever the log
beside it is gone, which knew what was issued. The new incarnation is fsynced here before it is first used. A machine id is not judged:
a rescheduled container is the same node.

An incarnation is a u32 number and 32 random bits. The first has number 1, each later one a higher number than the last, and at
least the seconds since 2020: one backup can be restored twice, and of the two lives the later one has to have the higher number.

``identity.json`` (format 1): ``cluster``, ``node`` (16 bytes, hex), ``incarnation`` (8 bytes, hex), ``name``, ``site``, ``inode``,
``birth_ns`` (null where the file system has none), ``past`` (earlier incarnations, newest last), ``aside`` (null, or the incarnation
whose log and store the next start moves to ``forked/<incarnation>``: `set_aside`), ``clock`` (null, or what the next start needs to
put the stamps of a wrong clock right, node/clock_restart.py: ``stamps_max`` by keyspace, ``lowered``).
"""

import ctypes
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgekv.errors import ConfigError, Corruption, FormatUnknown
from edgekv.ids import ID_BYTES, INCARNATION_BYTES, Actor, actor_text, node_actor
from edgekv.node.directory import has_log, has_store
from edgekv.node.json_file import replace_file
from edgekv.store.applied import store_path, sync_path, wal_path

_log: Final = logging.getLogger("edgekv.node")

FORMAT: Final = 1
FILE: Final = "identity.json"
ASIDE: Final = "forked"
_EPOCH_MS: Final = 1_577_836_800_000
"""2020 began then."""
_SECONDS_MAX: Final = 1 << 31
"""Whatever a clock says: above it there is room for more."""
_AT_EMPTY_PATH: Final = 0x1000
_STATX_BTIME: Final = 0x800
_STATX_BYTES: Final = 256
_STATX_BTIME_OFFSET: Final = 80

Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongClock:
    """A hub took no more of this node's changes, as they were stamped too far ahead."""

    stamps_max: dict[int, int]
    """By keyspace the highest that it took."""
    lowered: bool = False
    """The stamps are right by now, and the log is yet to begin anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The ids of this node and of its current incarnation."""

    cluster: bytes
    node: bytes
    incarnation: bytes
    name: str
    site: str
    past: tuple[bytes, ...] = ()
    aside: bytes | None = None
    clock: WrongClock | None = None

    @property
    def actor(self) -> Actor:
        """The origin of the changes that this incarnation makes."""
        return node_actor(self.node, self.incarnation)


def is_new(directory: Path) -> bool:
    """Whether the directory is nobody's yet: it has no identity, and nothing that an identity could belong to."""
    return not ((directory / FILE).exists() or has_log(directory) or has_store(directory))


def load_or_create(
    directory: Path, *, name: str, site: str, entropy: Entropy, now_ms: int, cluster: bytes | None = None
) -> Identity:
    """The identity of the directory; a new one is created, and one that was copied, restored or robbed of its log is renewed.

    ``cluster``: of which a new identity becomes a part; None: of one of its own.
    Call it before the log is opened. A log never loses its last segment, but the very first start may have died before it had one:
    then a new incarnation does no harm. On return what the identity says is fsynced. Raises ConfigError when the configured name or
    site is not the directory's, FormatUnknown for a newer file, Corruption for one that cannot be read.
    """
    path = directory / FILE
    if not path.exists():
        fresh = Identity(
            cluster=entropy(ID_BYTES) if cluster is None else cluster,
            node=entropy(ID_BYTES),
            incarnation=_incarnation(1, entropy),
            name=name,
            site=site,
        )
        _write(path, fresh)
        return fresh
    identity, is_original = _read(path)
    begins_anew = identity.aside is not None
    if identity.aside is not None:
        kept = _move_aside(directory, identity.aside)
        identity = replace(identity, aside=None)
        if not is_original:  # it was copied before it began anew: each of the two does, as an incarnation of its own
            identity, is_original = _next(identity, entropy, now_ms), True
        _write(path, identity)
        _log.warning("%s: what the directory held lies in %s", path, kept)
    identity = replace(identity, name=identity.name or name)
    for word, asked, held in (("node", name, identity.name), ("site", site, identity.site)):
        if asked != held:
            raise ConfigError(
                f"{path} belongs to {word} {held!r}, but this process was started as {word} {asked!r}. "
                f"Start it with --{word} {held}, or give {asked!r} another --data-dir."
            )
    if is_original and (begins_anew or has_log(directory)):
        return identity
    renewed = reincarnate(directory, identity, entropy, now_ms)
    reason = "there is no log beside it" if is_original else "the directory was copied or restored"
    _log.warning("%s: %s; the node goes on as %s", path, reason, actor_text(renewed.actor))
    return renewed


def reincarnate(directory: Path, identity: Identity, entropy: Entropy, now_ms: int) -> Identity:
    """Take the next incarnation. On return it is fsynced and may be used."""
    renewed = _next(identity, entropy, now_ms)
    _write(directory / FILE, renewed)
    return renewed


def set_aside(directory: Path, identity: Identity, entropy: Entropy, now_ms: int, *, as_another: bool) -> Identity:
    """Have the next start begin empty: the cluster has another history of this node. Who it is then; on return that is fsynced.

    ``as_another``: the node runs elsewhere as well, so it becomes another one. Its name is what it is started with from then on: the
    first one tried may be one that a member has.
    """
    kept = directory / ASIDE / identity.incarnation.hex()
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    _copy(directory / FILE, kept / FILE)  # whoever starts there is another incarnation
    renewed = replace(
        _next(identity, entropy, now_ms),
        node=entropy(ID_BYTES) if as_another else identity.node,
        name="" if as_another else identity.name,
        aside=identity.incarnation,
        clock=None,
    )
    _write(directory / FILE, renewed)
    return renewed


def clock_was_wrong(directory: Path, identity: Identity, wrong: WrongClock) -> None:
    """Have the next start put the stamps right. On return that is fsynced."""
    _write(directory / FILE, replace(identity, clock=wrong))


def stamps_are_lowered(directory: Path, identity: Identity, entropy: Entropy, now_ms: int) -> Identity:
    """Take the next incarnation: what the last one has stamped is stamped otherwise now. On return that is fsynced."""
    assert identity.clock is not None
    renewed = replace(_next(identity, entropy, now_ms), clock=replace(identity.clock, lowered=True))
    _write(directory / FILE, renewed)
    return renewed


def clock_is_right(directory: Path, identity: Identity) -> Identity:
    """All of that is done."""
    right = replace(identity, clock=None)
    _write(directory / FILE, right)
    return right


def aside(directory: Path) -> list[str]:
    """The folders with what was set aside."""
    return sorted(str(folder) for folder in (directory / ASIDE).glob("*"))


def _move_aside(directory: Path, incarnation: bytes) -> Path:
    """Where to; durable on return. A crash in the middle is gone on from. Keyspaces keep their ids: their file is copied."""
    target = directory / ASIDE / incarnation.hex()
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    keyspaces = directory / "keyspaces.json"
    if keyspaces.exists():
        _copy(keyspaces, target / keyspaces.name)
    for folder in (wal_path(directory), store_path(directory), sync_path(directory)):
        moved = target / folder.name
        if folder.exists() and not moved.exists():
            folder.rename(moved)
        folder.mkdir(mode=0o700, exist_ok=True)
    for changed in (target, target.parent, directory):
        descriptor = os.open(changed, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return target


def _copy(source: Path, target: Path) -> None:
    """Without it what was set aside could not be started any more, after a power cut."""
    with target.open("wb") as file:
        file.write(source.read_bytes())
        file.flush()
        os.fsync(file.fileno())


def renewed_ms(directory: Path, identity: Identity, now_ms: int) -> int:
    """How long ago it took its incarnation, by the file's time; very long: it is its first. Never below 0."""
    if not identity.past:
        return 1 << 62
    return max(0, now_ms - (directory / FILE).stat().st_mtime_ns // 1_000_000)


def begun_anew_ms(directory: Path, identity: Identity, now_ms: int) -> int:
    """How long ago it began anew beside what it set aside (`set_aside`), as `renewed_ms`; very long: this incarnation did not."""
    if not identity.past or not (directory / ASIDE / identity.past[-1].hex()).exists():
        return 1 << 62
    return renewed_ms(directory, identity, now_ms)


def read(directory: Path) -> Identity:
    """The identity as written, for offline tools. Raises Corruption when there is none that can be read."""
    return _read(directory / FILE)[0]


def _next(identity: Identity, entropy: Entropy, now_ms: int) -> Identity:
    last = int.from_bytes(identity.incarnation[:4], "big")
    number = max(last + 1, min((now_ms - _EPOCH_MS) // 1000, _SECONDS_MAX))
    return replace(identity, incarnation=_incarnation(number, entropy), past=(*identity.past, identity.incarnation))


def _incarnation(number: int, entropy: Entropy) -> bytes:
    return number.to_bytes(4, "big") + entropy(INCARNATION_BYTES - 4)


def _write(path: Path, identity: Identity) -> None:
    def record(descriptor: int) -> dict[str, object]:
        inode, birth_ns = _birth(descriptor)
        return {
            "format": FORMAT,
            "cluster": identity.cluster.hex(),
            "node": identity.node.hex(),
            "incarnation": identity.incarnation.hex(),
            "name": identity.name,
            "site": identity.site,
            "inode": inode,
            "birth_ns": birth_ns,
            "past": [incarnation.hex() for incarnation in identity.past],
            "aside": None if identity.aside is None else identity.aside.hex(),
            "clock": None if identity.clock is None else _clock_record(identity.clock),
        }

    replace_file(path, record)


def _read(path: Path) -> tuple[Identity, bool]:
    """The identity, and whether the file is the one that was written here (same inode, same birth)."""
    try:
        with open(path, encoding="utf-8") as file:
            here = _birth(file.fileno())
            record = json.load(file)
        if record.get("format") != FORMAT:
            raise FormatUnknown(
                f"{path} has format {record.get('format')!r}; this release reads format {FORMAT}. Use a newer edgekv."
            )
        identity = Identity(
            cluster=bytes.fromhex(record["cluster"]),
            node=bytes.fromhex(record["node"]),
            incarnation=bytes.fromhex(record["incarnation"]),
            name=record["name"],
            site=record["site"],
            past=tuple(bytes.fromhex(past) for past in record["past"]),
            aside=None if record.get("aside") is None else bytes.fromhex(record["aside"]),
            clock=None if record.get("clock") is None else _clock_of(record["clock"]),
        )
        return identity, (record["inode"], record["birth_ns"]) == here
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corruption(
            f"{path} cannot be read ({error}). Restore it from a backup of this directory, "
            "or move the directory away and start with an empty one.",
            path=str(path),
        ) from error


def _clock_record(wrong: WrongClock) -> dict[str, object]:
    return {"stamps_max": {str(k): hlc for k, hlc in wrong.stamps_max.items()}, "lowered": wrong.lowered}


def _clock_of(record: dict[str, Any]) -> WrongClock:
    return WrongClock(
        stamps_max={int(keyspace): int(hlc) for keyspace, hlc in record["stamps_max"].items()},
        lowered=record["lowered"],
    )


def _birth(descriptor: int) -> tuple[int, int | None]:
    """Inode and birth time (ns) of an open file. Python's os.stat has no birth time on Linux, hence statx(2)."""
    inode = os.fstat(descriptor).st_ino
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    if statx is None or statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        return inode, None
    if not int.from_bytes(buffer.raw[:4], "little") & _STATX_BTIME:
        return inode, None
    at = _STATX_BTIME_OFFSET
    seconds = int.from_bytes(buffer.raw[at : at + 8], "little", signed=True)
    return inode, seconds * 10**9 + int.from_bytes(buffer.raw[at + 8 : at + 12], "little")
