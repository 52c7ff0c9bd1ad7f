"""Two histories of one node: its directory was copied and both copies ran, or it was set back and went on.

The history that the cluster took in stays. A node that comes with another one is told so by the hub, and sets what it has aside
(node/identity.py): nothing of it is dropped, and nothing of it gets in as what it is not. It comes back empty, as another incarnation,
and where the node runs elsewhere too, as another node. What it had and the cluster lacks is brought back by an operator
(`edgekv cluster unite`).

How two copies are told apart: the hub that meets the second history looks whether it has a link with the first one. If it meets them
one after the other, the later one is admitted as the node, whose older actor is closed thereby; the earlier copy then hears that.
A copy that comes when that actor was settled, and has more of it, has another history as well: it is open, and cannot return.
"""

from collections.abc import Callable
from typing import Final

from edgekv.errors import Copied, Diverged, EdgeKVError, Forked, TooLate
from edgekv.replication.link import Link
from edgekv.replication.messages import Refused


class Copies:
    """Of one node."""

    def __init__(self, links: dict[int, Link], node: bytes) -> None:
        self._links: Final = links
        self._node: Final = node
        self.copied: Callable[[bool], None] = lambda runs_elsewhere: None
        """Set once by the shell: this node has to set what it has aside; whether it runs elsewhere as well."""

        self.aside: list[str] = []
        """Set once by the shell: the folders with what this node has set aside."""

    def judge(self, link: Link, error: EdgeKVError) -> EdgeKVError:
        """What a peer is told of a link's end."""
        if isinstance(error, TooLate):
            return self._to_peer(link, error) if error.node == link.node else error
        if not isinstance(error, Forked) or not error.node:
            return error
        if error.node == self._node:
            if _is_believed(link):
                self.copied(False)
            return error
        return self._to_peer(link, error) if error.node == link.node else error

    def _to_peer(self, link: Link, error: EdgeKVError) -> EdgeKVError:
        others = [each for each in self._links.values() if each is not link and each.node == link.node and each.is_up]
        return (Copied if others else Diverged)(f"{error} What it has is to be set aside.")

    def refused(self, link: Link, refused: Refused) -> None:
        """A peer ended a link."""
        if _is_believed(link) and refused.code in (Copied.code, Diverged.code):
            self.copied(refused.code == Copied.code)


def _is_believed(link: Link) -> bool:
    """A hub that this node was told to dial."""
    return link.outgoing and link.role == "hub"
