"""Random draws: the count of SRANDMEMBER and HRANDFIELD, and a sample of many elements by one walk."""

import random
from collections.abc import Iterator
from typing import Final, TypeVar

from edgekv.api.resp.arguments import INTEGER_MAX, integer
from edgekv.errors import InvalidRequest, TooLarge
from edgekv.limits import CONNECTION_OUTPUT_BYTES_MAX

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
