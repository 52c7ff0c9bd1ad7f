"""A node and a redis-server 7 get the same random commands (resp_differential.py). About 20 seconds; needs redis-server."""

import random
import shutil

import pytest

from tests.integration.resp_differential import KEYS, Judge, comparison, story

COMMANDS = 25_000
TWO = b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
@pytest.mark.parametrize("protocol", [2, 3])
def test_random_commands_get_the_replies_of_redis(protocol: int) -> None:
    seed = random.randrange(1 << 32)
    with comparison(seed, protocol) as run:
        for difference in run.run(COMMANDS):
            pytest.fail(f"RESP{protocol}: {difference}")
        state = [[b"MGET", *KEYS], [b"KEYS", b"*"], *([verb, key] for verb in (b"TYPE", b"TTL") for key in KEYS)]
        assert not run.ask(state), f"seed {seed}: the same replies, and another state"


@pytest.mark.parametrize(
    ("command", "expected", "given"),
    [
        ([b"GET", b"k"], b"$1\r\n1\r\n", b"$1\r\n2\r\n"),
        ([b"GET", b"k"], b"$-1\r\n", b"_\r\n"),
        ([b"SMEMBERS", b"k"], b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*2\r\n$1\r\na\r\n$1\r\na\r\n"),
        ([b"SMEMBERS", b"k"], b"~1\r\n$1\r\na\r\n", b"*1\r\n$1\r\na\r\n"),
        ([b"HGETALL", b"k"], b"*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n", b"*4\r\n:1\r\n:4\r\n:3\r\n:2\r\n"),
        ([b"HMGET", b"k", b"f", b"g"], b"*2\r\n:1\r\n:2\r\n", b"*2\r\n:2\r\n:1\r\n"),
        ([b"TTL", b"k"], b":100\r\n", b":97\r\n"),
        ([b"TTL", b"k"], b":-1\r\n", b":-2\r\n"),
        ([b"INCRBYFLOAT", b"k", b"1"], b"$3\r\n1.5\r\n", b"$3\r\n1.6\r\n"),
        ([b"SPOP", b"k"], b"$1\r\na\r\n", b"$1\r\nb\r\n"),
        ([b"SRANDMEMBER", b"k", b"2"], b"*2\r\n:1\r\n:2\r\n", b"*1\r\n:1\r\n"),
        ([b"INCR", b"k"], b"-WRONGTYPE x\r\n", b"-ERR x\r\n"),
    ],
)
def test_the_judge_explains_no_real_difference(command: list[bytes], expected: bytes, given: bytes) -> None:
    assert Judge().pipeline([command], expected, given)


@pytest.mark.parametrize(
    ("commands", "expected", "given"),
    [
        ([[b"SMEMBERS", b"k"]], b"~2\r\n:1\r\n:2\r\n", b"~2\r\n:2\r\n:1\r\n"),
        ([[b"HGETALL", b"k"]], b"%2\r\n:1\r\n:2\r\n:3\r\n:4\r\n", b"%2\r\n:3\r\n:4\r\n:1\r\n:2\r\n"),
        ([[b"SSCAN", b"k", b"0"]], b"*2\r\n:0\r\n*2\r\n:1\r\n:2\r\n", b"*2\r\n:0\r\n*2\r\n:2\r\n:1\r\n"),
        ([[b"PTTL", b"k"]], b":1000\r\n", b":998\r\n"),
        ([[b"INCRBYFLOAT", b"k", b"1"]], b"$19\r\n9223372036854775806\r\n", b"$21\r\n9223372036854775806.5\r\n"),
        ([[b"SMEMBERS", b"k"], [b"SPOP", b"k"]], TWO + b"$1\r\na\r\n", TWO + b"$1\r\nb\r\n"),
        (
            [[b"MULTI"], [b"SUNION", b"k"], [b"EXEC"]],
            b"+OK\r\n+QUEUED\r\n*1\r\n*2\r\n:1\r\n:2\r\n",
            b"+OK\r\n+QUEUED\r\n*1\r\n*2\r\n:2\r\n:1\r\n",
        ),
    ],
)
def test_the_judge_explains_order_time_and_rounding(commands: list[list[bytes]], expected: bytes, given: bytes) -> None:
    judge = Judge()
    assert not judge.pipeline(commands, expected, given)
    assert judge.explained


def test_one_seed_asks_one_sequence_of_commands() -> None:
    first, again = (
        [command for _ in range(500) for command in story(dice)] for dice in (random.Random(5), random.Random(5))
    )
    assert first == again
