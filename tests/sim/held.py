"""What a running node holds of a key, in every place where its readers look: while none of it moves they are shown the same.

So the witness need not ask after each event for all that is in use, only for what has moved, and for the rest now and then.
"""

from operator import is_
from typing import Final, NamedTuple

from edgekv.engine.keyspaces import Keyspace, successor
from edgekv.store import layout
from tests.sim.sim_node import SimNode

_AGAIN: Final = 8
"""Of so many looks at keys of which nothing has moved, one is taken nevertheless."""


class _Held(NamedTuple):
    """Of one key at one node."""

    must: object
    """What its readers must be shown: that depends on the time, too."""
    mixed: bool
    layered: list[object]
    """What is above LMDB, frame by frame and layer by layer."""
    stored: list[tuple[bytes, bytes]]
    snapshot: int
    """Of LMDB, from which ``stored`` was read."""


class Held:
    """Of all nodes and keys, when they were last looked at."""

    def __init__(self) -> None:
        self._held: Final[dict[str, dict[bytes, _Held]]] = {}
        self._places: Final[dict[str, list[object]]] = {}
        self._spared = 0

    def is_same(self, node: SimNode, keyspace: Keyspace, key: bytes, must: object) -> bool:
        """Whether nothing has moved since the last look, and it is not one of those that are taken nevertheless."""
        known = self._held.setdefault(node.name, {})
        before, layered, snapshot = known.get(key), _layered(node, key), node.store.snapshot()
        if before is not None and before.snapshot == snapshot:
            stored = before.stored
        else:
            low = layout.order_prefix(layout.row_key(keyspace.id, key, b""))
            stored = list(node.store.range(low, successor(low)))
        known[key] = _Held(must, keyspace.mixed, layered, stored, snapshot)
        if (
            before is None
            or before.must is not must
            or before.mixed != keyspace.mixed
            or len(before.layered) != len(layered)
            or not all(map(is_, before.layered, layered))
            or before.stored != stored
        ):
            return False
        self._spared += 1
        return self._spared % _AGAIN > 0

    def is_idle(self, node: SimNode) -> bool:
        """Whether no frame, no layer and no commit of LMDB came to the node or left it since this was last asked."""
        engine = node.engine
        places: list[object] = [node.store.snapshot(), *engine.commit.overlays, *engine.memtable.layers]
        before, self._places[node.name] = self._places.get(node.name, []), places
        if len(before) != len(places) or before[0] != places[0] or not all(map(is_, before[1:], places[1:])):
            return False
        self._spared += 1
        return self._spared % _AGAIN > 0

    def touch(self, node: SimNode, key: bytes) -> None:
        """A change of the key came to the node: rows above LMDB are written in place."""
        self._held.get(node.name, {}).pop(key, None)

    def forget(self, node: SimNode) -> None:
        """The node is another process now."""
        self._held.pop(node.name, None)
        self._places.pop(node.name, None)


def _layered(node: SimNode, key: bytes) -> list[object]:
    engine = node.engine
    layers = [frame.layer for frame in engine.commit.overlays]
    layers += engine.memtable.layers
    found: list[object] = []
    for layer in layers:
        for rows in (layer.registers, layer.composites, layer.collections):
            if key in rows:
                found += (layer, rows[key])
    return found
