# `make test` and `make quickstart` need only Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

.PHONY: test test-fast lint docs parity quickstart benchmarks campaign clean

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto      # a process for each core is enough

# Every room in under two minutes on two cores, for use while writing: without the tests marked `slow`, which start training
# processes, kill them, or take over 3 s each. `make test` before a merge.
test-fast: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m 'not slow'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

# The documentation site, in site/; a warning is an error.
docs: $(STAMP)
	$(BIN)/python docs/generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Steps of the released trainers against ours. With REFERENCE=path, a folder of their checkouts, they are recorded anew first,
# by RECORDER, a Python that has the packages they import too (tests/parity/README.md).
RECORDER ?= $(BIN)/python
parity: $(STAMP)
ifdef REFERENCE
	PYTHONPATH=tests/parity $(RECORDER) -m recorder '$(REFERENCE)'
endif
	SMTOOL_PARITY=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/parity

quickstart: $(STAMP)
	$(BIN)/smtool quickstart

benchmarks: $(STAMP)
	$(BIN)/python -m benchmarks

# Mutated inputs, kills, and with BEFORE=path, the source tree of an earlier version, its files: hours. The results are lines in
# campaign/; the same command goes on after the last one (tests/campaign/__main__.py).
campaign: $(STAMP)
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m campaign inputs
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m campaign kills
ifdef BEFORE
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m campaign versions --before '$(BEFORE)'
endif

# uv installs in seconds; USE_PIP=1 takes plain pip where uv has no build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smtool needs Python 3.11 or newer, found " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef USE_PIP
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
else
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[dev]'
endif
	touch $@

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache
