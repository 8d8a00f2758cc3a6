# Forebay's tasks. Needs Python >= 3.11 and make; no root, Docker or GPU.

PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo "$$python" && break; done)
VENV := .venv
BIN := $(VENV)/bin
KSERVE_VENV := .venv-kserve
KSERVE := kserve==0.21.0
PYTEST_ARGS ?=

INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_KSERVE := $(KSERVE_VENV)/.installed

# Tools keep caches in the home directory; without one that can be written they get one here.
ifneq ($(shell test -n "$$HOME" && test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/$(VENV)/home
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## Show what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
		while IFS='|' read -r name text; do printf '  make %-16s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: $(INSTALLED)  ## Start the mesh here, classify files from zero replicas and back, stop it
	@$(BIN)/forebay setup
	@$(BIN)/forebay demo

.PHONY: install
install: $(INSTALLED)  ## Install Forebay and Triton into .venv
	@$(BIN)/forebay setup

.PHONY: test
test: $(INSTALLED_DEV) $(INSTALLED_KSERVE)  ## Run every test that can run on this machine
	@$(BIN)/forebay setup
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: $(INSTALLED_DEV)  ## Run the tests without sockets and processes
	$(BIN)/python -m pytest tests/unit $(PYTEST_ARGS)

.PHONY: test-images
test-images: $(INSTALLED_DEV)  ## Build the images that tests with containers run, on this machine's Docker
	$(BIN)/python -m tests.compose.images

.PHONY: test-compose
test-compose: $(INSTALLED_DEV)  ## Run the compose files on this machine's Docker daemon, with faults
	$(BIN)/python -m pytest tests/compose -m compose $(PYTEST_ARGS)

.PHONY: check
check: $(INSTALLED_DEV)  ## Check format, lint, types, the API, stubs and the rules of the tree
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf lint
	@scripts/check_breaking.sh $(BIN)/buf
	$(BIN)/python -m pytest tests/contract -q

.PHONY: format
format: $(INSTALLED_DEV)  ## Format code and protos
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write

.PHONY: stubs
stubs: $(INSTALLED_DEV)  ## Generate forebay/v1 from protos/
	scripts/make_stubs.sh "$(CURDIR)/$(BIN)/python"

.PHONY: docs
docs: $(INSTALLED_DEV)  ## Write what is generated: deploy/config, docs/configuration.md, dashboards
	$(BIN)/python -m scripts.configuration
	$(BIN)/python -m scripts.dashboards

.PHONY: bench
bench: $(INSTALLED_DEV)  ## Measure calls through the router against Triton called directly
	@$(BIN)/forebay setup
	$(BIN)/python -m benchmarks.dataplane

.PHONY: bench-autoscaler
bench-autoscaler: $(INSTALLED_DEV)  ## Measure decisions at the size of a fleet, and cold starts here
	@$(BIN)/forebay setup
	$(BIN)/python -m benchmarks.autoscaler

.PHONY: bench-tasks
bench-tasks: $(INSTALLED_DEV)  ## Measure tasks: stored, completed, mapped over, and files of rows
	@$(BIN)/forebay setup
	$(BIN)/python -m benchmarks.tasks

.PHONY: bench-containers
bench-containers: $(INSTALLED_DEV)  ## Measure a replica's start in a container against Triton's own
	@$(BIN)/forebay setup
	$(BIN)/python -m benchmarks.replica_start

.PHONY: clean
clean:  ## Remove what make and the tests made
	rm -rf $(VENV) $(KSERVE_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
		benchmarks/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 found. Install one or name it:" \
		"make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	scripts/make_venv.sh "$(PYTHON)" $(VENV)
	@mkdir -p "$$HOME"

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[local,node-agent]'
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[local,node-agent,dev]'
	@touch $(INSTALLED) $@

# KServe's client needs versions of psutil and others that Forebay can't use.
$(INSTALLED_KSERVE): Makefile | $(BIN)/python
	scripts/make_venv.sh "$(PYTHON)" $(KSERVE_VENV)
	$(KSERVE_VENV)/bin/python -m pip install --quiet --no-compile '$(KSERVE)'
	@touch $@
