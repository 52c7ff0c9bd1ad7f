"""Looking into a log, and getting a damaged one to start again. Offline: the caller holds the directory's lock.

`inspect` reads all and changes nothing. `salvage` gives up what damage made unreadable, and only when told to: recovery never does it.

- The damage lies at or above LMDB's applied LSN: the log is cut before it. Everything up to there is kept.
- It lies below, so LMDB holds more than the log can prove: all of the log is set aside and an empty one begins at the applied LSN.

Nothing is deleted: what is cut off is copied or renamed to ``lost-*`` first. After a crash at any point the log is still damaged, or
it is salvaged: salvage it again. The records behind a cut had been acknowledged, perhaps shipped: the caller must give the node a new
incarnation (its sequence numbers go back) before it is started.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edgekv.errors import FormatUnknown, InvalidRequest
from edgekv.limits import SEGMENT_HEADER_BYTES
from edgekv.wal.disk import Disk
from edgekv.wal.frame import SegmentHeader
from edgekv.wal.record import Barrier, ends_clean, unpack_records
from edgekv.wal.segment import Segment, SegmentWalk, segment_name, segment_number

LOST_PREFIX: Final = "lost-"


class Damage(NamedTuple):
    """Something below a promise that cannot be read."""

    name: str
    offset: int
    """0: the whole segment."""
    lsn: int
    """The first record that is gone."""
    what: str


@dataclass
class SegmentReport:
    """What one segment file holds."""

    name: str
    number: int
    header: SegmentHeader | None = None
    frames: int = 0
    promises: int = 0  # of the frames
    records: int = 0
    payload_bytes: int = 0
    end_lsn: int = 0
    end_offset: int = 0
    known_lsn: int = 0
    """Behind a damaged frame: the end of a later one that can be seen but not trusted."""
    clean: bool = False
    """The last frame is a clean mark."""
    damage: list[Damage] = field(default_factory=list)
    barriers: list[tuple[int, Barrier]] = field(default_factory=list)
    """By LSN, where the rows of spools joined a keyspace's."""


@dataclass
class Inspection:
    """What a log directory holds, oldest segment first."""

    segments: list[SegmentReport]
    others: list[str]
    """Spares, copies of torn tails and everything else."""

    @property
    def damage(self) -> list[Damage]:
        """All of it, oldest first."""
        return [damage for segment in self.segments for damage in segment.damage]


class Salvaged(NamedTuple):
    """What `salvage` did. `first_lost_lsn` None: nothing was damaged and nothing changed."""

    first_lost_lsn: int | None
    last_lost_lsn: int | None
    """The last record that was known of."""
    set_aside: list[str]


def inspect(disk: Disk) -> Inspection:
    """Read every segment and judge it as recovery would, from the oldest on."""
    names = disk.names()
    numbers = sorted(number for name in names if (number := segment_number(name)) is not None)
    reports: list[SegmentReport] = []
    headers = {number: _header(disk, number) for number in numbers}
    lsn = 0
    for number in numbers:
        report = _inspect_segment(disk, number, headers[number], headers.get(number + 1))
        if report.header is None:
            report.damage.append(Damage(report.name, 0, lsn, "the header is damaged"))
            report.end_lsn = lsn
        elif reports and reports[-1].number + 1 != number:
            missing = segment_name(reports[-1].number + 1)
            report.damage.insert(0, Damage(missing, 0, lsn, "the segment is missing"))
        lsn = report.end_lsn
        reports.append(report)
    return Inspection(reports, sorted(name for name in names if segment_number(name) is None))


