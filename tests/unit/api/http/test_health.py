"""Probes and figures."""

from edgekv import metrics
from edgekv.codec import unpack
from edgekv.crdt.register import Cell
from edgekv.engine.conflicts import Conflict
from tests.unit.api.http.site import ACTOR, FakeReplication, Site, served


@served()
async def test_livez_and_readyz_are_200_on_a_healthy_node_whatever_their_query(site: Site) -> None:
    for target in ("/livez", "/readyz", "/livez?verbose", "/readyz?x=1"):
        assert (await site.call("GET", target)).status == 200
    assert (await site.call("HEAD", "/readyz")).status == 200


@served()
async def test_readyz_says_why_a_read_only_node_is_not_ready_and_livez_stays_200(site: Site) -> None:
    site.node.refuse_writes("segment 7 is damaged")
    answer = await site.call("GET", "/readyz")
    assert (answer.status, answer.json()["code"]) == (503, "read-only")
    assert "segment 7 is damaged" in answer.json()["detail"]
    assert (await site.call("GET", "/livez")).status == 200


@served()
async def test_readyz_is_503_while_the_node_starts_or_stops(site: Site) -> None:
    site.node.is_ready = False
    answer = await site.call("GET", "/readyz")
    assert (answer.status, answer.json()["code"], answer.json()["retryable"]) == (503, "unavailable", True)


@served()
async def test_metrics_are_prometheus_text(site: Site) -> None:
    await site.call("PUT", "/v1/kv/k", body=b"1")
    answer = await site.call("GET", "/metrics")
    assert answer.headers["content-type"] == metrics.CONTENT_TYPE
    assert b'edgekv_ops_total{op="put",keyspace="default",result="ok"} 1\n' in answer.body
    assert b'edgekv_op_seconds_count{op="put"} 1\n' in answer.body


@served()
async def test_status_names_the_node_and_shows_the_engines_figures(site: Site) -> None:
    answer = (await site.call("GET", "/v1/status")).json()
    assert answer["node"] == "n" and answer["site"] == "s" and answer["durable_lsn"] == 7 and answer["ready"] is True
    packed = await site.call("GET", "/v1/status", {"Accept": "application/msgpack"})
    assert unpack(packed.body) == answer


@served()
async def test_status_shows_other_nodes_where_there_are_any(site: Site) -> None:
    assert (await site.call("GET", "/v1/status")).json()["replication"] is None
    site.node.replication = FakeReplication()
    assert (await site.call("GET", "/v1/status")).json()["replication"] == {"members": [{"name": "hub"}]}


@served()
async def test_conflicts_are_shown_with_both_values(site: Site) -> None:
    cells = [Cell(value, hlc << 16, ACTOR, 1) for value, hlc in ((b"kept", 2), (b"\xff", 1))]
    site.node.operations.engine.conflicts.add(Conflict("default", b"k", None, *cells))
    answer = (await site.call("GET", "/v1/admin/conflicts")).json()
    assert answer["totals"] == {"default": 1}
    (conflict,) = answer["conflicts"]
    assert (conflict["key"], conflict["kept"]["value"]) == ("k", "kept")
    assert conflict["discarded"]["value"] == {"base64": "/w=="}
    assert (await site.call("GET", "/v1/admin/conflicts?x=1")).status == 400


@served()
async def test_a_digest_is_read_in_steps_of_the_keyspace_and_time_that_are_named(site: Site) -> None:
    answer = (await site.call("GET", "/v1/admin/digest?keyspace=default&ttl_ms=5&prefix=%ff")).json()
    assert (answer["ttl_ms"], answer["keys"], answer["ranges"][0]["prefix"]) == (5, 2, {"base64": "/w=="})
    assert (await site.call("GET", "/v1/admin/digest?keyspace=none")).status == 400
    assert (await site.call("GET", "/v1/admin/digest?ttl_ms=x")).status == 400
    vectors = (await site.call("GET", "/v1/admin/vectors")).json()
    assert vectors["vectors"] == {"default": {"node-1": 7}} and vectors["ttl_ms"] > 0


@served()
async def test_a_member_is_taken_out_by_its_name(site: Site) -> None:
    assert (await site.call("DELETE", "/v1/admin/members?member=edge")).status == 403, "nobody replicates here"
    site.node.replication = FakeReplication()
    assert (await site.call("DELETE", "/v1/admin/members?member=edge")).status == 204
    assert (await site.call("DELETE", "/v1/admin/members?member=none")).status == 404


@served()
async def test_a_member_that_was_removed_may_come_back_when_that_is_asked_for(site: Site) -> None:
    site.node.replication = FakeReplication()
    assert (await site.call("PUT", "/v1/admin/members?member=edge")).status == 204
    assert (await site.call("PUT", "/v1/admin/members?member=none")).status == 404


@served()
async def test_an_operator_creates_keyspaces_and_moves_them_among_sites(site: Site) -> None:
    assert (await site.call("PUT", "/v1/admin/keyspaces?keyspace=a&prefix=a%2F")).status == 403, (
        "nobody replicates here"
    )
    site.node.replication = replication = FakeReplication()
    calls = [
        ("PUT", "/v1/admin/keyspaces?keyspace=rooms&prefix=r%ff&sites=shop-1,shop-2&conflict=siblings", 204),
        ("PUT", "/v1/admin/keyspaces?keyspace=all&prefix=a%2F", 204),
        ("PUT", "/v1/admin/keyspaces?keyspace=all&prefix=a%2F&conflict=both", 400),
        ("PUT", "/v1/admin/keyspaces?keyspace=default&prefix=a%2F", 403),
        ("PUT", "/v1/admin/sites?keyspace=rooms&site=shop-3", 204),
        ("DELETE", "/v1/admin/sites?keyspace=rooms&site=shop-1", 204),
        ("DELETE", "/v1/admin/sites?keyspace=none&site=shop-1", 404),
    ]
    for method, target, status in calls:
        assert (await site.call(method, target)).status == status
    answer = await site.call("PUT", "/v1/admin/sites?keyspace=rooms&site=shop-3")
    assert "no member stands at shop-3 yet" in answer.headers["edgekv-note"]
    assert "edgekv-note" not in (await site.call("PUT", "/v1/admin/sites?keyspace=rooms&site=shop-2")).headers
    assert replication.orders[:4] == [
        ("rooms", b"r\xff", ("shop-1", "shop-2"), True),
        ("all", b"a/", (), False),
        ("rooms", "+", "shop-3"),
        ("rooms", "-", "shop-1"),
    ]
