"""Known mistakes in a write-ahead log, planted in the source of the production modules.

Each mutant breaks one rule of the log by a small edit of the text: every `old` must occur exactly once, so a change of the production
code that makes a mutant meaningless fails loudly. The edited modules are loaded beside the real ones and used by the lives under test
only.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from edgekv.wal import log as installed
from tests.sim.wal_lives import Code

MODULES: Final = ("frame", "segment", "log", "recovery", "reader", "group_commit")
"""In the order of their imports."""

_SOURCES: Final = Path(installed.__file__).parent


@dataclass(frozen=True)
class Mutant:
    """A mistake, and where it is planted: (module, old text, new text)."""

    why: str
    edits: tuple[tuple[str, str, str], ...]
    seeds_max: int = 400
    """It is caught within so many seeds."""


MUTANTS: Final[dict[str, Mutant]] = {
    "seal_strict": Mutant(
        "any bad frame in a segment that has a successor is corruption",
        (
            ("recovery", "while not (successor and walk.sealed_by(successor.header)):", "while True:"),
            (
                "recovery",
                "    if successor:\n        last_lsn =",
                (
                    "    if successor and walk.lsn == successor.header.base_lsn and not walk._tail()[:48].strip(b'\\0'):\n"
                    "        return\n    if successor:\n        last_lsn ="
                ),
            ),
        ),
    ),
    "rewrite_elsewhere": Mutant(
        "what follows the last promise is logged again in the new segment, the old one sealed at the promise",
        (
            (
                "recovery",
                (
                    '    segment.file.pwrite(walk.synced, b"".join(frame for _, frame in end.unpromised))\n'
                    "    segment.file.fdatasync()\n"
                ),
                "",
            ),
            (
                "recovery",
                "    log.open_segment(number + 1, walk.lsn, walk.chain)\n",
                (
                    "    import struct\n"
                    "    frames = [(struct.unpack('<IIIIQQQII', frame[:48]), frame) for _, frame in end.unpromised]\n"
                    "    lsn, chain = (frames[0][0][4], frames[0][0][8]) if frames else (walk.lsn, walk.chain)\n"
                    "    log.open_segment(number + 1, lsn, chain)\n"
                    "    for header, frame in frames:\n"
                    "        log.write(frame[48 : 48 + header[1]], header[3])\n"
                    "    log.sync()\n"
                ),
            ),
        ),
    ),
    "name_by_base": Mutant(
        "segments are named by their base LSN only",
        (
            (
                "segment",
                "header.number, header.base_lsn, segment_name(header.number)",
                "header.number, header.base_lsn, segment_name(header.base_lsn)",
            ),
            (
                "segment",
                "disk.rename(spare, segment_name(header.number))",
                "disk.rename(spare, segment_name(header.base_lsn))",
            ),
            ("recovery", "while numbers and (not run or numbers[-1] == run[0].header.number - 1):", "while numbers:"),
            (
                "recovery",
                "        segment.close()\n        _check",
                (
                    "        segment.close()\n"
                    "        if run and segment.header.number != run[0].header.number - 1:\n            break\n"
                    "        _check"
                ),
            ),
            ("recovery", "if walk.offset == SEGMENT_HEADER_BYTES and", "if False and"),
            ("reader", "segment.header.number != number", "segment.header.base_lsn != number"),
            ("reader", "_open(self._disk, info.number + 1)", "_open(self._disk, walk.lsn)"),
        ),
    ),
    "payload_evidence": Mutant(
        "only a whole later frame proves corruption, its header does not",
        (
            (
                "frame",
                "if header is not None and header.synced > offset:",
                (
                    "if header is not None and header.synced > offset "
                    "and crc32c(tail[at + 48 : at + 48 + header.payload_bytes]) == header.payload_crc:"
                ),
            ),
        ),
        seeds_max=4_000,
    ),
    "void_frame": Mutant(
        "after ENOSPC the frame is called void, its clients are told 'not applied' and the process goes on",
        (("log", 'raise self._latch("a write to the log", error) from error', "raise"),),
        seeds_max=4_000,
    ),
    "sync_not_rewrite": Mutant(
        "what follows the last promise is only fdatasynced: useless after an EIO, the pages are marked clean",
        (("recovery", '    segment.file.pwrite(walk.synced, b"".join(frame for _, frame in end.unpromised))\n', ""),),
    ),
    "no_rewrite": Mutant(
        "what follows the last promise is trusted as the page cache has it",
        (
            (
                "recovery",
                (
                    '    segment.file.pwrite(walk.synced, b"".join(frame for _, frame in end.unpromised))\n'
                    "    segment.file.fdatasync()\n"
                ),
                "",
            ),
        ),
    ),
    "rewrite_read_again": Mutant(
        "what is written again is not what was checked but what is read a second time",
        (
            (
                "recovery",
                'b"".join(frame for _, frame in end.unpromised)',
                "segment.file.pread(walk.synced, walk.offset - walk.synced)",
            ),
        ),
        seeds_max=4_000,
    ),
    "roll_early": Mutant(
        "the successor is created before the predecessor was fdatasynced",
        (("log", "        self.sync()\n        sealed =", "        sealed ="),),
    ),
    "rename_first": Mutant(
        "a recycled file is renamed before its header is rewritten",
        (
            (
                "segment",
                (
                    "        file.pwrite(0, pack_segment_header(header))\n        file.fdatasync()\n"
                    "        disk.rename(spare, segment_name(header.number))\n        disk.sync_directory()\n"
                ),
                (
                    "        disk.rename(spare, segment_name(header.number))\n        disk.sync_directory()\n"
                    "        file.pwrite(0, pack_segment_header(header))\n        file.fdatasync()\n"
                ),
            ),
        ),
    ),
    "no_dirsync": Mutant(
        "no fsync of the directory after the rename of a new segment",
        (("segment", "        disk.sync_directory()\n", ""),),
    ),
    "recycle_no_dirsync": Mutant(
        "no fsync of the directory between retiring and reusing a file",
        (("log", "            self._disk.sync_directory()  # before", "            # before"),),
        seeds_max=4_000,
    ),
    "no_dirsync_at_start": Mutant(
        "the directory entries of a killed process are trusted",
        (("recovery", "        disk.sync_directory()\n", ""),),
        seeds_max=20_000,
    ),
    "retire_only": Mutant(
        "an empty last segment goes back to the spares also when it alone says where the log begins",
        (
            ("recovery", " and len(log.segments) >= SEGMENTS_MIN:", ":"),
            ("log", "        assert len(self._segments) >= SEGMENTS_MIN, ", "        assert True, "),
        ),
        seeds_max=4_000,
    ),
    "recycle_early": Mutant(
        "a segment is recycled when its first record is applied, not when its last one is",
        (("log", "self._segments[1].base_lsn <= below_lsn", "self._segments[0].base_lsn <= below_lsn"),),
    ),
    "no_salt": Mutant(
        "the salt is not checked",
        (
            ("frame", "if own_offset != offset or own_salt != salt:", "if own_offset != offset:"),
            ("frame", "found = tail.find(needle, ALIGNMENT + _SALT_AT)", "found = ALIGNMENT + _SALT_AT"),
            (
                "frame",
                "found = tail.find(needle, found + 1)",
                "found = found + ALIGNMENT if found + ALIGNMENT < len(tail) else -1",
            ),
        ),
    ),
    "promise_written": Mutant(
        "the promise says written, not fdatasynced",
        (("log", "self.next_lsn, offset, self._synced, salt", "self.next_lsn, offset, offset, salt"),),
    ),
    "ignore_promise": Mutant(
        "every bad frame in the last segment is a torn tail",
        (("recovery", "promise = walk.later_promise()", "promise = None"),),
        seeds_max=4_000,
    ),
    "no_applied_check": Mutant(
        "the log's end is not compared with LMDB's applied LSN",
        (("recovery", "if end and end.walk.lsn < applied_lsn:", "if False:"),),
        seeds_max=4_000,
    ),
    "ack_early": Mutant(
        "acknowledged before the fdatasync",
        (("group_commit", "durable_lsn=log.durable_lsn", "durable_lsn=log.next_lsn"),),
    ),
    "eio_retry": Mutant(
        "fdatasync is tried again after EIO",
        (
            (
                "log",
                'raise self._latch("fdatasync of the log", error) from error',
                "self._active.file.fdatasync()",
            ),
        ),
    ),
}


def load(mutant: Mutant) -> Code:
    """The modules of the log with the mutant's edits. AssertionError when a text to edit does not occur exactly once."""
    sources = {name: (_SOURCES / f"{name}.py").read_text() for name in MODULES}
    for name, old, new in mutant.edits:
        assert sources[name].count(old) == 1, f"{old!r} occurs {sources[name].count(old)} times in {name}.py"
        sources[name] = sources[name].replace(old, new)
    names = {name: f"edgekv.wal.{name}" for name in MODULES}
    real = {full: sys.modules.get(full) for full in names.values()}
    loaded: dict[str, ModuleType] = {}
    try:
        for name, full in names.items():
            module = ModuleType(full)
            sys.modules[full] = module  # the modules after it import this one
            exec(compile(sources[name], f"{full} (mutant)", "exec"), module.__dict__)
            loaded[name] = module
    finally:
        for full, module_or_none in real.items():
            if module_or_none is None:
                del sys.modules[full]
            else:
                sys.modules[full] = module_or_none
    return Code(loaded["group_commit"], loaded["reader"], loaded["recovery"])
