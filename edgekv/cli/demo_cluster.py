"""The demo's cluster: ``edgekv dev`` as a child process, the sites it has, and the orders it takes."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from edgekv.cli.demo_site import Site
from edgekv.cli.demo_weather import SITES
from edgekv.cli.dev import order
from edgekv.cli.dev_layout import CLOUD, FILE
from edgekv.config import Address
from edgekv.errors import InvalidRequest, Unavailable

STOP_S: Final = 40.0


class DemoCluster:
    """``with`` it: a cloud hub and the edge sites, all ready. Its end, and that of the demo however it comes, stops them."""

    def __init__(self, directory: Path) -> None:
        """InvalidRequest when there is a cluster in the directory already: what it holds would be found beside the demo's."""
        if (directory / FILE).exists():
            raise InvalidRequest(f"{directory} holds a cluster already. Choose another --dir, or remove it.")
        self.directory: Final = directory
        self.log: Final = directory / "dev.log"
        self.sites: dict[str, Site] = {}
        """The cloud, then the edges."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "edgekv.cli.dev_child", str(os.getpid()), "dev", "--dir", str(self.directory)]
        command += [argument for site in SITES for argument in ("--site", site)]
        environment = {name: text for name, text in os.environ.items() if not name.startswith("EDGEKV_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)
        try:
            assert self._process.stdout is not None
            if not any(line == "ready\n" for line in self._process.stdout):
                raise Unavailable(f"the cluster did not become ready; see {self.log}")
            for node in order(self.directory, "nodes"):
                addresses = (Address.parse(node[listener]) for listener in ("http", "resp"))
                self.sites[node["site"]] = Site(node["site"], node["name"], *addresses)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def link_bytes(self) -> dict[str, int]:
        """What has passed on the link of each edge site, both ways."""
        return {link["site"]: link["bytes"] for link in order(self.directory, "links")}

    def cut(self, site: str) -> None:
        """Cut its link with the cloud."""
        order(self.directory, "cut", site, CLOUD)

    def heal(self, site: str) -> None:
        """Let its link pass again."""
        order(self.directory, "heal", site, CLOUD)

    def kill(self, site: str) -> None:
        """SIGKILL for its node."""
        order(self.directory, "kill", self.sites[site].node)

    def start(self, site: str) -> None:
        """Start its node again; it is ready on return."""
        order(self.directory, "start", self.sites[site].node)


class Kill:
    """SIGKILL for a site's node while somebody writes there: from a thread of its own, so that the writer goes on meanwhile."""

    def __init__(self, cluster: DemoCluster, site: str, after: int) -> None:
        """Due when ``after`` changes are acknowledged."""
        self.site: Final = site
        self._cluster: Final = cluster
        self._after: Final = after
        self._killing: threading.Thread | None = None
        self._acknowledged = 0
        self._start_s = 0.0

    def acknowledged(self, count: int) -> None:
        """So many are, now."""
        self._acknowledged = count if self._start_s == 0 else self._acknowledged
        if self._killing is None and count >= self._after:
            self._killing = threading.Thread(target=self._cluster.kill, args=(self.site,), name="kill")
            self._killing.start()

    def revive(self) -> bool:
        """Start the node again, once. False: it was not killed, or not just now."""
        if self._killing is None or self._start_s:
            return False
        self._killing.join()
        started = time.monotonic()
        self._cluster.start(self.site)
        self._start_s = time.monotonic() - started
        return True

    def story(self) -> str:
        """What happened, for people."""
        return (
            f"{self._acknowledged:,} of its readings were acknowledged; ready again after {self._start_s:.1f} s; what was on its "
            "way is sent again, and counts once"
        )
