# Every target does its own set-up. `make` alone lists the targets.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := .tools
# The first of these that is there; any other: make PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
# ONNX Runtime reports use to its maker unless told otherwise.
export ORT_DISABLE_TELEMETRY := 1

BUNDLE ?= demo/bundle
PORT ?= 8080

.DEFAULT_GOAL := help
.PHONY: help setup demo serve bench-serving benchmark test soak check sbom audit format compose pins clean

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target what; do \
	  printf '  make %-13s  %s\n' "$$target" "$$what"; done

setup: $(STAMP) ## create .venv and install the pinned dependencies (once; again after a change of pins)

$(STAMP): pyproject.toml constraints.txt tools.txt
	@test -n "$(PYTHON)" || { echo "make: no python3 found; install Python 3.11 or newer, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or newer is needed, $(PYTHON) is $$("$(PYTHON)" -V 2>&1); say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "make: $(PYTHON) -m venv failed; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@echo "Installing the pinned dependencies into $(VENV) (torch is the large one)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[training,tune,benchmark,bench,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(TOOLS) -r tools.txt
	@touch $@

demo: $(STAMP) ## the whole path in minutes: data, training, export, a served model, scored requests
	$(BIN)/python -m model_export.demo --dir demo

serve: $(STAMP) ## serve BUNDLE (demo/bundle) on PORT (8080) until Ctrl-C
	$(BIN)/python -m service --bundle $(BUNDLE) --port $(PORT)

bench-serving: $(STAMP) ## measure serving beside floors and other servers (QUICK=1; PEERS=DIR PEERS_VENVS=DIR)
	$(BIN)/python -m benchmarks.serving $(if $(QUICK),--quick) $(if $(PEERS),--peers $(PEERS) --peers-venvs $(PEERS_VENVS))

benchmark: $(STAMP) ## accuracy, parameters and latency beside the field's models (ARGS="--measure"; data: REACTION_DATA_DIR)
	$(BIN)/python -m benchmarks.accuracy $(ARGS)
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m benchmarks.accuracy --guard
	$(BIN)/python -m benchmarks.accuracy --latency
endif

# Files that watch servers and clocks, never beside those that train: they wait a third of their time, so three at once.
# Of those that train two at once; files of few tests, which xdist would keep for the end, are those that take minutes,
# so they go in the order of their names.
WATCHING := tests/service tests/benchmarks tests/test_prometheus.py
PYTEST := -m pytest --dist loadfile
test: $(STAMP) ## run the tests; those on real data need REACTION_DATA_DIR
	$(BIN)/python $(PYTEST) -n 2 --no-loadscope-reorder $(addprefix --ignore=,$(WATCHING))
	$(BIN)/python $(PYTEST) -n 3 $(WATCHING)

soak: $(STAMP) ## try for long what the service promises; rewrites benchmarks/reliability.json and RELIABILITY.md (haproxy, nginx)
	$(BIN)/python -m benchmarks.reliability reload
	$(BIN)/python -m benchmarks.reliability.overload
	$(BIN)/python -m benchmarks.reliability backpressure
	$(BIN)/python -m benchmarks.reliability restart
	$(BIN)/python -m benchmarks.reliability shadow
	$(BIN)/python -m benchmarks.reliability soak
	$(BIN)/python -m benchmarks.reliability faults
	$(BIN)/python -m benchmarks.reliability drift
	$(BIN)/python -m benchmarks.reliability feedback
	$(BIN)/python -m benchmarks.reliability telemetry
	$(BIN)/python -m benchmarks.reliability.fuzz bundles --figures benchmarks/reliability.json
	$(BIN)/python -m benchmarks.reliability.fuzz requests --figures benchmarks/reliability.json
	$(BIN)/python -m benchmarks.reliability.fuzz documented --figures benchmarks/reliability.json

check: $(STAMP) ## linter, formatter, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

sbom: $(STAMP) ## write what the serving image is made of to build/sbom.cdx.json (CycloneDX); works offline
	@mkdir -p build && $(BIN)/python docker/sbom.py > build/sbom.cdx.json && echo "wrote build/sbom.cdx.json"

audit: $(STAMP) ## look the pinned packages up in a list of known vulnerabilities, where that can be reached
	@PATH="$(CURDIR)/$(TOOLS)/bin:$(CURDIR)/$(BIN):$$PATH" PYTHONPATH="$(CURDIR)/$(TOOLS)" .ci/audit

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

compose: ## build and start service, Prometheus and Grafana in containers
	docker compose up --build

pins: ## print a constraints.txt of the newest releases (see CONTRIBUTING.md)
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; "$(PYTHON)" -m venv "$$dir/venv"; \
	"$$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[training,tune,benchmark,bench,dev]' >&2; \
	"$$dir/venv/bin/python" -m pip freeze --all --exclude-editable | sed -e 's/+.*//' -e ':a;s/^\([^=]*\)\./\1-/;ta' | tr 'A-Z_' 'a-z-' \
	  | grep -vE '^(nvidia|cuda|triton|pip=)' | LC_ALL=C sort

clean: ## remove what the targets made, the virtual environment too
	rm -rf $(VENV) $(TOOLS) demo build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
