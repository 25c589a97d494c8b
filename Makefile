# A bare machine needs Python >= 3.10, make and a package index.
#   make demo   caption the sample photographs with the shipped weights; installs no torch
#   make app    open the page in the browser; installs no torch
#   make test   check everything; installs everything
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable
INPUTS := pyproject.toml requirements.lock

.PHONY: demo app test check clean

demo: .venv/demo.done
	@$(BIN)/captioner caption data/samples --log-prob

app: .venv/app.done
	@$(BIN)/python app.py

test: .venv/test.done check
	@command -v chromium >/dev/null || echo "browser tests are skipped; to run them: apt-get install chromium"
	@command -v exiftool >/dev/null || echo "exiftool tests are skipped; to run them: apt-get install libimage-exiftool-perl"
	@test -f node_modules/axe-core/axe.min.js || echo "accessibility tests are skipped; to run them: npm install --no-save axe-core@4.14.1"
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest --numprocesses auto --cov --cov-report=term:skip-covered

check: .venv/test.done
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Each target installs what it needs once; a change of the dependencies installs again.
.venv/demo.done: .venv/bin/python $(INPUTS)
	$(INSTALL) .
	@touch $@

.venv/app.done: .venv/bin/python $(INPUTS)
	$(INSTALL) '.[app]'
	@touch $@

.venv/test.done: .venv/bin/python $(INPUTS)
	$(INSTALL) '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
