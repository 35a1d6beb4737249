# make serve   a fresh clone to a running service: core packages only, no key, no torch
# make test    a fresh clone to a verdict: lint, types, layers, docs, the fast tests
# The other targets are parts of these two, and `make help` lists all.

PYTHON ?= python3
VENV   ?= .venv
TASK   ?= configs/banking.yaml
FLOOR  ?= 85
BENCH  ?= --dataset banking77 --alpha 0.95

# A file's tests in one process, which share its fixtures, and as many processes as there are cores.
ABREAST := -n logical --dist loadfile --no-loadscope-reorder
# Tests start hundreds of processes, which all compile the same modules unless the first one may keep them.
PYTEST   = env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest

BIN   := $(VENV)/bin
PIP    = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
empty :=
space := $(empty) $(empty)
CORE  := $(VENV)/.core-installed
EXTRA := $(VENV)/.extras-installed

export BENTOML_DO_NOT_TRACK := True
# Tests find every model on disk, and one BLAS thread a process keeps them from getting in each other's way.
test coverage test-slow test-newest: export HF_HUB_OFFLINE := 1
test coverage test-slow test-newest: export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv install serve test coverage test-slow test-newest lint fmt bench constraints reference docs screenshots dist clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: $(BIN)/python ## make the virtual environment

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One stamp per set of packages: a second run installs nothing, a changed pin or dependency installs again.
$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing tracer-serve into $(VENV)"
	$(PIP) --editable .
	@touch $@

$(EXTRA): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing tracer-serve and what its tests need into $(VENV)"
	$(PIP) --editable '.[dev,minilm,onnx,xgboost]'
	@touch $(CORE) $@

install: $(EXTRA) ## install everything that tests and benches need

serve: $(CORE) ## serve TASK (default: configs/banking.yaml)
	$(BIN)/tracer-serve $(TASK)

lint: $(EXTRA) ## ruff, mypy --strict, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint docs ## lint, docs, then the fast tests
	$(PYTEST) $(ABREAST)

coverage: $(EXTRA) ## the fast tests with branch coverage of at least FLOOR percent; takes a third longer
	$(PYTEST) $(ABREAST) --cov --cov-report=term-missing --cov-fail-under=$(FLOOR)

test-slow: $(EXTRA) ## Monte Carlo, fault and soak proofs
	$(PYTEST) -m slow

# Not in constraints.txt, so that a breaking release is seen here before it is pinned.
NEWEST := $(VENV)-newest
SERVERS := bentoml starlette uvicorn
PROTOCOL_TESTS := tests/server/test_connection_limits.py tests/server/test_hostile.py tests/server/test_run.py \
	tests/server/bento

test-newest: ## process and protocol tests on the newest BentoML, Starlette and uvicorn within their bounds
	$(PYTHON) -m venv $(NEWEST)
	grep -vE '^($(subst $(space),|,$(SERVERS)))==' constraints.txt > $(NEWEST)/constraints.txt
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade \
		--constraint $(NEWEST)/constraints.txt --editable '.[dev,onnx-serving]' $(SERVERS)
	$(NEWEST)/bin/python -m pip list --disable-pip-version-check | grep -E '^($(subst $(space),|,$(SERVERS))) '
	$(NEWEST)/bin/python -m pytest $(PROTOCOL_TESTS)

fmt: $(EXTRA) ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(EXTRA) ## coverage on real data, from the folder TRACER_BENCH_DATA
	$(BIN)/python -m bench.coverage $(BENCH)

constraints: $(EXTRA) ## pin what is installed now, once the tests have passed on it
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/^(torch==[^+]*)\+.*/\1/' > constraints.txt

reference: $(EXTRA) ## write docs/reference from the code
	$(BIN)/python docs/generate.py

# Not with --quiet, which drops the warnings before `strict` counts them.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(EXTRA) ## the site in build/site; a broken link fails
	$(BIN)/mkdocs build

screenshots: $(EXTRA) ## dashboard and report of the shipped task, in docs/images; needs chromium
	$(BIN)/python -m docs.screenshots

dist: $(BIN)/python ## wheel and sdist in dist/; the wheel serves a task in an environment of its own
	rm -rf dist $(VENV)-dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv $(VENV)-dist
	$(VENV)-dist/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
	cd dist && env -u PYTHONPATH $(abspath $(VENV)-dist)/bin/python ../tests/support/smoke.py $(abspath $(VENV)-dist)/bin/tracer-serve ../$(TASK)
	rm -rf $(VENV)-dist

clean: ## remove the environment, caches and build products; state in .tracer stays
	rm -rf $(VENV) $(VENV)-newest .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage coverage.xml dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
