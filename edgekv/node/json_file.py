"""A small JSON file that is there whole or not at all: `identity.json` and `keyspaces.json`.

Written under another name, fsynced, renamed, and the directory fsynced: after a crash at any point it is the old one or the new one.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, record: Callable[[int], object]) -> None:
    """Write the file, in place of one that has the name. Durable on return.

    `record` gets the descriptor of the file that it will be stored in: that is the inode which keeps the name. Raises OSError.
    """
    unfinished = path.with_suffix(".tmp")
    with open(unfinished, "w", encoding="utf-8") as file:
        json.dump(record(file.fileno()), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
