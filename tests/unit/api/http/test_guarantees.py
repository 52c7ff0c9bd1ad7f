"""Edgekv-Ack and Edgekv-Session: what a request waits for beyond its node, and what its answer says about that.

The node is a dict; what replication would bring is said by hand: `wrote` counts changes of this node's clients, `hub` is what a hub
says that it has of them, `received` what this node has durably of another one.
"""

import pytest

from edgekv.engine.keyspaces import Head
from edgekv.ids import KeyspaceId, node_actor
from edgekv.node.token import Token, name_of, token_of, token_text
from edgekv.replication.acks import Peer
from tests.unit.api.http.site import ACTOR, Client, Site, served, until

K = "/v1/kv/k"
DEFAULT = KeyspaceId(0)
OTHER = node_actor(b"o" * 16, bytes(8))
HUB = Peer(b"h" * 16, "hub-1", "cloud", "hub")
NEIGHBOUR = Peer(b"n" * 16, "b", "s", "edge")
WRITES = [
    ("PUT", K, b"1"),
    ("DELETE", K, b""),
    ("POST", "/v1/counter/c", b'{"add": 1}'),
    ("POST", "/v1/set/s", b'{"add": ["a"]}'),
    ("POST", "/v1/map/m", b'{"set": {"f": "1"}}'),
    ("POST", "/v1/batch", b'{"operations": [{"op": "put", "key": "a", "value": "1"}]}'),
]


def wrote(site: Site, seq: int) -> None:
    site.node.keyspaces.all[0].seq = seq


def hub(site: Site, seq: int, peer: Peer = HUB) -> None:
    site.node.acks.heard(peer, DEFAULT, {ACTOR: seq})


def received(site: Site, seq: int) -> None:
    site.node.keyspaces.all[0].vector[OTHER] = Head(seq, 0)
    site.node.sessions.durable()


def seen(seq: int, keyspace: KeyspaceId = DEFAULT) -> str:
    """The token of a session that has seen so much of another node."""
    return token_text(Token(name_of(OTHER), 1, 0, {keyspace: {name_of(OTHER): seq}}))


async def waiting(site: Site) -> None:
    """Until a reply waits for other nodes."""
    await until(lambda: site.node.acks.status()["waiting"] == 1)


async def sent(site: Site, method: str, target: str, body: bytes = b"", **headers: str) -> Client:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    content = {"Content-Type": "application/json"} if method == "POST" else {}
    await site.client.send(method, target, {**content, **given}, body)
    return site.client


@pytest.mark.parametrize(("method", "target", "body"), WRITES, ids=lambda part: str(part)[:16])
def test_a_write_of_every_kind_waits_for_a_hub_and_says_so(method: str, target: str, body: bytes) -> None:
    @served()
    async def acknowledged(site: Site) -> None:
        site.node.operations.set(b"k", b"1")
        wrote(site, 1)
        client = await sent(site, method, target, body, Edgekv_Ack="hub")
        await waiting(site)
        hub(site, 1, NEIGHBOUR)
        hub(site, 1)
        answer = await client.receive()
        assert answer.status in (200, 204)
        assert answer.headers["edgekv-acked"] == "hub"

    acknowledged()


@served()
async def test_at_the_timeout_the_answer_is_the_same_and_says_local(site: Site) -> None:
    wrote(site, 1)
    client = await sent(site, "PUT", K, b"1", Edgekv_Ack="site", Edgekv_Ack_Timeout_Ms="500")
    await waiting(site)
    site.node.acks.tick(499)
    site.node.acks.tick(500)
    answer = await client.receive()
    assert (answer.status, answer.headers["edgekv-acked"]) == (204, "local")
    assert "etag" in answer.headers


@served()
async def test_a_reply_is_durable_here_before_it_waits_for_others(site: Site) -> None:
    wrote(site, 1)
    hub(site, 1)
    site.node.log_stuck = True
    client = await sent(site, "PUT", K, b"1", Edgekv_Ack="hub")
    await until(lambda: bool(site.node.operations.filling.waiters))
    site.node.make_durable()
    assert (await client.receive()).headers["edgekv-acked"] == "hub"