def salvage(
    disk: Disk,
    *,
    applied_lsn: int,
    incarnation: bytes,
    entropy: Callable[[int], bytes],
    accept_data_loss: bool = False,
) -> Salvaged:
    """Make a damaged log one that recovers. InvalidRequest, and nothing is changed, when it would lose data and that is not accepted.

    `applied_lsn` is the one of LMDB; what it has applied stays. `incarnation` is the node's new one.
    """
    inspection = inspect(disk)
    damage = _first_relevant(inspection, applied_lsn)
    if damage is None:
        return Salvaged(None, None, [])
    first_lost = max(damage.lsn, applied_lsn)
    last_lost = max(_known_lsn(inspection), first_lost) - 1
    if not accept_data_loss:
        raise InvalidRequest(
            f"{damage.name} at offset {damage.offset}: {damage.what}. Salvaging gives up all records from LSN {first_lost} on "
            f"({last_lost} is the last one known of). Add --accept-data-loss to do it."
        )
    if damage.lsn >= applied_lsn:
        set_aside = _cut(disk, inspection, damage)
    else:
        set_aside = _begin_again(disk, inspection, applied_lsn, incarnation, entropy)
    return Salvaged(first_lost, last_lost, set_aside)


def _header(disk: Disk, number: int) -> SegmentHeader | None:
    segment = Segment.open(disk, segment_name(number))
    if segment is None:
        return None
    segment.close()
    return segment.header if segment.header.number == number else None


def _inspect_segment(
    disk: Disk, number: int, header: SegmentHeader | None, successor: SegmentHeader | None
) -> SegmentReport:
    """Without a successor, or one whose header can be read, promises are all there is to judge by."""
    report = SegmentReport(segment_name(number), number, header)
    segment = Segment.open(disk, report.name) if header else None
    if segment is None:
        return report
    walk = SegmentWalk(segment)
    try:
        payload = _walk_frames(walk, successor, report)
        promise = None if successor else walk.later_promise()
    except OSError as error:
        report.damage.append(Damage(report.name, walk.offset, walk.lsn, f"cannot be read: {error}"))
        payload, promise = b"", None
    finally:
        segment.close()
    report.end_lsn, report.end_offset = walk.lsn, walk.offset
    report.clean = _is_clean(payload)
    if promise:
        what = f"the frame is damaged, but one at {promise.offset} says it was durable"
        report.damage.append(Damage(report.name, walk.offset, walk.lsn, what))
        report.known_lsn = promise.first_lsn + promise.records
    elif successor and not walk.sealed_by(successor) and not report.damage:
        what = "a frame before the end that the next segment names is damaged"
        report.damage.append(Damage(report.name, walk.offset, walk.lsn, what))
    return report


def _walk_frames(walk: SegmentWalk, successor: SegmentHeader | None, report: SegmentReport) -> bytes:
    """Count the good frames; the payload of the last one."""
    last = b""
    while not (successor and walk.sealed_by(successor)) and (frame := walk.step()):
        header, last = frame
        report.frames += 1
        report.promises += header.records == 0
        report.records += header.records
        report.payload_bytes += header.payload_bytes
        report.barriers += _barriers(header.first_lsn, last)
    return last


def _barriers(first_lsn: int, payload: bytes) -> list[tuple[int, Barrier]]:
    try:
        records = unpack_records(payload)
    except FormatUnknown:  # a later release's records: not for this one to judge
        return []
    return [(lsn, record) for lsn, record in enumerate(records, first_lsn) if isinstance(record, Barrier)]


def _is_clean(payload: bytes) -> bool:
    try:
        return ends_clean(payload)
    except FormatUnknown:  # a later release's records: not for this one to judge
        return False


def _first_relevant(inspection: Inspection, applied_lsn: int) -> Damage | None:
    """The first damage that keeps the node from starting: recovery reads from the segment of the applied LSN only."""
    segments = inspection.segments
    holders = [i for i, report in enumerate(segments) if report.header and report.header.base_lsn <= applied_lsn]
    if not holders and segments and segments[0].header:
        return Damage(segments[0].name, 0, 0, "the segments before it are missing")
    first = holders[-1] if holders else 0
    for index, report in enumerate(segments[first:], first):
        for damage in report.damage:
            # That a segment before the one of the applied LSN is missing or damaged costs its readers only.
            if index > first or damage.name == report.name:
                return damage
    end_lsn = segments[-1].end_lsn if segments else 0
    if end_lsn < applied_lsn:
        return Damage(
            segments[-1].name if segments else "wal", 0, end_lsn, "the log ends before what the store has applied"
        )
    return None


