"""Watches on a whole node that is driven by hand: what is shown, in which order, and that no way of losing one's place makes a gap."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekv.config import KeyspaceConfig
from edgekv.errors import Denied, InvalidRequest, Overloaded
from edgekv.ids import Actor, KeyspaceId, node_actor
from edgekv.limits import WATCH_CURSOR_CHARS_MAX, WATCHES_MAX
from edgekv.node import watch as watch_module
from edgekv.node.watch import Watch
from edgekv.node.watch_cursor import cursor_of, cursor_text
from edgekv.node.watch_events import Event
from edgekv.store.applied import sync_path
from edgekv.store.spool import SpoolWriter, keep
from edgekv.wal.reader import checkpoints
from edgekv.wal.record import Barrier, Body, Changes, pack_columns, unpack_body
from tests.unit.node.inline_node import InlineNode

SIBLINGS = KeyspaceConfig(name="notes", prefix=b"notes/", conflict="siblings")
BUFFERED = KeyspaceConfig(name="fast", prefix=b"fast/", durability="buffered")
ELSEWHERE = node_actor(b"another node\x00\x00\x00\x00", bytes(8))

Shown = tuple[str, bytes, object]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[InlineNode]:
    made = InlineNode(tmp_path / "n", keyspaces=(SIBLINGS, BUFFERED))
    made.settle()  # the mark of its incarnation
    yield made
    made.kill()


def take(watch: Watch) -> list[Event]:
    """All that the watch shows now."""
    events: list[Event] = []
    while True:
        if watch.lags:
            watch.load(watch.durable_lsn)
        step = watch.step()
        events += step.events
        if not step.more:
            return events


def shown(events: list[Event]) -> list[Shown]:
    """Kind, key, and whatever else an event says but its version."""
    found: list[Shown] = []
    for event in events:
        if event.written is None:
            found.append((event.kind, b"", event.phase))
            continue
        document = event.document()
        rest = {name: value for name, value in document.items() if name not in ("key", "version")}
        found.append((event.kind, event.written.key, rest))
    return found


def open_watch(node: InlineNode, prefix: bytes = b"", cursor: str = "") -> Watch:
    return node.node.watches.open(prefix, cursor)


def put(node: InlineNode, *keys: bytes) -> None:
    for key in keys:
        node.operations.set(key, b"v of " + key)
        node.settle()


def keys_of(events: list[Event]) -> list[bytes]:
    return [event.written.key for event in events if event.written is not None]


def lose_the_log(node: InlineNode, *quick: Watch) -> None:
    """So much is written and applied that neither files nor memory have what was before; ``quick`` keep up."""
    node.engine.tail.bytes_max = 0
    put(node, b"first")
    first = min(base for base, _ in _segments(node))
    while min(base for base, _ in _segments(node)) == first:
        for i in range(8):
            node.operations.set(b"filler/%d" % i, bytes(30_000))
            node.settle()
            for watch in quick:
                assert all(event.kind == "put" for event in take(watch))
        node.checkpoint()


def _segments(node: InlineNode) -> list[tuple[int, object]]:
    return list(checkpoints(node.node.watches.disk))


# -- what is shown


def test_a_watch_shows_what_becomes_durable_after_it_was_opened_below_its_prefix_in_order(node: InlineNode) -> None:
    put(node, b"a/0")
    watch = open_watch(node, b"a/")
    put(node, b"a/1", b"b/1", b"a/2")
    node.operations.set_run([b"a/3", b"b/3", b"a/4"], [b"3", b"-", b"4"])
    node.operations.set(b"a/5", b"not durable yet")
    assert keys_of(take(watch)) == [b"a/1", b"a/2"]
    node.settle()
    assert keys_of(take(watch)) == [b"a/3", b"a/4", b"a/5"]


def test_nothing_is_shown_before_it_is_durable(node: InlineNode) -> None:
    watch = open_watch(node)
    node.operations.set(b"fast/1", b"written, acknowledged, not synced")
    node.engine.kick()
    node.flush()
    assert node.operations.get(b"fast/1") is not None and take(watch) == []
    node.settle()
    assert keys_of(take(watch)) == [b"fast/1"]


def test_every_operation_of_every_type_is_shown(node: InlineNode) -> None:
    watch, verbs = open_watch(node), node.operations
    verbs.set(b"r", b"1", expiry_ms=node.now_ms + 5_000)
    verbs.delete([b"r"])
    verbs.increment(b"c", 5)
    verbs.set_expiry(b"c", node.now_ms + 6_000)
    verbs.persist(b"c")
    verbs.delete([b"c"])
    verbs.sets.add(b"s", [b"x", b"y"])
    verbs.sets.remove(b"s", [b"x"])
    verbs.delete([b"s"])
    verbs.maps.put(b"m", [(b"f", b"1"), (b"g", b"2")])
    verbs.maps.remove(b"m", [b"f"])
    verbs.maps.increment(b"m", b"n", 3)
    verbs.delete([b"m"])
    verbs.siblings.put(b"notes/1", b"mine", verbs.siblings.get(b"notes/1").context)
    verbs.siblings.delete(b"notes/1", verbs.siblings.get(b"notes/1").context)
    node.settle()
    assert shown(take(watch)) == [
        ("put", b"r", {"type": "register", "value": b"1", "expiry_ms": node.now_ms + 5_000}),
        ("delete", b"r", {"type": "register"}),
        ("put", b"c", {"type": "counter"}),
        ("expire", b"c", {"type": "key", "expiry_ms": node.now_ms + 6_000}),
        ("expire", b"c", {"type": "key", "expiry_ms": 0}),
        ("delete", b"c", {"type": "counter"}),
        ("put", b"s", {"type": "set", "elements": [b"x", b"y"]}),
        ("delete", b"s", {"type": "set", "elements": [b"x"]}),
        ("delete", b"s", {"type": "set"}),
        ("put", b"m", {"type": "map", "fields": [{"field": b"f", "value": b"1"}, {"field": b"g", "value": b"2"}]}),
        ("delete", b"m", {"type": "map", "fields": [{"field": b"f"}]}),
        ("put", b"m", {"type": "map", "fields": [{"field": b"n"}]}),
        ("delete", b"m", {"type": "map"}),
        ("delete", b"m", {"type": "map", "fields": [{"field": b"n"}]}),
        ("put", b"notes/1", {"type": "siblings", "value": b"mine"}),
        ("delete", b"notes/1", {"type": "siblings"}),
    ]


def test_the_version_of_a_put_is_the_version_that_a_read_shows(node: InlineNode) -> None:
    watch = open_watch(node)
    put(node, b"k")
    [event] = take(watch)
    entry = node.operations.get_entry(b"k")
    assert entry is not None and event.written is not None
    assert event.written.version.startswith(f"{entry.version.hlc:016x}-")


def test_what_edgekv_keeps_for_itself_cannot_be_watched(node: InlineNode) -> None:
    with pytest.raises(Denied):
        open_watch(node, b"_meta/")


def test_there_are_so_many_watches_and_no_more_and_a_closed_one_makes_room(node: InlineNode) -> None:
    watches = [open_watch(node) for _ in range(WATCHES_MAX)]
    with pytest.raises(Overloaded):
        open_watch(node)
    watches[0].close()
    open_watch(node)


# -- resuming


def test_every_cursor_resumes_after_its_event_and_nothing_is_left_out(node: InlineNode) -> None:
    watch = open_watch(node)
    for i in range(6):
        put(node, b"k%d" % i)
    node.operations.set_run([b"r%d" % i for i in range(6)], [b"x"] * 6)
    node.settle()
    events = take(watch)
    assert len(events) == 12
    for i, event in enumerate(events):
        assert keys_of(take(open_watch(node, cursor=event.cursor))) == keys_of(events[i + 1 :])


def test_a_change_of_several_operations_comes_whole_again_when_its_reader_left_in_the_middle(node: InlineNode) -> None:
    watch = open_watch(node)
    node.operations.set_many([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])
    node.settle()
    first, second, third = take(watch)
    assert keys_of(take(open_watch(node, cursor=first.cursor))) == [b"a", b"b", b"c"]
    assert keys_of(take(open_watch(node, cursor=second.cursor))) == [b"a", b"b", b"c"]
    assert take(open_watch(node, cursor=third.cursor)) == []


def test_a_cursor_outlives_kill_9_and_shows_what_came_before_and_after(node: InlineNode) -> None:
    watch = open_watch(node)
    put(node, b"1")
    [event] = take(watch)
    put(node, b"2")
    node.kill()
    node.open()
    put(node, b"3")
    assert keys_of(take(open_watch(node, cursor=event.cursor))) == [b"2", b"3"]


def test_the_cursor_of_a_watch_that_saw_nothing_moves_on_with_the_log(node: InlineNode) -> None:
    watch = open_watch(node, b"quiet/")
    put(node, b"a", b"b")
    assert take(watch) == []
    place = cursor_of(watch.cursor)
    assert place.lsn == node.engine.commit.durable_lsn and place.vectors[0] == {node.engine.actor: 2}


def test_a_cursor_of_another_node_is_good_here_what_it_covers_is_not_shown_again(node: InlineNode) -> None:
    put(node, b"1", b"2", b"3")
    actor = node.engine.actor
    cursor = cursor_text(ELSEWHERE, 1 << 40, None, {0: {actor: 2}})
    assert keys_of(take(open_watch(node, cursor=cursor))) == [b"3"]


def test_a_cursor_that_knows_a_change_this_node_does_not_have_yet_is_not_shown_it_when_it_comes(
    node: InlineNode,
) -> None:
    put(node, b"1")
    actor = node.engine.actor
    watch = open_watch(node, cursor=cursor_text(ELSEWHERE, 0, None, {0: {actor: 2}}))
    put(node, b"2", b"3")
    assert keys_of(take(watch)) == [b"3"]


def test_a_cursor_from_beyond_the_end_of_this_log_is_judged_by_its_vectors(node: InlineNode) -> None:
    """As after a salvage that cut the log short: the LSNs that follow are given anew."""
    put(node, b"1", b"2")
    actor = node.engine.actor
    cursor = cursor_text(actor, node.engine.commit.durable_lsn + 5, None, {0: {actor: 1}})
    assert keys_of(take(open_watch(node, cursor=cursor))) == [b"2"]


@pytest.mark.parametrize("text", ["x", "%", "AAAA", "a" * (WATCH_CURSOR_CHARS_MAX + 1), "kwE", "1"])
def test_what_is_no_cursor_is_refused(node: InlineNode, text: str) -> None:
    with pytest.raises(InvalidRequest):
        open_watch(node, cursor=text)


@given(
    st.integers(0, 1 << 63),
    st.none() | st.binary(max_size=64),
    st.dictionaries(
        st.integers(0, 1 << 31),
        st.dictionaries(st.binary(min_size=25, max_size=25).map(Actor), st.integers(0, 1 << 60), max_size=4),
        max_size=4,
    ),
)
def test_a_cursor_reads_back_as_it_was_written(
    lsn: int, next_key: bytes | None, vectors: dict[int, dict[Actor, int]]
) -> None:
    assert cursor_of(cursor_text(ELSEWHERE, lsn, next_key, vectors)) == (ELSEWHERE, lsn, next_key, vectors)


def test_changes_of_other_actors_are_shown_when_they_have_come(node: InlineNode) -> None:
    watch = open_watch(node)
    body = pack_columns([b"far"], [b"away"])
    node.engine.receive(Changes(0, ELSEWHERE, 1, node.now_ms << 16, 0, 1, body))
    put(node, b"near")
    events = take(watch)
    assert keys_of(events) == [b"far", b"near"]
    assert cursor_of(events[-1].cursor).vectors[0] == {ELSEWHERE: 1, node.engine.actor: 1}


# -- when the log does not reach back


def test_changes_that_came_past_the_log_are_shown_as_rows(node: InlineNode) -> None:
    """What was seen ends at 1, and what the log holds next begins at 4: another way than the log has brought 2 and 3 here."""
    put(node, b"1", b"2", b"3")
    cursor = cursor_text(node.engine.actor, node.engine.commit.durable_lsn, None, {0: {node.engine.actor: 1}})
    watch = open_watch(node, cursor=cursor)
    put(node, b"4")
    assert keys_of(take(watch)) == [b"1", b"2", b"3", b"4"]


def test_a_cursor_older_than_the_log_gets_the_current_rows_and_then_the_tail(node: InlineNode) -> None:
    watch = open_watch(node, b"a/")
    put(node, b"a/1")
    [event] = take(watch)
    put(node, b"a/2")
    node.operations.delete([b"a/1"])
    node.operations.sets.add(b"a/s", [b"x"])
    node.operations.maps.put(b"a/m", [(b"f", b"1")])
    node.operations.increment(b"a/c", 7)
    lose_the_log(node)
    resumed = open_watch(node, b"a/", event.cursor)
    found = take(resumed)
    assert shown(found) == [
        ("resync", b"", "begin"),
        ("put", b"a/2", {"type": "register", "value": b"v of a/2"}),
        ("put", b"a/c", {"type": "counter", "value": b"7"}),
        ("put", b"a/m", {"type": "map", "fields": [{"field": b"f", "value": b"1"}]}),
        ("put", b"a/s", {"type": "set", "elements": [b"x"]}),
        ("resync", b"", "end"),
    ]
    put(node, b"a/3")
    assert keys_of(take(resumed)) == [b"a/3"]
    assert (
        take(open_watch(node, b"a/", found[-1].cursor))[0].written
        == take(open_watch(node, b"a/", found[-1].cursor))[0].written
    )


def test_a_cursor_older_than_the_log_is_good_when_nothing_that_is_watched_was_written_since(node: InlineNode) -> None:
    watch = open_watch(node, b"notes/")
    put(node, b"notes/1")
    [event] = take(watch)
    lose_the_log(node)
    resumed = open_watch(node, b"notes/", event.cursor)
    put(node, b"notes/2")
    assert keys_of(take(resumed)) == [b"notes/2"]


def row_sync(node: InlineNode, path: Path) -> list[str]:
    """Rows that another node has written become part of this node's, as a whole; what is appended to when that is done."""
    other = InlineNode(path / "other", seed=1)
    put(other, b"far/1", b"far/2")
    other.checkpoint()
    spool_id, part = b"spool-id", path / "part"
    with closing(SpoolWriter(other._store, KeyspaceId(0), part)) as writer:
        while writer.step():
            pass
        head = writer.head
    other.kill()
    folder = sync_path(node.config.data_dir)
    folder.mkdir(exist_ok=True)
    keep(part, folder, spool_id)
    done: list[str] = []
    node.engine.flip(KeyspaceId(0), spool_id, head.vector, head.hlc, lambda: done.append("done"))
    return done


