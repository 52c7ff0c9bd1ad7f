"""How the three sources of a configuration are joined: a flag beats an ``EDGEKV_*`` variable, which beats the TOML file.

``edgekv serve`` (cli/serve.py) calls ``load``. Nothing else in EdgeKV reads a configuration file or its environment.

An unknown key in the file is a mistake: a typo that is ignored is a setting that is silently not in force. (An unknown ``EDGEKV_*``
variable is not: Kubernetes sets ``EDGEKV_PORT`` and the like for any service of that name.)
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

from edgekv.config.bounds import validate
from edgekv.config.settings import Address, Config, KeyspaceConfig, LimitsConfig, UpstreamConfig, WalConfig
from edgekv.errors import ConfigError

_SECTIONS: Final[dict[str, type]] = {"wal": WalConfig, "limits": LimitsConfig}
_LISTS: Final[dict[str, type]] = {"upstream": UpstreamConfig, "keyspace": KeyspaceConfig}
_NOT_SCALAR: Final = {"wal", "limits", "upstreams", "keyspaces"}
KEYS: Final[dict[str, Field[Any]]] = {
    **{known.name: known for known in fields(Config) if known.name not in _NOT_SCALAR},
    **{f"{name}.{known.name}": known for name, section in _SECTIONS.items() for known in fields(section)},
}
"""Every setting that is one value, by its dotted key."""
UPSTREAM: Final = "upstream"
"""The list that has a flag, given once for each, and a variable, separated by commas. Either stands for the file's list as a whole."""


class Loaded(NamedTuple):
    """A validated configuration, and where each key that was set came from (``file``, a variable, a flag)."""

    config: Config
    sources: dict[str, str]


