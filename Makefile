# Everything a fresh machine needs: Python 3.11 or newer, and one of these targets.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 3
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: install train test lint types unit slow pages bench schema clean

install: .venv/core

train: .venv/core
	$(BIN)/python train.py -c config/people/quickstart.json --resume auto
	$(BIN)/python test.py -c config/people/quickstart.json --resume best
	$(BIN)/python inference.py --resume "$$(ls -d saved/people_quickstart/2*/ | tail -1)" --source data/people/images/test --output saved/people_quickstart/cutouts --mode cutout

test: .venv/development lint types unit

lint: .venv/development
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/development
	$(BIN)/mypy .

# Processes with one thread each: tests are many small networks. One more than two cores, since some tests wait.
unit: .venv/development
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow"

# Tests of whole networks, several processes and whole studies, which take seconds each
slow: .venv/development
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m slow

# The report and the service's page in headless Chromium, which is there or comes with: apt-get install chromium
pages: .venv/development
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "playwright>=1.49"
	$(BIN)/python benchmarks/search_report.py
	$(BIN)/python benchmarks/serve_page.py

# Speeds next to those of peers and of the machine's limit; one of them: make bench NAMES=checkpoint
bench: .venv/development
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-benchmarks.txt
	$(BIN)/python -m benchmarks $(NAMES)

schema: .venv/core
	$(BIN)/python train.py --schema > config/schema.json

.venv/core: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/development: requirements-dev.txt requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ .venv/core

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
