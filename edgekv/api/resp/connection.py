"""Commands about the connection itself: HELLO, AUTH, PING, CLIENT and the like. They touch no key.

There are no passwords yet and the listener is loopback only, so AUTH answers as a Redis without ``requirepass`` does.
"""

# ruff: noqa: ARG001 - every command takes the same parameters

from typing import Final

from edgekv.api.resp.arguments import INTEGER_MIN, at_most, integer_from, syntax_error, text, wrong_number
from edgekv.api.resp.arguments import integer as integer_argument
from edgekv.api.resp.replies import EMPTY_ARRAY, OK, PONG, RESP2, RESP3, bulk, error, integer, status
from edgekv.api.resp.session import Arguments, Reply, Session
from edgekv.api.resp.table import command, container
from edgekv.errors import InvalidRequest

_DEFAULT_USER: Final = b"default"
_WRONG_PASSWORD: Final = error("WRONGPASS invalid username-password pair or user is disabled.")
_NO_PASSWORD: Final = error(
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"
)
_CLIENT_TYPES: Final = (b"normal", b"master", b"replica", b"slave", b"pubsub")


def _printable(value: bytes, sentence: str) -> str:
    """A name that keeps CLIENT LIST readable: visible ASCII without blanks."""
    if any(not 0x21 <= byte <= 0x7E for byte in value):
        raise InvalidRequest(sentence)
    return value.decode("ascii")


def _client_name(value: bytes) -> str:
    return _printable(value, "Client names cannot contain spaces, newlines or special characters.")


@command("hello", arity=-1, flags="fast", group="connection", since="6.0.0", summary="Handshake: choose the protocol")
def hello(session: Session, arguments: Arguments) -> Reply:
    """HELLO [protover [AUTH username password] [SETNAME clientname]]."""
    version = session.dialect.version
    if len(arguments) > 1:
        try:
            version = integer_argument(arguments[1])
        except InvalidRequest:
            raise InvalidRequest("Protocol version is not an integer or out of range") from None
        if version not in (2, 3):
            return error("NOPROTO unsupported protocol version")
    refused = _hello_options(session, arguments[2:])
    if refused is not None:
        return refused
    session.dialect = RESP3 if version == 3 else RESP2
    return session.dialect.map(
        [
            (bulk(b"server"), bulk(b"edgekv")),
            (bulk(b"version"), bulk(session.shared.host.version.encode())),
            (bulk(b"proto"), integer(version)),
            (bulk(b"id"), integer(session.id)),
            (bulk(b"mode"), bulk(b"standalone")),
            (bulk(b"role"), bulk(b"master")),
            (bulk(b"modules"), EMPTY_ARRAY),
        ]
    )


def _hello_options(session: Session, words: Arguments) -> bytes | None:
    """Take AUTH and SETNAME, in any order; the error reply if one is wrong. Nothing changes unless all are right."""
    name: str | None = None
    while words:
        match words[0].upper(), *words[1:]:
            case b"AUTH", user, _, *rest:
                if user != _DEFAULT_USER:
                    return _WRONG_PASSWORD
            case b"SETNAME", raw, *rest:
                name = _client_name(raw)
            case _:
                raise InvalidRequest(f"Syntax error in HELLO option '{text(words[0])}'")
        words = rest
    if name is not None:
        session.name = name
    return None


@command("auth", arity=-2, flags="fast", group="connection", since="1.0.0", summary="Authenticate to the server")
def auth(session: Session, arguments: Arguments) -> Reply:
    """AUTH [username] password."""
    at_most(arguments, 3)
    if len(arguments) == 2:
        return _NO_PASSWORD
    return OK if arguments[1] == _DEFAULT_USER else _WRONG_PASSWORD


@command("ping", arity=-1, flags="fast", group="connection", since="1.0.0", summary="Ping the server")
def ping(session: Session, arguments: Arguments) -> Reply:
    """PING [message]."""
    if len(arguments) > 2:
        raise wrong_number("ping")
    return bulk(arguments[1]) if len(arguments) == 2 else PONG


@command("echo", arity=2, flags="fast", group="connection", since="1.0.0", summary="Echo the given string")
def echo(session: Session, arguments: Arguments) -> Reply:
    """ECHO message."""
    return bulk(arguments[1])


@command("select", arity=2, flags="fast", group="connection", since="1.0.0", summary="Select database 0, the only one")
def select(session: Session, arguments: Arguments) -> Reply:
    """SELECT index."""
    index = integer_argument(arguments[1])
    if not -(1 << 31) <= index < 1 << 31:
        raise InvalidRequest("value is out of range, value must between -2147483648 and 2147483647")
    if index != 0:
        raise InvalidRequest("DB index is out of range")
    return OK


