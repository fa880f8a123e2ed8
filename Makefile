# What a person types. `make` alone lists it. Nothing here needs an activated environment, root or a GPU.

# Another environment that happens to be active must not be the one that is installed into or imported from.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME UV_PROJECT_ENVIRONMENT
# A fleet is six processes: without bytecode each compiles everything it imports, at every start.
unexport PYTHONDONTWRITEBYTECODE

# The Python that .venv is made with: the first on PATH that is new enough, or `make setup PYTHON=…`.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))

PY := .venv/bin/python
UV := .venv/bin/uv
SET_UP := .venv/.set-up
PROTOS := $(wildcard proto/diplex/v1/*.proto)
STUBS := sdk/diplex/v1/router_pb2.py
PYTEST := $(PY) -m pytest -q -p no:cacheprovider
EXTRAS := --extra server --extra rest --extra llamacpp --extra tokenizers --extra qwen --extra nvml --extra events --extra grpc-engines
CHAOS := tests/journeys/test_client_death.py tests/journeys/test_worker_death.py tests/journeys/test_router_death.py

# $(call export,what it is,which groups): pins of uv.lock, which itself is not kept, for it says where files came from.
export = { echo "\# $(1). Made by make pins from pyproject.toml."; \
	$(UV) export --quiet --frozen --format requirements.txt $(2) --no-emit-project --no-header; }

.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup up test lint format types imports protolint unit journeys test-long test-clients test-chaos \
	bench bench-million bench-data-plane proto schema engines docs pins clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SET_UP) $(STUBS) ## .venv with everything that development needs; nothing to do: nothing done

# uv is not on a fresh machine, pip is. Both install only what the pins name, by hash.
$(UV): requirements/uv.txt
	@test -n "$(PYTHON)" || { echo "diplex needs Python 3.11 or newer, and none is on PATH." \
		"Mend: install one, or make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Setting up .venv: under a minute where the network is good."
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# The pins are complete, the build backend among them: nothing is resolved here.
$(SET_UP): $(UV) requirements/dev.txt pyproject.toml proto/hatch_build.py
	@$(UV) pip install --quiet --python $(PY) --compile-bytecode --no-deps --require-hashes -r requirements/dev.txt
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@

proto: $(STUBS) ## Python stubs from proto/, where a proto is newer

$(STUBS): $(PROTOS) proto/generate.py | $(SET_UP)
	@$(PY) proto/generate.py
	@touch $@

up: setup ## serve: SmolLM2 on this CPU, Qwen2.5-72B on simulated B200s (ARGS="--rest-port 8601 …")
	@exec .venv/bin/diplex up $(ARGS)

test: setup lint types imports protolint unit journeys ## every check; what .ci/run runs

lint: setup ## ruff: rules and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: setup ## ruff: mend what can be mended
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

types: setup ## mypy, strict
	@$(PY) -m mypy

imports: setup ## the arrows between the parts
	@.venv/bin/lint-imports

protolint: setup ## buf's rules for proto/
	@.venv/bin/buf lint proto

unit: setup ## everything that runs inside one process
	@$(PYTEST) tests --ignore tests/journeys

journeys: setup ## whole processes, from outside
	@$(PYTEST) tests/journeys

test-long: setup ## what takes minutes: silence, hostile time with many seeds
	@$(PYTEST) -m long tests

test-clients: setup ## the official openai package against the shim
	@$(PYTEST) tests/rest

test-chaos: setup ## clients, workers and routers killed under load
	@$(PYTEST) $(CHAOS)

bench-million: setup ## a million simulated requests over a thousand packages, at 90 % and 120 % load (about 15 minutes)
	@$(PY) benchmarks/simulate/scale.py --million

bench: setup ## measurements behind the docs' figures
	@$(PY) benchmarks/core/decisions.py --workers 16 64 1024 --case spare queue
	@$(PY) benchmarks/core/reports.py
	@$(PY) benchmarks/core/memory.py --leases 10000 100000
	@$(PY) benchmarks/core/looks.py
	@$(PY) benchmarks/growth/run.py
	@$(PY) benchmarks/overload/run.py
	@$(PY) benchmarks/model/rows.py
	@$(PY) benchmarks/prefill_budget/run.py
	@$(PY) benchmarks/prefix/run.py
	@$(PY) benchmarks/tokens/cost.py
	@$(PY) benchmarks/tracing/cost.py

bench-data-plane: setup ## the ways of tokens, beside three other routers from PyPI (half an hour)
	@$(PY) benchmarks/data_plane/run.py --out benchmarks/data_plane/results.json
	@$(PY) benchmarks/data_plane/table.py

schema: setup ## configs/schema.json from the configuration's words
	@$(PY) -m diplex_core.config.schema > configs/schema.json

engines: setup ## docs/engines.md from the list of names that engines are relied on to have
	@$(PY) -m diplex_workers.engines.names > docs/engines.md

docs: setup ## check the docs: links, blocks that must parse, commands that must exist
	@$(PYTEST) tests/house

pins: $(SET_UP) ## newest versions that pyproject.toml allows, with hashes, into requirements/
	@$(UV) lock --quiet --upgrade
	@$(call export,Everything that development needs,--group dev $(EXTRAS) --extra plot) > requirements/dev.txt
	@$(call export,What a server needs,--no-dev $(EXTRAS)) > requirements/serve.txt
	@$(call export,What builds the wheel,--only-group build) > requirements/build.txt
	@{ echo "# What installs the rest. Made by make pins."; \
		echo uv | $(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate -; \
		} > requirements/uv.txt

clean: ## everything that a build or a test left, .venv included
	@rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@rm -f sdk/diplex/v1/*_pb2*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
