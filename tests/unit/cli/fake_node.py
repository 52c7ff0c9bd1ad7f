"""A node for the command line's tests: a dict behind HTTP and RESP listeners on loopback, which can be told to fail."""

import json
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

import hiredis

from edgekv.codec import as_json
from edgekv.config import Address


class FakeNode:
    """Its ``rows`` are what a node would hold. ``requests`` are the HTTP request lines it has seen."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.sets: dict[bytes, set[bytes]] = {}
        self.maps: dict[bytes, dict[bytes, bytes]] = {}
        self.expiries: dict[bytes, bytes] = {}
        self.ends: dict[bytes, int] = {}
        """What a page of keys says about expiries."""
        self.gone: set[bytes] = set()
        """Keys that a page of keys still shows and nothing else does."""
        self.longest = 0
        """The most elements, fields and keys that one reply had."""
        self.requests: list[str] = []
        self.problem: tuple[int, dict[str, object]] | None = None
        self.foreign: tuple[int, bytes] | None = None
        """What it answers to any HTTP request when it is no node at all."""
        self.foreign_headers: dict[str, str] = {}
        self.hang_up_after_request = False
        self.keyspaces: list[dict[str, object]] = []
        self.documents: dict[str, object] = {}
        """What it answers to a GET of these paths, whatever the query; a list: one after the other, the last one for ever."""
        self.commands = 0
        self.answer: Callable[[int, list[bytes]], bytes | None] = lambda number, arguments: None
        """Called with each RESP command and its number from 1: a reply of its own, or None. b"" closes the connection."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _http_handler(self))
        self._resp = _RespServer(("127.0.0.1", 0), _resp_handler(self))
        self.http = Address("127.0.0.1", self._http.server_port)
        self.resp = Address("127.0.0.1", self._resp.server_address[1])

    def __enter__(self) -> Self:
        for server in (self._http, self._resp):
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for server in (self._http, self._resp):
            server.shutdown()
            server.server_close()

    def document(self, path: str) -> object:
        """The next one."""
        found = self.documents[path]
        if not isinstance(found, list):
            return found
        return found.pop(0) if len(found) > 1 else found[0]

    def execute(self, arguments: list[bytes]) -> bytes:
        """One RESP command's reply."""
        match arguments:
            case [b"SET", key, value, *options]:
                self.rows[key] = value
                if options:
                    self.expiries[key] = b" ".join(options)
                return b"+OK\r\n"
            case [b"SADD" | b"HSET", key, *_] if key in self.rows:
                return b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
            case [b"SADD", key, *members]:
                before = len(self.sets.setdefault(key, set()))
                self.sets[key] |= set(members)
                return b":%d\r\n" % (len(self.sets[key]) - before)
            case [b"HSET", key, *cells]:
                self.maps.setdefault(key, {}).update(zip(cells[::2], cells[1::2], strict=True))
                return b":0\r\n"
            case [b"EXPIRE" | b"PEXPIREAT", key, _]:
                self.expiries[key] = b" ".join([arguments[0], arguments[2]])
                return b":1\r\n"
            case [b"GET", key]:
                return _bulk(self.rows.get(key))
            case [b"MGET", *keys]:
                return b"*%d\r\n" % len(keys) + b"".join(_bulk(self.rows.get(key)) for key in keys)
            case [b"INCR", key]:
                self.rows[key] = b"%d" % (int(self.rows.get(key, b"0")) + 1)
                return b":%s\r\n" % self.rows[key]
        return b"-ERR unknown command\r\n"


class _RespServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def _bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


def _resp_handler(node: FakeNode) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):  # the client may leave before it has read everything
                self.serve()

        def serve(self) -> None:
            reader = hiredis.Reader()
            while data := self.request.recv(65536):
                reader.feed(data)
                while (arguments := reader.gets()) is not False:
                    node.commands += 1
                    reply = node.answer(node.commands, arguments)
                    if reply == b"":
                        return
                    self.request.sendall(reply or node.execute(arguments))

    return Handler


