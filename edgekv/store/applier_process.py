"""The node's side of the applier: a child process to talk to, or the same work done inline in small steps.

The node sends "apply up to this LSN" when a generation was frozen, and hears of every commit; it may then recycle the log and
drop the generation. Nothing here blocks the event loop: a request is one small write into a pipe, messages are read when the
descriptor is readable, and a message that is not there whole yet is kept until it is.

The child is spawned, not forked from the node's threads, and inherits the descriptor of the directory lock: a node that is
started after kill -9 gets the lock only when the orphan has ended. The end of the request pipe ends the child
(PR_SET_PDEATHSIG would follow the thread that spawned it, not the process). Restarting one that ended is the node's decision.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final, Protocol

import edgekv
from edgekv.limits import APPLIER_IDLE_MS, APPLIER_INLINE_ROWS, APPLIER_LOG_BYTES_MAX
from edgekv.store.applied import Ended, Message, Progress, Stable
from edgekv.store.applier_messages import frame_message, pack_request, parse_response, take_messages

READ_BYTES: Final = 1 << 16


class Step(Protocol):
    """What InlineApplier needs of an Applier (which this module, imported by the node, does not import)."""

    def apply(self, upto_lsn: int, stable: Stable | None, *, rows_max: int) -> Progress | None:
        """One transaction; None when there was nothing to do."""

    def progress(self) -> Progress:
        """Where the store stands."""


class ApplierProcess:
    """A running applier child. Made by ``spawn``; ``receive`` whenever ``fileno`` is readable."""

    def __init__(self, child: subprocess.Popen[bytes], requests: int, responses: int) -> None:
        self._child = child
        self._requests = requests
        self._responses = responses
        self._received = bytearray()
        self._unsent = bytearray()
        self._open = True

    @classmethod
    def spawn(cls, data_dir: Path, lock_fd: int, *, idle_ms: int = APPLIER_IDLE_MS) -> "ApplierProcess":
        """Start the child. It holds ``lock_fd`` until it ends; its stderr goes to applier.log, cut when it grew too long."""
        request_read, request_write = os.pipe()
        response_read, response_write = os.pipe()
        command = [sys.executable, "-m", "edgekv.store.applier", "--data-dir", str(data_dir)]
        command += ["--request-fd", str(request_read), "--response-fd", str(response_write), "--lock-fd", str(lock_fd)]
        command += ["--idle-ms", str(idle_ms)]
        log = data_dir / "applier.log"
        if log.exists() and log.stat().st_size > APPLIER_LOG_BYTES_MAX:
            log.write_bytes(b"")
        try:
            with log.open("ab") as stderr:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    pass_fds=(request_read, response_write, lock_fd),
                    env={**os.environ, "PYTHONPATH": _python_path()},
                )
        except OSError:
            os.close(request_write)
            os.close(response_read)
            raise
        finally:
            os.close(request_read)
            os.close(response_write)
        os.set_blocking(request_write, False)
        os.set_blocking(response_read, False)
        return cls(child, request_write, response_read)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def fileno(self) -> int:
        """The descriptor to watch for readability."""
        return self._responses

    def request(self, lsn: int, stable: Stable | None) -> None:
        """Ask for everything below ``lsn``, which must be durable. Never blocks; a child that ended is noticed by ``receive``."""
        self._unsent += frame_message(pack_request(lsn, stable))
        self._send()

    def receive(self) -> list[Message]:
        """The messages that arrived whole. Never blocks. The last one is Ended when the child closed its pipe."""
        self._send()
        ended = False
        while not ended:
            try:
                data = os.read(self._responses, READ_BYTES)
            except BlockingIOError:
                break
            self._received += data
            ended = not data
        messages: list[Message] = [parse_response(message) for message in take_messages(self._received)]
        if ended:
            messages.append(Ended(self.poll()))
        return messages

    def poll(self) -> int | None:
        """The exit status, reaping the child if it has ended; None while it runs."""
        return self._child.poll()

    def close(self) -> None:
        """Let the child end: it sees the end of its pipe, aborts what it is doing and exits. Never blocks; idempotent."""
        if self._open:
            self._open = False
            os.close(self._requests)
            os.close(self._responses)

    def wait(self, timeout_s: float) -> int:
        """Block until the child has ended (at shutdown, after ``close``); kills it after ``timeout_s``. Returns the exit status."""
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._child.kill()  # Safe at any moment: LMDB holds the last commit whole and the log has the rest.
            return self._child.wait()

    def _send(self) -> None:
        try:
            while self._unsent and self._open:
                del self._unsent[: os.write(self._requests, self._unsent)]
        except BlockingIOError:
            pass  # More than a pipe holds: the rest goes when the child has answered, with ``receive``.
        except BrokenPipeError:
            self._unsent.clear()


class InlineApplier:
    """The applier's work in the node itself, a bounded transaction per step: simulator, embedded use and tiny devices."""

    def __init__(self, applier: Step) -> None:
        self._applier = applier
        self._request: tuple[int, Stable | None] | None = None

    def request(self, lsn: int, stable: Stable | None) -> None:
        """Ask for everything below ``lsn``; the newest request replaces an older one, which it contains."""
        self._request = lsn, stable

    def step(self) -> Progress | None:
        """One transaction of about APPLIER_INLINE_ROWS rows (at least one record); None when nothing is asked for.

        A request ends with a report in any case: the commit may have been made before and its report lost with an error.
        """
        if self._request is None:
            return None
        lsn, stable = self._request
        progress = self._applier.apply(lsn, stable, rows_max=APPLIER_INLINE_ROWS)
        if progress is None:
            self._request = None
            progress = self._applier.progress()
        return progress


def _python_path() -> str:
    """The child must import this very package, from wherever this process did."""
    root = str(Path(edgekv.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return f"{root}{os.pathsep}{inherited}" if inherited else root
