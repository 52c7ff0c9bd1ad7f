"""``/v1/openapi.json``: what this listener serves, as an OpenAPI 3.1 document.

The document is data: schemas.py, parameters.py and answers.py are its components, paths.py has one entry per path.
tests/unit/api/http/test_openapi.py holds it to the routes (no path missing, none extra, every documented status reachable), and
tests/integration/test_openapi.py to a node's answers.

Three things that OpenAPI has no words for:

* keys are bytes: ``{key}`` is all of the rest of the path, slashes included, percent-encoded (target.py);
* parameters that exclude each other: where a page begins is ONE parameter, an object that is exploded into the query
  (``style: form``), and the schema says which of its properties go together;
* lengths in bytes: limits are in the descriptions, since ``maxLength`` counts characters.
"""

import json
from typing import Final

from aiohttp import web

from edgekv.api.http.content import JSON
from edgekv.api.http.documents import tagged_reply
from edgekv.api.http.openapi.answers import HEADERS, PROBLEMS, problem
from edgekv.api.http.openapi.parameters import PARAMETERS
from edgekv.api.http.openapi.paths import PATHS
from edgekv.api.http.openapi.reference import Part
from edgekv.api.http.openapi.schemas import SCHEMAS
from edgekv.api.http.promises import check_promises
from edgekv.api.http.reply import Reply
from edgekv.api.http.target import parameters
from edgekv.limits import KEY_BYTES_MAX

_ABOUT: Final = (
    f"Keys are bytes, 1 to {KEY_BYTES_MAX}: all that follows in the path, slashes included, percent-encoded. In JSON a string "
    'carries UTF-8 and other bytes are {"base64": "..."}; application/msgpack is exact, with keys and values as bin.\n\n'
    "Errors are application/problem+json (RFC 9457). Branch on `code` and `outcome`. Any path may also answer 400 `not-http` to "
    "what is no HTTP/1.1 request, and 503 `overloaded` when there are too many connections; a path that is not listed is 404 "
    "`no-such-path`, a method that is not, 405."
)


class OpenApiCalls:
    """The document of one release."""

    def __init__(self, version: str) -> None:
        self._body: Final = json.dumps(document(version), separators=(",", ":")).encode()

    async def get(self, request: web.BaseRequest, key: bytes, query: str) -> Reply:
        """200 with the document, or 304."""
        assert not key
        if query:
            parameters(query, ())
        check_promises(request, writes=False)
        return tagged_reply(request, self._body, JSON)


def document(version: str) -> Part:
    """The whole of it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "EdgeKV",
            "version": version,
            "summary": "A replicated key-value store for places where the network cannot be trusted.",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": PATHS,
        "components": {
            "schemas": SCHEMAS,
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "responses": {f"Problem{status}": problem(text, status) for status, text in PROBLEMS.items()},
        },
    }
