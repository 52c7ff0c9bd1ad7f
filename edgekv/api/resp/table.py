"""The table of commands: what each is called, how many arguments it takes, which are keys, whether it writes, and what runs it.

The modules of commands fill it with `command` when they are imported (protocol.py imports them all). It serves dispatch and arity
errors in protocol.py, and COMMAND, COMMAND DOCS and COMMAND INFO. A subcommand is named ``client|setname``; what it belongs to is
declared before it with `container`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from edgekv.api.resp.arguments import text
from edgekv.api.resp.replies import array, error, status
from edgekv.api.resp.session import Arguments, Run

_QUOTED_BYTES_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Command:
    """One row of the table."""

    name: str
    arity: int
    """How many arguments, the name included; negative: at least so many."""
    flags: tuple[str, ...]
    keys: tuple[int, int, int]
    """First and last index of keys (-1: the last argument) and the step between them; (0, 0, 0): no keys."""
    group: str
    since: str
    """The Redis version that had it first; of a command that Redis does not have, the version of EdgeKV."""
    complexity: str
    summary: str
    run: Run | None
    """None: only its subcommands do something."""
    subcommands: dict[bytes, "Command"] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        return "write" in self.flags

    @property
    def uses_keys(self) -> bool:
        """Whether it looks at what the node holds, or changes it."""
        return bool(self.keys[0]) or self.writes or "readonly" in self.flags

    def accepts(self, count: int) -> bool:
        """Whether it can have so many arguments."""
        return count == self.arity if self.arity > 0 else count >= -self.arity


COMMANDS: Final[dict[bytes, Command]] = {}
"""By name in lower case, subcommands not included."""

_INDEX: Final[dict[bytes, Command]] = {}
"""The same, in the two spellings that clients use."""


def command(
    name: str,
    *,
    arity: int,
    group: str,
    since: str,
    summary: str,
    flags: str = "",
    keys: tuple[int, int, int] = (0, 0, 0),
    complexity: str = "O(1)",
) -> Callable[[Run], Run]:
    """Enter a function into the table."""

    def enter(run: Run) -> Run:
        _enter(
            Command(
                name=name,
                arity=arity,
                flags=tuple(flags.split()),
                keys=keys,
                group=group,
                since=since,
                complexity=complexity,
                summary=summary,
                run=run,
            )
        )
        return run

    return enter


def container(name: str, *, group: str, since: str, summary: str) -> None:
    """Enter a command that consists of its subcommands."""
    _enter(
        Command(
            name=name,
            arity=-2,
            flags=(),
            keys=(0, 0, 0),
            group=group,
            since=since,
            complexity="Depends on subcommand.",
            summary=summary,
            run=None,
        )
    )


def _enter(entry: Command) -> None:
    name, _, subcommand = entry.name.encode().partition(b"|")
    if subcommand:
        COMMANDS[name].subcommands[subcommand] = entry
    else:
        assert name not in COMMANDS, f"{entry.name} is entered twice"
        COMMANDS[name] = _INDEX[name] = _INDEX[name.upper()] = entry


def find(arguments: Arguments) -> Command | bytes:
    """The command that was sent, with a fitting number of arguments; else what to answer instead."""
    name, count = arguments[0], len(arguments)
    entry = _INDEX.get(name) or _INDEX.get(name.lower())
    if entry is None:
        return _unknown(arguments)
    if entry.subcommands and count > 1:
        wanted = arguments[1].lower()
        subcommand = entry.subcommands.get(wanted)
        if subcommand is None and wanted == b"help" and count == 2:
            return _help(entry)
        if subcommand is None:
            return error(f"ERR unknown subcommand '{text(_shown(arguments[1]))}'. Try {entry.name.upper()} HELP.")
        entry = subcommand
    if not entry.accepts(count):
        return error(f"ERR wrong number of arguments for '{entry.name}' command")
    return entry


def key_indexes(entry: Command, count: int) -> range:
    """Where the keys of a command with ``count`` arguments are."""
    first, last, step = entry.keys
    return range(first, (last if last > 0 else count + last) + 1, step) if first else range(0)


def _help(entry: Command) -> bytes:
    """What the sentence on an unknown subcommand points to."""
    lines = [f"{entry.name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for subcommand in entry.subcommands.values():
        lines += [subcommand.name.partition("|")[2].upper(), f"    {subcommand.summary}."]
    return array([status(line) for line in lines])


def _unknown(arguments: Arguments) -> bytes:
    """Redis' sentence, which quotes at most 128 bytes of name and of arguments."""
    quoted = b""
    for argument in arguments[1:]:
        if len(quoted) >= _QUOTED_BYTES_MAX:
            break
        quoted += b"'%b' " % _shown(argument)[: _QUOTED_BYTES_MAX - len(quoted)]
    return error(f"ERR unknown command '{text(_shown(arguments[0]))}', with args beginning with: {text(quoted)}")


def _shown(argument: bytes) -> bytes:
    """What Redis shows of an argument: at most 128 bytes, and as C has it, up to a zero byte."""
    return argument[:_QUOTED_BYTES_MAX].partition(b"\x00")[0]