def _known_lsn(inspection: Inspection) -> int:
    """The highest LSN that anything in the log speaks of."""
    known = 0
    for report in inspection.segments:
        base_lsn = report.header.base_lsn if report.header else 0
        known = max(known, base_lsn, report.end_lsn, report.known_lsn)
    return known


def _cut(disk: Disk, inspection: Inspection, damage: Damage) -> list[str]:
    """End the log before the damage: later segments are renamed, the rest of the damaged one is copied and zeroed."""
    set_aside = []
    damaged = segment_number(damage.name)
    for report in reversed(inspection.segments):  # newest first: a crash in between leaves a log without a hole
        if damaged is not None and (report.number > damaged or (report.number == damaged and damage.offset == 0)):
            set_aside.append(_rename_aside(disk, report.name))
    disk.sync_directory()
    if damage.offset:
        set_aside.append(_zero_from(disk, damage.name, damage.offset))
    return set_aside


def _zero_from(disk: Disk, name: str, offset: int) -> str:
    file = disk.open(name)
    try:
        tail = file.pread(offset, file.size() - offset)
        copy_name = _lost_name(disk, f"{name}-{offset:08x}")
        kept = tail.rstrip(b"\0")
        copy = disk.create(copy_name, max(len(kept), 1))
        copy.pwrite(0, kept)
        copy.fdatasync()
        copy.close()
        disk.sync_directory()
        file.pwrite(offset, bytes(len(tail)))
        file.fdatasync()
    finally:
        file.close()
    return copy_name


def _begin_again(
    disk: Disk, inspection: Inspection, applied_lsn: int, incarnation: bytes, entropy: Callable[[int], bytes]
) -> list[str]:
    """Set all of the log aside and begin an empty one at the applied LSN: a header, which the next start gives a successor.

    All old ones are aside, durably, before the new one is published. Beside it they would look like what LMDB has applied, and be
    removed by the node one day. What a crash leaves of them is damaged still, or it is nothing, and LMDB is beyond that (L6).
    """
    last = _newest_header(disk, inspection)
    if last is None:
        raise InvalidRequest(
            "no segment says whose log this is, so none can be begun for it. Restore a backup of the directory. Without one, "
            "start the node as it is (read-only), save what it has with `edgekv export` and import that into a node with an empty one."
        )
    spare = f"spare-{entropy(8).hex()}"
    disk.create(spare, SEGMENT_HEADER_BYTES).close()
    set_aside = [_rename_aside(disk, report.name) for report in reversed(inspection.segments)]
    disk.sync_directory()
    number = max([last.number, *(report.number for report in inspection.segments)]) + 1
    salt = int.from_bytes(entropy(4), "little") or 1
    Segment.publish(disk, spare, SegmentHeader(last.node_id, incarnation, number, applied_lsn, salt, 0)).close()
    return set_aside


def _newest_header(disk: Disk, inspection: Inspection) -> SegmentHeader | None:
    """Of the log, or of what an earlier salvage, perhaps one that crashed, has set aside. None: all are damaged."""
    headers = [report.header for report in inspection.segments if report.header]
    if not headers:
        lost = [Segment.open(disk, name) for name in inspection.others if name.startswith(LOST_PREFIX)]
        for segment in filter(None, lost):
            segment.close()
            headers.append(segment.header)
    return max(headers, key=lambda header: header.number, default=None)


def _rename_aside(disk: Disk, name: str) -> str:
    lost = _lost_name(disk, name)
    disk.rename(name, lost)
    return lost


def _lost_name(disk: Disk, name: str) -> str:
    """Free: an earlier salvage may have set aside a segment of that number."""
    taken = sum(other.startswith(LOST_PREFIX + name) for other in disk.names())
    return f"{LOST_PREFIX}{name}.{taken + 1}" if taken else LOST_PREFIX + name
