"""The configuration: precedence of its sources, every bound, and messages that a newcomer can act on."""

from pathlib import Path

import pytest

from edgekv.config import (
    KEYS,
    Address,
    Config,
    KeyspaceConfig,
    LimitsConfig,
    UpstreamConfig,
    WalConfig,
    default_memory_bytes,
    environment_name,
    flag_name,
    load,
    validate,
)
from edgekv.errors import ConfigError
from edgekv.limits import GIB, MIB

EVERYTHING = """
node = "clinic-2-a"
site = "clinic-2"
role = "edge"
data_dir = "/var/lib/edgekv"
http = "127.0.0.1:1"
resp = "[::1]:2"
peer = "localhost:3"
applier = "inline"
durability = "buffered"
memory_bytes = 268435456
max_offline_days = 31
[[upstream]]
address = "127.0.0.1:4"
[[upstream]]
address = "[::1]:5"
[wal]
segment_bytes = 33554432
retain_bytes = 268435456
[limits]
value_bytes_max = 1048576
[[keyspace]]
prefix = "patient/"
name = "patients"
consistency = "crdt"
conflict = "lww"
durability = "fsync"
late_write = "drop"
sites = ["clinic-2", "cloud"]
ttl_s = 60
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "edgekv.toml"
    file.write_text(text)
    return file


def config(**settings: object) -> Config:
    return Config(data_dir=Path("data"), **settings)  # type: ignore[arg-type] # each test gives what it is about


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file=write(tmp_path, text), environ={"EDGEKV_DATA_DIR": "d"}, flags={})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def later_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can do all that a configuration may say."""
    monkeypatch.setattr("edgekv.config.bounds._not_yet", lambda config: ())


@pytest.mark.usefixtures("later_release")
def test_every_key_of_the_file_reaches_the_config(tmp_path: Path) -> None:
    loaded = load(file=write(tmp_path, EVERYTHING), environ={}, flags={})
    assert loaded.config == Config(
        data_dir=Path("/var/lib/edgekv"),
        node="clinic-2-a",
        site="clinic-2",
        role="edge",
        http=Address("127.0.0.1", 1),
        resp=Address("::1", 2),
        peer=Address("localhost", 3),
        applier="inline",
        durability="buffered",
        memory_bytes=268435456,
        max_offline_days=31,
        wal=WalConfig(segment_bytes=33554432, retain_bytes=268435456),
        limits=LimitsConfig(value_bytes_max=1048576),
        upstreams=(UpstreamConfig(address=Address("127.0.0.1", 4)), UpstreamConfig(address=Address("::1", 5))),
        keyspaces=(
            KeyspaceConfig(
                prefix=b"patient/",
                name="patients",
                durability="fsync",
                late_write="drop",
                sites=("clinic-2", "cloud"),
                ttl_s=60,
            ),
        ),
    )


@pytest.mark.usefixtures("later_release")
@pytest.mark.parametrize("key", KEYS)
def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path, key: str) -> None:
    kind = KEYS[key].type
    by_kind: dict[object, tuple[object, object, object]] = {
        int: (80 * MIB, 90 * MIB, 100 * MIB),
        bool: (False, True, False),
        Address: ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:4"),
        Path: ("/file", "/environment", "/flag"),
        str: ("file", "environment", "flag"),
    }
    by_key: dict[str, tuple[object, object, object]] = {
        "role": ("hub", "edge", "hub"),
        "applier": ("process", "inline", "process"),
        "durability": ("fsync", "buffered", "fsync"),
        "max_offline_days": (0, 2, 3),
        "wal.retain_bytes": (2 * GIB, 3 * GIB, 4 * GIB),
        "limits.value_bytes_max": (1, 2, 3),
    }
    in_file, in_environment, in_flag = by_key[key] if key in by_key else by_kind[kind]
    section, _, name = key.rpartition(".")
    quoted = f'"{in_file}"' if isinstance(in_file, str) else str(in_file).lower()
    text = f"[{section}]\n{name} = {quoted}\n" if section else f"{name} = {quoted}\n"
    environ = {"EDGEKV_DATA_DIR": "d"} if key != "data_dir" else {}
    if key == "role":
        text += '[[upstream]]\naddress = "127.0.0.1:9"'
    file = write(tmp_path, text)

    def value(environ: dict[str, str], flags: dict[str, object]) -> str:
        found: object = load(file=file, environ=environ, flags=flags).config
        for part in key.split("."):
            found = getattr(found, part)
        return str(found)

    named = {environment_name(key): str(in_environment).lower() if kind is bool else str(in_environment)}
    assert value(environ, {key: None}) == str(in_file)
    assert value({**environ, **named}, {}) == str(in_environment)
    assert value({**environ, **named}, {key: in_flag}) == str(in_flag)


