# Two commands a newcomer needs: `make demo` and `make test`. Nothing has to be set up before; Python 3.11+ is enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check format clean

demo: $(INSTALLED) ## run (or go on with) the main job, print the result table, name the report page
	@if [ -f runs/demo/config.toml ] && [ ! -f runs/demo/summary.json ]; then \
		HF_HUB_OFFLINE=1 $(BIN)/airtune run airllm --out runs/demo --resume; \
	else \
		if [ -d runs/demo ]; then echo "Replacing the finished run in runs/demo."; rm -rf runs/demo; fi; \
		HF_HUB_OFFLINE=1 $(BIN)/airtune run airllm --preset demo --out runs/demo; \
	fi

test: $(INSTALLED) ## run the tests
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

check: $(INSTALLED) ## lint, types, room boundaries
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

format: $(INSTALLED) ## bring the code into shape
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

clean: ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache

# constraints.txt pins every package; pip takes the CPU build of torch where one is at hand.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "airtune needs Python 3.11 or newer; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,demo,dev]'
	touch $@
