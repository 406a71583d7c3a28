# make app   set up and start the app      make test   set up and run every test      make clean   remove the environment
# Settings: PYTHON=python3.12, ARGS="--port 7861 --data FILE", PYTEST="-k name"

# the first Python that runs and is 3.11 or 3.12 (a version manager may answer to a name it cannot run)
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
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
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: install one, or name it with make PYTHON=/path/to/python"; exit 1; }
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
