"""What members come with is remembered until they say it, at a cost that has a bound however many there are."""

from edgekv.ids import Actor, Vector, node_actor
from edgekv.replication.arrivals import LOOKED_AT_ONCE, Arrivals
from edgekv.replication.messages import ChainedVector, Hello
from edgekv.replication.seen import SeenTable

ACTORS = [node_actor(b"%016d" % i, b"%08d" % 1) for i in range(1_000)]
SEQ = 5


class Words:
    """Of members who came with all of ``ACTORS`` in ``keyspaces``, and what they have said since."""

    def __init__(self, members: int, keyspaces: tuple[int, ...] = (1,)) -> None:
        self.arrivals = Arrivals({})
        self.members = ACTORS[:members]
        self.keyspaces = keyspaces
        self.said: dict[int, Vector] = {}
        self.asked = 0
        vector: ChainedVector = dict.fromkeys(ACTORS, (SEQ, 0))
        for member in self.members:
            self.arrivals.note(hello(member, dict.fromkeys(keyspaces, vector)), lambda *_: 0, taken=True, anew=False)

    def look(self) -> int:
        """How many entries it compares."""
        before = self.asked

        def said(_member: Actor, keyspace: int, actor: Actor) -> int:
            self.asked += 1
            return self.said.get(keyspace, {}).get(actor, 0)

        self.arrivals.forget_said(said, lambda _: True)
        return self.asked - before

    def left(self) -> list[tuple[Actor, int]]:
        """Of whom it remembers what of which keyspace."""
        nothing: dict[int, Vector] = {keyspace: {} for keyspace in self.keyspaces}
        words = [(member, self.arrivals.word_beyond(member, nothing)) for member in self.members]
        return [(member, keyspace) for member, word in words if word is not None for keyspace in word.vectors]


def hello(actor: Actor, vectors: dict[int, ChainedVector]) -> Hello:
    return Hello(b"c" * 16, b"n" * 16, actor, "name", "site", "edge", 0, 0, vectors)


def test_of_members_that_have_said_nothing_one_entry_each_is_looked_at() -> None:
    words = Words(50)
    assert words.look() == 50
    assert len(words.left()) == 50


def test_one_look_has_a_bound_and_all_have_their_turn() -> None:
    words = Words(50)
    words.said = {1: dict.fromkeys(ACTORS, SEQ)}
    looks = 0
    while words.left():
        assert words.look() <= LOOKED_AT_ONCE + len(ACTORS)
        looks += 1
    assert 5 <= looks <= 6


def test_those_of_whom_much_is_said_and_not_all_keep_nobody_from_being_forgotten() -> None:
    words = Words(2, keyspaces=tuple(range(1, 21)))
    late = dict.fromkeys(ACTORS[:-1], SEQ)
    words.said = dict.fromkeys(range(1, 20), late)
    words.said[20] = dict.fromkeys(ACTORS, SEQ)
    for _ in range(8):
        assert words.look() <= LOOKED_AT_ONCE + len(ACTORS)
    assert sorted(words.left()) == sorted((member, k) for member in words.members for k in range(1, 20))


def test_an_actor_in_words_is_the_object_that_is_in_what_members_say() -> None:
    table = SeenTable()
    for i in range(2):
        vector: ChainedVector = {Actor(bytes(bytearray(ACTORS[9]))): (SEQ, 0)}
        table.arrivals.note(hello(ACTORS[i], {1: vector}), table.said, taken=True, anew=False)
    first, second = (table.word_beyond(ACTORS[i], {1: {}}) for i in range(2))
    assert first is not None and second is not None
    assert next(iter(first.vectors[1])) is next(iter(second.vectors[1]))
