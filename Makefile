# Two commands on a fresh machine: `make demo` and `make test`. Everything else is for developers.
# The first of these that really runs and can make a virtual environment: a version manager may leave a command that
# exists and fails. Those that the tests ran on come first. `make PYTHON=...` overrides.
PYTHONS := python3.13 python3.12 python3.11 python3.14 python3
FITS := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for each in $(PYTHONS); do "$$each" -c '$(FITS)' >/dev/null 2>&1 && echo "$$each" && break; done)
SPHINX_STRICT := --fail-on-warning --keep-going --nitpicky --fresh-env --quiet
SECONDS ?=
SOURCE ?= dynamodb
SEEDS ?= 2000
MINUTES ?= 60
RATE ?= 60
TABLE ?= orders

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.dev-ready
# The embedded local AWS needs another botocore than aioboto3, so it lives in a virtual environment of its own.
AWS_READY := .venv-aws/.ready
RUNTIME_READY := .venv-runtime/.ready
KINESIS_READY := .kinesis-servers/.ready
RELEASE_READY := .venv-release/.ready
DOCS_READY := .venv-docs/.ready

# A shell line that ends with a message unless PYTHON is usable.
CHECK_PYTHON = "$(PYTHON)" -c '$(FITS)' >/dev/null 2>&1 || { echo "$(NO_PYTHON)" >&2; exit 1; }
NO_PYTHON = make: $(if $(PYTHON),$(PYTHON) is no Python,none of $(PYTHONS) is a Python) of 3.11 or newer with venv and ensurepip; name one with PYTHON=

.PHONY: demo local test check lint types check soak soak-hour mutants bench speedups schema docs screenshot lock dist sbom clean help

help:
	@echo "make demo [SECONDS=20] [SOURCE=kinesis]   the real daemon on an embedded local AWS"
	@echo "make local [TABLE=orders] [SOURCE=kinesis]   the embedded local AWS alone, for your own handler"
	@echo "make test               lint, types, import contract and the whole test suite"
	@echo "make lint types         only those"
	@echo "make bench [QUICK=1] [ROUNDS=5] [ROWS='throughput idle']   what it costs, side by side with an aioboto3 loop"
	@echo "make speedups           compiles what makes images into Python values, for make bench (and the daemon of .venv)"
	@echo "make soak [SEEDS=2000]  that many simulations of the fleet under faults, and a tenth of them record by record; 50 workers that start at once; the large searches"
	@echo "make soak-hour [MINUTES=60] [RATE=60]   two real daemons under faults of every kind for an hour: losses, order, memory, descriptors"
	@echo "make mutants            one-line mistakes in the code that the simulator must notice"
	@echo "make screenshot         rewrite docs/images/status-page.png with an installed Chromium"
	@echo "make docs               the documentation as a site, in build/docs; a broken link is an error"
	@echo "make schema             rewrite config/consumer.schema.json, and docs/configuration.md from it"
	@echo "make lock               pin all dependencies anew, with hashes"
	@echo "make dist sbom          the wheel, the sdist, and the bill of materials of what runtime.lock installs"

$(VENV)/bin/python:
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)

$(READY): $(VENV)/bin/python requirements/runtime.lock requirements/build.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/build.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(DEV_READY): $(READY) requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	touch $@

$(AWS_READY): requirements/local-aws.lock
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-aws
	.venv-aws/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/local-aws.lock
	touch $@

# A function's environment of its own, for the tests of handler.command.
$(RUNTIME_READY): requirements/lambda-runtime.lock
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-runtime
	.venv-runtime/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/lambda-runtime.lock
	touch $@

# The local Kinesis servers of the tests are programs for Node.js. Without it, or without their packages, this says so and
# goes on, and the tests that need them are skipped. The install scripts would only compile what comes compiled.
NODE_FITS := process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)
KINESIS_LOCK := requirements/kinesis-servers/package.json requirements/kinesis-servers/package-lock.json
NPM_QUICK := --fetch-retries=1 --fetch-retry-mintimeout=2000 --fetch-retry-maxtimeout=2000

$(KINESIS_READY): $(KINESIS_LOCK)
	@if ! node -e '$(NODE_FITS)' >/dev/null 2>&1 || ! npm --version >/dev/null 2>&1; then \
	  echo "make: no Node.js of 18 or newer with npm: the tests on local Kinesis servers are skipped"; \
	elif rm -rf $(@D) && mkdir $(@D) && cp $^ $(@D) && \
	  npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund $(NPM_QUICK) >$(@D)/npm.log 2>&1; then \
	  touch $@; \
	else \
	  echo "make: npm cannot install the local Kinesis servers ($(@D)/npm.log says why): their tests are skipped"; \
	fi

bench: $(READY) $(AWS_READY)
	@$(BIN)/python -m benchmarks $(ROWS) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(QUICK),--quick)

# Optional: nothing else needs a compiler.
speedups: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation ./speedups

demo: $(READY) $(AWS_READY)
	@$(BIN)/python -m demo --source "$(SOURCE)" $(if $(SECONDS),--seconds $(SECONDS))

local: $(READY) $(AWS_READY)
	@$(BIN)/python -m demo.local --table "$(TABLE)" --source "$(SOURCE)"

# Compiled beforehand, and what is compiled is kept, whatever PYTHONDONTWRITEBYTECODE says: else each of the hundreds of
# processes that the tests start would compile the whole package, and each worker of pytest rewrite 7,000 asserts.
test: $(DEV_READY) $(AWS_READY) $(RUNTIME_READY) $(KINESIS_READY) check
	$(BIN)/python -m compileall -q consumer demo tests
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 4 --dist loadgroup

check: lint types

lint: $(DEV_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(DEV_READY)
	$(BIN)/mypy

soak: $(DEV_READY) $(AWS_READY) $(RUNTIME_READY) $(KINESIS_READY) $(DOCS_READY)
	$(BIN)/python -m tests.simulation.simulate protocol --seeds $(SEEDS) --jobs 2
	$(BIN)/python -m tests.simulation.simulate records --seeds $$(( ($(SEEDS) + 9) / 10 )) --jobs 2
	$(BIN)/python -m tests.simulation.simulate fleet --seeds $$(( ($(SEEDS) + 9) / 10 )) --jobs 2
	$(BIN)/python -m tests.simulation.simulate weather --seeds $$(( ($(SEEDS) + 9) / 10 )) --jobs 2
	$(BIN)/python -m tests.simulation.simulate failing_keys --seeds $$(( ($(SEEDS) + 9) / 10 )) --jobs 2
	$(BIN)/python -m tests.simulation.simulate kinesis --seeds $$(( ($(SEEDS) + 9) / 10 )) --jobs 2
	$(BIN)/python -m tests.simulation.simulate parking --seeds $$(( ($(SEEDS) + 9) / 10 )) --jobs 2
	$(BIN)/python -m tests.simulation.failing_hour
	$(BIN)/python -m tests.simulation.fleet_start
	$(BIN)/python -m tests.unit.worker.deferred_model
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m soak

soak-hour: $(DEV_READY) $(AWS_READY)
	@$(BIN)/python -m tests.e2e.soak_hour --minutes $(MINUTES) --rate $(RATE)

mutants: $(DEV_READY)
	$(BIN)/python -m tests.simulation.mutants

schema: $(READY)
	$(BIN)/stream-consumer schema > config/consumer.schema.json
	$(BIN)/python -m docs.site.configuration

$(DOCS_READY): requirements/docs.lock
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.lock
	touch $@

# From nothing each time: what is left of an earlier build would hide a broken link.
docs: $(DOCS_READY)
	rm -rf build/docs
	.venv-docs/bin/python -m sphinx $(SPHINX_STRICT) -c docs/site -d build/doctrees . build/docs
	.venv-docs/bin/python -m docs.site.check build/docs

dist: $(READY)
	rm -rf dist
	$(BIN)/python -m hatchling build --directory dist

$(RELEASE_READY): requirements/release.lock
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/release.lock
	touch $@

sbom: $(RELEASE_READY)
	mkdir -p dist
	.venv-release/bin/cyclonedx-py requirements requirements/runtime.lock --pyproject pyproject.toml \
	  --output-reproducible --output-format JSON --output-file dist/dynamodb-stream-consumer.cdx.json

screenshot: $(DEV_READY)
	STREAM_CONSUMER_SCREENSHOT=1 $(BIN)/python -m pytest -q -k picture_of_the_readme tests/integration/test_status_page.py

# Compiled on the lowest version: a lock from a newer one would lack what only the older ones need.
lock: $(DEV_READY)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "make: the locks are compiled on Python 3.11: make clean lock PYTHON=python3.11" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements/runtime.lock pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --allow-unsafe --output-file requirements/build.lock requirements/build.in
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --constraint requirements/runtime.lock --output-file requirements/dev.lock requirements/dev.in
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements/local-aws.lock requirements/local-aws.in
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements/lambda-runtime.lock requirements/lambda-runtime.in
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements/release.lock requirements/release.in
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements/docs.lock requirements/docs.in
	npm update --prefix requirements/kinesis-servers --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund

clean:
	rm -rf .venv .venv-aws .venv-runtime .venv-release .venv-docs .kinesis-servers build dist speedups/build speedups/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
