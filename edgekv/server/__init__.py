"""The running node: an event loop around node/ (shell.py), and what keeps it served."""

from edgekv.server.shell import Server, run

__all__ = ["Server", "run"]