@served()
async def test_local_waits_for_nobody(site: Site) -> None:
    wrote(site, 1)
    answer = await site.call("PUT", K, {"Edgekv-Ack": "local"}, b"1")
    assert (answer.status, answer.headers["edgekv-acked"]) == (204, "local")


@served()
async def test_a_read_does_not_wait_for_acknowledgements(site: Site) -> None:
    site.node.operations.set(b"k", b"1")
    wrote(site, 1)
    answer = await site.call("GET", K, {"Edgekv-Ack": "hub"})
    assert answer.status == 200 and "edgekv-acked" not in answer.headers


@served()
async def test_a_refused_write_does_not_wait_for_acknowledgements(site: Site) -> None:
    wrote(site, 1)
    assert (await site.call("DELETE", K, {"Edgekv-Ack": "hub"})).status == 404


@served()
async def test_who_asks_for_nothing_is_told_nothing(site: Site) -> None:
    answer = await site.call("PUT", K, {"X-Other": "1"}, b"1")
    assert not [name for name in answer.headers if name.startswith("edgekv-")]


@served()
async def test_a_session_begins_with_a_header_and_each_answer_has_its_token(site: Site) -> None:
    received(site, 7)
    for method, target, status in (("GET", K, 404), ("PUT", K, 204), ("GET", K, 200), ("GET", "/v1/scan", 200)):
        answer = await site.call(method, target, {"Edgekv-Consistency": "session"})
        token = token_of(answer.headers["edgekv-session"])
        assert (answer.status, token.entries) == (status, {DEFAULT: {name_of(OTHER): 7}})


@served()
async def test_a_call_waits_until_the_node_has_what_the_session_has_seen(site: Site) -> None:
    received(site, 6)
    client = await sent(site, "PUT", K, b"1", Edgekv_Session=seen(7))
    await until(lambda: bool(site.node.sessions._waiting))
    assert not site.node.operations.rows
    received(site, 7)
    assert (await client.receive()).status == 204


@served()
async def test_a_node_that_stays_behind_refuses_and_nothing_is_done(site: Site) -> None:
    client = await sent(site, "PUT", K, b"1", Edgekv_Session=seen(7), Edgekv_Session_Timeout_Ms="500")
    await until(lambda: bool(site.node.sessions._waiting))
    site.node.sessions.tick(499)
    assert site.node.sessions._waiting
    site.node.sessions.tick(500)
    answer = await client.receive()
    problem = answer.json()
    assert (answer.status, problem["code"], problem["outcome"], problem["retryable"]) == (
        503,
        "behind",
        "not-applied",
        True,
    )
    assert "retry-after" in answer.headers
    assert not site.node.operations.rows


@served()
async def test_the_token_that_leaves_covers_the_one_that_came(site: Site) -> None:
    received(site, 7)
    answer = await site.call("GET", "/v1/set/s", {"Edgekv-Session": seen(5)})
    assert token_of(answer.headers["edgekv-session"]).entries == {DEFAULT: {name_of(OTHER): 7}}


@served()
async def test_a_session_in_a_keyspace_that_the_node_does_not_hold_is_refused(site: Site) -> None:
    answer = await site.call("GET", K, {"Edgekv-Session": seen(1, KeyspaceId(9))})
    assert (answer.status, answer.json()["code"]) == (503, "behind")


@served()
async def test_garbage_is_no_session(site: Site) -> None:
    for token in ("garbage", "", "A" * 8_000):
        answer = await site.call("GET", K, {"Edgekv-Session": token})
        assert (answer.status, "edgekv-session" in answer.headers) == (400, False)


@served()
async def test_probes_never_wait(site: Site) -> None:
    for target in ("/livez", "/readyz", "/metrics", "/v1/status"):
        assert (await site.call("GET", target, {"Edgekv-Session": seen(7)})).status == 200


@served()
async def test_acknowledgement_and_session_go_together(site: Site) -> None:
    wrote(site, 1)
    client = await sent(site, "PUT", K, b"1", Edgekv_Ack="hub", Edgekv_Consistency="session")
    await waiting(site)
    hub(site, 1)
    answer = await client.receive()
    assert answer.headers["edgekv-acked"] == "hub"
    assert token_of(answer.headers["edgekv-session"]).entries == {DEFAULT: {name_of(ACTOR): 1}}