def test_names_of_variables_and_flags_follow_from_the_key() -> None:
    assert environment_name("wal.segment_bytes") == "EDGEKV_WAL_SEGMENT_BYTES"
    assert flag_name("wal.segment_bytes") == "--wal-segment-bytes"


def test_numbers_come_as_digits_from_the_environment_and_never_as_text_from_a_file(tmp_path: Path) -> None:
    environ = {"EDGEKV_DATA_DIR": "d", "EDGEKV_MEMORY_BYTES": "134217728"}
    assert load(file=None, environ=environ, flags={}).config.memory_bytes == 128 * MIB
    with pytest.raises(
        ConfigError, match=r"memory_bytes \(from EDGEKV_MEMORY_BYTES\): it is a whole number; not '128M'"
    ):
        load(file=None, environ={**environ, "EDGEKV_MEMORY_BYTES": "128M"}, flags={})
    assert "it is a whole number; not '134217728'" in refusal(tmp_path, 'memory_bytes = "134217728"')


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("memroy_bytes = 1", 'unknown key "memroy_bytes" in {file}: did you mean "memory_bytes"?'),
        ("[wal]\nsegment_byte = 1", 'unknown key "segment_byte" in [wal] of {file}: did you mean "segment_bytes"?'),
        ("[[keyspace]]\nprefx = 'a'", 'unknown key "prefx" in [[keyspace]] of {file}: did you mean "prefix"?'),
        ("zzz = 1", 'unknown key "zzz" in {file}: known are data_dir, node'),
        ("wal = 1", "wal (from {file}): it is a table: write [wal]"),
        ("keyspace = 1", "keyspace (from {file}): it is a list of tables: write [[keyspace]]"),
        ("[[keyspace]]\nname = 'a'", "keyspace[0] (from {file}): it has no prefix: add one"),
        ("http = 80", "http (from {file}): it is text in quotes; not 80"),
        ("http = 'here'", 'http (from {file}): "here" is not an address: write HOST:PORT'),
        ("role = 'boss'", "role (from {file}): it is one of hub, edge; not 'boss'"),
        ("node = 'a b'", 'node (from {file}): "a b" is not a name'),
        ("[[upstream]]\nadress = 'a:1'", 'unknown key "adress" in [[upstream]] of {file}: did you mean "address"?'),
        ("[[upstream]]\naddress = 'a'", 'upstream[0].address (from {file}): "a" is not an address'),
        (
            "max_offline_days = -1",
            "max_offline_days (from {file}): -1 is out of range: write 1 to 3650 days, or 0 for ever",
        ),
        ("a = ", "{file} is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_says_what_and_what_next(
    tmp_path: Path, text: str, complaint: str
) -> None:
    assert refusal(tmp_path, text).startswith(complaint.format(file=tmp_path / "edgekv.toml"))


def test_a_missing_file_and_a_missing_directory_are_said(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot read the configuration file .*: No such file or directory; check --config"
    ):
        load(file=tmp_path / "none.toml", environ={}, flags={})
    with pytest.raises(ConfigError, match="no data directory: give --data-dir DIR"):
        load(file=None, environ={}, flags={})


def test_variables_that_are_not_ours_are_left_alone() -> None:
    """Kubernetes sets EDGEKV_PORT for a service of that name."""
    assert load(file=None, environ={"EDGEKV_DATA_DIR": "d", "EDGEKV_PORT": "tcp://10.0.0.1:7480"}, flags={})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "edge.example", "::"])
