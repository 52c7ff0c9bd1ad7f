"""``edgekv://HOST:PORT,HOST:PORT``: the nodes that a client may talk to, in the order of preference."""

from typing import Final

from edgekv.config import Address
from edgekv.errors import InvalidRequest

SCHEME: Final = "edgekv://"
DEFAULT_PORT: Final = 7481


def parse(url: str) -> tuple[Address, ...]:
    """The addresses of a URL; the port may be left out. InvalidRequest when it is none, ConfigError for a bad address."""
    places = url.removeprefix(SCHEME)
    if places == url or not places or any(mark in places for mark in "/?#@"):
        raise InvalidRequest(
            f"{url!r} is not the URL of nodes. Write edgekv://HOST:PORT, or several with commas between them."
        )
    return tuple(Address.parse(place if _has_port(place) else f"{place}:{DEFAULT_PORT}") for place in places.split(","))


def _has_port(place: str) -> bool:
    return ":" in place.rpartition("]")[2]
