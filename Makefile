# One virtual environment, made on demand. Every target works on a fresh machine with python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.base
INSTALLED := $(VENV)/.installed
# of pytest, for two cores: a test waits now and then
WORKERS ?= 3
# tests start hundreds of processes: each would compile hexshards anew, and pytest all tests in each of its workers
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test quick check docs docs-serve docs-tables bench bench-peers clean

demo: $(BASE)  ## the main job end to end, on data it makes: synth, convert, verify, train, stop, resume
	rm -rf demo
	$(BIN)/hexshards demo --out demo

test: $(INSTALLED)  ## all tests; those on real files skip, and say so, where ../shared/data is missing
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

quick: $(INSTALLED)  ## units of every package, for the moment before a commit: no process is started, nothing trained
	$(BIN)/python -m pytest -q --quick -n 2 --dist loadfile

check: $(INSTALLED)  ## lint, format, and types of the package as it is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(VENV)/package && $(BIN)/pip install -q --no-deps --target $(VENV)/package .
	cd $(VENV) && MYPYPATH=package bin/mypy --config-file "$(CURDIR)/pyproject.toml" -p hexshards

docs: $(VENV)/.docs  ## the docs as a site with search, in build/docs; every link and reference is checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

docs-serve: $(VENV)/.docs  ## the same at http://127.0.0.1:8000, built anew at every change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

docs-tables: $(INSTALLED)  ## the tables of options and commands in docs/, and its pictures
	$(BIN)/python docs/tables.py
	$(BIN)/python docs/pictures.py

bench: $(VENV)/.bench  ## loading and converting, against what this machine can do and what users do today
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/convert.py

bench-peers: $(VENV)/.bench  ## loading, and what survives, against all peers, each in an environment of its own; goes on after a stop
	$(BIN)/python benchmarks/loading.py --peers
	$(BIN)/python benchmarks/survival.py

$(VENV)/.bench: $(INSTALLED)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

$(VENV)/.docs: $(INSTALLED)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# constraints.txt pins every version, so that two machines test the same thing
$(BASE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(INSTALLED): $(BASE)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'from hexshards.loading.batching import compile_reading, compiled; compiled(); compile_reading()' # here, not under the first loader
	touch $@

clean:
	rm -rf $(VENV) build dist demo *.egg-info
