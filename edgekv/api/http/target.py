"""The request target: where routing ends and a key's bytes begin. PURE.

A key is whatever follows ``/v1/kv/`` in the raw path, percent-decoded once to bytes: ``%2F``, ``%2e``, ``%ff``, ``//`` and
``..`` are data. aiohttp's own decoded views are never used: they turn ``%2F`` into ``/`` and leave ``%ff`` as text, so that
two keys on the wire meet in one. For the same reason a ``%`` without two hex digits is refused (else ``%zz`` and ``%25zz``
would meet), and so is a bare ``+`` in a query (a form encoder means a space by it, a URL means a plus).

Python hands bytes above 0x7f of the target over as surrogates ("surrogateescape"); encoding them so gives the bytes back.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from edgekv.errors import InvalidRequest

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")


def split_target(raw: str) -> tuple[str, str]:
    """(path, query), both still encoded. The absolute form that proxies send (``http://host/path``) loses its origin."""
    if raw[:1] != "/":
        origin = _ORIGIN.match(raw)
        raw = raw[origin.end() :] if origin else raw
    path, _, query = raw.partition("?")
    return path, query


def percent_decoded(text: str) -> bytes:
    """The bytes that a piece of a target stands for; InvalidRequest for an escape that is none."""
    data = text.encode("utf-8", "surrogateescape")
    if b"%" not in data:
        return data
    broken = _BROKEN_ESCAPE.search(text)
    if broken:
        raise InvalidRequest(f"{text[broken.start() :][:3]!r} is not a percent escape. Write a percent sign as %25.")
    return unquote_to_bytes(data)


def parameters(query: str, known: Sequence[str]) -> dict[str, str]:
    """The query's parameters, values still encoded. InvalidRequest for one that is unknown or given twice."""
    found: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        name, _, text = item.partition("=")
        if name not in known:
            raise InvalidRequest(_unknown(name, known))
        if name in found:
            raise InvalidRequest(f"the query parameter {name} is given twice. Give it once.")
        found[name] = text
    return found


def bytes_parameter(found: dict[str, str], name: str) -> bytes:
    """A parameter as bytes; absent is empty."""
    text = found.get(name, "")
    if "+" in text:
        raise InvalidRequest(f"a + in {name} is ambiguous. Write a space as %20 and a plus sign as %2B.")
    return percent_decoded(text)


def integer_parameter(found: dict[str, str], name: str, *, low: int, high: int) -> int | None:
    """A parameter as an integer from ``low`` to ``high``; None when absent."""
    text = found.get(name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
        raise InvalidRequest(f"{name}={text[:40]} is not usable. Write a whole number from {low} to {high}.")
    return int(text)


def _unknown(name: str, known: Sequence[str]) -> str:
    shown = name[:40].encode("utf-8", "backslashreplace").decode()
    close = difflib.get_close_matches(name[:40], known, 1)
    if close:
        return f'unknown query parameter "{shown}". Did you mean "{close[0]}"?'
    if known:
        return f'unknown query parameter "{shown}". This call knows {", ".join(known)}.'
    return f'unknown query parameter "{shown}". This call takes none.'
