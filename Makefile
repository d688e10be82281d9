# The five commands of development are: make test, make demo, make crds, make lock, make bench.
SHELL := /bin/bash
PY := .venv/bin/python
export PYTHONPATH := operator:tests
# Tests start many processes of ours: their modules are compiled once, also where the environment would not have it.
export PYTHONDONTWRITEBYTECODE :=
# Most tests wait. More workers than this are faster, and tell load from faults less well. `make test WORKERS=0`: one after another.
WORKERS ?= 3

.PHONY: help venv system testbed lint types imports crds crds-check unit test suite demo bench bench-ledger bench-meter soak lock clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

venv: .venv/.made ## the Python environment, from the locked requirements

.venv/.made: requirements/dev.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "HomeFed needs Python 3.11 or newer")'
	python3 -m venv .venv
	$(PY) -m pip install -q --require-hashes -r requirements/dev.txt
	@touch $@

system: venv ## Debian packages of the testbed (needs root; says what is missing otherwise)
	@$(PY) -m testbed.system

testbed: system ## control planes, Prometheus, Helm …: built once, cached outside the repository
	@$(PY) -m testbed.binaries
	@$(PY) -m testbed.javascript

lint: venv ## ruff: rules and formatting
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

types: venv ## mypy --strict
	@.venv/bin/mypy operator/homefed tests/testbed tests/bench

imports: venv ## the import contracts
	@.venv/bin/lint-imports

crds: venv ## write crds/ (and the chart's copies) from operator/homefed/api
	@$(PY) -m homefed.api.crd crds helm/homefed/files/crds

unit: venv ## the pure tests, seconds
	@$(PY) -m pytest -q -p no:schemathesis -n 2 --no-loadscope-reorder --hypothesis-profile=unit tests/unit

test: testbed lint imports ## everything, on real clusters; the types are checked meanwhile
	@$(MAKE) --no-print-directory -j2 types suite

suite: # of `test`
	@$(PY) -m testbed.suite -q -n $(WORKERS) --dist loadscope --no-loadscope-reorder --maxfail=12 --durations=25 tests

demo: testbed ## a hub, two homes, a consumer's work, claims, balances
	@$(PY) -m testbed.demo

bench: testbed ## the figures, beside their goals; JSON to $$BENCH_JSON
	@$(PY) -m bench

bench-ledger: testbed ## the ledger's figures; CLAIMS=1000000 for books of that size, PGLEDGER=path of its SQL
	@$(PY) -m bench.ledger $(if $(CLAIMS),--claims $(CLAIMS)) $(if $(PGLEDGER),--pgledger $(PGLEDGER))

bench-meter: testbed ## the meter's figures: truth table, metering and settling of a window; NODES=1: on real nodes too
	@$(PY) -m bench.meter $(if $(NODES),--nodes)

soak: testbed ## the ledger is killed 100 times under 32 clients while 100 000 claims flow
	@$(PY) -m testbed.ledger_load

lock: venv ## resolve the dependencies anew, with hashes, without index addresses
	@.venv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --universal --python-version 3.11 pyproject.toml -o requirements/runtime.txt
	@.venv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --universal --python-version 3.11 --group dev pyproject.toml -o requirements/dev.txt

clean: ## the virtual environment and caches of this checkout
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
