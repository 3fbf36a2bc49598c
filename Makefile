# Everything starts from Python >= 3.11, pip and make: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: help setup run test check fast lint types layers reference fault bench format deb clean

help:            ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The new environment gets its packages from the pip that is there, so that nothing but Python, pip and make is needed.
setup: $(STAMP)  ## make .venv with dsdbd and dsdb in it

run: setup       ## one node, data under ./var, on http://localhost:8088
	DSDB_META_DIR=$(CURDIR)/var/meta DSDB_DATA_DIR=$(CURDIR)/var/data \
	DSDB_DATA_WAL_DIR=$(CURDIR)/var/wal DSDB_HINTED_HANDOFF_DIR=$(CURDIR)/var/hh \
	DSDB_BIND_ADDRESS=localhost:8088 DSDB_META_BIND_ADDRESS=localhost:8088 \
	DSDB_META_HTTP_BIND_ADDRESS=localhost:8091 DSDB_HTTP_BIND_ADDRESS=localhost:8088 \
	$(BIN)/dsdbd

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

# A fifth of the examples of property tests. The tests' compiled form is kept, whatever the environment says.
fast: setup
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q -n 2 -m 'not slow' --hypothesis-profile=quick

check: lint types layers fast  ## lint, types, floors and fast tests: under a minute

# The types are looked at meanwhile: many tests wait for something.
test: lint layers        ## everything that has to pass: under fifteen minutes on two cores
	$(BIN)/mypy & types=$$!; \
	$(BIN)/pytest -n 2 --hypothesis-profile=half --dist loadgroup; tests=$$?; \
	wait $$types && exit $$tests

# SEED and N choose the statements.
reference: setup ## the whole table and random statements beside an influxd: make reference SEED=7 N=5000
	$(BIN)/python -m tests.reference --seed $(or $(SEED),1) --count $(or $(N),2000)

# SEED chooses the faults. Needs root, iproute2 and iptables. docs/fault-campaign.md says what is done and checked.
fault: setup     ## break nodes for a while and check what they hold: make fault MINUTES=40 SEED=7
	$(BIN)/python -m tests.fault --minutes $(or $(MINUTES),40) --seed $(or $(SEED),1) --nodes $(or $(NODES),3)

bench: setup     ## measure everything, beside InfluxDB and VictoriaMetrics; nothing else should run meanwhile
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks.meta_commit
	$(BIN)/python -m benchmarks.cluster_times
	$(BIN)/python -m benchmarks.stalls
	$(BIN)/python -m benchmarks.replication
	$(BIN)/python -m benchmarks.tsbs
	$(BIN)/python -m benchmarks.cardinality

format: setup    ## rewrite the code in the project's format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

deb: setup       ## build dist/dsdb_VERSION_ARCH.deb
	packaging/deb/build.sh

clean:
	rm -rf build dist *.egg-info $(VENV) .mypy_cache .ruff_cache .pytest_cache
