"""Foreign clients and hostile ones against a real node."""

import random
import resource
import shutil
import socket
import subprocess
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from edgekv.cli.node_process import NodeProcess
from edgekv.limits import CONNECTIONS_MAX
from tests.unit.api.resp.fake_node import encode

PONG = b"+PONG\r\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("resp") / "data", "--memory-bytes", str(64 << 20)) as running:
        yield running


def connect(node: NodeProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.resp.port), timeout=20)


def answer(node: NodeProcess, *sent: bytes) -> bytes:
    """Send, then read until the node hangs up."""
    with connect(node) as client:
        received = b""
        with suppress(ConnectionError):
            for part in sent:
                client.sendall(part)
            while more := client.recv(1 << 16):
                received += more
        return received


def resident_bytes(node: NodeProcess) -> int:
    pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def ping(node: NodeProcess) -> bytes:
    with connect(node) as client:
        client.sendall(b"PING\r\n")
        return client.recv(100)


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works_unchanged(node: NodeProcess, protocol: int) -> None:
    with redis.Redis(host="127.0.0.1", port=node.resp.port, protocol=protocol, client_name="test") as client:
        client.flushdb()
        assert client.ping()
        assert client.set("k", "v", ex=100) and client.get("k") == b"v" and 0 < client.ttl("k") <= 100
        assert client.mset({"a": 1, "b": 2}) and client.mget("a", "b", "c") == [b"1", b"2", None]
        assert client.incr("n", 5) == 5 and client.incrbyfloat("n", 0.5) == 5.5
        assert client.type("n") == b"string"
        pipeline = client.pipeline(transaction=False)
        for i in range(500):
            pipeline.set(f"p{i:03d}", i)
        assert all(pipeline.execute())
        assert (
            sorted(client.scan_iter("p*", count=50)) == sorted(client.keys("p*")) == [b"p%03d" % i for i in range(500)]
        )
        assert client.dbsize() == 504
        assert 0 < int(client.config_get("maxclients")["maxclients"]) <= CONNECTIONS_MAX
        assert client.info()["redis_version"] == "7.0.15"
        assert client.command_count() > 50
        assert client.client_getname() in ("test", b"test")
        assert [one["name"] for one in client.client_list()] == ["test"]
        with pytest.raises(redis.ResponseError, match="refused on a CRDT keyspace"):
            client.setnx("k", "w")
        assert client.flushall()
        assert client.dbsize() == 0


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works_with_sets_and_hashes(node: NodeProcess, protocol: int) -> None:
    with redis.Redis(host="127.0.0.1", port=node.resp.port, protocol=protocol) as client:
        client.flushdb()
        use_sets(client)
        use_hashes(client)
        use_transactions(client)


def drawn(reply: object) -> Collection[object]:
    assert isinstance(reply, list | set)
    return reply


def use_sets(client: "redis.Redis") -> None:
    assert client.sadd("s", "a", "b", "c", "a") == 3 and client.sadd("t", "b", "c", "d") == 3
    assert client.srem("s", "c", "z") == 1 and client.scard("s") == 2
    assert client.sismember("s", "a") and not client.sismember("s", "c")
    assert client.smismember("s", ["a", "c"]) == [1, 0]
    assert set(client.smembers("s")) == {b"a", b"b"}
    assert sorted(client.sscan_iter("t", match="[bc]")) == [b"b", b"c"]
    assert set(client.sinter(["s", "t"])) == {b"b"}
    assert set(client.sunion(["s", "t"])) == {b"a", b"b", b"c", b"d"}
    assert set(client.sdiff(["s", "t"])) == {b"a"}
    assert client.sinterstore("u", ["s", "t"]) == 1 and client.sdiffstore("u", ["s", "t"]) == 1
    assert client.sunionstore("u", ["s", "t"]) == 4 and client.sintercard(2, ["u", "t"], limit=2) == 2
    assert client.smove("u", "s", "d") and client.sismember("s", "d")
    assert client.srandmember("u") in {b"a", b"b", b"c"}
    assert len(drawn(client.srandmember("u", 2))) == 2 and len(drawn(client.srandmember("u", -9))) == 9
    assert client.spop("u") in {b"a", b"b", b"c"} and len(drawn(client.spop("u", 9))) == 2
    assert client.type("s") == b"set" and client.expire("s", 100) and client.ttl("s") == 100
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.get("s")
    large = [b"%06d" % i for i in range(5000)]
    client.sadd("large", *large)
    assert set(client.smembers("large")) == set(large) and sorted(client.sscan_iter("large", count=700)) == large


def use_hashes(client: "redis.Redis") -> None:
    assert client.hset("h", "a", "1") == 1 and client.hset("h", mapping={"a": "2", "b": "x"}) == 1
    assert client.hget("h", "a") == b"2" and client.hmget("h", "a", "z") == [b"2", None]
    assert not client.hsetnx("h", "a", "3") and client.hsetnx("h", "c", "3")
    assert client.hgetall("h") == {b"a": b"2", b"b": b"x", b"c": b"3"}
    assert sorted(client.hkeys("h")) == [b"a", b"b", b"c"] and sorted(client.hvals("h")) == [b"2", b"3", b"x"]
    assert client.hlen("h") == 3 and client.hexists("h", "a") and client.hstrlen("h", "b") == 1
    assert client.hincrby("h", "a", 5) == 7 and client.hincrbyfloat("h", "c", 0.5) == 3.5
    assert dict(client.hscan_iter("h", match="[ab]")) == {b"a": b"7", b"b": b"x"}
    assert client.hrandfield("h") in {b"a", b"b", b"c"} and len(drawn(client.hrandfield("h", 2, withvalues=True))) in (
        2,
        4,
    )
    assert client.hdel("h", "a", "b", "z") == 2 and client.type("h") == b"hash"
    client.hset("large map", mapping={f"{i:06}": i for i in range(5000)})
    assert len(client.hgetall("large map")) == 5000