def load(*, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Loaded:
    """Join file, environment and flags (dotted key -> value; None: not given) into a validated Config, or raise ConfigError.

    The flag UPSTREAM is a sequence of addresses; an empty one is as none.
    """
    tables = _read(file) if file is not None else {}
    settings = {key: _Setting(value, str(file)) for key, value in _flatten(tables, str(file)).items()}
    for key in KEYS:
        name = environment_name(key)
        if environ.get(name):
            settings[key] = _Setting(environ[name], name, is_text=True)
    for key, value in flags.items():
        assert key in KEYS or key == UPSTREAM, key
        if key != UPSTREAM and value is not None:
            settings[key] = _Setting(value, flag_name(key), is_text=isinstance(value, str))
    if "data_dir" not in settings:
        raise ConfigError(
            "no data directory: give --data-dir DIR, EDGEKV_DATA_DIR or data_dir in the configuration file"
        )
    sources = {key: setting.source for key, setting in settings.items()}
    upstreams, source = _upstreams(tables, str(file), environ, flags.get(UPSTREAM))
    if upstreams:
        sources[UPSTREAM] = source
    config = Config(
        **{key: _convert(KEYS[key], key, setting) for key, setting in settings.items() if "." not in key},
        wal=WalConfig(**_section(settings, "wal")),
        limits=LimitsConfig(**_section(settings, "limits")),
        upstreams=upstreams,
        keyspaces=tuple(KeyspaceConfig(**row) for row in _rows(tables, KeyspaceConfig, "keyspace", str(file))),
    )
    validate(config, sources)
    return Loaded(config, sources)


def environment_name(key: str) -> str:
    """``wal.segment_bytes`` -> ``EDGEKV_WAL_SEGMENT_BYTES``."""
    return "EDGEKV_" + key.replace(".", "_").upper()


def flag_name(key: str) -> str:
    """``wal.segment_bytes`` -> ``--wal-segment-bytes``."""
    return "--" + key.replace(".", "-").replace("_", "-")


class _Setting(NamedTuple):
    value: object
    source: str
    is_text: bool = False  # From the environment or a flag, where a number arrives as its digits.


def _read(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error.strerror}; check --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error


def _flatten(tables: Mapping[str, object], source: str) -> dict[str, object]:
    """The single values of a parsed file by dotted key; every key is checked to exist."""
    flat: dict[str, object] = {}
    top = [key for key in KEYS if "." not in key] + [*_SECTIONS, *_LISTS]
    for key, value in tables.items():
        _known(key, top, source)
        if key in _SECTIONS:
            if not isinstance(value, dict):
                raise ConfigError(f"{key} (from {source}): it is a table: write [{key}] on a line of its own")
            for name, inner in value.items():
                _known(name, [known.name for known in fields(_SECTIONS[key])], f"[{key}] of {source}")
                flat[f"{key}.{name}"] = inner
        elif key not in _LISTS:
            flat[key] = value
    return flat


def _rows(tables: Mapping[str, object], row_type: type, name: str, source: str) -> Iterator[dict[str, Any]]:
    """The rows of ``[[name]]``, converted to the fields of their dataclass."""
    rows = tables.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{name} (from {source}): it is a list of tables: write [[{name}]]")
    known = {field_.name: field_ for field_ in fields(row_type)}
    required = {"keyspace": ("prefix", "name"), "upstream": ("address",)}[name]
    for number, row in enumerate(rows):
        for key in row:
            _known(key, list(known), f"[[{name}]] of {source}")
        for key in required:
            if key not in row:
                raise ConfigError(f"{name}[{number}] (from {source}): it has no {key}: add one")
        yield {key: _convert(known[key], f"{name}[{number}].{key}", _Setting(row[key], source)) for key in row}


def _upstreams(
    tables: Mapping[str, object], file: str, environ: Mapping[str, str], flag: object
) -> tuple[tuple[UpstreamConfig, ...], str]:
    """The upstreams, and where they were set."""
    named = tuple(UpstreamConfig(**row) for row in _rows(tables, UpstreamConfig, UPSTREAM, file))
    variable = environment_name(UPSTREAM)
    for given, source in ((flag, flag_name(UPSTREAM)), (environ.get(variable), variable)):
        if given:
            texts = given.split(",") if isinstance(given, str) else given
            if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
                raise ConfigError(f"{UPSTREAM} (from {source}): it is a list of addresses, such as 127.0.0.1:7482")
            place = f"{UPSTREAM} (from {source})"
            return tuple(UpstreamConfig(address=_address(text.strip(), place)) for text in texts), source
    return named, file


def _known(key: str, known: list[str], place: str) -> None:
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"known are {', '.join(known)}"
        raise ConfigError(f'unknown key "{key}" in {place}: {hint}')


def _section(settings: Mapping[str, _Setting], name: str) -> dict[str, Any]:
    inside = {key: setting for key, setting in settings.items() if key.startswith(f"{name}.")}
    return {key.partition(".")[2]: _convert(KEYS[key], key, setting) for key, setting in inside.items()}


def _convert(known: Field[Any], key: str, setting: _Setting) -> Any:
    """One raw value as the type of its field; ConfigError naming key and source otherwise."""
    value, kind = setting.value, known.type
    place = f"{key} (from {setting.source})"
    if kind in (int, bool) and setting.is_text:
        value = _from_text(str(value), kind)
    if choices := _choices(kind):
        if value not in choices:
            raise ConfigError(f"{place}: it is one of {', '.join(choices)}; not {value!r}")
        return value
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{place}: it is a whole number; not {setting.value!r}")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{place}: it is true or false; not {setting.value!r}")
        return value
    if kind == tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f'{place}: it is a list of names, such as ["clinic-2", "cloud"]')
        return tuple(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ConfigError(f"{place}: it is text in quotes; not {value!r}")
    return _from_string(value, kind, place)


def _from_text(text: str, kind: object) -> object:
    """A number or switch that came as text; what cannot be read stays text and is refused by the caller."""
    if kind is bool:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(text.lower(), text)
    return int(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else text


def _from_string(text: str, kind: object, place: str) -> object:
    if kind is Address:
        return _address(text, place)
    if kind is bytes:
        return text.encode()
    if kind is Path:
        return Path(text)
    assert kind is str, kind
    return text


def _address(text: str, place: str) -> Address:
    try:
        return Address.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _choices(kind: object) -> tuple[str, ...]:
    """The words of a Literal, also of ``Literal | None``; empty for any other type."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next((get_args(part) for part in get_args(kind) if get_origin(part) is Literal), ())
