"""What is wrong with connections, in the log, without filling it: whoever can reach a port may try it a thousand times a second."""

import logging
from collections.abc import Callable
from typing import Final

_log: Final = logging.getLogger("edgekv.net")

WINDOW_S: Final = 60.0
LINES_MAX: Final = 20
"""Different sentences in a window; further ones are counted."""


class Complaints:
    """Says each sentence once a minute, and not more than LINES_MAX of them."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s: Final = now_s
        self._said: Final[set[str]] = set()
        self._left_out = 0
        self._until_s = 0.0

    def say(self, sentence: str) -> None:
        """Log it, unless that was done a moment ago."""
        now_s = self._now_s()
        if now_s >= self._until_s:
            if self._left_out:
                _log.warning("%d more lines about other connections were left out", self._left_out)
            self._said.clear()
            self._left_out, self._until_s = 0, now_s + WINDOW_S
        if sentence in self._said:
            return
        if len(self._said) >= LINES_MAX:
            self._left_out += 1
            return
        self._said.add(sentence)
        _log.warning("%s", sentence)
