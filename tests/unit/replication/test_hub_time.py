"""The hubs' time: readings of a clock through a network that delays, and the stamps of nodes whose own clocks are wrong."""

from hypothesis import given
from hypothesis import strategies as st

from edgekv.replication.hub_time import UNKNOWN_ERROR_MS, WALL_MS_MAX, PeerClock, Reading, read, stamp_ms
from edgekv.replication.messages import Heartbeat, pack_message, parse
from tests.unit.replication.test_links import cluster
from tests.unit.replication.wires import Make, Net, Peer, run

DAY_MS = 86_400_000


def stamped_ms(peer: Peer, key: bytes) -> int:
    """When it says that it wrote this now."""
    peer.operations.set(key, b"v")
    peer.settle()
    return peer.engine.keyspaces.of(key).hlc >> 16


def set_clock(peer: Peer, by_ms: int) -> None:
    peer.now_ms += by_ms
    peer.clock_set_ms += by_ms


# -- readings


@given(
    st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 4_000), st.integers(1, 60_000)), min_size=1),
    st.integers(0, 1 << 40),
)
def test_a_reading_is_never_more_wrong_than_it_says(delays: list[tuple[int, int, int]], ahead: int) -> None:
    """``delays``: of a message there, of its answer, and the pause after it."""
    at, reading = 0, read(None, ahead, None, 0)
    for there, back, pause in delays:
        said_at = at + there
        at = said_at + back
        reading = read(reading, ahead + said_at, there + back, at)
        assert reading is not None and abs(reading.ahead_ms - ahead) <= reading.error_at(at) + 1
        at += pause
        assert reading.error_at(at) >= reading.error_ms


def test_the_reading_that_may_be_wrong_least_is_kept() -> None:
    first = read(None, 1_000_000, None, 0)
    assert first == Reading(1_000_000, UNKNOWN_ERROR_MS, 0)
    good = read(first, 1_000_110, 20, 100)
    assert good == Reading(1_000_020, 10, 100)
    assert read(good, 1_001_900, 2_000, 2_000) is good, "a slow answer says less"
    assert read(good, 1_001_900, None, 2_000) is good


def test_a_hub_whose_clock_is_set_is_followed() -> None:
    good = read(None, 1_000_000, 10, 0)
    later = read(good, 5_000_000, 100, 1_000)
    assert later is not None and stamp_ms([later], 0, 1_000) == 5_000_050


def test_what_no_clock_shows_and_what_no_network_does_is_no_reading() -> None:
    assert read(None, WALL_MS_MAX + 1, None, 0) is None
    assert read(None, 1_000, -1, 0) is None
    assert read(None, 1_000, 1 << 40, 0) is None


def test_without_a_hub_the_own_clock_counts_and_of_several_the_best_known() -> None:
    assert stamp_ms([], 7, 100) == stamp_ms([None], 7, 100) == 7
    assert stamp_ms([Reading(1_000, 50, 0), Reading(2_000, 5, 0)], 7, 100) == 2_100


def test_a_round_trip_leaves_out_how_long_the_other_side_waited() -> None:
    ours, theirs = PeerClock(), PeerClock()
    assert ours.say(1_000) == (1_000, 0, 0)
    assert theirs.hear(*(1_000, 0, 0), 500_020) is None
    said = theirs.say(507_020)
    assert said == (507_020, 1_000, 7_000)
    assert ours.hear(*said, 8_050) == 50
    message = Heartbeat(1, *said)
    assert parse(pack_message(message)) == message


# -- nodes


def test_a_node_whose_clock_is_two_days_ahead_stamps_by_the_hubs_while_it_is_linked(net: Net, make: Make) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    set_clock(edge, 2 * DAY_MS)
    assert abs(stamped_ms(edge, b"linked") - hub.now_ms) < 1_000
    run(net, [hub, edge], rounds=5)
    assert hub.operations.get(b"linked") == b"v", "and nobody refuses it"
    net.cut(wire)
    assert stamped_ms(edge, b"cut off") >= hub.now_ms + 2 * DAY_MS - 1_000, "alone it has its own clock only"
    assert stamped_ms(edge, b"again") >= hub.now_ms + 2 * DAY_MS - 1_000


def test_a_board_that_boots_in_1970_stamps_sensibly_once_it_has_met_a_hub(net: Net, make: Make) -> None:
    hub = make("hub", founder=True)
    board = make("board", site="s", role="edge")
    board.clock_set_ms = 1_000 - board.now_ms
    board.now_ms = 1_000
    wire = net.connect(board, hub)
    run(net, [hub, board], rounds=10)
    assert abs(stamped_ms(board, b"k") - hub.now_ms) < 1_000
    before = board.engine.keyspaces.of(b"k").hlc
    net.cut(wire)
    stamped_ms(board, b"k")
    assert board.engine.keyspaces.of(b"k").hlc > before, "a stamp never goes back"


def test_a_hub_stamps_by_its_own_clock(net: Net, make: Make) -> None:
    first, second = make("first", founder=True), make("second")
    net.connect(second, first)
    run(net, [first, second], rounds=10)
    set_clock(second, 3_600_000)
    assert abs(stamped_ms(second, b"k") - second.now_ms) < 1_000


def test_who_says_that_it_is_a_hub_and_is_no_member_sets_no_clock(net: Net, make: Make) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    link = edge.replication.links[wire.number]
    assert link.peer is not None
    link.clock.reading = Reading(link.clock.reading.ahead_ms + DAY_MS, 0, 0) if link.clock.reading else None
    del edge.replication.members.members[hub.engine.actor]
    assert abs(edge.replication._stamp_ms() - edge.now_ms) < 1_000


def test_a_clock_is_read_over_a_round_trip_though_the_link_is_never_silent(net: Net, make: Make) -> None:
    hub, (edge,), (wire,) = cluster(net, make, edges=1)
    for i in range(30):
        hub.operations.set(b"k%d" % i, b"v")
        run(net, [hub, edge], rounds=8)
    reading = edge.replication.links[wire.number].clock.reading
    assert reading is not None and reading.error_ms < 200