def log_barrier(node: InlineNode) -> None:
    """The row sync comes as far as its BARRIER being durable; the rows are not there yet."""
    while not any(isinstance(record, Barrier) for frame in node.engine.tail.read(0) or () for record in frame.records):
        node.apply()
        node.settle()


def fold(node: InlineNode, done: list[str]) -> None:
    for _ in range(20):
        node.settle()
        node.apply()
    assert done == ["done"]


def test_who_asked_to_be_woken_and_left_is_not_called(node: InlineNode) -> None:
    woken: list[str] = []
    stays, leaves = lambda: woken.append("stays"), lambda: woken.append("leaves")
    for callback in (leaves, stays):
        node.node.watches.when_durable(callback)
    for _ in range(2):
        node.node.watches.forget(leaves)
    put(node, b"k")
    assert woken == ["stays"]


def test_the_rows_of_a_row_sync_are_shown_to_whoever_watches_when_it_is_done(node: InlineNode, tmp_path: Path) -> None:
    put(node, b"near")
    before = open_watch(node)
    woken: list[str] = []
    done = row_sync(node, tmp_path)
    slow = open_watch(node)
    log_barrier(node)
    during = open_watch(node)
    assert take(before) == take(during) == []
    node.node.watches.when_durable(lambda: woken.append("woken"))
    while not done:
        node.apply()
    assert woken == ["woken"]
    for watch in (before, slow, during):
        found = shown(take(watch))
        assert [item[:2] for item in found] == [
            ("resync", b""),
            ("put", b"far/1"),
            ("put", b"far/2"),
            ("put", b"near"),
            ("resync", b""),
        ]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_cursor_from_the_middle_of_a_row_sync_is_shown_its_rows_and_the_writes_meanwhile(
    node: InlineNode, tmp_path: Path, restarted: bool
) -> None:
    watch = open_watch(node)
    done = row_sync(node, tmp_path)
    log_barrier(node)
    put(node, b"meanwhile")
    assert [item[:2] for item in shown(take(watch))] == [("put", b"meanwhile")]
    cursor = watch.cursor
    assert take(open_watch(node, cursor=cursor)) == [], "it has seen that"
    if restarted:
        node.kill()
        node.open()
    else:
        fold(node, done)
    assert [item[:2] for item in shown(take(open_watch(node, cursor=cursor)))] == [
        ("resync", b""),
        ("put", b"far/1"),
        ("put", b"far/2"),
        ("put", b"meanwhile"),
        ("resync", b""),
    ]