@pytest.mark.parametrize("key", ["http", "resp", "peer"])
def test_a_listener_that_others_could_reach_is_refused(key: str, host: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: .* can be reached from other machines .* no authentication"):
        validate(config(**{key: Address(host, 7000)}))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_allowed(host: str) -> None:
    validate(config(http=Address(host, 7000)))


def test_two_listeners_on_one_port_are_refused_unless_it_is_picked_freely() -> None:
    validate(config(http=Address("127.0.0.1", 0), resp=Address("127.0.0.1", 0)))
    with pytest.raises(ConfigError, match=r"resp: 127.0.0.1:7480 is already taken by http"):
        validate(config(resp=Address("127.0.0.1", 7480)))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"limits": LimitsConfig(value_bytes_max=0)}, "limits.value_bytes_max: 0 is out of range"),
        ({"limits": LimitsConfig(value_bytes_max=16 * MIB + 1)}, "limits.value_bytes_max: 16777217 is out of range"),
        ({"wal": WalConfig(segment_bytes=32 * MIB)}, "wal.segment_bytes: 33554432 is out of range"),
        (
            {"wal": WalConfig(segment_bytes=2 * GIB)},
            "wal.segment_bytes: 2147483648 is out of range",
        ),
        ({"wal": WalConfig(segment_bytes=64 * MIB + 1)}, "wal.segment_bytes: 67108865 is not a multiple of 4096"),
        (
            {"memory_bytes": 64 * MIB - 1},
            "memory_bytes: 67108863 is too small: write at least 67108864 bytes, or set small_",
        ),
        ({"memory_bytes": MIB - 1, "small_memory": True}, "memory_bytes: 1048575 is too small"),
        ({"wal": WalConfig(retain_bytes=-1)}, "wal.retain_bytes: -1 is out of range: write 0 to"),
        ({"wal": WalConfig(retain_bytes=1 << 51)}, "wal.retain_bytes: 2251799813685248 is out of range"),
    ],
)
def test_each_size_has_its_bounds(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(config(**settings))
    assert str(caught.value).startswith(complaint)


def test_segments_may_have_their_greatest_size() -> None:
    validate(config(wal=WalConfig(segment_bytes=GIB)))


def test_a_directory_that_no_path_can_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="data_dir: it holds a zero byte"):
        validate(Config(data_dir=Path("a\0b")))


HUB = Address("127.0.0.1", 7582)
OTHER = Address("::1", 7582)


def upstreams(*addresses: Address) -> tuple[UpstreamConfig, ...]:
    return tuple(UpstreamConfig(address=address) for address in addresses)


def test_upstreams_come_from_flags_or_a_variable_or_the_file_each_list_as_a_whole(tmp_path: Path) -> None:
    file = write(tmp_path, 'data_dir = "d"\n[[upstream]]\naddress = "127.0.0.1:7582"')
    loaded = load(file=file, environ={}, flags={"upstream": ()})
    assert (loaded.config.upstreams, loaded.sources["upstream"]) == (upstreams(HUB), str(file))
    environ = {"EDGEKV_UPSTREAM": "[::1]:7582, 127.0.0.1:7582"}
    loaded = load(file=file, environ=environ, flags={})
    assert (loaded.config.upstreams, loaded.sources["upstream"]) == (upstreams(OTHER, HUB), "EDGEKV_UPSTREAM")
    loaded = load(file=file, environ=environ, flags={"upstream": ("[::1]:7582",)})
    assert (loaded.config.upstreams, loaded.sources["upstream"]) == (upstreams(OTHER), "--upstream")
    assert "upstream" not in load(file=None, environ={"EDGEKV_DATA_DIR": "d"}, flags={"upstream": ()}).sources


