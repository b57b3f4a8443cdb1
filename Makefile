# The Pruning Book. `make help` lists what there is.
# Everything runs in .venv, which is made from requirements.txt and made again when that file changes.

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python3.10,$(shell $(p) -c \
	'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && echo $(p))))
BIN := .venv/bin
READY := .venv/ready
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help book test lab notebooks serve lint bench links address release clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.13 found. Install one, or: make PYTHON=/path/to/python"; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version): once, some minutes."
	@$(PYTHON) -m venv --clear .venv || { echo "Python's venv is missing. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

book: $(READY) ## build the book into _build/html from the stored outputs
	@$(BIN)/jupyter-book build --quiet --warningiserror --keep-going . >/dev/null
	@echo "The book is built. Open this file in a browser: $(CURDIR)/_build/html/index.html"

test: $(READY) lint ## run everything: lint, unit tests, every notebook, the strict build, the pages in a browser
	@$(BIN)/python -m pytest

lab: $(READY) ## open the chapters in JupyterLab, with live sliders
	@$(BIN)/jupyter lab book

notebooks: $(READY) ## run every chapter again and store its outputs; only some: NAMES="dense"
	@$(BIN)/python book/tools/notebooks.py $(NAMES)

serve: book ## build the book and serve it on http://localhost:8000
	@$(BIN)/python -m http.server --bind localhost --directory _build/html 8000

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy --no-error-summary

bench: $(READY) ## measure costs as ratios on this machine
	@for file in tests/benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

links: $(READY) ## check the links that lead out of the book (needs a network)
	@$(BIN)/jupyter-book build --quiet --builder linkcheck .

address: $(READY) ## show the public address, or change it everywhere: URL=https://github.com/owner/name
	@$(BIN)/python book/tools/address.py $(URL)

release: test book ## check that everything is ready to be published
	@$(BIN)/python book/tools/address.py --settled

clean: ## remove what was built (the .venv stays)
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
