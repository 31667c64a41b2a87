# Each target works by itself on a fresh machine: it makes the environment it needs first.
PY = .venv/bin/python

.PHONY: help demo test check format bench soak docs clean lock

help:
	@echo "make demo    run the whole idea on this machine: jobs in, workers up, results, workers gone"
	@echo "make test    all tests (NAME=expr picks some)"
	@echo "make check   format, lint, types, import rules"
	@echo "make bench   measurements, side by side (NAME=... picks one)"
	@echo "make soak    the long sweeps"

demo:
	@tools/venv app
	@$(PY) -m tools.demo

test:
	@tools/venv dev
	@$(PY) tools/system_packages.py
	@$(PY) -m pytest $(if $(NAME),-k "$(NAME)",-n 3 --dist worksteal) $(ARGS)

check:
	@tools/venv dev
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) -m pytest -q tests/architecture

format:
	@tools/venv dev
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench:
	@tools/venv bench
	@$(PY) tools/system_packages.py
	@$(PY) -m tools.bench $(if $(NAME),--name "$(NAME)")

soak:
	@tools/venv dev
	@$(PY) -m pytest -m soak $(if $(NAME),-k "$(NAME)") $(ARGS)

lock:
	@tools/lock

clean:
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache *.egg-info
