"""The one error taxonomy: whose fault it is, and whether the operation may have happened.

Every class says three things that an interface passes on unchanged: ``code`` (a stable word), ``outcome`` (``not-applied`` or
``unknown``) and ``retryable`` (the same call may succeed later). ``exit_status`` is the CLI's (docs/CLI.md). A message is one
sentence on what happened and one on what to do next.
"""

from typing import ClassVar, Literal, Self

Outcome = Literal["not-applied", "unknown"]


class EdgeKVError(Exception):
    """Base of all errors that a caller is meant to see."""

    code: ClassVar[str] = "error"
    outcome: ClassVar[Outcome] = "not-applied"
    retryable: ClassVar[bool] = False
    exit_status: ClassVar[int] = 1


class InvalidRequest(EdgeKVError):
    """The caller's mistake: a malformed key, number, option, cursor or body."""

    code = "invalid-request"
    exit_status = 2


class TooLarge(InvalidRequest):
    """A key, value, batch or command above its limit. Refused before anything was stored."""

    code = "too-large"


class IdForgotten(InvalidRequest):
    """The node cannot tell any more whether the operation with this id was carried out before. It was not carried out now."""

    code = "id-forgotten"


class ConfigError(InvalidRequest):
    """A configuration file, variable or flag that cannot be used."""

    code = "config"


class NotFound(EdgeKVError):
    """The key does not exist."""

    code = "not-found"
    exit_status = 3


class WrongType(EdgeKVError):
    """The key holds another type than the operation works on."""

    code = "wrong-type"
    exit_status = 4


class ConcurrentValues(WrongType):
    """The key holds several concurrent values (or, for what counts, any), and the call works on one."""

    code = "concurrent-values"


class NotANumber(EdgeKVError):
    """An arithmetic operation on a value that is not a number, or a result out of range."""

    code = "not-a-number"
    exit_status = 4


class Denied(EdgeKVError):
    """The keyspace's policy or the caller's grants do not allow it."""

    code = "denied"
    exit_status = 6


class Replaced(Denied):
    """An actor is closed whose node goes on under another one: it runs twice."""

    code = "replaced"


class Unavailable(EdgeKVError):
    """This node cannot do it now; nothing happened; try again or elsewhere."""

    code = "unavailable"
    retryable = True
    exit_status = 5


class Overloaded(Unavailable):
    """A bound on memory or log space is met; writes resume by themselves."""

    code = "overloaded"


class DiskFull(Unavailable):
    """The disk has no room for another client write; reads, deletes and expiry go on."""

    code = "disk-full"


class SessionBehind(Unavailable):
    """This node has not got yet what the session has read or written elsewhere. Nothing was done."""

    code = "behind"


class ReadOnly(Unavailable):
    """The node takes no writes before it is started again, or not even then: something is damaged, or there is no reserve."""

    code = "read-only"


class OutcomeUnknown(EdgeKVError):
    """The write may or may not have happened: the log failed, or the connection ended, after it was sent."""

    code = "outcome-unknown"
    outcome = "unknown"
    exit_status = 7


class LogFailed(OutcomeUnknown):
    """A write or fdatasync of the log failed. Latched: nothing is acknowledged after it, and the process ends."""

    code = "log-failed"


class Corruption(EdgeKVError):
    """Bytes below a durability promise are damaged. Reported, never truncated.

    ``first_lsn`` and ``last_lsn`` bound what is gone (``last_lsn`` None: unknown).
    """

    code = "corruption"

    def __init__(self, message: str, *, path: str, first_lsn: int = 0, last_lsn: int | None = None) -> None:
        super().__init__(message)
        self.path, self.first_lsn, self.last_lsn = path, first_lsn, last_lsn


class CursorLost(EdgeKVError):
    """A reader's place in the log was recycled: never corruption, but it has to synchronise rows instead."""

    code = "cursor-lost"


class PeerFault(EdgeKVError):
    """A peer sent what it must not. Nothing of it was taken in; its link ends, everything else goes on."""

    code = "peer-fault"


class Forked(PeerFault):
    """Two histories of one actor have met: a directory was cloned or rolled back. ``node``: whose, where that is known."""

    code = "forked"
    node = b""

    @classmethod
    def of(cls, node: bytes, sentence: str) -> Self:
        """With the node whose histories they are."""
        error = cls(sentence)
        error.node = node
        return error


class TooLate(PeerFault):
    """Changes of an actor of which the cluster has settled what there is. ``node``: whose."""

    code = "too-late"
    node = b""


class Diverged(Forked):
    """To the node whose history it is: what it has is not what the cluster has of it."""

    code = "diverged"


class Copied(Forked):
    """The same, and the node runs elsewhere as well."""

    code = "copied"


class ClockTooFarAhead(PeerFault):
    """Changes are stamped so far in the future that they would win over everything for long."""

    code = "clock-too-far-ahead"

    @classmethod
    def of(cls, what: str, hlc: int, hlc_max: int) -> "ClockTooFarAhead":
        """``what`` is stamped ``hlc``, and ``hlc_max`` is the highest stamp that is taken now."""
        hours = -(-((hlc >> 16) - (hlc_max >> 16)) // 3_600_000)
        return cls(
            f"{what} are stamped {hlc >> 16} ms, more than a day ahead of this node. Set the clock of the node that made them: it "
            f"puts their stamps right then, and comes back with all that it wrote. As they are they are taken in {hours} h."
        )


class FormatUnknown(EdgeKVError):
    """A file or peer speaks a format version that this release does not know."""

    code = "format-unknown"


class DirectoryInUse(EdgeKVError):
    """Another process holds the data directory."""

    code = "directory-in-use"
    exit_status = 5
