"""SINTER, SUNION, SDIFF: what several sets make together, in pieces of bounded work whatever the number and size of the sets.

Sets are read page by page in the order of their bytes. A piece is consistent, the whole is not a snapshot when it takes several.
"""

import heapq
from collections.abc import Iterator
from typing import Final, Literal

from edgekv.api.resp.host import Sets
from edgekv.errors import TooLarge
from edgekv.limits import RESP_PAGE_KEYS, RESP_UNION_SETS_MAX

Algebra = Literal["inter", "union", "diff"]
Pieces = Iterator[list[bytes]]
"""Members, each once; a piece may be empty."""

_KEYS_AT_ONCE: Final = 64
_PAGE_MIN: Final = 16
_PAGES_AT_ONCE: Final = 16
"""Of a union, between two pieces."""


def pages(sets: Sets, key: bytes, limit: int = RESP_PAGE_KEYS) -> Pieces:
    """One set."""
    start: bytes | None = b""
    while start is not None:
        page, start = sets.page(key, start, limit)
        yield page


def combined(sets: Sets, algebra: Algebra, keys: list[bytes]) -> Pieces:
    """Several sets. Raises WrongType before anything else if one of them is none, as Redis 7 does."""
    counts: list[int] = []
    for i in range(0, len(keys), _KEYS_AT_ONCE):
        counts += [sets.count(key) for key in keys[i : i + _KEYS_AT_ONCE]]
        if i + _KEYS_AT_ONCE < len(keys):
            yield []
    if algebra == "union":
        yield from _union(sets, [key for key, count in zip(keys, counts, strict=True) if count])
    elif algebra == "diff":
        if counts[0]:
            yield from _filtered(sets, keys[0], list(dict.fromkeys(keys[1:])), wanted=False)
    elif all(counts):
        smallest = min(range(len(keys)), key=counts.__getitem__)
        others = [key for key in dict.fromkeys(keys) if key != keys[smallest]]
        yield from _filtered(sets, keys[smallest], others, wanted=True)


def _filtered(sets: Sets, key: bytes, others: list[bytes], *, wanted: bool) -> Pieces:
    """The members of one set that all others have, or that none has: by looking each up, so large others cost nothing."""
    for page in pages(sets, key, max(_PAGE_MIN, RESP_PAGE_KEYS // max(len(others), 1))):
        kept = page
        for i, other in enumerate(others):
            if not kept:
                break
            if i and i % _KEYS_AT_ONCE == 0:
                yield []
            kept = [m for m, found in zip(kept, sets.contains(other, kept), strict=True) if found == wanted]
        yield kept


def _union(sets: Sets, keys: list[bytes]) -> Pieces:
    """A merge of ordered walks: it remembers one page of each set, not what it has seen."""
    keys = list(dict.fromkeys(keys))
    if len(keys) > RESP_UNION_SETS_MAX:
        raise TooLarge(f"the union has {len(keys)} sets; the limit is {RESP_UNION_SETS_MAX}. Make it in steps.")
    if len(keys) == 1:
        yield from pages(sets, keys[0])
        return
    limit = max(_PAGE_MIN, RESP_PAGE_KEYS // max(len(keys), 1))
    yield from _merged([pages(sets, key, limit) for key in keys])


def _merged(walks: list[Pieces]) -> Pieces:
    unread = [iter(list[bytes]()) for _ in walks]
    """Of the page that each walk is in."""
    heads: list[tuple[bytes, int]] = []
    """The next member of each walk, and which walk; a heap."""
    empty = list(range(len(walks)))
    """Walks whose next page is wanted before anything can be told of the order."""
    piece: list[bytes] = []
    last: bytes | None = None
    read = 0
    while empty or heads:
        while empty:
            page = next(walks[empty[-1]], None)
            if page:
                unread[empty[-1]] = rest = iter(page)
                heapq.heappush(heads, (next(rest), empty[-1]))
            if page is None or page:
                empty.pop()
            read += 1
            if read == _PAGES_AT_ONCE or page == []:  # An empty one has passed by many that are deleted.
                yield piece
                piece, read = [], 0
        while heads and not empty:
            member, walk = heads[0]
            if member != last:
                piece.append(member)
                last = member
            following = next(unread[walk], None)
            if following is None:
                heapq.heappop(heads)
                empty.append(walk)
            else:
                heapq.heapreplace(heads, (following, walk))
            if len(piece) == RESP_PAGE_KEYS:
                yield piece
                piece, read = [], 0
    if piece:
        yield piece
