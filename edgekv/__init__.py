"""EdgeKV: the replicated key-value store for the edge."""

from typing import Final

__version__: Final = "0.1.0"
