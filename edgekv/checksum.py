"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), the one checksum of all formats: ``crc32c(b"123456789") == 0xE3069283``.

google-crc32c is used when its C extension imports, else crcmod's C extension: the same values, 5 to 50 times slower, and it holds
the GIL (2.4 ms per MiB). crcmod's pure-Python mode would stall the event loop for a second per MiB and is refused.
"""

from collections.abc import Callable
from typing import Final

from edgekv.errors import ConfigError


def _google() -> Callable[[bytes], int] | None:
    try:
        import google_crc32c  # noqa: PLC0415 - optional at run time: which implementation is there decides
    except ImportError:
        return None
    if google_crc32c.implementation != "c":
        return None
    value: Callable[[bytes], int] = google_crc32c.value
    return value


def crcmod_crc32c() -> Callable[[bytes], int]:
    """crcmod's implementation, as a function of the bytes alone.

    Raises ConfigError when only its pure-Python mode is there.
    """
    from crcmod.crcmod import _usingExtension  # noqa: PLC0415 - only loaded when google-crc32c is missing
    from crcmod.predefined import mkCrcFun  # noqa: PLC0415

    if not _usingExtension:
        raise ConfigError(
            "no fast CRC-32C is installed: crcmod runs in pure Python, which would stall the node. "
            "Install google-crc32c, or crcmod with its C extension."
        )
    compute: Callable[[bytes], int] = mkCrcFun("crc-32c")
    return compute


_fast = _google()
IMPLEMENTATION: Final = "google-crc32c" if _fast else "crcmod"
FAST: Final = _fast is not None
crc32c: Final[Callable[[bytes], int]] = _fast or crcmod_crc32c()

assert crc32c(b"123456789") == 0xE3069283


def chain_next(chain: int, base_hlc: int, body: bytes) -> int:
    """The chain value after a run: CRC-32C(previous chain u32, HLC of its first change u64, CRC-32C of its body u32), little-endian.

    The HLC: two copies of a directory may make the same changes, at other times, and stamps decide which value stays.
    """
    return crc32c(chain.to_bytes(4, "little") + base_hlc.to_bytes(8, "little") + crc32c(body).to_bytes(4, "little"))