def test_a_cursor_from_before_a_row_sync_is_shown_its_rows_also_after_a_restart(
    node: InlineNode, tmp_path: Path
) -> None:
    watch = open_watch(node)
    put(node, b"near")
    [event] = take(watch)
    fold(node, row_sync(node, tmp_path))
    put(node, b"later")
    node.kill()
    node.open()
    found = shown(take(open_watch(node, cursor=event.cursor)))
    assert found[0] == ("resync", b"", "begin") and {b"far/1", b"far/2", b"near", b"later"} == {
        k for _, k, _ in found
    } - {b""}
    covering = {0: {a: h.seq for a, h in node.engine.keyspaces.all[0].vector.items()}}
    assert take(open_watch(node, cursor=cursor_text(node.engine.actor, 0, None, covering))) == []


def test_a_watch_that_is_too_slow_for_the_log_is_given_rows_and_others_notice_nothing(node: InlineNode) -> None:
    slow, quick = open_watch(node), open_watch(node)
    put(node, b"a")
    assert keys_of(take(quick)) == [b"a"]
    lose_the_log(node, quick)
    put(node, b"b")
    found = shown(take(slow))
    assert found[0] == ("resync", b"", "begin") and found[-1] == ("resync", b"", "end")
    assert {b"a", b"b"} <= {key for _, key, _ in found}
    assert keys_of(take(quick)) == [b"b"]


