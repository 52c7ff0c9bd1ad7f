"""The benchmarks: a node against Redis, etcd and embedded stores, alternately in one run on one disk.

Each program is run as `python -m bench.<name>`, prints its tables and writes bench/results/<name>.json;
`python -m bench.report` copies those tables into docs/BENCHMARKS.md. Nothing here is imported by `edgekv`.
"""
