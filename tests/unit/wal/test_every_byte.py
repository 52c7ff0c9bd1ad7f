"""A small log, cut at every byte and with every bit changed: exhaustive where the lives of tests/sim are random.

Whatever is done to it, recovery delivers a prefix of what was acknowledged, never another value; damage below a promise is reported,
and then nothing on disk is changed.
"""

from itertools import product

from edgekv.errors import Corruption
from edgekv.limits import SEGMENT_HEADER_BYTES
from edgekv.wal.frame import FRAME_HEADER_BYTES, FrameHeader
from edgekv.wal.record import pack_ttl
from edgekv.wal.segment import Segment, SegmentWalk, segment_name
from tests.sim.disk import SimDisk
from tests.unit.wal.logs import Frames, clone, fill, images, new_disk, open_log, put, reopen

HEADER_FIELDS = 60  # the rest of the header block is zeros that nobody reads
PLACES = [*range(HEADER_FIELDS), HEADER_FIELDS, 2048, SEGMENT_HEADER_BYTES - 1]


def two_segments(*, promise: bool) -> tuple[SimDisk, Frames, Frames]:
    """A sealed segment and the last one, all of it durable; the frames of each."""
    disk = new_disk()
    log = open_log(disk)
    sealed = fill(log, 4)
    log.roll()
    last = fill(log, 3, start=4)
    log.write(pack_ttl(100) + pack_ttl(101), 2)  # a group, of a length that needs padding
    log.sync()
    last.append((log.next_lsn - 2, 2, pack_ttl(100) + pack_ttl(101)))
    if promise:
        log.write_promise()
    return disk, sealed, last


def headers(disk: SimDisk, number: int) -> list[FrameHeader]:
    segment = Segment.open(disk, segment_name(number))
    assert segment is not None
    walk = SegmentWalk(segment)
    found = []
    while step := walk.step():
        found.append(step[0])
    return found


def try_recover(disk: SimDisk, *, applied_lsn: int = 0) -> Frames | None:
    """What is delivered, None for Corruption, which leaves all files as they are."""
    before = images(disk)
    try:
        return reopen(disk, applied_lsn=applied_lsn)[1]
    except Corruption:
        assert images(disk) == before
        return None


def changed(disk: SimDisk, number: int, at: int, bit: int) -> SimDisk:
    copy = clone(disk)
    copy.entries[segment_name(number)].cache[at] ^= 1 << bit
    return copy


def cut(disk: SimDisk, number: int, at: int, *, zeros: bool) -> SimDisk:
    """The segment ends at a byte, and so does the file, or the rest of it never reached the disk."""
    copy = clone(disk)
    name = segment_name(number)
    data = bytes(copy.entries[name].cache)
    put(copy, name, data[:at].ljust(len(data), b"\0") if zeros else data[:at])
    return copy


def checked(header: FrameHeader, at: int) -> bool:
    """Whether the byte is one that the frame's CRCs cover; padding is not."""
    return header.offset <= at < header.offset + FRAME_HEADER_BYTES + header.payload_bytes


def test_any_changed_bit_of_a_sealed_segment_is_reported_and_none_after_its_end_is() -> None:
    disk, sealed, last = two_segments(promise=True)
    frames = headers(disk, 1)
    for at, bit in product([*PLACES, *range(SEGMENT_HEADER_BYTES, frames[-1].end + 64)], range(8)):
        delivered = try_recover(changed(disk, 1, at, bit))
        if at < HEADER_FIELDS or any(checked(header, at) for header in frames):
            assert delivered is None, f"byte {at}: damage went unseen"
        else:
            assert delivered == sealed + last, f"byte {at}: an alarm, or another value, without damage"


def test_any_changed_bit_below_a_promise_in_the_last_segment_is_reported() -> None:
    disk, sealed, last = two_segments(promise=True)
    frames = headers(disk, 2)
    for at, bit in product([*PLACES, *range(SEGMENT_HEADER_BYTES, frames[-1].end + 64)], range(8)):
        delivered = try_recover(changed(disk, 2, at, bit))
        if at < HEADER_FIELDS or any(checked(header, at) for header in frames[:-1]):
            assert delivered is None, f"byte {at}: damage went unseen"
        else:  # the promise frame itself, padding, and what lies behind
            assert delivered == sealed + last, f"byte {at}: an alarm, or another value, without damage"


def test_a_changed_bit_of_the_last_frame_cuts_that_frame_alone_unless_the_store_has_applied_it() -> None:
    disk, sealed, last = two_segments(promise=False)
    newest = headers(disk, 2)[-1]
    applied = newest.first_lsn + newest.records
    for at, bit in product(range(newest.offset, newest.end), range(8)):
        damaged = changed(disk, 2, at, bit)
        delivered = try_recover(clone(damaged))
        assert delivered == (sealed + last[:-1] if checked(newest, at) else sealed + last), f"byte {at}"
        assert (try_recover(damaged, applied_lsn=applied) is None) == checked(newest, at), f"byte {at}"


def test_a_sealed_segment_cut_at_any_byte_is_reported_unless_nothing_is_missing() -> None:
    disk, sealed, last = two_segments(promise=True)
    end = headers(disk, 1)[-1].end
    for at in [*PLACES, *range(SEGMENT_HEADER_BYTES, end + 64)]:
        for zeros in (True, False):
            delivered = try_recover(cut(disk, 1, at, zeros=zeros))
            whole = not any(images(disk)[segment_name(1)][at:end]) if zeros else at >= end
            assert delivered == (sealed + last if whole else None), f"byte {at}, zeros {zeros}"


def test_the_last_segment_cut_at_any_byte_gives_the_frames_before_it() -> None:
    disk, sealed, last = two_segments(promise=True)
    frames = headers(disk, 2)
    data = images(disk)[segment_name(2)]
    for at in [*PLACES, *range(SEGMENT_HEADER_BYTES, frames[-1].end + 64)]:
        for zeros in (True, False):
            delivered = try_recover(cut(disk, 2, at, zeros=zeros))
            if at < HEADER_FIELDS and (not zeros or any(data[at:HEADER_FIELDS])):
                assert delivered is None, f"byte {at}, zeros {zeros}"
                continue
            whole = [header for header in frames if (not any(data[at : header.end]) if zeros else header.end <= at)]
            kept = [frame for frame in last if frame[0] in {header.first_lsn for header in whole if header.records}]
            assert delivered == sealed + kept, f"byte {at}, zeros {zeros}"