def test_a_watch_may_ask_for_the_current_rows_first(node: InlineNode) -> None:
    put(node, b"a", b"b")
    watch = open_watch(node, cursor="0")
    put(node, b"c")
    assert [item[:2] for item in shown(take(watch))] == [
        ("resync", b""),
        ("put", b"a"),
        ("put", b"b"),
        ("put", b"c"),
        ("resync", b""),
        ("put", b"c"),
    ]


def test_rows_go_on_where_their_reader_left_and_show_what_was_written_to_earlier_ones_meanwhile(
    node: InlineNode,
) -> None:
    node.operations.set_run([b"k%04d" % i for i in range(600)], [b"x"] * 600)
    node.settle()
    watch = open_watch(node, cursor="0")
    half = watch.step().events
    assert 10 < len(half) < 600
    watch.close()
    put(node, b"k0003")
    rest = take(open_watch(node, cursor=half[-1].cursor))
    keys = keys_of(rest)
    assert keys[0] == keys_of(half)[-1] and b"resync" not in keys
    assert {*keys_of(half), *keys} == {b"k%04d" % i for i in range(600)}
    assert keys[-1] == b"k0003" and shown(rest)[-2] == ("resync", b"", "end")


def test_rows_begun_on_another_node_begin_again_when_this_one_does_not_have_all_that_they_show(
    node: InlineNode,
) -> None:
    put(node, b"a", b"b")
    ahead = cursor_text(ELSEWHERE, 5, b"b", {0: {node.engine.actor: 2, ELSEWHERE: 1}})
    level = cursor_text(ELSEWHERE, 5, b"b", {0: {node.engine.actor: 2}})
    assert keys_of(take(open_watch(node, b"", ahead))) == [b"a", b"b"]
    assert keys_of(take(open_watch(node, b"", level))) == [b"b"]


