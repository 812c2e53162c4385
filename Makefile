# Two commands do all the set-up on a machine with Python and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO := --symbol DEMOUSDT --day 20250101

.PHONY: demo test lint format bench docs clean

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

demo: $(INSTALLED)  ## a recording over loopback, then a seeded two-hour market, walked forward, with a report to open
	$(BIN)/mmlab serve --symbol LOOPUSDT --seed 7 --speed 30 --port 9417 & server=$$!; \
	$(BIN)/mmlab record --symbol LOOPUSDT --window always --duration-s 10 --min-free-mb 100 \
		--ws-url ws://127.0.0.1:9417 --rest-url http://127.0.0.1:9417; \
	status=$$?; kill $$server; wait $$server; exit $$status
	$(BIN)/mmlab check --symbol LOOPUSDT
	$(BIN)/mmlab synth $(DEMO) --hours 2 --seed 7 --replace
	$(BIN)/mmlab walkforward $(DEMO) --train-window-min 30 --step-min 5 --fit-method nested_mle --maker-fee 0 --qty 0.01 --report

test: $(INSTALLED)  ## everything that CI checks
	$(BIN)/python tests/warm.py & warm=$$!; $(MAKE) lint; status=$$?; wait $$warm && exit $$status
	$(BIN)/python -m pytest -n 3 --dist worksteal  # of which many wait for sockets and clocks

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## measure, and rewrite the tables of benchmarks/README.md
	$(BIN)/python -m benchmarks

docs: $(INSTALLED)  ## rewrite docs/tables.md from the table contracts
	$(BIN)/mmlab tables --markdown > docs/tables.md

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
