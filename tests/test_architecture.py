"""The shape of edgekv: imports point down, cores are pure, each dependency has one home, every file has a noun.

A finding here is mended by moving code, never by an exemption: there is no list of those.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROOT = REPOSITORY / "edgekv"

# Top to bottom. A package may import from lines below its own and from itself; members of one line do not import each other.
# "" is the package root: everybody imports it (for the version), so importing it imports nothing of ours. What it offers to users it
# loads when that is first asked for; nobody here asks.
LAYERS = [
    {"__main__"},
    {"cli", "embedded", "sync"},
    {"server"},
    {"api", "client", "net"},
    {"node"},
    {"replication"},
    {"engine"},
    {"store"},
    {"wal"},
    {"crdt"},
    {"clock", "config", "garbage", "metrics"},
    {"checksum", "codec"},
    {"errors"},
    {"ids", "limits"},
    {""},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# What reads no clock, rolls no die and touches no device; it leans on nothing that does.
PURE = [
    "client.calls",
    "client.answers",
    "client.commands",
    "client.route",
    "client.terms",
    "client.walk",
    "client.watch",
    "client.wire",
    "crdt",
    "replication.messages",
    "wal.record",
    "wal.frame",
    "store.layout",
    "store.collection",
    "store.sorted_keys",
    "store.memtable",
    "net.frame",
    "clock",
    "codec",
    "checksum",
    "errors",
    "ids",
    "limits",
]
# The synchronous core: the same rule for its own imports. What it drives (log, store, flusher) is handed to it.
SYNCHRONOUS = [
    "engine",
    "replication",
    "node.digest",
    "node.operations",
    "node.session",
    "node.token",
    "node.watch",
    "node.watch_cursor",
    "node.watch_events",
    "node.watch_rows",
]
IMPURE = {
    "aiohttp",
    "asyncio",
    "concurrent",
    "lmdb",
    "logging",
    "os",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "time",
    "uvloop",
}

HOME = {
    "aiohttp": {"api.http"},
    "click": {"cli"},
    "crcmod": {"checksum"},
    "google_crc32c": {"checksum"},
    "hiredis": {"api.resp", "cli", "client"},
    "lmdb": {"store"},
    "msgpack": {"codec"},
    "rich": {"cli"},
    "uvloop": {"cli"},
    "zstandard": {"net.frame"},
}

# A drawer without a noun attracts everything.
NO_NOUN = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}


def module_name(path: Path) -> str:
    """``edgekv/wal/__init__.py`` -> ``wal``; the package root -> ````."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import; write the full name"
            inside = node.module.partition(".")[0] == "edgekv"
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if inside else [node.module]


def ours(name: str) -> str | None:
    """The module of ours that an import names (``edgekv.wal.log.Log`` -> ``wal.log``); None: somebody else's."""
    top, _, rest = name.partition(".")
    if top != "edgekv":
        return None
    while rest and rest not in MODULES:
        rest = rest.rpartition(".")[0]
    return rest


def is_below(module: str, packages: list[str] | set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    package = module.partition(".")[0]
    assert package in LEVEL, f"{package} is in no layer: decide where it belongs"
    if not package:
        return  # `test_importing_the_root_imports_nothing_else`
    for name in imports(MODULES[module]):
        target = ours(name)
        if target is None or target.partition(".")[0] == package:
            continue
        assert target or name in ("edgekv", "edgekv.__version__"), f"{module} takes {name} through the root"
        assert LEVEL[target.partition(".")[0]] > LEVEL[package], f"{module} imports {name}, which is not below it"


def test_importing_the_root_imports_nothing_else() -> None:
    script = "import edgekv, sys; print([name for name in sys.modules if name.startswith('edgekv.')])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=REPOSITORY)
    assert run.stdout == b"[]\n"


@pytest.mark.parametrize("module", [module for module in MODULES if is_below(module, PURE)])
def test_a_pure_module_leans_only_on_pure_ones(module: str) -> None:
    for name in imports(MODULES[module]):
        target = ours(name)
        assert name.partition(".")[0] not in IMPURE, f"{module} is pure and imports {name}"
        assert not target or is_below(target, PURE), f"{module} is pure and imports {name}, which is not"


@pytest.mark.parametrize("module", [module for module in MODULES if is_below(module, SYNCHRONOUS)])
def test_the_synchronous_core_has_no_clock_thread_or_device_of_its_own(module: str) -> None:
    for name in imports(MODULES[module]):
        assert name.partition(".")[0] not in IMPURE, f"{module} is part of the synchronous core and imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_each_dependency_has_one_home(module: str) -> None:
    for name in imports(MODULES[module]):
        top = name.partition(".")[0]
        if top == "edgekv" or top in sys.stdlib_module_names:
            continue
        assert top in HOME, f"{module} imports {name}, which is no dependency of EdgeKV"
        assert is_below(module, HOME[top]), f"{name} belongs in {HOME[top]}, not in {module}"


def test_every_pure_or_synchronous_module_that_is_named_exists() -> None:
    """A rename must not take a module out of the rules."""
    for name in {*PURE, *SYNCHRONOUS}:
        assert any(is_below(module, {name}) for module in MODULES), f"{name} is gone: name what took its place"


@pytest.mark.parametrize("folder", ["edgekv", "tests", "bench"])
def test_every_file_is_named_by_a_noun(folder: str) -> None:
    for path in (REPOSITORY / folder).rglob("*"):
        if path.suffix == ".py" or path.is_dir():
            assert path.stem not in NO_NOUN, f"{path}: give its content to the caller, or find its noun"


@pytest.mark.parametrize("folder", ["edgekv", "tests", "bench", "docs"])
def test_a_document_that_is_named_is_in_the_repository(folder: str) -> None:
    documents = {path.name for path in REPOSITORY.rglob("*.md")}
    for path in (REPOSITORY / folder).rglob("*"):
        if path.suffix in (".py", ".md"):
            named = set(re.findall(r"\b([A-Za-z0-9_-]+\.md)\b", path.read_text()))
            assert named <= documents, f"{path} names {named - documents}: give the reason itself, or what is here"


def test_every_decision_is_listed_in_the_architecture() -> None:
    listed = (REPOSITORY / "docs" / "ARCHITECTURE.md").read_text()
    decisions = sorted((REPOSITORY / "docs" / "decisions").glob("*.md"))
    assert (
        decisions
        and [path.name for path in decisions if f"- [{path.name[:4]}](decisions/{path.name})" not in listed] == []
    )
