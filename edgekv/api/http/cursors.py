"""Cursors: places in an order, as text that a client hands back. PURE.

Base64url without padding of the bytes where the next page begins; two pieces have a dot between them. Nothing else is in a
cursor and every text of that form is one: it says where to go on reading, which a client might say as well by itself. So it needs
no state here, survives restarts and works on any node; and the form can be told in openapi/parameters.py.
"""

import base64
import re
from typing import Final

from edgekv.errors import InvalidRequest
from edgekv.limits import KEY_BYTES_MAX

POSITION: Final = "([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2,3})?"
"""What a position looks like: a regular expression without anchors."""
_POSITION: Final = re.compile(POSITION)
POSITION_BYTES_MAX: Final = KEY_BYTES_MAX + 1
"""A position may be the least one above a key."""


def position_text(position: bytes) -> str:
    """Bytes as a cursor carries them."""
    return base64.urlsafe_b64encode(position).rstrip(b"=").decode()


def position_of(text: str) -> bytes:
    """The bytes of a piece of a cursor; InvalidRequest for what `position_text` does not make."""
    if not _POSITION.fullmatch(text):
        raise no_cursor()
    position = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(position) > POSITION_BYTES_MAX:
        raise no_cursor()
    return position


def no_cursor() -> InvalidRequest:
    """The refusal of a cursor."""
    return InvalidRequest("the cursor is not one that an earlier page returned. Start anew without it.")
