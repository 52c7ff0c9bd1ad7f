"""Clients that send garbage, too much, or half of it, that never read, or that are too many: each is told, and nobody else notices.

What holds in every test is in `undisturbed`: another client and the health probes go on without delay, memory is bounded, and
afterwards the node serves and stops cleanly. tests/unit/api has each error by itself; here it is about the whole process.
"""

import contextlib
import http.client
import itertools
import random
import resource
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from edgekv.cli.node_process import NodeProcess
from edgekv.cli.resp_client import RespConnection, command
from edgekv.config import Address
from edgekv.limits import DESCRIPTORS_OWN, KEY_BYTES_MAX, MIB, RESP_INPUT_BYTES_TOTAL_MAX, VALUE_BYTES_MAX
from tests.integration.witnesses import MemoryWatch, Witness, another_client, probes

PATIENCE_S: Final = 20.0
PROMPT_S: Final = 3.0  # the worst of all calls of a witness, on a machine with much other work
SMALL_GROWTH: Final = 16 * MIB
TIMES: Final = 20
READ_BYTES: Final = 1 << 16
PING: Final = command(b"PING")
PONG: Final = b"+PONG\r\n"

# The first bytes of `openssl s_client`, without a line end in it: a client that sends this waits for an answer.
TLS_HELLO: Final = bytes.fromhex("16030100c8010000c40303") + bytes(range(0x20, 0x9F)) + bytes(66)

