"""Errors as HTTP tells them: RFC 9457 ``application/problem+json``, and the one table from error to status.

    {"type": "urn:edgekv:problem:too-large", "title": ..., "status": 413, "detail": ..., "code": "too-large",
     "outcome": "not-applied", "retryable": false}

Clients branch on ``code``, and on ``outcome``: ``not-applied`` (safe to send again) or ``unknown`` (the write may have
happened). The third outcome of the vocabulary, ``applied``, is for errors that report a write which did happen; no call of
this release has one.
"""

import json
from http import HTTPStatus
from typing import Final, NamedTuple

from edgekv.api.http.reply import Reply
from edgekv.errors import (
    ClockTooFarAhead,
    ConcurrentValues,
    ConfigError,
    Copied,
    Corruption,
    CursorLost,
    Denied,
    DirectoryInUse,
    DiskFull,
    Diverged,
    EdgeKVError,
    Forked,
    FormatUnknown,
    IdForgotten,
    InvalidRequest,
    LogFailed,
    NotANumber,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    PeerFault,
    ReadOnly,
    Replaced,
    SessionBehind,
    TooLarge,
    TooLate,
    Unavailable,
    WrongType,
)


class Answer(NamedTuple):
    """How one class of error is told."""

    status: int
    title: str
    retry_after_s: int = 0


ANSWERS: Final[dict[type[EdgeKVError], Answer]] = {
    InvalidRequest: Answer(400, "The request is not valid"),
    TooLarge: Answer(413, "Above a limit"),
    IdForgotten: Answer(409, "The operation id is forgotten"),
    ConfigError: Answer(500, "The configuration cannot be used"),
    NotFound: Answer(404, "No such key"),
    WrongType: Answer(409, "The key holds another type"),
    ConcurrentValues: Answer(409, "The key holds concurrent values"),
    NotANumber: Answer(409, "Not a number, or out of range"),
    Denied: Answer(403, "Not allowed"),
    Replaced: Answer(403, "The node goes on under another incarnation"),
    Unavailable: Answer(503, "Not available now", 1),
    Overloaded: Answer(503, "Overloaded", 1),
    SessionBehind: Answer(503, "The node is behind the session", 1),
    DiskFull: Answer(507, "The disk is full", 10),
    ReadOnly: Answer(503, "The node is read-only", 60),
    OutcomeUnknown: Answer(504, "The outcome is unknown"),
    LogFailed: Answer(504, "The log failed; the outcome is unknown"),
    Corruption: Answer(500, "Damaged data"),
    CursorLost: Answer(410, "The place in the log is gone"),
    FormatUnknown: Answer(500, "Unknown format"),
    PeerFault: Answer(502, "Another node is at fault"),
    Forked: Answer(502, "Two histories of one node"),
    Diverged: Answer(502, "The cluster has another history of this node"),
    Copied: Answer(502, "This node runs twice"),
    TooLate: Answer(502, "Changes that come too late"),
    ClockTooFarAhead: Answer(502, "The clock of another node is wrong"),
    DirectoryInUse: Answer(503, "The data directory is in use", 1),
    EdgeKVError: Answer(500, "Error"),
}
"""Every class of the taxonomy; a test holds it complete."""


class Refusal(InvalidRequest):
    """The request is refused by the rules of HTTP itself, before any key was looked at: each has its own status."""

    def __init__(self, status: int, code: str, message: str, headers: bytes = b"") -> None:
        super().__init__(message)
        self.status, self.refusal_code, self.headers = status, code, headers


def no_such_path(path: str) -> Refusal:
    """404: nothing is served there."""
    shown = path[:80].encode("utf-8", "backslashreplace").decode()
    return Refusal(404, "no-such-path", f"nothing is served at {shown}. Keys are at /v1/kv/KEY; see /v1/openapi.json.")


def method_not_allowed(method: str, allowed: str) -> Refusal:
    """405 with Allow."""
    return Refusal(
        405, "method-not-allowed", f"{method} is not offered here. Use {allowed}.", b"Allow: %s\r\n" % allowed.encode()
    )


def code_of(error: EdgeKVError) -> str:
    """The stable word for an error."""
    return error.refusal_code if isinstance(error, Refusal) else error.code


def problem(error: EdgeKVError, *, status: int = 0, close: bool = False) -> Reply:
    """The reply that tells an error. ``status`` overrides the table's."""
    answer = ANSWERS[next(kind for kind in type(error).__mro__ if kind in ANSWERS)]
    headers = b"Retry-After: %d\r\n" % answer.retry_after_s if answer.retry_after_s else b""
    title, code = answer.title, code_of(error)
    status = status or answer.status
    if isinstance(error, Refusal):
        status, headers, title = error.status, error.headers, HTTPStatus(error.status).phrase
    return problem_reply(
        status, code, title, str(error), error.outcome, retryable=error.retryable, headers=headers, close=close
    )


def internal_problem() -> Reply:
    """A fault of ours. What the request did is unknown; the log has the traceback, the client does not."""
    detail = "EdgeKV hit an internal error; its log tells more. A write may have happened."
    return problem_reply(500, "internal", "Internal error", detail, "unknown", close=True)


def problem_reply(
    status: int,
    code: str,
    title: str,
    detail: str,
    outcome: str,
    *,
    retryable: bool = False,
    headers: bytes = b"",
    close: bool = False,
) -> Reply:
    """Build the document. ``close``: the connection ends after it."""
    fields = {
        "type": f"urn:edgekv:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "outcome": outcome,
        "retryable": retryable,
    }
    body = json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Reply(status, b"Content-Type: application/problem+json\r\n" + headers, body, close=close)