def test_rows_that_are_not_durable_are_kept_back_and_so_are_cursors_behind_them(node: InlineNode) -> None:
    put(node, b"a")
    node.operations.set(b"b", b"undurable")
    watch = open_watch(node, cursor="0")
    assert take(watch) == []
    cursor = watch.cursor
    node.settle()
    assert keys_of(take(watch)) == [b"a", b"b", b"b"]
    node.kill()
    node.open()
    assert keys_of(take(open_watch(node, cursor=cursor)))[:2] == [b"a", b"b"]


def test_large_sets_and_maps_are_shown_in_parts(node: InlineNode) -> None:
    elements = [b"%05d" % i for i in range(1_000)]
    node.operations.sets.add(b"s", elements)
    node.operations.maps.put(b"m", [(element, b"v") for element in elements])
    node.settle()
    events = take(open_watch(node, cursor="0"))
    found = [element for event in events if event.written for element in event.written.elements or ()]
    fields = [field for event in events if event.written for field, _ in event.written.fields or ()]
    assert found == fields == elements
    assert len(events) > 6


def test_all_concurrent_values_are_among_the_current_rows(node: InlineNode) -> None:
    unread = node.operations.siblings.get(b"notes/1").context
    for value in (b"mine", b"yours"):
        node.operations.siblings.put(b"notes/1", value, unread)
    node.settle()
    events = take(open_watch(node, b"notes/", "0"))
    values = [(e.written.type, e.written.value) for e in events if e.written is not None]
    assert sorted(values) == [("siblings", b"mine"), ("siblings", b"yours")]


