"""The program, as tests/unit/cli calls it."""

from tests.unit.cli.conftest import edgekv as edgekv  # noqa: PLC0414 - a fixture, re-exported by name
