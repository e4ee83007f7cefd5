# Cyclery: set up, reproduce, check. `make help` lists the targets.
#
# Nothing but Python 3.11 or newer, make and git is needed. The first target that needs it makes
# .venv from requirements.lock with plain pip; later calls see that it is there and go straight on.

TIER  ?= smoke
CORES ?= all
BIN   := .venv/bin
READY := .venv/ready

# Rules call `cyclery` by name: it must be the one of .venv, activated or not.
OUTER_PATH := $(PATH)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup reproduce atlas replicate decide pull plan test test-all lint format docs record lock audit clean clean-results

help: ## list the targets and settings
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Settings: TIER=smoke|laptop|desk|paper  PAPER=clr  SEEDS=20  PLANNED=20  TARGET=clr.CLR-2  HOURS=2  CORES=4  PYTHON=python3.12"
	@echo "  Example:  make reproduce PAPER=clr SEEDS=20 PLANNED=20"

setup: $(READY) ## make .venv from the lock (the other targets do it when needed)

# An interrupted set-up leaves no stamp and starts from an empty .venv, because pip takes a
# half-copied package for an installed one. So .venv is made by the interpreter that it came from,
# never by its own. A changed lock only updates the .venv that is there.
$(READY): requirements.lock pyproject.toml
	@test -e $@ || { found=; \
	  for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	    found=$$(PATH='$(OUTER_PATH)' $$python -c 'import ensurepip, sys; \
	      assert sys.version_info >= (3, 11); print(sys._base_executable)' 2>/dev/null) && break; \
	  done; \
	  test -n "$$found" || { \
	    echo "No Python 3.11 or newer with the venv module among: $(or $(PYTHON),python3.13 python3.12 python3.11 python3)." >&2; \
	    echo "Install one (Debian: apt-get install python3 python3-venv), or name yours: make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; }; \
	  echo "Making .venv with $$found. PyTorch is large: several minutes and about 6 GB, once."; \
	  $$found -m venv --clear .venv; }
	@rm -f $@
	$(BIN)/python -m pip install --requirement requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

# What was selected, as Snakemake takes it, and cyclery with --set before each.
SELECTED = tier=$(TIER)$(if $(PAPER), "papers=[$(PAPER)]")$(if $(SEEDS), seeds=$(SEEDS))$(if $(PLANNED), planned=$(PLANNED))

reproduce: $(READY) ## run a tier, or some papers of it, to the report, and say where it is
	$(BIN)/snakemake --cores $(CORES) $(or $(TARGET),report) --config $(SELECTED)
	$(if $(TARGET),,@$(BIN)/cyclery verify $(addprefix --set ,$(SELECTED)))

atlas: $(READY) ## the report over all tiers that have records; trains nothing
	$(BIN)/snakemake --cores $(CORES) atlas

replicate: $(READY) ## run a tier, or some papers of it, on fresh seeds, and table old and new verdicts
	$(BIN)/cyclery replicate --tier $(TIER) --cores $(CORES) $(if $(PAPER),$(PAPER)) \
	  $(if $(SEEDS),--set seeds=$(SEEDS)) $(if $(PLANNED),--set planned=$(PLANNED)) $(ARGS)

decide: $(READY) ## spend HOURS on the claims that more seeds may decide; goes on where it was
	$(BIN)/cyclery decide --hours $(or $(HOURS),1) --cores $(CORES) $(addprefix --set ,$(SELECTED)) $(TARGET) $(ARGS)

pull: $(READY) ## bring a published tier by DVC, with all that its graph remembers
	$(BIN)/cyclery fetch --set tier=$(TIER) $(ARGS)

plan: $(READY) ## say what would run: cells, runs, steps, time, disk, what is done
	$(BIN)/cyclery plan $(ARGS)

test: $(READY) ## run the quick tests on all cores (one by one: ARGS="-n 0")
	$(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

test-all: $(READY) ## run every test, the slow ones too, and measure coverage, which takes half as long again
	$(BIN)/python -m pytest -n auto --cov $(ARGS)

lint: $(READY) ## check style, types and the workflow (changes nothing)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakemake --lint

format: $(READY) ## rewrite the code in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow

docs: $(READY) ## regenerate the JSON Schemas and the reference of every config key
	$(BIN)/cyclery docs

record: $(READY) ## record what methods compute: a new one, a raised VERSION, other code that computes the same
	PYTHONPATH=tests$${PYTHONPATH:+:$$PYTHONPATH} $(BIN)/python -m factories.versions $(ARGS)

lock: ## resolve requirements.lock anew after a change of pyproject.toml (needs uv)
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --extra dev --universal \
	  --python-version 3.11 --fork-strategy fewest --quiet --output-file requirements.lock $(ARGS)

audit: ## look for known vulnerabilities in what the lock pins (needs pip-audit and the network)
	pip-audit --requirement requirements.lock --no-deps --disable-pip --strict

clean: ## remove .venv and caches; results stay
	rm -rf .venv .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -rf build src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-results: ## remove results but the published ones, and what Snakemake remembers of them
	test ! -d results || find results -mindepth 1 -maxdepth 1 ! -name published -exec rm -rf {} +
	rm -rf .cyclery .snakemake/incomplete .snakemake/log .snakemake/metadata
