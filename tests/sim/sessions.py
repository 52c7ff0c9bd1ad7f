"""Sessions of simulated clients that go from node to node with the token of the last reply: no node lets one go on that is behind it.

A token is taken when a reply leaves, as the shell does. The sessions write and read nothing themselves and take no dice but their own,
so they change nothing of what happens.
"""

from collections.abc import Iterable
from random import Random
from typing import Final

from edgekv.errors import SessionBehind
from edgekv.ids import Actor, KeyspaceId
from edgekv.node.token import token_of
from tests.sim.sim_node import SimNode

SESSIONS: Final = 4
_STAY: Final = 0.75
"""Of how many replies none of them takes notice."""
_PATIENCE: Final = 40
"""After so many nodes that are behind it a session begins anew: what it has seen may be on no disk any more."""

Vector = dict[Actor, int]


class _Session:
    def __init__(self) -> None:
        self.token = ""
        """Empty: it has seen nothing."""
        self.seen: dict[KeyspaceId, Vector] = {}
        self.refused = 0


class Sessions:
    """Of one cluster. ``keyspaces``: what they look at; every node holds these, and syncs them."""

    def __init__(self, rng: Random, keyspaces: Iterable[KeyspaceId]) -> None:
        self._rng: Final = rng
        self._keyspaces: Final = list(keyspaces)
        self._sessions: Final = [_Session() for _ in range(SESSIONS)]
        self.moves = 0
        """How often one went on with what it had seen."""

    def visit(self, node: SimNode) -> str:
        """One of them comes to a node from which a reply leaves. What is wrong with that; empty: nothing."""
        if self._rng.random() < _STAY:
            return ""
        session = self._rng.choice(self._sessions)
        if session.token and not self._is_let_in(node, session):
            session.refused += 1
            if session.refused > _PATIENCE:
                session.__init__()  # type: ignore[misc] # it begins anew
            return ""
        for number, seen in session.seen.items():
            shown = node.durable(number)
            lacking = {actor: seq for actor, seq in seen.items() if shown.get(actor, 0) < seq}
            if lacking:
                return f"{node.name} lets a session go on that has seen {lacking} in keyspace {number}, and has {shown}"
        self.moves += bool(session.token)
        session.seen = {number: node.durable(number) for number in self._keyspaces}
        session.token, session.refused = node.node.sessions.token(self._keyspaces), 0
        return ""

    @staticmethod
    def _is_let_in(node: SimNode, session: _Session) -> bool:
        try:
            return node.node.sessions.lacks(token_of(session.token)) is None
        except SessionBehind:
            return False
