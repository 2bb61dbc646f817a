# Each target does its own set-up. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where it is set, as in many images, each of the processes that the tests start would compile all that it imports;
# what is imported is compiled once, so pip need not compile everything.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak parts tools lock clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.runtime ## a fleet, a fault, and what observe says of it: make demo ARGS="--fault slow-database"
	@$(BIN)/observe demo $(ARGS)

test: parts ## all tests, on real servers and a real browser: make test WORKERS=1 ARGS="tests/unit -x"
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.dev ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: parts ## the benchmarks, machine-readable
	@bash tests/benchmarks/run.sh $(ARGS)

soak: parts ## kill everything under load, then look for every span: make soak ARGS="--kills 200 --seed 7"
	@$(BIN)/python -m tests.faults.siege $(ARGS)

parts: tools $(VENV)/.dev ## what the tests run beside Python: a broker, a ClickHouse server, a browser
	@$(BIN)/python -m tests.fixtures.fetch

tools: | $(VENV)/bin/pip
	@bash tests/parts.sh

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
	@$(BIN)/pip install --quiet --no-compile --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --no-compile --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "installing the test tools into $(VENV) (once)" >&2
	@$(BIN)/pip install --quiet --no-compile --require-hashes -r requirements-dev.lock
	@touch $@