# On the RESP listener, and what is answered before it hangs up.
RESP_GARBAGE: Final = {
    "a TLS hello": (TLS_HELLO, b"-ERR Protocol error: this is TLS"),
    "an HTTP request": (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", b"-ERR wrong number of arguments for 'get'"),
    "an HTTP upload": (b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\n\r\nSET hacked 1\r\n", b"-ERR unknown command 'PUT'"),
    "a browser's form, as in Redis": (b"POST / HTTP/1.1\r\nHost: a\r\n\r\nSET hacked 1\r\n", b""),
    "a bulk length of 100 MB": (b"*3\r\n$3\r\nSET\r\n$6\r\nhacked\r\n$104857600\r\n", b"invalid bulk length"),
    "a bulk length of 10^18": (b"*3\r\n$3\r\nSET\r\n$6\r\nhacked\r\n$1000000000000000000\r\n", b"invalid bulk length"),
    "a billion arguments": (b"*1000000000\r\n", b"invalid multibulk length"),
    "a billion arguments inside": (b"*2\r\n$3\r\nGET\r\n*1000000000\r\n", b"invalid multibulk length"),
    "a number": (b"*3\r\n$3\r\nSET\r\n$6\r\nhacked\r\n:5\r\n", b"expected '$', got ':'"),
    "a double": (b"*3\r\n$3\r\nSET\r\n$6\r\nhacked\r\n,1.5\r\n", b"expected '$', got ','"),
    "a map": (b"*2\r\n$3\r\nGET\r\n%1\r\n+a\r\n+b\r\n", b"expected '$', got '%'"),
    "a boolean": (b"*2\r\n$3\r\nGET\r\n#t\r\n", b"expected '$', got '#'"),
    "a null": (b"*2\r\n$3\r\nGET\r\n_\r\n", b"invalid bulk length"),
    "an array": (b"*2\r\n$3\r\nGET\r\n*1\r\n$1\r\na\r\n", b"expected '$', got '*'"),
    "a line without end": (b"x" * 100_000, b"too big inline request"),
    "quotes without end": (b'SET "hacked 1\r\n', b"unbalanced quotes"),
}

# On the HTTP listener: status, and what the problem says.
HTTP_GARBAGE: Final = {
    "a TLS hello": (TLS_HELLO, 400, b"HTTPS traffic on an HTTP port"),
    "a Redis command": (command(b"SET", b"hacked", b"1"), 400, b"This listener speaks plain HTTP."),
    "an inline Redis command": (b"SET hacked 1\r\n", 400, b"this is not an HTTP/1.1 request"),
    "zeros": (bytes(1000), 400, b"this is not an HTTP/1.1 request"),
    "a request line without end": (b"GET /" + b"a" * 100_000, 431, b"65536 bytes"),
    "too many headers": (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n", 400, b"headers"),
    "a length that is none": (b"PUT /v1/kv/hacked HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400, b"not-http"),
    "a chunk that is none": (
        b"PUT /v1/kv/hacked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
        b"not-applied",
    ),
    "an escape that is none": (b"GET /v1/kv/%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, b"not a percent escape"),
    "100 MB announced": (
        b"PUT /v1/kv/hacked HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n",
        413,
        b"the body is longer than 16777216 bytes",
    ),
}


@contextlib.contextmanager
def undisturbed(directory: Path, *, growth_bytes: int = SMALL_GROWTH) -> Iterator[NodeProcess]:
    """A node, with witnesses of what must hold while something is done to it, and of its end."""
    with NodeProcess(directory / "node") as node:
        with another_client(node) as client, probes(node) as probe, MemoryWatch(node) as memory:
            for witness in (client, probe):
                goes_on(witness)
            yield node
            for witness in (client, probe):
                goes_on(witness)
        print(
            f"worst {client.worst_s:.3f} s, probe {probe.worst_s:.3f} s; memory grew by {memory.grown_bytes / MIB:.1f} MiB"
        )
        assert client.worst_s < PROMPT_S, f"another client waited {client.worst_s:.2f} s"
        assert probe.worst_s < PROMPT_S, f"a health probe waited {probe.worst_s:.2f} s"
        assert memory.grown_bytes < growth_bytes, f"memory grew by {memory.grown_bytes >> 20} MiB"
        with RespConnection(node.resp, PATIENCE_S) as connection:
            assert connection.call(b"SET", b"after", b"1") == b"OK"
            assert connection.call(b"EXISTS", b"hacked") == 0
        assert node.stop() == 0
        assert "Traceback" not in node.log.read_text()


def goes_on(witness: Witness) -> None:
    """Wait until it has made another call from the beginning to the end."""
    wanted, until = len(witness.seconds) + 2, time.monotonic() + PATIENCE_S
    while len(witness.seconds) < wanted:
        assert time.monotonic() < until, "the other clients are not served any more"
        time.sleep(0.001)


def connect(address: Address) -> socket.socket:
    return socket.create_connection(address, PATIENCE_S)


def answer(address: Address, sent: bytes) -> bytes:
    """Send, and read until the node hangs up."""
    with connect(address) as client:
        client.sendall(sent)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):  # a reset: the node closed while bytes for it were still coming
        while more := client.recv(READ_BYTES):
            received += more
    return received


def test_garbage_on_the_redis_port_is_answered_with_what_is_wrong_and_hung_up_on(tmp_path: Path) -> None:
    with undisturbed(tmp_path) as node:
        for name, (sent, said) in RESP_GARBAGE.items():
            for _ in range(TIMES):
                received = answer(node.resp, sent)
                assert said in received and bool(said) == received.startswith(b"-ERR "), (name, received)
                assert received.count(b"\r\n") <= 1 + (b"HTTP/" in sent), (name, received)


def test_garbage_on_the_http_port_is_answered_with_a_problem_and_hung_up_on(tmp_path: Path) -> None:
    with undisturbed(tmp_path) as node:
        for name, (sent, status, said) in HTTP_GARBAGE.items():
            for _ in range(TIMES):
                with connect(node.http) as client:
                    client.sendall(sent)
                    response = http.client.HTTPResponse(client)
                    response.begin()
                    body = response.read()
                    assert response.status == status and said in body, (name, response.status, body)
                    assert response.headers["Content-Type"] == "application/problem+json", name
                    assert name == "an escape that is none" or response.headers["Connection"] == "close", name


def test_random_bytes_on_both_ports_disturb_nobody(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with undisturbed(tmp_path) as node:
        for number in range(400):
            sent = dice.randbytes(dice.randint(1, 2000)) + dice.choice((b"", b"\r\n", b"*3\r\n", b"\r\n\r\n"))
            with connect((node.resp, node.http)[number % 2]) as client, contextlib.suppress(ConnectionError):
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                received = read_all(client)
                assert received[:1] in (b"", b"-", b"H") and b"\r\n+OK" not in received, (sent, received)


def test_a_client_that_leaves_in_the_middle_of_a_frame_has_written_nothing(tmp_path: Path) -> None:
    redis = command(b"SET", b"hacked", b"v" * 100)
    upload = b"PUT /v1/kv/hacked HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + b"v" * 100
    with undisturbed(tmp_path) as node:
        for address, frame in ((node.resp, redis), (node.http, upload)):
            for cut, rudely in itertools.product(range(1, len(frame)), (False, True)):
                with connect(address) as client:
                    if rudely:  # by a reset
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    client.sendall(frame[:cut])


@pytest.mark.parametrize("size", [0, 5000])
def test_a_key_of_a_length_that_no_key_has_is_refused_with_the_limit_and_the_connection_goes_on(
    tmp_path: Path, size: int
) -> None:
    key, said = b"k" * size, b"is empty" if size == 0 else b"has 5000 bytes"
    with undisturbed(tmp_path) as node, connect(node.resp) as client:
        calls = (
            (b"GET", key),
            (b"SET", key, b"v"),
            (b"DEL", key),
            (b"INCR", key),
            (b"MSET", b"hacked", b"v", key, b"v"),
        )
        for call in calls:
            client.sendall(command(*call) + PING)
            *lines, pong = read_lines(client, 2)
            assert lines[0].startswith(b"-ERR ") and said in lines[0] and b"%d" % KEY_BYTES_MAX in lines[0], lines
            assert pong + b"\r\n" == PONG
        for method in ("GET", "PUT", "DELETE"):
            status, body = request(node, method, "/v1/kv/" + key.decode(), b"v" if method == "PUT" else b"")
            assert status == (400 if size == 0 else 413), (method, body)
            assert said in body and b"%d" % KEY_BYTES_MAX in body and b"not-applied" in body


def read_lines(client: socket.socket, count: int) -> list[bytes]:
    received = b""
    while received.count(b"\r\n") < count:
        more = client.recv(READ_BYTES)
        assert more, received
        received += more
    return received.split(b"\r\n")[:-1]


def request(node: NodeProcess, method: str, path: str, body: bytes | Iterator[bytes] = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(node.http.host, node.http.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request(method, path, body=body or None)
        response = connection.getresponse()
        return response.status, response.read()


def test_a_value_above_the_limit_is_refused_with_the_limit_by_both_ways_in(tmp_path: Path) -> None:
    value = b"v" * (VALUE_BYTES_MAX + 1)
    # Two such bodies at once, and what the node's allocator keeps of them.
    with undisturbed(tmp_path, growth_bytes=6 * VALUE_BYTES_MAX) as node:
        with connect(node.resp) as client:
            for _ in range(3):
                client.sendall(command(b"SET", b"hacked", value) + PING)
                refusal, pong = read_lines(client, 2)
                assert refusal.startswith(b"-ERR the value has 16777217 bytes; the limit is 16777216"), refusal
                assert pong + b"\r\n" == PONG
        for body in (value, iter([value[: 1 * MIB]] * 17)):  # announced, and in chunks
            status, problem = request(node, "PUT", "/v1/kv/hacked", body)
            assert status == 413 and b"longer than 16777216 bytes" in problem and b"not-applied" in problem


def test_a_client_that_goes_on_sending_100_mb_after_its_refusal_is_cut_off(tmp_path: Path) -> None:
    upload = b"PUT /v1/kv/hacked HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n"
    with undisturbed(tmp_path) as node:
        for address, head, said in (
            (node.resp, RESP_GARBAGE["a bulk length of 100 MB"][0], b"invalid bulk length"),
            (node.http, upload, b" 413 "),
        ):
            with connect(address) as client:
                client.sendall(head)
                assert said in client.recv(READ_BYTES)
                with contextlib.suppress(ConnectionError):
                    for _ in range(100):
                        client.sendall(b"x" * MIB)
                assert read_all(client) == b"" or address == node.http


def test_clients_that_never_read_their_replies_cost_a_bounded_amount_of_memory(tmp_path: Path) -> None:
    """30 by each way in ask for 1 MB again and again, until the node takes no more from them."""
    big, clients = b"v" * 1_000_000, 30
    with undisturbed(tmp_path, growth_bytes=2 * clients * 3 * MIB) as node:
        with RespConnection(node.resp, PATIENCE_S) as connection:
            assert connection.call(b"SET", b"big", big) == b"OK"
        asks = {
            node.resp: command(b"GET", b"big") * 100,
            node.http: b"GET /v1/kv/big HTTP/1.1\r\nHost: a\r\n\r\n" * 100,
        }
        with contextlib.ExitStack() as stack:
            greedy = {
                stack.enter_context(connect(address)): ask for address, ask in asks.items() for _ in range(clients)
            }
            taken = send_until_stuck(greedy)
            assert all(taken.values()), "some were not served at all"
            with RespConnection(node.resp, PATIENCE_S) as connection:
                assert connection.call(b"GET", b"big") == big
            assert request(node, "GET", "/v1/kv/big") == (200, big)
            # One that begins to read gets what it asked for.
            late = next(client for client in greedy if client.getpeername()[1] == node.resp.port)
            late.setblocking(True)
            late.settimeout(PATIENCE_S)
            wanted, received = len(b"$1000000\r\n") + len(big) + 2, 0
            while received < 3 * wanted:
                received += len(late.recv(READ_BYTES))


def send_until_stuck(greedy: dict[socket.socket, bytes], stuck_s: float = 0.5) -> Counter[socket.socket]:
    """Send what each asks again and again until nobody's bytes were taken for a while; how many were, of each."""
    taken: Counter[socket.socket] = Counter()
    selector = selectors.DefaultSelector()
    for client in greedy:
        client.setblocking(False)
        selector.register(client, selectors.EVENT_WRITE, client)
    until = time.monotonic() + PATIENCE_S
    while events := selector.select(stuck_s):
        assert time.monotonic() < until, "the node reads on although nobody takes its replies"
        for key, _ in events:
            client = key.data
            with contextlib.suppress(BlockingIOError):
                offset = taken[client] % len(greedy[client])  # whole requests follow each other, wherever a send ended
                taken[client] += client.send(greedy[client][offset:])
    selector.close()
    return taken


CONNECTIONS: Final = 100  # per listener for clients, what so few descriptors allow
PEERS: Final = 28  # besides: an eighth of all
BEYOND: Final = 10_000
WAVE: Final = 90


@pytest.fixture
def few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that this test starts may open so few files that a node allows `CONNECTIONS` per listener."""
    program = tmp_path / "python"
    limit = 2 * CONNECTIONS + PEERS + DESCRIPTORS_OWN
    program.write_text(f'#!/bin/sh\nulimit -n {limit}\nexec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """How many sockets this process may open, the limit raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard - 500 if hard != resource.RLIM_INFINITY else BEYOND
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_10_000_connections_beyond_the_limit_are_told_so_and_those_within_go_on(
    tmp_path: Path, many_descriptors: int
) -> None:
    beyond = min(BEYOND, many_descriptors)
    print(f"{beyond} connections at once beyond the limit of {CONNECTIONS}")
    full = b'"title":"Too many connections"'
    with undisturbed(tmp_path) as node, contextlib.ExitStack() as stack:
        assert "the limit of open files" in node.log.read_text()
        # Each of the two witnesses has a connection already.
        held = {
            address: [stack.enter_context(connect(address)) for _ in range(CONNECTIONS - 1)]
            for address in (node.resp, node.http)
        }
        for address, said in ((node.resp, b"-ERR max number of clients reached\r\n"), (node.http, full)):
            answers = crowd(address, beyond)
            assert answers.total() == beyond
            assert all(said in one for one in answers), answers.most_common(5)
            assert not [one for one in answers if address == node.http and not one.startswith(b"HTTP/1.1 503 ")]
        for client in held[node.resp]:
            client.sendall(PING)
            assert client.recv(100) == PONG
        # Their place is free for others when they leave.
        for client in itertools.chain(*held.values()):
            client.close()
        until = time.monotonic() + PATIENCE_S
        while answer_of_one(node.resp) != PONG:
            assert time.monotonic() < until
        while request(node, "GET", "/livez")[0] != 200:
            assert time.monotonic() < until


def answer_of_one(address: Address) -> bytes:
    with connect(address) as client, contextlib.suppress(ConnectionError):
        client.sendall(PING)
        return client.recv(100)
    return b""


def crowd(address: Address, count: int) -> Counter[bytes]:
    """So many connections, each held until the node closes it; what each was told.

    WAVE of them are in the making at a time: with a full queue the kernel would have the others try again after seconds.
    """
    told: dict[socket.socket, bytes] = {}
    selector = selectors.DefaultSelector()
    until = time.monotonic() + 3 * PATIENCE_S
    with contextlib.ExitStack() as stack:
        while len(told) < count or selector.get_map():
            while len(told) < count and len(selector.get_map()) < WAVE:
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(address)
                selector.register(client, selectors.EVENT_READ, client)
                told[client] = b""
            assert time.monotonic() < until, f"{count - len(told) + len(selector.get_map())} were told nothing"
            for key, _ in selector.select(1.0):
                client = key.data
                if received := client.recv(READ_BYTES):
                    told[client] += received
                else:
                    selector.unregister(client)
        selector.close()
        return Counter(told.values())


def test_half_commands_of_many_clients_share_one_bound(tmp_path: Path) -> None:
    """Eight clients begin a command of 60 MB: together more than the node keeps for all, so some are refused, and told why."""
    begin = b"*5\r\n$3\r\nSET\r\n$6\r\nhacked\r\n$62914560\r\n"
    refused = 0
    with undisturbed(tmp_path, growth_bytes=2 * RESP_INPUT_BYTES_TOTAL_MAX) as node, contextlib.ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(connect(node.resp))
            client.sendall(begin)
            try:
                for _ in range(59):
                    client.sendall(b"x" * MIB)
            except ConnectionError:
                refused += 1
                continue
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                refused += b"too many bytes of unprocessed commands" in client.recv(READ_BYTES)
        assert 1 <= refused <= 7, refused
