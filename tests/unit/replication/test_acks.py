"""Which nodes have what this node wrote, and who is told when: `edgekv.replication.acks`."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.ids import Actor, KeyspaceId, node_actor
from edgekv.replication import acks as acks_module
from edgekv.replication.acks import Acks, Level, Peer, Want

SELF = node_actor(b"s" * 16, b"\x00" * 8)
OTHER = node_actor(b"o" * 16, b"\x00" * 8)
A, B = KeyspaceId(0), KeyspaceId(7)

HUB = Peer(b"h" * 16, "hub-1", "cloud", "hub")
NEIGHBOUR = Peer(b"n" * 16, "clinic-b", "clinic", "edge")
FAR = Peer(b"f" * 16, "shop-a", "shop", "edge")


@dataclass
class Told:
    """What the callbacks of waits said."""

    answers: list[bool] = field(default_factory=list)

    def __call__(self, met: bool) -> None:
        self.answers.append(met)


def own(seq: int) -> dict[Actor, int]:
    return {SELF: seq, OTHER: 10**6}


@pytest.fixture
def acks() -> Acks:
    return Acks(actor=SELF, site="clinic")


def test_a_node_counts_once_it_says_that_it_has_the_change_and_no_sooner(acks: Acks) -> None:
    acks.heard(HUB, A, own(4))
    assert acks.covered_by({A: 5}) == []
    acks.heard(HUB, A, own(5))
    assert acks.covered_by({A: 5}) == [HUB]


def test_what_other_actors_wrote_acknowledges_nothing_of_this_one(acks: Acks) -> None:
    acks.heard(HUB, A, {OTHER: 10**6})
    assert acks.covered_by({A: 1}) == []


def test_a_node_must_have_the_changes_of_every_keyspace(acks: Acks) -> None:
    acks.heard(HUB, A, own(5))
    acks.heard(FAR, B, own(9))
    assert acks.covered_by({A: 5, B: 9}) == []
    acks.heard(HUB, B, own(9))
    assert acks.covered_by({A: 5, B: 9}) == [HUB]


def test_a_vector_that_arrives_late_takes_nothing_back(acks: Acks) -> None:
    acks.heard(HUB, A, own(5))
    acks.heard(HUB, A, own(3))
    assert acks.covered_by({A: 5}) == [HUB]


def test_a_node_that_comes_back_restored_no_longer_has_what_it_had(acks: Acks) -> None:
    acks.heard(HUB, A, own(5))
    acks.met(HUB, {A: own(3)})
    assert acks.covered_by({A: 5}) == []
    assert acks.covered_by({A: 3}) == [HUB]


def test_a_node_that_is_no_member_any_more_does_not_count(acks: Acks) -> None:
    acks.heard(HUB, A, own(5))
    acks.forget(HUB.node)
    assert acks.covered_by({A: 1}) == []


@pytest.mark.parametrize(
    ("level", "who"), [("site", NEIGHBOUR), ("hub", HUB)], ids=["another node of the site", "a hub"]
)
def test_a_level_is_met_by_whom_it_names_and_by_nobody_else(acks: Acks, level: Level, who: Peer) -> None:
    told = Told()
    acks.wait({A: 5}, acks.want(level), None, told)
    for peer in (NEIGHBOUR, HUB, FAR):
        if peer is not who:
            acks.heard(peer, A, own(5))
    assert told.answers == []
    acks.heard(who, A, own(5))
    assert told.answers == [True]


def test_local_needs_nobody(acks: Acks) -> None:
    told = Told()
    acks.wait({A: 5}, acks.want("local"), None, told)
    assert told.answers == [True]


def test_a_number_of_nodes_is_of_nodes_and_not_of_acknowledgements(acks: Acks) -> None:
    told = Told()
    acks.wait({A: 5}, Want(2), None, told)
    acks.heard(HUB, A, own(5))
    acks.heard(HUB, A, own(6))
    assert told.answers == []
    acks.heard(FAR, A, own(5))
    assert told.answers == [True]


def test_a_wait_is_answered_once_whatever_comes_after(acks: Acks) -> None:
    told = Told()
    acks.wait({A: 5, B: 2}, Want(1), 1_000, told)
    acks.heard(HUB, A, own(5))
    acks.heard(HUB, B, own(2))
    acks.heard(FAR, A, own(9))
    acks.heard(FAR, B, own(9))
    acks.tick(2_000)
    acks.expire_all()
    assert told.answers == [True]


def test_a_wait_that_is_met_by_the_second_keyspace_first_is_met(acks: Acks) -> None:
    """The two nodes have one keyspace each; then one of them gets the other, in either order."""
    for first, second in ((A, B), (B, A)):
        told = Told()
        fresh = Acks(actor=SELF, site="clinic")
        fresh.wait({A: 5, B: 5}, Want(1), None, told)
        fresh.heard(HUB, first, own(5))
        fresh.heard(FAR, second, own(5))
        assert told.answers == []
        fresh.heard(FAR, first, own(5))
        assert told.answers == [True]


def test_what_is_met_already_is_answered_at_once(acks: Acks) -> None:
    acks.heard(HUB, A, own(5))
    told = Told()
    acks.wait({A: 5}, acks.want("hub"), None, told)
    assert told.answers == [True]


def test_a_deadline_ends_a_wait_and_no_tick_before_it_does(acks: Acks) -> None:
    told = Told()
    acks.wait({A: 5}, acks.want("hub"), 1_000, told)
    acks.tick(999)
    assert told.answers == []
    acks.tick(1_000)
    assert told.answers == [False]
    acks.heard(HUB, A, own(5))
    assert told.answers == [False]


def test_without_a_deadline_only_an_acknowledgement_or_the_end_of_the_node_ends_a_wait(acks: Acks) -> None:
    told = Told()
    acks.wait({A: 5}, acks.want("hub"), None, told)
    acks.tick(10**12)
    assert told.answers == []
    acks.expire_all()
    assert told.answers == [False]


def test_who_left_is_not_called(acks: Acks) -> None:
    told = Told()
    wait = acks.wait({A: 5}, acks.want("hub"), 1_000, told)
    acks.cancel(wait)
    acks.heard(HUB, A, own(5))
    acks.tick(1_000)
    assert told.answers == []
    assert acks.status()["waiting"] == 0


def test_one_wait_too_many_is_answered_at_once_as_pending(acks: Acks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acks_module, "ACK_WAITERS_MAX", 2)
    first, second, third = Told(), Told(), Told()
    for told in (first, second, third):
        acks.wait({A: 5}, acks.want("hub"), None, told)
    assert (first.answers, second.answers, third.answers) == ([], [], [False])


def test_one_node_too_many_is_not_counted(acks: Acks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acks_module, "ACK_PEERS_MAX", 1)
    acks.heard(HUB, A, own(5))
    acks.heard(FAR, A, own(5))
    assert acks.covered_by({A: 5}) == [HUB]


def test_waits_that_expire_while_no_hub_is_there_leave_nothing_behind(acks: Acks) -> None:
    for seq in range(1, 2_001):
        acks.wait({A: seq, B: seq}, acks.want("hub"), seq, Told())
        acks.tick(seq)
    assert acks.status()["waiting"] == 0
    assert acks._entries <= 2 * acks_module._GARBAGE_MIN
    assert len(acks._deadlines) <= acks_module._GARBAGE_MIN


def test_a_callback_may_wait_again(acks: Acks) -> None:
    told = Told()

    def again(met: bool) -> None:
        told(met)
        if len(told.answers) < 3:
            acks.wait({A: 5 + len(told.answers)}, acks.want("hub"), None, again)

    acks.wait({A: 5}, acks.want("hub"), None, again)
    for seq in (5, 6, 7):
        acks.heard(HUB, A, own(seq))
    assert told.answers == [True, True, True]


PEERS = (HUB, NEIGHBOUR, FAR)
Step = tuple[str, int, int, int]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["wait", "heard", "tick"]),
            st.integers(0, 2),
            st.integers(0, 6),
            st.integers(0, 6),
        ),
        max_size=60,
    )
)
def test_waits_are_answered_as_a_look_at_all_of_them_after_each_step_would(steps: list[Step]) -> None:
    acks = Acks(actor=SELF, site="clinic")
    known: dict[bytes, dict[KeyspaceId, int]] = {peer.node: {} for peer in PEERS}
    wants = (acks.want("site"), acks.want("hub"), Want(2))
    waits: list[tuple[dict[KeyspaceId, int], Want, int, Told]] = []
    expected: dict[int, bool] = {}
    now = 0
    for kind, which, first, second in steps:
        if kind == "wait":
            positions = {k: s for k, s in ((A, first), (B, second)) if s} or {A: 1}
            told = Told()
            waits.append((positions, wants[which], now + 3, told))
            acks.wait(positions, wants[which], now + 3, told)
        elif kind == "heard":
            peer, keyspace = PEERS[which], (A, B)[first % 2]
            known[peer.node][keyspace] = max(known[peer.node].get(keyspace, 0), second)
            acks.heard(peer, keyspace, own(second))
        else:
            now += first
            acks.tick(now)
        for index, (positions, want, deadline, _) in enumerate(waits):
            have = [
                peer
                for peer in PEERS
                if want.counts(peer) and all(known[peer.node].get(k, 0) >= s for k, s in positions.items())
            ]
            if index not in expected and len(have) >= want.nodes:
                expected[index] = True
            elif index not in expected and deadline <= now and kind == "tick":
                expected[index] = False
    assert [told.answers for *_, told in waits] == [
        [expected[index]] if index in expected else [] for index in range(len(waits))
    ]


def incarnation(peer: Peer, counter: int) -> Peer:
    return peer._replace(actor=node_actor(peer.node, counter.to_bytes(4, "big") + b"rand"))


def test_what_is_said_of_an_older_incarnation_counts_for_nothing(acks: Acks) -> None:
    """It was restored since, and may have lost that."""
    old, new = incarnation(FAR, 1), incarnation(FAR, 2)
    acks.heard_of(old, A, 7)
    assert acks.covered_by({A: 7}) == [old]
    acks.heard_of(new, A, 3)
    assert acks.covered_by({A: 3}) == [new] and acks.covered_by({A: 4}) == []
    acks.heard_of(old, A, 7)
    assert acks.covered_by({A: 4}) == []
    acks.met(new, {A: own(2)})
    acks.heard_of(old, A, 7)
    assert acks.covered_by({A: 3}) == []


def test_a_new_incarnation_takes_back_what_the_one_before_had(acks: Acks) -> None:
    acks.heard_of(incarnation(FAR, 1), A, 7)
    acks.renewed(FAR.node, incarnation(FAR, 1).actor)
    assert len(acks.covered_by({A: 7})) == 1
    acks.renewed(FAR.node, incarnation(FAR, 2).actor)
    assert acks.covered_by({A: 1}) == []


def test_a_keyspace_that_a_node_holds_anew_is_all_that_is_taken_back(acks: Acks) -> None:
    acks.met(FAR, {A: own(5), B: own(5)})
    acks.holds(FAR, B, own(2))
    assert acks.covered_by({A: 5, B: 2}) == [FAR]
    assert acks.covered_by({B: 3}) == []


def test_hubs_are_asked_for_those_who_wait_for_more_than_hubs(acks: Acks) -> None:
    asked: list[int] = []
    acks.asked = lambda: asked.append(1)
    acks.wait({A: 1}, acks.want("hub"), None, lambda met: None)
    assert (asked, acks.wait_for_any) == ([], False)
    first = acks.wait({A: 1}, acks.want("site"), 5, lambda met: None)
    second = acks.wait({A: 1}, Want(3), None, lambda met: None)
    assert (asked, acks.wait_for_any) == ([1, 1], True)
    acks.tick(5)
    acks.cancel(second)
    assert (first.ended, acks.wait_for_any) == (True, False)
