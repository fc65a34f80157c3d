"""Suites that try to lose, double or mix documents: a minute together in CI, as long as you like otherwise.

`TORTURE=20 pytest tests/torture` makes each twenty times as long. `python benchmarks/torture.py` runs the same
suites and prints the table of docs/reliability.md.
"""