def test_runs_are_unpacked_once_for_all_watches_and_kept_only_as_far_as_there_is_room(
    node: InlineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "WATCH_BODIES_BYTES_MAX", 200)
    unpacked: list[bytes] = []

    def counted(body: bytes) -> Body:
        unpacked.append(body)
        return unpack_body(body)

    monkeypatch.setattr(watch_module, "unpack_body", counted)
    watches = [open_watch(node) for _ in range(3)]
    for i in range(20):
        put(node, b"k%d" % i)
        assert [keys_of(take(watch)) for watch in watches] == [[b"k%d" % i]] * 3
    assert len(unpacked) == 20
    open_watch(node, cursor=cursor_text(node.engine.actor, 0, None, {})).step()
    assert len(unpacked) > 30


# -- all of it


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_happens_a_mirror_that_follows_ends_with_what_the_node_holds(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Writes, slow and quick reading, leaving and coming back by the last cursor, kill -9, a recycled log: no key is ever missed."""
    node = InlineNode(tmp_path_factory.mktemp("n") / "n")
    watch = open_watch(node, b"k/", "0")
    mirror: dict[bytes, bytes] = {}
    cursor = "0"

    def follow(steps: int) -> None:
        nonlocal cursor
        for _ in range(steps):
            if watch.lags and data.draw(st.booleans()):
                watch.load(watch.durable_lsn)
            for event in watch.step().events:
                cursor = event.cursor
                if event.phase == "begin":
                    mirror.clear()
                elif event.written is not None and event.kind == "put":
                    mirror[event.written.key] = event.written.value or b""
                elif event.written is not None:
                    mirror.pop(event.written.key, None)

    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["put", "put", "delete", "read", "leave", "kill", "recycle"])):
            case "put":
                names = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))
                node.operations.set_run([b"k/%d" % i for i in names], [b"%d" % len(names)] * len(names))
            case "delete":
                node.operations.delete([b"k/%d" % data.draw(st.integers(0, 9))])
            case "read":
                follow(data.draw(st.integers(1, 4)))
            case "leave":
                watch.close()
                watch = open_watch(node, b"k/", cursor)
            case "kill":
                node.kill()
                node.open()
                watch = open_watch(node, b"k/", cursor)
            case "recycle":
                lose_the_log(node)
        if data.draw(st.booleans()):
            node.settle()
    node.settle()
    while watch.step().more:
        pass
    watch.close()
    watch = open_watch(node, b"k/", cursor)
    follow(200)
    assert mirror == {
        listed.key: listed.string.value for listed in node.operations.page(b"", b"k/", 100).listed if listed.string
    }
    node.kill()
