# make demo  - set up a virtual environment and run the main job on real data
# make test  - the same set-up, then all tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test campaign lint types docs proofs bench mutants clean

help:
	@grep -E '^# make' Makefile | sed 's/^# //'

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing exan-verify and the libraries it needs into $(VENV): once, some minutes, mostly torch."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $(STAMP)
	@echo "Installed. The command is $(BIN)/exan."

# make setup - virtual environment in .venv with pinned versions
setup: $(STAMP)

demo: setup
	$(BIN)/exan demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# make campaign - the laws in tests/properties on examples drawn anew, fifty times as many; takes hours
campaign: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'campaign or not campaign' \
	  --hypothesis-profile=campaign tests/properties

# make lint  - ruff and strict types
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# make docs  - the site, in build/site; a warning is an error
docs: setup
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/site
	@echo "The site: build/site/index.html"

# make proofs - recheck every machine-checked proof from scratch (installs Coq where it is missing and may)
proofs: setup
	bash proofs/install.sh
	$(MAKE) -C proofs/coq clean
	$(MAKE) -j2 -C proofs/coq assumptions machine
	OMP_NUM_THREADS=1 $(BIN)/python proofs/bounded/check.py
	@cat proofs/coq/build/summary

# make bench - the tables of exan bench
bench: setup
	$(BIN)/exan bench certify
	$(BIN)/exan bench attack

# make mutants - break kernel, exact arithmetic and encoders in 120 places; every change must be noticed
mutants: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants --count 120

# make clean - remove the virtual environment and build products
clean:
	rm -rf $(VENV) build dist demo-report
	-$(MAKE) -C proofs/coq clean
