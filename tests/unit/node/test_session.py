"""Tokens of sessions, and the nodes that cover them: `edgekv.node.token`, `edgekv.node.session`.

Two whole nodes driven by hand stand for a cluster. `replicate` is a fake of replication: it says that one has durably what the other
had made, by moving its vector as a received and synced change would.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekv.config import KeyspaceConfig
from edgekv.engine.keyspaces import Head
from edgekv.errors import InvalidRequest, SessionBehind
from edgekv.ids import Actor, KeyspaceId, Vector, node_actor
from edgekv.limits import SESSION_TOKEN_CHARS_MAX
from edgekv.node import session as session_module
from edgekv.node.session import Cuts
from edgekv.node.token import NAME_BYTES, Token, name_of, token_of, token_text
from edgekv.replication.members import Announced
from edgekv.store.applied import Cut, Stable, sync_path
from edgekv.store.spool import spool_file
from tests.unit.node.inline_node import InlineNode

ROOMS = KeyspaceConfig(name="rooms", prefix=b"room/")
DEFAULT = KeyspaceId(0)

names = st.binary(min_size=NAME_BYTES, max_size=NAME_BYTES)
numbers = st.integers(0, (1 << 64) - 1)
tokens = st.builds(
    Token,
    names,
    numbers,
    numbers,
    st.none()
    | st.dictionaries(
        st.integers(0, 0xFFFF_FFFF).map(KeyspaceId), st.dictionaries(names, numbers, max_size=20), max_size=4
    ),
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[InlineNode]:
    node = InlineNode(tmp_path / "here", keyspaces=(ROOMS,))
    yield node
    node.kill()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[InlineNode]:
    node = InlineNode(tmp_path / "there", keyspaces=(ROOMS,), seed=1)
    yield node
    node.kill()


def put(node: InlineNode, key: bytes) -> None:
    node.operations.set(key, b"x")
    node.settle()


def replicate(source: InlineNode, target: InlineNode, key: bytes = b"") -> None:
    """The target has, durably, what the source has made in the key's keyspace."""
    made = source.engine.keyspaces.of(key).vector
    vector = target.engine.keyspaces.of(key).vector
    for actor, head in made.items():
        if actor not in vector or vector[actor].seq < head.seq:
            vector[actor] = head
    target.node.durable()


def token(node: InlineNode, *keys: bytes) -> str:
    return node.node.sessions.token({node.engine.keyspaces.of(key).id for key in keys})


class Told:
    """What the callback of a wait said."""

    def __init__(self) -> None:
        self.answers: list[SessionBehind | None] = []

    def __call__(self, error: SessionBehind | None) -> None:
        self.answers.append(error)


def wait(node: InlineNode, text: str, deadline_ms: int = 1 << 62) -> Told:
    told = Told()
    node.node.sessions.wait(text, deadline_ms, told)
    return told


# -- the text


@given(tokens)
def test_a_token_comes_back_as_it_went_out(given_token: Token) -> None:
    assert token_of(token_text(given_token)) == given_token


@given(tokens, st.data())
def test_a_token_of_which_a_character_changed_is_refused(given_token: Token, data: st.DataObject) -> None:
    text = token_text(given_token)
    place = data.draw(st.integers(0, len(text) - 2))  # the last one may have bits that mean nothing
    other = data.draw(st.sampled_from(sorted(set("AZaz09-_") - {text[place]})))
    with pytest.raises(InvalidRequest, match="not one that a node returned"):
        token_of(text[:place] + other + text[place + 1 :])


