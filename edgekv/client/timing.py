"""How long the clients wait, unless they are told otherwise."""

from typing import Final

DEADLINE_S: Final = 10.0
"""Of a call. A node holds a write that finds no room, for as long as that takes; below a second, that ends as OutcomeUnknown."""
CONNECT_S: Final = 2.0
"""For one address to accept and greet."""
ACK_TIMEOUT_S: Final = 1.0
"""For other nodes to have a write, where that is asked for."""
