# make app   set up and start the app      make test   set up and run every test      make clean   remove the environment
# Settings: PYTHON=python3.12, ARGS="--port 7861 --data FILE", PYTEST="-k name"

PYTHON ?= $(shell command -v python3.12 || command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
ARGS ?=
PYTEST ?=

.PHONY: app test clean
app: $(VENV)/.app
	$(BIN)/python app.py $(ARGS)

test: $(VENV)/.test
	bash tests/install_chromium.sh
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(PYTEST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12" if sys.version_info[:2] not in ((3, 11), (3, 12)) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.app: requirements.txt constraints.txt | $(BIN)/python
	@echo "Installing the packages (a few minutes the first time) ..."
	$(PIP) -c constraints.txt torch
	$(PIP) -r requirements.txt -c constraints.txt
	@touch $@

$(VENV)/.test: requirements-test.txt $(VENV)/.app
	$(PIP) -r requirements-test.txt -c constraints.txt
	@touch $@

clean:
	rm -rf $(VENV)
