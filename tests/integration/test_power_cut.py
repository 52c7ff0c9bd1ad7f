"""Power cuts without devices: the node's directory is an ext4 on a loop image, and a copy of the image is the disk after the cut.

With commit=300 and the kernel's own write-back after 30 s, the image holds what was synced and little else. Copying takes a while, and
an image whose blocks are of different moments is the disk of no moment at all; so node and applier are stopped (SIGSTOP) while it is
made: between two system calls, as a power cut finds them. Then they go on, and are cut again.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekv.cli.node_process import NodeProcess
from edgekv.limits import KIB, MIB
from tests.integration.kill_rounds import LogAudit, wait_for_applier, wait_for_no_applier
from tests.integration.ledger import LANES, PATIENCE_S, Load, Progress, State, read_back

IMAGE_BYTES = 160 * MIB
LOG = ("--wal-segment-bytes", str(1 * MIB), "--limits-value-bytes-max", str(64 * KIB))
SIZES = ("--small-memory", "true", "--memory-bytes", str(4 * MIB), *LOG)


class Disk:
    """An image in a file, and where it is mounted."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.mount = image.with_suffix(".mounted")

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Skips the test where loop mounts are impossible."""
        self.mount.mkdir()
        arguments = ["mount", "-t", "ext4", "-o", "loop,commit=300", str(self.image), str(self.mount)]
        done = subprocess.run(arguments, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount an image: {done.stderr.strip()}")
        try:
            yield self.mount
        finally:
            unmount(self.mount)


def unmount(mount: Path) -> None:
    """A process that was killed closes its files a moment after it is gone from /proc."""
    until = time.monotonic() + PATIENCE_S
    while subprocess.run(["umount", mount], check=False, capture_output=True).returncode:
        if time.monotonic() >= until:
            subprocess.run(["umount", "--lazy", mount], check=True)
            raise AssertionError(f"{mount} stays busy")
        time.sleep(0.02)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    if os.geteuid() or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and e2fsprogs")
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    return Disk(image)


def cut(disk: Disk, node: NodeProcess, copy: Path) -> Disk:
    """What the disk would hold if the power went now."""
    pids = (node.pid, wait_for_applier(node.data_dir, other_than=0))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        subprocess.run(["cp", "--sparse=always", disk.image, copy], check=True)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    return Disk(copy)


def cut_under_load(disk: Disk, directory: Path, cuts: int) -> tuple[Load, list[tuple[Disk, list[Progress]]]]:
    """A node under load, cut again and again; the copies, each with what had been acknowledged before it was begun."""
    copies: list[tuple[Disk, list[Progress]]] = []
    with disk.mounted() as mount, Load(directory, "power", [{} for _ in range(LANES)]) as load:
        node = NodeProcess(mount / "node", *SIZES)
        node.log = directory / "node.log"
        try:
            node.start()
            load.start(node.resp)
            for number in range(cuts):
                time.sleep(0.3 + 0.1 * (number % 3))
                acknowledged = load.progress()
                copies.append((cut(disk, node, directory / f"copy-{number}"), acknowledged))
        finally:
            node.kill()
            wait_for_no_applier(node.data_dir)
        sent = [lane.sent for lane in load.join()]
    return load, [
        (copy, [Progress(lane.acknowledged, sent[i]) for i, lane in enumerate(progress)]) for copy, progress in copies
    ]


def state_after(copy: Disk, directory: Path) -> list[State]:
    """Mount the copy, which replays its journal, and let a node recover there."""
    with copy.mounted() as mount:
        node = NodeProcess(mount / "node", *SIZES)
        node.log = directory / "node.log"
        try:
            LogAudit().look(mount / "node" / "wal")
            node.start()
            return read_back(node.resp)
        finally:
            node.kill()
            wait_for_no_applier(node.data_dir)


def check_cuts(disk: Disk, directory: Path, cuts: int) -> None:
    load, copies = cut_under_load(disk, directory, cuts)
    for number, (copy, progress) in enumerate(copies):
        assert all(lane.acknowledged for lane in progress)
        verdicts = load.judge(progress, state_after(copy, directory))
        assert all(verdict == ([], [], [], True) for verdict in verdicts), f"cut {number}: {verdicts}"
        copy.image.unlink()


def test_what_was_acknowledged_before_a_power_cut_is_there_after_it(disk: Disk, tmp_path: Path) -> None:
    check_cuts(disk, tmp_path, cuts=2)


@pytest.mark.slow  # about 30 s
def test_twelve_power_cuts_of_one_node_take_nothing_acknowledged(disk: Disk, tmp_path: Path) -> None:
    check_cuts(disk, tmp_path, cuts=12)
