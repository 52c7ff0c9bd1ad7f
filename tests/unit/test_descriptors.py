"""How many connections there may be, by what the process may open."""

import resource

import pytest

from edgekv.limits import CONNECTIONS_MAX, DESCRIPTORS_OWN, PEER_CONNECTIONS_MAX
from edgekv.server.descriptors import Allowed, allowed_connections


@pytest.mark.parametrize(
    ("soft", "hard", "allowed"),
    [
        (1_024, 1_048_576, Allowed(CONNECTIONS_MAX, PEER_CONNECTIONS_MAX)),
        (1_024, resource.RLIM_INFINITY, Allowed(CONNECTIONS_MAX, PEER_CONNECTIONS_MAX)),
        (1_024, 1_024, Allowed(420, 120)),
        (64, 64, Allowed(1, 1)),
    ],
)
def test_clients_and_peers_share_what_may_be_opened(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, allowed: Allowed
) -> None:
    raised: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: raised.append(limits[0]))
    assert allowed_connections() == allowed
    limit = max([soft, *raised])
    assert 2 * allowed.clients + allowed.peers + DESCRIPTORS_OWN <= limit or allowed == Allowed(1, 1)
