"""What `edgekv cluster unite` finds that the cluster lacks of one key."""

from typing import cast

from edgekv.cli.resp_client import Reply, RespConnection
from edgekv.cli.unite import Command, Difference, _union


class Node:
    """One key of a node: a set, fields, an expiry."""

    def __init__(self, members: set[bytes], fields: dict[bytes, bytes], expiry: int = -1) -> None:
        self._members = members
        self._fields = fields
        self._expiry = expiry

    def call(self, verb: bytes, *arguments: bytes) -> Reply:
        names = arguments[1:]
        match verb:
            case b"GET":
                return None
            case b"EXISTS":
                return int(bool(self._members or self._fields))
            case b"PEXPIRETIME":
                return self._expiry
            case b"SSCAN":
                return [b"0", [*sorted(self._members)]]
            case b"HSCAN":
                return [b"0", [each for pair in sorted(self._fields.items()) for each in pair]]
            case b"SMISMEMBER":
                return [int(name in self._members) for name in names]
            case b"HMGET":
                return [self._fields.get(name) for name in names]
        raise AssertionError(verb)


def united(aside: Node, here: Node) -> tuple[list[Command], list[Difference]]:
    commands, different = _union(cast(RespConnection, aside), cast(RespConnection, here), b"k")
    return commands, different


def test_elements_and_fields_that_the_cluster_lacks_are_brought_back() -> None:
    aside = Node({b"a", b"b"}, {b"f": b"1", b"g": b"2"})
    commands, different = united(aside, Node({b"b"}, {b"g": b"3"}))
    assert commands == [(b"SADD", b"k", b"a"), (b"HSET", b"k", b"f", b"1")]
    assert different == [Difference(b"k", b"g", b"3", b"2")]


def test_a_key_that_comes_back_whole_ends_when_it_was_to_end() -> None:
    """Sessions, leases: without its expiry it would stay for ever."""
    aside = Node({b"a"}, {b"f": b"1"}, expiry=900)
    commands, _ = united(aside, Node(set(), {}))
    assert commands == [(b"SADD", b"k", b"a"), (b"HSET", b"k", b"f", b"1"), (b"PEXPIREAT", b"k", b"900")]


def test_a_key_that_the_cluster_has_keeps_its_own_expiry() -> None:
    aside = Node({b"a"}, {}, expiry=900)
    assert united(aside, Node({b"b"}, {}))[0] == [(b"SADD", b"k", b"a")]
    assert united(aside, Node({b"a"}, {}))[0] == []
