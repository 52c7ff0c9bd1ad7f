"""Bounds: who waits, who is refused, and that waiting ends."""

import pytest

from edgekv.engine.admission import Admission
from edgekv.errors import Corruption, DiskFull, ReadOnly, Unavailable
from edgekv.limits import LMDB_RESERVE_BYTES

CAP = 1_000_000
PLENTY = 1 << 40


def test_writers_wait_at_the_cap_and_all_go_on_when_there_is_room() -> None:
    admission = Admission(CAP)
    blocked = []
    for unapplied_bytes in (CAP - 1, CAP):
        admission.update(unapplied_bytes=unapplied_bytes, log_has_room=True)
        blocked.append(admission.blocked)
    assert blocked == [False, True]
    woken: list[str] = []
    admission.on_room += [lambda: woken.append("a"), lambda: woken.append("b")]
    admission.update(unapplied_bytes=CAP - 1, log_has_room=True)
    assert woken == [], "a gap, so that a crowd is not woken for every freed row"
    admission.update(unapplied_bytes=CAP // 2, log_has_room=True)
    assert (woken, admission.blocked, admission.on_room) == (["a", "b"], False, [])


def test_writers_wait_while_only_the_reserve_of_the_log_is_left() -> None:
    admission = Admission(CAP)
    admission.update(unapplied_bytes=0, log_has_room=False)
    assert admission.blocked
    admission.update(unapplied_bytes=0, log_has_room=True)
    assert not admission.blocked


def test_a_callback_that_meets_the_bound_again_waits_again() -> None:
    admission = Admission(CAP)
    admission.update(unapplied_bytes=CAP, log_has_room=True)
    turns: list[int] = []

    def again() -> None:
        turns.append(1)
        admission.on_room.append(lambda: turns.append(2))

    admission.on_room.append(again)
    admission.update(unapplied_bytes=0, log_has_room=True)
    assert turns == [1] and len(admission.on_room) == 1


def test_on_a_full_disk_clients_are_refused_deletes_are_not_and_nobody_waits_for_ever() -> None:
    admission = Admission(CAP)
    admission.update(unapplied_bytes=0, log_has_room=False)
    woken: list[bool] = []
    admission.on_room.append(lambda: woken.append(True))
    admission.disk(free_bytes=0, reusable_bytes=0, unapplied_bytes=0, spares_failed=True)
    assert woken == [True]
    admission.update(unapplied_bytes=0, log_has_room=False)
    assert not admission.blocked
    with pytest.raises(DiskFull, match="writes resume by themselves"):
        admission.check_client()
    admission.check_relief()
    admission.disk(free_bytes=PLENTY, reusable_bytes=0, unapplied_bytes=0, spares_failed=False)
    admission.check_client()


def test_what_is_acknowledged_must_find_room_in_the_store() -> None:
    admission = Admission(CAP)
    room = LMDB_RESERVE_BYTES + 2 * 500
    admission.disk(free_bytes=room - 1, reusable_bytes=0, unapplied_bytes=500, spares_failed=False)
    assert admission.disk_full
    admission.disk(free_bytes=room - 1, reusable_bytes=1, unapplied_bytes=500, spares_failed=False)
    assert not admission.disk_full


def test_a_read_only_node_refuses_even_deletes_and_says_why() -> None:
    admission = Admission(CAP)
    admission.read_only = Corruption("records 7 to 9 are gone.", path="seg-1", first_lsn=7, last_lsn=9)
    with pytest.raises(ReadOnly, match="records 7 to 9 are gone"):
        admission.check_relief()


def test_deletes_are_refused_when_the_disk_is_full_and_the_reserve_of_the_log_is_used_up() -> None:
    admission = Admission(CAP)
    admission.reserve_has_room = lambda: False
    admission.check_relief()
    admission.disk(free_bytes=0, reusable_bytes=0, unapplied_bytes=0, spares_failed=True)
    with pytest.raises(DiskFull, match="reserve"):
        admission.check_relief()
    admission.reserve_has_room = lambda: True
    admission.check_relief()


def test_on_a_full_disk_nobody_waits_for_memory_either() -> None:
    admission = Admission(CAP)
    admission.disk(free_bytes=0, reusable_bytes=0, unapplied_bytes=CAP, spares_failed=False)
    admission.update(unapplied_bytes=CAP, log_has_room=True)
    assert not admission.blocked
    admission.disk(free_bytes=PLENTY, reusable_bytes=0, unapplied_bytes=CAP, spares_failed=False)
    admission.update(unapplied_bytes=CAP, log_has_room=True)
    assert admission.blocked


def test_who_waits_for_room_is_told_when_the_node_goes_read_only_and_nobody_waits_from_then_on() -> None:
    admission = Admission(CAP)
    admission.update(unapplied_bytes=CAP, log_has_room=True)
    woken: list[bool] = []
    admission.on_room.append(lambda: woken.append(admission.blocked))
    admission.refuse(Unavailable("the rows cannot be joined."))
    assert woken == [False]
    admission.update(unapplied_bytes=2 * CAP, log_has_room=False)
    assert not admission.blocked
    with pytest.raises(ReadOnly, match="cannot be joined"):
        admission.check_client()
