"""COMMAND: the table of commands, told to clients (some ask for it on connecting) and to ``redis-cli``'s hints."""

# ruff: noqa: ARG001 - every command takes the same parameters

from collections.abc import Iterable

from edgekv.api.resp.replies import array, bulk, integer, status
from edgekv.api.resp.session import Arguments, Reply, Session
from edgekv.api.resp.table import COMMANDS, Command, command

_SUMMARY = "Information about the commands of this server"


def _offered() -> list[Command]:
    """All but those that only say why they are refused."""
    return [entry for entry in COMMANDS.values() if "refused" not in entry.flags]


def _named(name: bytes) -> Command | None:
    parent, _, subcommand = name.lower().partition(b"|")
    entry = COMMANDS.get(parent)
    if entry is None or "refused" in entry.flags:
        return None
    return entry.subcommands.get(subcommand) if subcommand else entry


@command("command", arity=-1, group="server", since="2.8.13", complexity="O(N)", summary=_SUMMARY)
def command_(session: Session, arguments: Arguments) -> Reply:
    """COMMAND: all of them."""
    return array([_details(session, entry) for entry in _offered()])


@command("command|count", arity=2, group="server", since="2.8.13", summary="The number of commands")
def command_count(session: Session, arguments: Arguments) -> Reply:
    """COMMAND COUNT."""
    return integer(len(_offered()))


@command("command|info", arity=-2, group="server", since="2.8.13", complexity="O(N)", summary=_SUMMARY)
def command_info(session: Session, arguments: Arguments) -> Reply:
    """COMMAND INFO [name ...]; null for an unknown one."""
    if len(arguments) == 2:
        return command_(session, arguments)
    entries = [_named(name) for name in arguments[2:]]
    return array([session.dialect.null if entry is None else _details(session, entry) for entry in entries])


@command("command|docs", arity=-2, group="server", since="7.0.0", complexity="O(N)", summary="What the commands do")
def command_docs(session: Session, arguments: Arguments) -> Reply:
    """COMMAND DOCS [name ...]; unknown ones are left out."""
    named = [_named(name) for name in arguments[2:]] if len(arguments) > 2 else _offered()
    return _documents(session, [entry for entry in named if entry is not None])


def _details(session: Session, entry: Command) -> bytes:
    """The ten elements of COMMAND INFO. Tips and key specifications are optional and left empty; the key indexes say the same."""
    first, last, step = entry.keys
    subcommands = [_details(session, sub) for sub in entry.subcommands.values()]
    return array(
        [
            bulk(entry.name.encode()),
            integer(entry.arity),
            session.dialect.set([status(flag) for flag in entry.flags]),
            integer(first),
            integer(last),
            integer(step),
            session.dialect.set([status(category) for category in _categories(entry)]),
            session.dialect.set([]),
            session.dialect.set([]),
            session.dialect.set(subcommands),
        ]
    )


def _categories(entry: Command) -> list[str]:
    """Redis' ACL categories."""
    kinds = {"write": "@write", "readonly": "@read"}
    groups = {"generic": "@keyspace", "transactions": "@transaction"}
    groups |= {name: f"@{name}" for name in ("string", "set", "hash", "connection")}
    found = [kinds[flag] for flag in entry.flags if flag in kinds]
    found += [groups[entry.group]] if entry.group in groups else []
    return [*found, "@fast" if "fast" in entry.flags else "@slow"]


def _documents(session: Session, entries: Iterable[Command]) -> bytes:
    return session.dialect.map([(bulk(entry.name.encode()), _document(session, entry)) for entry in entries])


def _document(session: Session, entry: Command) -> bytes:
    lines = {"summary": entry.summary, "since": entry.since, "group": entry.group, "complexity": entry.complexity}
    pairs = [(bulk(key.encode()), bulk(value.encode())) for key, value in lines.items()]
    if entry.subcommands:
        pairs.append((bulk(b"subcommands"), _documents(session, entry.subcommands.values())))
    return session.dialect.map(pairs)
