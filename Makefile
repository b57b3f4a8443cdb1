# The Pruning Book. `make help` lists what there is.
# Three environments: .venv-pages renders the book, without torch; .venv has everything; .venv-colab has the versions
# of Colab. They are made from requirements.txt, pyproject.toml and tests/colab.txt, and again when these change.

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c \
	'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && echo $(p))))
COLAB_PYTHON ?= $(or $(shell python3.13 -c '' 2>/dev/null && echo python3.13),$(PYTHON))
BIN := .venv/bin
READY := .venv/ready
PAGES := .venv-pages/ready
COLAB := .venv-colab/ready
PAGES_LIST = $$($(PYTHON) -c 'import tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["pages"])')
JOBS ?= 2
PIP := -m pip --disable-pip-version-check install --quiet
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help book test check lab notebooks handout serve lint bench colab links address release clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# $(call make_environment,python,how long), in the recipe of FOLDER/ready, makes FOLDER
define make_environment
	@test -n "$(1)" || { echo "No Python 3.11 to 3.13 found. Install one, or: make PYTHON=/path/to/python"; exit 1; }
	@echo "Setting up $(@D) with $$($(1) --version): once, $(2)."
	@$(1) -m venv --clear $(@D) || { echo "Python's venv is missing. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
endef

$(PAGES): requirements.txt pyproject.toml
	$(call make_environment,$(PYTHON),less than a minute)
	@grep -v '^-e' requirements.txt > $(@D)/pins.txt
	@$(@D)/bin/python $(PIP) --no-compile --constraint $(@D)/pins.txt $(PAGES_LIST)
	@touch $@

$(READY): requirements.txt pyproject.toml
	$(call make_environment,$(PYTHON),some minutes)
	@$(@D)/bin/python $(PIP) --requirement requirements.txt
	@touch $@

$(COLAB): tests/colab.txt pyproject.toml
	$(call make_environment,$(COLAB_PYTHON),many minutes)
	@$(@D)/bin/python $(PIP) --constraint tests/colab.txt --editable ".[book]" ipykernel nbclient
	@touch $@

book: $(PAGES) ## build the book into _build/html from the stored outputs
	@.venv-pages/bin/jupyter-book build --quiet --warningiserror --keep-going . >/dev/null
	@echo "The book is built. Open this file in a browser: $(CURDIR)/_build/html/index.html"

test: $(READY) lint ## run everything: lint, unit tests, every notebook, the strict build, the pages in a browser
	@$(PYTEST)

check: $(READY) lint ## run lint, types and every test that takes at most some seconds
	@$(PYTEST) -m "not slow"

lab: $(READY) ## open the book in JupyterLab, with live sliders
	@JUPYTER_CONFIG_PATH=book/tools/jupyter $(BIN)/jupyter lab --notebook-dir=book --LabApp.default_url=/lab/workspaces/book/tree/intro.md

notebooks: $(READY) ## run every chapter again and store its outputs; only some: NAMES="dense"
	@$(BIN)/python book/tools/notebooks.py --jobs $(JOBS) $(NAMES)

handout: $(READY) ## write the chapters without their solutions into _build/handout
	@$(BIN)/python book/tools/handout.py

serve: book ## build the book and serve it on http://localhost:8000
	@$(PYTHON) -m http.server --bind localhost --directory _build/html 8000

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy --no-error-summary

bench: $(READY) ## measure costs as ratios on this machine
	@for file in tests/benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

colab: $(COLAB) ## run the chapters, quick, with the versions of Google Colab (downloads gigabytes)
	@PRUNEBOOK_QUICK=1 .venv-colab/bin/python book/tools/notebooks.py --jobs $(JOBS) --check $(NAMES)

links: $(PAGES) ## check the links that lead out of the book (needs a network)
	@.venv-pages/bin/jupyter-book build --quiet --builder linkcheck .

address: ## set the public address everywhere: that of the git remote, or URL=https://github.com/owner/name
	@$(PYTHON) book/tools/address.py $(URL)

release: test book ## check that everything is ready to be published
	@$(PYTHON) book/tools/address.py --settled

clean: ## remove what was built (the environments stay)
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