def test_an_upstream_that_is_no_address_is_told_with_where_it_was_set() -> None:
    environ = {"EDGEKV_DATA_DIR": "d", "EDGEKV_UPSTREAM": "127.0.0.1:1,hub"}
    with pytest.raises(ConfigError, match=r'upstream \(from EDGEKV_UPSTREAM\): "hub" is not an address'):
        load(file=None, environ=environ, flags={})


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"role": "edge"}, "role: an edge replicates with a hub: name one with --upstream HOST:PORT"),
        ({"upstreams": upstreams(Address("hub.example", 7482))}, "upstream: hub.example:7482 is on another machine"),
        ({"upstreams": upstreams(Address("localhost", 0))}, "upstream: localhost:0 has no port"),
        ({"upstreams": upstreams(Address("127.0.0.1", 7482))}, "upstream: 127.0.0.1:7482 is this node's own peer"),
        ({"upstreams": upstreams(HUB, OTHER, HUB)}, "upstream: 127.0.0.1:7582 is named twice"),
    ],
)
def test_upstreams_are_others_on_this_machine_and_an_edge_has_one(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(config(**settings))
    assert str(caught.value).startswith(complaint)


def test_what_replicates_may_be_an_edge_keep_log_for_others_and_hold_keyspaces_by_site() -> None:
    rooms = KeyspaceConfig(prefix=b"room/", name="rooms", sites=("clinic-2",))
    validate(config(role="edge", upstreams=upstreams(HUB, OTHER), keyspaces=(rooms,)))
    validate(config(upstreams=upstreams(HUB), wal=WalConfig(retain_bytes=0)))


def test_small_segments_and_memory_can_be_had_when_asked_for() -> None:
    validate(
        config(
            memory_bytes=MIB,
            small_memory=True,
            limits=LimitsConfig(value_bytes_max=64 << 10),
            wal=WalConfig(segment_bytes=256 << 10),
        )
    )


@pytest.mark.parametrize(
    ("keyspaces", "complaint"),
    [
        ([(b"a/", "one"), (b"a/b/", "two")], 'keyspace[1].prefix: it nests with that of "one"'),
        ([(b"a/b/", "one"), (b"a/", "two")], 'keyspace[1].prefix: it nests with that of "one"'),
        ([(b"a/", "one"), (b"b/", "one")], 'keyspace[1].name: "one" is used twice'),
        ([(b"", "all")], 'keyspace[0].name: "default" is the keyspace with the empty prefix'),
        ([(b"a/", "default")], 'keyspace[0].name: "default" is the keyspace with the empty prefix'),
        ([(b"a" * 4097, "one")], "keyspace[0].prefix: it has 4097 bytes"),
        ([(b"_", "one")], 'keyspace[0].prefix: it nests with "_meta/", which EdgeKV keeps for itself'),
        ([(b"_meta/x", "one")], 'keyspace[0].prefix: it nests with "_meta/"'),
        ([(b"a/", "one two")], 'keyspace[0].name: "one two" is not a name'),
    ],
)
def test_keyspaces_do_not_nest_and_have_names_of_their_own(keyspaces: list[tuple[bytes, str]], complaint: str) -> None:
    declared = tuple(KeyspaceConfig(prefix=prefix, name=name) for prefix, name in keyspaces)
    with pytest.raises(ConfigError) as caught:
        validate(config(keyspaces=declared))
    assert str(caught.value).startswith(complaint)


def test_values_may_be_kept_side_by_side_but_not_in_a_strong_keyspace() -> None:
    validate(config(keyspaces=(KeyspaceConfig(prefix=b"l/", name="l", conflict="siblings"),)))
    both = KeyspaceConfig(prefix=b"l/", name="l", conflict="siblings", consistency="strong", group="cloud")
    with pytest.raises(ConfigError, match=r"keyspace\[0\].conflict: a strong keyspace has no concurrent values"):
        validate(config(keyspaces=(both,)))


def test_the_default_keyspace_is_always_there_and_first_and_the_rest_inherit_the_durability() -> None:
    rooms = KeyspaceConfig(prefix=b"room/", name="rooms")
    locks = KeyspaceConfig(prefix=b"bill/", name="bills", durability="fsync")
    found = config(durability="buffered", keyspaces=(rooms, locks)).all_keyspaces()
    assert [(k.name, k.prefix, k.durability) for k in found] == [
        ("default", b"", "buffered"),
        ("rooms", b"room/", "buffered"),
        ("bills", b"bill/", "fsync"),
    ]
    own = KeyspaceConfig(prefix=b"", name="default", ttl_s=60)
    assert [k.ttl_s for k in config(keyspaces=(rooms, own)).all_keyspaces()] == [60, 0]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"keyspaces": (KeyspaceConfig(prefix=b"l/", name="l", conflict="siblings", late_write="drop"),)},
            "keyspace[0].late_write: a keyspace with siblings keeps what comes late",
        ),
        (
            {"keyspaces": (KeyspaceConfig(prefix=b"l/", name="l", consistency="strong", group="cloud"),)},
            '"strong" is not in',
        ),
    ],
)
def test_what_this_release_cannot_do_is_refused_and_not_ignored(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(config(**settings))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7480", Address("127.0.0.1", 7480)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:65535", Address("localhost", 65535)),
        ("hub.example.org.:1", Address("hub.example.org.", 1)),
        ("bücher.example:1", Address("bücher.example", 1)),
    ],
)
def test_an_address_reads_back_as_it_is_written(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", ":1", "host", "host:", "host:65536", "host:-1", "host:x", "::1:5", "[host]:5", "a:b:1"),
        # A lookup of these raises UnicodeError, which ended the dialer's task without a word.
        *("hub..example.org:1", ".org:1", f"{'x' * 64}.org:1", "ä..org:1", f"{'ä' * 63}.org:1", "my hub:1"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an address"):
        Address.parse(text)


def test_memory_defaults_to_a_quarter_of_the_machine_within_bounds() -> None:
    assert [default_memory_bytes(gib * GIB) for gib in (0, 1, 2, 64)] == [64 * MIB, 256 * MIB, 512 * MIB, GIB]
