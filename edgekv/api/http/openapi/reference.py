"""What the pieces of the document are made of."""

from typing import Any

Part = dict[str, Any]
"""A piece of the document: JSON, so its values have no one type."""


def ref(kind: str, name: str) -> Part:
    """A component by its name, where another piece means it."""
    return {"$ref": f"#/components/{kind}/{name}"}