def use_transactions(client: "redis.Redis") -> None:
    pipeline = client.pipeline()
    pipeline.set("p", 1)
    pipeline.lpush("p", "x")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        pipeline.execute()
    assert not client.exists("p")
    pipeline.set("p", 1)
    pipeline.incr("p")
    pipeline.sadd("p set", "x")
    pipeline.hset("p hash", "f", "v")
    pipeline.get("p")
    assert pipeline.execute() == [True, 2, 1, 1, b"2"]
    pipeline.incr("p")
    pipeline.sadd("p", "x")
    incremented, refused = pipeline.execute(raise_on_error=False)
    assert incremented == 3 and isinstance(refused, redis.ResponseError)
    with pytest.raises(redis.ResponseError, match="refused on a CRDT keyspace"):
        client.transaction(lambda _: None, "p")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="needs redis-tools")
def test_redis_benchmark_works_unchanged(node: NodeProcess) -> None:
    tests = ["-t", "ping,set,get,incr,mset,sadd,hset,spop", "-n", "2000", "-P", "8", "-q"]
    run = subprocess.run(
        ["redis-benchmark", "-p", str(node.resp.port), *tests], capture_output=True, timeout=60, check=True
    )
    assert b"ERR" not in run.stdout + run.stderr
    assert run.stdout.count(b"requests per second") == 9


@pytest.mark.parametrize(
    ("sent", "reply"),
    [
        (b"*1000000000\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000000\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n:5\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
        (b"*2\r\n$3\r\nGET\r\n%1\r\n+a\r\n+b\r\n", b"-ERR Protocol error: expected '$', got '%'\r\n"),
        (b"x" * 100_000, b"-ERR Protocol error: too big inline request\r\n"),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    ],
)
def test_hostile_bytes_get_a_clear_error_and_are_hung_up_on(node: NodeProcess, sent: bytes, reply: bytes) -> None:
    received = answer(node, sent)
    assert received == reply or (reply and not received), (
        "a reset may overtake the reply to a client that is still sending"
    )
    assert ping(node) == PONG


def test_huge_headers_cost_no_memory(node: NodeProcess) -> None:
    before = resident_bytes(node)
    for header in (
        b"*1000000000\r\n",
        b"*2\r\n$3\r\nGET\r\n*1000000000\r\n",
        b"*1\r\n>99999999\r\n",
        b"*1\r\n$99999999999\r\n",
    ):
        for _ in range(20):
            answer(node, header)
    assert resident_bytes(node) - before < 8 << 20


def test_garbage_disturbs_nobody(node: NodeProcess) -> None:
    dice = random.Random(7)
    for _ in range(200):
        with connect(node) as client, suppress(ConnectionError):
            client.sendall(dice.randbytes(dice.randint(1, 300)))
            client.sendall(dice.choice([b"*3\r\n", b"$-1\r\n", b"\r\n", b"*1\r\n$4\r\nPI"]))
    assert ping(node) == PONG


def test_a_client_that_reads_nothing_costs_a_bounded_amount_of_memory(node: NodeProcess) -> None:
    with connect(node) as greedy:
        greedy.sendall(encode("SET", "big", b"v" * 1_000_000))
        assert greedy.recv(100) == b"+OK\r\n"
        before = resident_bytes(node)
        greedy.settimeout(1)
        with pytest.raises(TimeoutError):
            greedy.sendall(encode("GET", "big") * 1_000_000)  # until no buffer on the way takes more
        assert resident_bytes(node) - before < 200 << 20
        assert ping(node) == PONG


def test_a_hundred_megabytes_in_one_value_are_refused_and_forgotten(node: NodeProcess) -> None:
    def attempt(_: int) -> bytes:
        return answer(node, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$67108864\r\n", *[b"x" * (1 << 20)] * 70)

    with ThreadPoolExecutor(4) as pool:
        for reply in pool.map(attempt, range(4)):
            # By where the reads happen to end, it is cut off on the way or was just taken whole.
            refused = (b"Protocol error: a command has more than", b"the value has 67108864 bytes; the limit is")
            assert reply == b"" or any(sentence in reply for sentence in refused)
    assert ping(node) == PONG


@pytest.mark.slow
def test_connections_above_the_limit_are_refused_with_a_sentence_and_come_in_when_others_leave(
    node: NodeProcess,
) -> None:
    """About 10 seconds; holds 10,000 sockets here and in the node."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CONNECTIONS_MAX or int(Path("/proc/sys/net/core/somaxconn").read_text()) < 128:
        pytest.skip("too few file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held: list[socket.socket] = []
    try:
        while len(held) < CONNECTIONS_MAX:
            held.append(connect(node))
        with connect(node) as late:
            assert late.recv(100) == b"-ERR max number of clients reached\r\n"
        held[0].sendall(b"PING\r\n")
        assert held[0].recv(100) == PONG
        for client in held[:10]:
            client.close()
        while ping(node) != PONG:
            pass
    finally:
        for client in held:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
