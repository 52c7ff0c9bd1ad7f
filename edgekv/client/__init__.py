"""The Python client: one core without I/O, and two thin shells around it.

The core: `commands` (what can be asked, and how an answer is read), `wire` (bytes), `calls` (what may be sent twice, and what an error
says about a write), `route` (which address next, and when). The shells: `asynchronous` (one connection, pipelined) and `synchronous`
(a blocking socket per concurrent caller). Users import `edgekv` and `edgekv.sync`.
"""
