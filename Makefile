# Each target does its own set-up. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak lock clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.runtime ## a fleet, a fault, and what observe says of it: make demo ARGS="--fault slow-database"
	@$(BIN)/observe demo $(ARGS)

test: $(VENV)/.dev ## all tests, on a real broker, a real ClickHouse server and a real browser
	@bash tests/parts.sh
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## the benchmarks, machine-readable
	@bash tests/parts.sh
	@bash tests/benchmarks/run.sh $(ARGS)

soak: $(VENV)/.dev ## kill everything under load, then look for every span: make soak ARGS="--kills 200 --seed 7"
	@bash tests/parts.sh
	@$(BIN)/python -m tests.faults.siege $(ARGS)

lock: $(VENV)/.dev ## renew the lock files from pyproject.toml
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url pyproject.toml --group dev -o requirements-dev.lock

clean: ## everything that the other targets made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info

$(VENV)/bin/pip:
	@bash tests/venv.sh "$(PYTHON)" $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/pip
	@echo "installing observe into $(VENV) (once)" >&2
	@$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "installing the test tools into $(VENV) (once)" >&2
	@$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@