@given(st.text(max_size=60) | st.just("A" * (SESSION_TOKEN_CHARS_MAX + 4)))
def test_garbage_is_no_token(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not one that a node returned"):
        token_of(text)


def test_a_token_of_one_writer_is_short() -> None:
    assert len(token_text(Token(bytes(8), 10**9, 0, {DEFAULT: {bytes(8): 10**9}}))) < 60


# -- what covers what


def test_a_token_is_covered_by_the_node_that_made_it(here: InlineNode) -> None:
    put(here, b"a")
    assert wait(here, token(here, b"a")).answers == [None]


def test_a_write_is_covered_elsewhere_once_it_is_there(here: InlineNode, there: InlineNode) -> None:
    put(here, b"a")
    told = wait(there, token(here, b"a"))
    assert told.answers == []
    replicate(here, there)
    assert told.answers == [None]


def test_an_absence_is_an_observation_like_any_other(here: InlineNode, there: InlineNode) -> None:
    """The session saw the key deleted; a node that still has it must not show it."""
    put(here, b"a")
    replicate(here, there)
    here.operations.delete([b"a"])
    here.settle()
    assert here.operations.get(b"a") is None
    assert wait(there, token(here, b"a")).answers == []


def test_what_the_node_had_from_others_is_part_of_what_was_seen(here: InlineNode, there: InlineNode) -> None:
    third = node_actor(b"3" * 16, bytes(8))
    here.engine.keyspaces.of(b"").vector[third] = Head(9, 0)
    put(here, b"a")
    text = token(here, b"a")
    replicate_own = here.engine.keyspaces.of(b"").vector[here.engine.actor]
    there.engine.keyspaces.of(b"").vector[here.engine.actor] = replicate_own
    told = wait(there, text)
    assert told.answers == []
    there.engine.keyspaces.of(b"").vector[third] = Head(9, 0)
    there.node.durable()
    assert told.answers == [None]


def test_keyspaces_that_the_session_did_not_look_at_are_not_waited_for(here: InlineNode, there: InlineNode) -> None:
    put(here, b"a")
    put(here, b"room/1")
    replicate(here, there, b"room/1")
    assert wait(there, token(here, b"room/1")).answers == [None]
    assert wait(there, token(here, b"room/1", b"a")).answers == []


def test_a_token_is_of_its_moment(here: InlineNode, there: InlineNode) -> None:
    put(here, b"a")
    before = token(here, b"a")
    replicate(here, there)
    put(here, b"b")
    assert wait(there, before).answers == [None]
    assert wait(there, token(here, b"a")).answers == []


def test_what_is_not_durable_here_covers_nothing(here: InlineNode, there: InlineNode) -> None:
    """A token of the writer comes with a reply, and that leaves after the sync; a received token waits for the same."""
    put(there, b"a")
    replicate(there, here)
    here.operations.set(b"a", b"new")
    text = token(here, b"a")
    assert wait(there, text).answers == [None], "the undurable change is not in the token"
    here.settle()
    assert token(here, b"a") != text


def test_a_buffered_write_is_in_the_token_when_it_is_acknowledged(tmp_path: Path) -> None:
    node = InlineNode(tmp_path / "n", keyspaces=(KeyspaceConfig(name="b", prefix=b"b/", durability="buffered"),))
    node.settle()
    before = token(node, b"b/1")
    node.operations.set(b"b/1", b"x")
    node.engine.kick()
    node.flush()
    assert node.engine.commit.needs_sync
    entries = token_of(token(node, b"b/1")).entries
    assert token(node, b"b/1") != before
    assert entries == {node.engine.keyspaces.of(b"b/1").id: {name_of(node.engine.actor): 1}}
    assert wait(node, token(node, b"b/1")).answers == [None]
    node.kill()


def test_a_restart_forgets_no_session(here: InlineNode) -> None:
    put(here, b"a")
    text = token(here, b"a")
    here.kill()
    here.open()
    assert wait(here, text).answers == [None]


def test_another_incarnation_of_the_maker_answers_by_what_it_has(here: InlineNode) -> None:
    """Restored: its log may be longer than the token's LSN says and lack what the session has seen."""
    put(here, b"a")
    text = token(here, b"a")
    here.stop()
    here.look_restored()
    here.open()
    assert wait(here, text).answers == [None]
    here.engine.keyspaces.of(b"").vector.clear()
    assert wait(here, text).answers == []


# -- waiting


def test_a_call_is_refused_as_behind_at_its_deadline_and_not_before(here: InlineNode, there: InlineNode) -> None:
    put(here, b"a")
    told = wait(there, token(here, b"a"), deadline_ms=1_000)
    there.node.tick(999)
    assert told.answers == []
    there.node.tick(1_000)
    (error,) = told.answers
    assert isinstance(error, SessionBehind) and error.retryable and error.outcome == "not-applied"
    assert "behind what the session has seen in keyspace 'default' (change 1 of a node, here 0)" in str(error)


def test_a_call_is_answered_once(here: InlineNode, there: InlineNode) -> None:
    put(here, b"a")
    told = wait(there, token(here, b"a"), deadline_ms=1_000)
    replicate(here, there)
    there.node.durable()
    there.node.tick(2_000)
    there.node.expire_all()
    assert told.answers == [None]


def test_a_caller_that_left_is_not_called(here: InlineNode, there: InlineNode) -> None:
    put(here, b"a")
    told = Told()
    there.node.sessions.wait(token(here, b"a"), 1_000, told)()
    replicate(here, there)
    there.node.tick(2_000)
    assert told.answers == []


def test_a_call_that_lacks_two_things_waits_for_both(here: InlineNode, there: InlineNode) -> None:
    put(here, b"a")
    put(here, b"room/1")
    text = token(here, b"a", b"room/1")
    for order in ((b"a", b"room/1"), (b"room/1", b"a")):
        for key in order:
            there.engine.keyspaces.of(key).vector.clear()
        told = wait(there, text)
        replicate(here, there, order[0])
        assert told.answers == []
        replicate(here, there, order[1])
        assert told.answers == [None]


def test_a_node_that_stops_answers_those_who_wait_and_those_who_come(here: InlineNode, there: InlineNode) -> None:
    put(here, b"a")
    text = token(here, b"a")
    early = wait(there, text)
    there.node.expire_all()
    late = wait(there, text)
    assert [type(answer) for answer in early.answers + late.answers] == [SessionBehind, SessionBehind]


def test_calls_beyond_the_bound_are_refused(
    here: InlineNode, there: InlineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "SESSION_WAITERS_MAX", 1)
    put(here, b"a")
    text = token(here, b"a")
    assert wait(there, text).answers == []
    assert [type(answer) for answer in wait(there, text).answers] == [SessionBehind]


def test_calls_that_expire_on_a_node_that_lags_leave_nothing_behind(here: InlineNode, there: InlineNode) -> None:
    put(here, b"a")
    text = token(here, b"a")
    wait(there, text)
    for ms in range(1_000):
        wait(there, text, deadline_ms=ms)
        there.node.tick(ms)
    assert sum(map(len, there.node.sessions._parked.values())) <= 4


def test_a_keyspace_that_the_node_does_not_hold_is_refused_at_once(here: InlineNode, tmp_path: Path) -> None:
    put(here, b"room/1")
    lone = InlineNode(tmp_path / "lone")
    (error,) = wait(lone, token(here, b"room/1")).answers
    assert "does not hold" in str(error)
    lone.kill()


# -- many nodes


def many(node: InlineNode, count: int) -> list[Actor]:
    actors = [node_actor(number.to_bytes(16, "big"), bytes(8)) for number in range(1, count + 1)]
    node.engine.keyspaces.of(b"").vector.update({actor: Head(10**9, 0) for actor in actors})
    return actors


def announced(number: int, cut: Vector) -> Announced:
    return Announced(number=number, stable=Stable(0, {DEFAULT: Cut(cut, cut, frozenset())}))


def test_a_token_of_more_nodes_than_fit_is_good_on_its_maker_only(here: InlineNode, there: InlineNode) -> None:
    many(here, 1_000)
    many(there, 1_000)
    put(here, b"a")
    replicate(here, there)
    text = token(here, b"a")
    assert len(text) < SESSION_TOKEN_CHARS_MAX
    assert wait(here, text).answers == [None]
    (error,) = wait(there, text).answers
    assert "only the node that made it" in str(error)


def test_a_token_that_rests_on_a_stable_which_a_restored_leader_forgot_is_refused_for_good(
    here: InlineNode, there: InlineNode
) -> None:
    put(here, b"a")
    here.node.sessions.announced = lambda: announced(7, {here.engine.actor: 1})
    text = token(here, b"a")
    later = announced(999, {})
    for gaps, lost in ((((4, 900),), True), (((7, 900), (950, 990)), False), (((0, 7), (8, 900)), False)):
        there.node.sessions._stable = Cuts(0, {})
        known = replace(later, gaps=gaps)
        there.node.sessions.announced = lambda known=known: known  # type: ignore[misc]
        answers = str(wait(there, text).answers)
        assert ("restored from a backup. Begin a new session." in answers) == lost


def test_a_thousand_nodes_fit_when_a_stable_cut_covers_most(here: InlineNode, there: InlineNode) -> None:
    actors = many(here, 1_000)
    many(there, 1_000)
    put(here, b"a")
    replicate(here, there)
    stable = announced(7, dict.fromkeys(actors, 10**9))
    here.node.sessions.announced = lambda: stable
    text = token(here, b"a")
    assert len(text) < 60
    told = wait(there, text)
    assert told.answers == [], "a node that does not know the STABLE waits"
    there.node.sessions.announced = lambda: stable
    there.node.durable()
    assert told.answers == [None]


def test_a_member_that_knows_the_stable_and_lacks_its_rows_waits_for_them(here: InlineNode, there: InlineNode) -> None:
    (actor,) = many(here, 1)
    put(here, b"a")
    replicate(here, there)
    vector = there.engine.keyspaces.of(b"").vector
    del vector[actor]
    stable = announced(7, {actor: 10**9})
    here.node.sessions.announced = there.node.sessions.announced = lambda: stable
    told = wait(there, token(here, b"a"))
    assert told.answers == []
    vector[actor] = Head(10**9, 0)
    there.node.durable()
    assert told.answers == [None]


# -- rows that are taken over as a whole


def test_a_token_names_rows_that_were_taken_over_from_the_moment_on_in_which_they_show(tmp_path: Path) -> None:
    source = InlineNode(tmp_path / "source", retain_bytes=1 << 30)
    target = InlineNode(tmp_path / "target", seed=1, lone=False)
    put(source, b"k")
    source.checkpoint_at(source.now_ms + 5_000)
    spool = source.spool(DEFAULT, spool_file(sync_path(target.config.data_dir), b"spool id"))
    done: list[bool] = []
    target.engine.flip(DEFAULT, b"spool id", spool.head.vector, spool.head.hlc, lambda: done.append(True))

    def shows() -> bool:
        seen = token_of(token(target, b"k")).entries
        assert seen is not None
        shown = target.operations.get(b"k") == b"x"
        assert seen[DEFAULT] == ({name_of(source.engine.actor): 1} if shown else {})
        return shown

    while not done:
        assert not shows()
        if not target.flush() and not target.apply():
            target.tick()
    assert shows()
    for node in (source, target):
        node.kill()
