# Everything a developer types. `make install` needs Python 3.11 or newer with its venv module.

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

N ?= 20
.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow chaos check format bench docs lock coverage dist notes clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Set up .venv with the locked versions; quick when that is done already

demo: $(STAMP) ## Audit a small made-up data set and write a report
	$(BIN)/multimem demo

test: $(STAMP) ## Run the tests, without the slow ones
	$(BIN)/pytest -n 2 --dist loadfile

coverage: $(STAMP) ## Run the tests and show what no test reached (also in coverage.txt)
	$(BIN)/pytest --cov --cov-report=
	$(BIN)/coverage report | tee coverage.txt

test-slow: $(STAMP) ## Run the tests that take minutes
	$(BIN)/pytest -m slow --timeout 1800

chaos: $(STAMP) ## Disturb N small audits at random (default 20): every sample once, equal scores
	$(BIN)/python -m tests.chaos --runs $(N)

check: $(STAMP) ## Lint, formatting, types and the floors of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP) ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Measure this machine and say what falls short; BENCH="scoring --quick …"
	$(BIN)/python -m jobs.benchmarks $(BENCH)

docs: $(STAMP) ## Build the documentation into site/; a broken link or reference fails it
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict --clean

lock: $(STAMP) ## Resolve pyproject.toml into requirements.lock; UPGRADE=--upgrade takes the newest
	$(BIN)/uv pip compile -q $(UPGRADE) --universal --python-version 3.11 --extra dev --extra docs \
		--no-annotate --no-header --no-emit-index-url pyproject.toml -o requirements.lock

dist: $(STAMP) ## Build the package into dist/
	$(BIN)/uv build -q

notes: ## Show what the changelog says of a version; VERSION=0.2.0
	@awk '/^## \[/{show = index($$0, "## [$(VERSION)]") == 1; next} show' CHANGELOG.md | grep . || \
		{ echo "CHANGELOG.md has no section of version '$(VERSION)'" >&2; exit 1; }

clean: ## Remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamp is written last: an installation that was interrupted is taken up again.
$(STAMP): requirements.lock pyproject.toml
	@$(BIN)/python -c '' 2>/dev/null || { $(find_python) && "$$python" -m venv --clear $(VENV); }
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

# A name on the path may be no more than a shim, so that each candidate is run before it is taken.
# Versions that every locked wheel exists for (below 3.14) come first, newer ones after them.
suitable := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, int(sys.argv[1])))
define find_python
for below in 14 99 0; do \
	for python in "$(PYTHON)" python3.13 python3.12 python3.11; do \
		if "$$python" -c '$(suitable)' $$below >/dev/null 2>&1; then break 2; fi; \
	done; \
done; \
if [ $$below = 0 ]; then \
	echo "multimem_ray needs Python 3.11 or newer with its venv module. Here, $(PYTHON) is" \
		"'$$("$(PYTHON)" --version 2>&1 | head -1)', and python3.13, 3.12 and 3.11 were not found" \
		"or lack venv. Install one (Debian: apt install python3 python3-venv), or name it:" \
		"make install PYTHON=/path/to/python3" >&2; \
	exit 1; \
fi
endef
