"""A node does what its OpenAPI document says, and schemathesis, which makes requests of the document, finds nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgekv.cli.node_process import NodeProcess

REPOSITORY = Path(__file__).resolve().parents[2]
SEARCH_S = 60
EXAMPLES_MAX = 1_000


# A null or true where the document wants a text is the text "null" or "true" in a query, and rightly taken. The boundary values of the
# first run have no such case, so there the refusal of what violates the document is a check as well.
RUNS = (
    ["--phases", "coverage"],
    ["--phases", "fuzzing", "--exclude-checks", "negative_data_rejection", "--max-time", str(SEARCH_S)],
)
LEFT_OUT = [
    *(
        argument
        for path in ("/v1/watch", "/v1/admin/digest", "/v1/admin/members", "/v1/admin/sites", "/v1/admin/repair")
        for argument in ("--exclude-path", path)
    ),
    *("--exclude-operation-id", "putKeyspace"),
]
"""An answer that ends when the client leaves, and calls that want a name which no document can tell."""


@pytest.mark.slow  # about a minute and a half: boundary values of every parameter, then a search of a minute
@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing_against_a_node(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data", "--memory-bytes", str(64 << 20)) as node:
        url = f"http://{node.http.host}:{node.http.port}/v1/openapi.json"
        always = ["--max-examples", str(EXAMPLES_MAX), "--warnings", "off", "--no-color", "--report-dir", str(tmp_path)]
        hooks = {"SCHEMATHESIS_HOOKS": "tests.integration.openapi_hooks", "PYTHONPATH": str(REPOSITORY)}
        environment = {**os.environ, **hooks}
        for run in RUNS:
            command = [sys.executable, "-m", "schemathesis.cli", "run", url, *LEFT_OUT, *run, *always]
            found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert found.returncode == 0, found.stdout[-20_000:] + found.stderr[-2_000:]
            selected = re.search(r"Selected: (\d+)/(\d+)\n\s*Tested: \1\n", found.stdout)
            left_out = int(selected[2]) - int(selected[1]) if selected else 0
            assert left_out == 10, "it left operations out"  # GET and HEAD of two, PUT and DELETE of two, two PUTs
        assert node.log.read_text() == ""
