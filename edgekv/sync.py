"""The synchronous client: ``with edgekv.sync.connect("edgekv://127.0.0.1:7481") as db: db.get("key")``. See docs/CLIENT.md."""

from edgekv.client.synchronous import Batch, Client, Counter, Map, Register, Session, Set, connect

__all__ = ["Batch", "Client", "Counter", "Map", "Register", "Session", "Set", "connect"]
