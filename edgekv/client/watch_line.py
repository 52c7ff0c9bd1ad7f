"""The synchronous client's watch: a blocking connection of its own, and another one when that ends."""

import random
import time
from collections.abc import Iterator

import hiredis

from edgekv.client import wire
from edgekv.client.blocking import Exchange, Line
from edgekv.client.calls import closed
from edgekv.client.faults import reason
from edgekv.client.route import Route
from edgekv.client.watch import SILENCE_S, Subscription, WatchEvent, passes
from edgekv.errors import EdgeKVError, Unavailable


def follow(exchange: Exchange, subscription: Subscription, deadline_s: float) -> Iterator[WatchEvent]:
    """Events, for ever. Unavailable when no node takes the watch for ``deadline_s``; what a node refuses it with otherwise."""
    route = Route(exchange.addresses, random.random)
    until_s = time.monotonic() + deadline_s
    while not exchange.closed:
        if time.monotonic() > until_s:
            raise Unavailable(f"no node could be watched within {deadline_s:g} s ({route.reason}).")
        time.sleep(route.pause_s())
        subscription.begun = False
        line: Line | None = None
        try:
            line = Line(route.place, route.address, until_s)
            line.send(subscription.request())
            while not exchange.closed:
                event = subscription.take(line.message(SILENCE_S))
                if event is not None:
                    yield event
        except (OSError, EdgeKVError, hiredis.ProtocolError, wire.BrokenConversation) as error:
            if isinstance(error, EdgeKVError) and not passes(error):
                raise
            if subscription.begun:
                until_s = time.monotonic() + deadline_s  # From the end on: until then nobody was looked for.
            if subscription.begun and not isinstance(error, TimeoutError):
                route.broke(reason(error))
            else:
                route.failed(reason(error))
        finally:
            if line is not None:
                line.close()
    raise closed()
