"""Random draws: SRANDMEMBER and HRANDFIELD with a count, a sample of many elements by one walk, and what to do when a draw finds none.

A draw looks at a bounded number of rows, so among very many deleted ones it may find nothing though something is there. Then a walk,
in pieces, finds it: a set that has an element never looks empty.
"""

import random
from collections.abc import Callable, Generator, Iterator
from typing import Final, TypeVar

from edgekv.api.resp.arguments import INTEGER_MAX, integer
from edgekv.errors import InvalidRequest, TooLarge
from edgekv.limits import CONNECTION_OUTPUT_BYTES_MAX, RESP_PAGE_KEYS

_DICE_BITS: Final = 64
_REPLY_BYTES_MIN: Final = len(b"$0\r\n\r\n")
_Element = TypeVar("_Element")


def dice() -> int:
    """All the chance that a verb may use."""
    return random.getrandbits(_DICE_BITS)


def draw_count(argument: bytes) -> int:
    """How many; negative: with repetition."""
    number = integer(argument)
    if number < -INTEGER_MAX:
        raise InvalidRequest(f"value is out of range, value must between {-INTEGER_MAX} and {INTEGER_MAX}")
    return number


def check_repeated(count: int, advice: str) -> None:
    """TooLarge when so many elements, drawn with repetition, have no room in a reply however short they are."""
    if count * _REPLY_BYTES_MIN > CONNECTION_OUTPUT_BYTES_MAX:
        raise TooLarge(f"the reply would exceed {CONNECTION_OUTPUT_BYTES_MAX} bytes. {advice}")


def drawn(
    draw: Callable[[int, bool], list[_Element]],
    pages: Callable[[], Iterator[list[_Element]]],
    count: int,
    size: int,
    step: int,
) -> Iterator[list[_Element]]:
    """``count`` elements of ``size``, different ones, or, for a negative count, so many with repetition, ``step`` at a time.

    ``draw`` gives up to so many, with repetition when its second argument says so; ``pages`` walks over all of them.
    """
    if count >= size:
        yield from pages()
    elif count > 0:
        some = draw(count, False) if count <= RESP_PAGE_KEYS else []
        yield from [some] if some else sample(pages(), count, size)
    else:
        yield from _repeated(draw, pages, -count, step)


def _repeated(
    draw: Callable[[int, bool], list[_Element]], pages: Callable[[], Iterator[list[_Element]]], count: int, step: int
) -> Iterator[list[_Element]]:
    met: list[_Element] = []
    for first in range(0, count, step):
        wanted = min(count - first, step)
        some = [] if met else draw(wanted, True)
        if not some:
            met = met or (yield from first_met(pages(), RESP_PAGE_KEYS))
            if not met:  # All is gone.
                return
            some = random.choices(met, k=wanted)
        yield some


def first_met(pages: Iterator[list[_Element]], wanted: int) -> Generator[list[_Element], None, list[_Element]]:
    """Up to ``wanted`` of the first elements that a walk meets, none if there is none; it yields where it has met nothing so far."""
    for page in pages:
        if page:
            return page[:wanted]
        yield page
    return []


def sample(pages: Iterator[list[_Element]], wanted: int, total: int) -> Iterator[list[_Element]]:
    """``wanted`` of the ``total`` elements of a walk, each choice equally likely: selection sampling, which remembers nothing.

    As many as there are, if the walk finds fewer than ``total``. (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S.)
    """
    left = total
    for page in pages:
        chosen: list[_Element] = []
        for element in page:
            if random.random() * left < wanted:
                chosen.append(element)
                wanted -= 1
            left -= 1
        yield chosen
        if wanted <= 0:
            return
