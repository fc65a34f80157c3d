# What a contributor runs. `uv run just` lists it; `uv run just test -k filters` passes the rest on to pytest.

uv := "uv run --all-extras"

export OMP_NUM_THREADS := env("OMP_NUM_THREADS", "1") # the test processes share the cores; they do not fight for them
export PYTHONDONTWRITEBYTECODE := "" # compiling torch takes many seconds: once, not in every process

_list:
    @just --list --unsorted

# Lint, formatting, types, spelling, declared dependencies
check:
    {{ uv }} ruff check
    {{ uv }} ruff format --check
    {{ uv }} mypy
    {{ uv }} codespell
    {{ uv }} deptry core langchain_lateint llamaindex_lateint

# Mend what ruff can mend
fix:
    {{ uv }} ruff check --fix
    {{ uv }} ruff format

# All tests and doctests, on two processes
test *args:
    {{ uv }} pytest -n 2 {{ args }}

# The tests of a minute, for every save
test-fast *args:
    {{ uv }} pytest -n 2 -q -m "not slow and not quality and not hub" {{ args }}

# All tests, with branch coverage of at least 97 %
cov *args:
    {{ uv }} pytest -n 2 --cov {{ args }}

# The examples of the README, the docs and the docstrings, and every link and name in them
test-docs *args:
    {{ uv }} pytest tests/docs core langchain_lateint llamaindex_lateint {{ args }}

# Build the documentation site into site/
docs:
    {{ uv }} mkdocs build --strict

# Show the documentation site on this machine, built anew at every save
docs-serve:
    {{ uv }} mkdocs serve --open

# Run every notebook from top to bottom
notebooks:
    {{ uv }} jupyter execute notebooks/*.ipynb

# Measure: `just bench local tokens_20k.npz`; benchmarks/README.md says what each script measures
bench name *args:
    {{ uv }} python benchmarks/{{ name }}.py {{ args }}

# All that CI does
ci:
    bash .ci/run
