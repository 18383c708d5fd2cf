# Two commands do everything on a fresh machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin
# How many processes share the ordinary suite; each takes 1.5 GB.
WORKERS ?= 2

.PHONY: demo server test long lint clean

demo: $(VENV)/installed  ## the six rounds on the embedded demo, with their report
	$(RUN)/listflow run

server: $(VENV)/installed  ## a Prefect server for this machine, behind a password
	$(RUN)/listflow server

test: $(VENV)/installed  ## the whole ordinary suite, no network needed; files stay whole, as they share what is costly
	$(RUN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

long: $(VENV)/installed  ## the proofs that take minutes
	$(RUN)/python -m pytest -m long

lint: $(VENV)/installed
	$(RUN)/ruff check .
	$(RUN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