def _http_handler(node: FakeNode) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
            node.requests.append(self.requestline)

        def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
            if node.hang_up_after_request:
                self.close_connection = True
                return
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name.replace("_", "-"), text)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle_call(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if node.foreign:
                status, body = node.foreign
                return self.reply(status, body, **node.foreign_headers)
            if node.problem:
                code, problem = node.problem
                return self.reply(code, json.dumps(problem).encode(), Content_Type="application/problem+json")
            if self.path == "/v1/admin/keyspaces":
                return self.reply(200, json.dumps({"keyspaces": node.keyspaces}).encode())
            parts = urlsplit(self.path)
            if parts.path in node.documents:
                return self.reply(200, json.dumps(node.document(parts.path)).encode())
            _, _, kind, *rest = parts.path.split("/")
            key = unquote_to_bytes(rest[0]) if rest else b""
            match self.command, kind:
                case "GET", "kv" if key in node.rows:
                    return self.reply(200, node.rows[key], ETag='"1-a"')
                case "PUT", "kv":
                    node.rows[key] = body
                    return self.reply(204)
                case "DELETE", "kv" if node.rows.pop(key, None) is not None:
                    return self.reply(204)
                case "POST", "counter":
                    node.rows[key] = b"%d" % (int(node.rows.get(key, b"0")) + json.loads(body)["add"])
                    return self.reply(200, json.dumps({"value": int(node.rows[key])}).encode())
                case "GET", "scan":
                    return self.page(parse_qs(parts.query, keep_blank_values=True))
                case "GET", "set" | "map" if key not in node.gone:
                    return self.rows(kind, key, parse_qs(parts.query))
            return self.reply(404, json.dumps({"code": "not-found", "detail": "the key does not exist."}).encode())

        do_GET = do_PUT = do_DELETE = do_POST = handle_call  # noqa: N815 - the names that http.server calls

        def page(self, query: dict[str, list[str]]) -> None:
            prefix = query.get("prefix", [""])[0].encode()
            start = query.get("start", [""])[0].encode()
            limit = int(query["limit"][0])
            kind = query.get("type", [""])[0]
            named = {
                **dict.fromkeys(node.rows, "string"),
                **dict.fromkeys(node.sets, "set"),
                **dict.fromkeys(node.maps, "hash"),
            }
            keys = sorted(
                key for key in named if key.startswith(prefix) and key >= start and (not kind or named[key] == kind)
            )
            body = b"".join(json.dumps(self.entry(key, named[key])).encode() + b"\n" for key in keys[:limit])
            headers = {}
            if len(keys) > limit:
                target = f"/v1/scan?prefix={quote(prefix)}&start={quote(keys[limit])}&limit={limit}"
                headers["Link"] = f'<{target}>; rel="next"'
            self.reply(200, body, **headers)

        def entry(self, key: bytes, kind: str) -> dict[str, object]:
            held: dict[str, object] = {"key": as_json(key), "type": kind}
            if kind == "string":
                held |= {"value": as_json(node.rows[key]), "version": "1-a"}
            else:
                held["count"] = len(node.sets[key] if kind == "set" else node.maps[key])
            return held | ({"expiry_ms": node.ends[key]} if key in node.ends else {})

        def rows(self, kind: str, key: bytes, query: dict[str, list[str]]) -> None:
            limit, at = int(query["limit"][0]), int(query.get("cursor", ["0"])[0])
            if kind == "set":
                rows: list[object] = [as_json(member) for member in sorted(node.sets[key])]
            else:
                rows = [{"field": as_json(name), "value": as_json(value)} for name, value in node.maps[key].items()]
            shown = rows[at : at + limit]
            node.longest = max(node.longest, len(shown))
            more = {"Link": f'<?cursor={at + limit}&limit={limit}>; rel="next"'} if at + limit < len(rows) else {}
            body = {"members" if kind == "set" else "entries": shown, "count": len(rows), "cursor": None}
            self.reply(200, json.dumps(body).encode(), **more)

    return Handler
