"""The data directory: what cannot be one is said in a sentence."""

from pathlib import Path

import pytest

from edgekv.errors import ConfigError
from edgekv.node.directory import DataDirectory


def no_sleep(_seconds: float) -> None:
    raise AssertionError("nobody holds the lock")


@pytest.mark.parametrize("below", ["", "deeper", "deeper/still"])
def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file.* is a file, or below one\. Choose another with --data-dir"):
        DataDirectory.acquire(tmp_path / "file" / below, no_sleep)


@pytest.mark.parametrize("folder", ["wal", "store"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).touch()
    with pytest.raises(ConfigError, match=f"{folder} is a file"):
        DataDirectory.acquire(tmp_path, no_sleep)