@command("quit", arity=-1, flags="fast", group="connection", since="1.0.0", summary="Close the connection")
def quit_(session: Session, arguments: Arguments) -> Reply:
    """QUIT."""
    session.closing = True
    return OK


@command("reset", arity=1, flags="fast", group="connection", since="6.2.0", summary="Reset the connection")
def reset(session: Session, arguments: Arguments) -> Reply:
    """RESET: protocol 2, no name, no transaction, no promises."""
    session.end_transaction()
    if session.promises is not None:
        session.promises.end()
    session.dialect = RESP2
    session.name = ""
    return status("RESET")


container("client", group="connection", since="2.4.0", summary="A container for client connection commands")


@command("client|id", arity=2, group="connection", since="5.0.0", summary="The id of the current connection")
def client_id(session: Session, arguments: Arguments) -> Reply:
    """CLIENT ID."""
    return integer(session.id)


@command("client|getname", arity=2, group="connection", since="2.6.9", summary="Get the current connection name")
def client_getname(session: Session, arguments: Arguments) -> Reply:
    """CLIENT GETNAME."""
    return session.dialect.optional(session.name.encode() or None)


@command("client|setname", arity=3, group="connection", since="2.6.9", summary="Set the current connection name")
def client_setname(session: Session, arguments: Arguments) -> Reply:
    """CLIENT SETNAME name; an empty one removes it."""
    session.name = _client_name(arguments[2])
    return OK


@command(
    "client|setinfo", arity=4, group="connection", since="7.2.0", summary="Set the client library's name or version"
)
def client_setinfo(session: Session, arguments: Arguments) -> Reply:
    """CLIENT SETINFO LIB-NAME | LIB-VER value."""
    attribute = arguments[2].lower()
    if attribute not in (b"lib-name", b"lib-ver"):
        raise InvalidRequest(f"Unrecognized option '{text(arguments[2])}'")
    value = _printable(arguments[3], f"{text(attribute)} cannot contain spaces, newlines or special characters.")
    if attribute == b"lib-name":
        session.lib_name = value
    else:
        session.lib_version = value
    return OK


@command(
    "client|no-evict", arity=3, group="connection", since="7.0.0", summary="Accepted: no connection is ever evicted"
)
def client_no_evict(session: Session, arguments: Arguments) -> Reply:
    """CLIENT NO-EVICT ON | OFF."""
    return _on_or_off(arguments[2])


@command(
    "client|no-touch", arity=3, group="connection", since="7.2.0", summary="Accepted: keys have no last access time"
)
def client_no_touch(session: Session, arguments: Arguments) -> Reply:
    """CLIENT NO-TOUCH ON | OFF."""
    return _on_or_off(arguments[2])


def _on_or_off(word: bytes) -> Reply:
    if word.lower() not in (b"on", b"off"):
        raise syntax_error()
    return OK


@command("client|info", arity=2, group="connection", since="6.2.0", summary="Information about the current connection")
def client_info(session: Session, arguments: Arguments) -> Reply:
    """CLIENT INFO."""
    return session.dialect.text(_line(session) + "\n")


@command("client|list", arity=-2, group="connection", since="2.4.0", complexity="O(N)", summary="List the connections")
def client_list(session: Session, arguments: Arguments) -> Reply:
    """CLIENT LIST [TYPE type | ID id ...]."""
    sessions = session.shared.sessions
    shown = list(sessions.values())
    match arguments[2:]:
        case []:
            pass
        case [option, kind] if option.upper() == b"TYPE":
            if kind.lower() not in _CLIENT_TYPES:
                raise InvalidRequest(f"Unknown client type '{text(kind)}'")
            shown = shown if kind.lower() == b"normal" else []
        case [option, *ids] if option.upper() == b"ID" and ids:
            wanted = dict.fromkeys(integer_from(raw, INTEGER_MIN, "Invalid client ID") for raw in ids)
            shown = [sessions[number] for number in wanted if number in sessions]
        case _:
            raise syntax_error()
    return session.dialect.text("".join(_line(other) + "\n" for other in shown))


def _line(session: Session) -> str:
    """Redis' fields, as far as they mean something here."""
    age_s = (session.operations.now_ms() - session.created_ms) // 1000
    return (
        f"id={session.id} addr={session.address} laddr={session.local_address} name={session.name} age={age_s} flags=N db=0 "
        f"user=default resp={session.dialect.version} lib-name={session.lib_name} lib-ver={session.lib_version}"
    )
