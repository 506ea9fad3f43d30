# Everything a newcomer types: `make demo`, `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CORES ?= all

.PHONY: env demo test fuzz faults lint format schema docs bench clean

env: $(VENV)/.complete

$(VENV)/.complete: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: env
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/snakemake --cores $(CORES)
	@echo "The report: results/demo/report.html"

# The tests that run Snakemake mostly wait for processes to start, so the others run beside them; theirs are shown first.
test: env
	@export PATH="$(abspath $(BIN)):$$PATH"; shown=$$(mktemp); \
	$(BIN)/python -m pytest -m workflow > $$shown 2>&1 & runs=$$!; \
	$(BIN)/python -m pytest -m "not workflow"; status=$$?; \
	wait $$runs || status=1; cat $$shown; rm -f $$shown; exit $$status

# Damaged files for all that reads files, and a run killed at random moments; docs/reliability.md has what came of it.
CASES ?= 2000
KILLS ?= 50
DISKS ?= 0
SEED ?= 0

fuzz: env
	$(BIN)/python -m tests.fuzz --cases $(CASES) --seed $(SEED)

faults: env
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.faults --kills $(KILLS) --disks $(DISKS) --seed $(SEED)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/snakemake --lint

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

schema: env
	$(BIN)/wsss schema

# The documentation as a site, build/site/index.html; a link that leads nowhere is an error.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: env
	$(BIN)/python -m benchmarks

# Results stay, and what Snakemake knows of them (.snakemake); `wsss clean RUN` drops what a finished run does not need.
clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
	find wsss_core tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
