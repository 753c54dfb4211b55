# Two commands: `make report` measures and shows, `make test` proves. Both install what they need into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    := reports/out

# The CUDA extra that fits the driver, if there is one: its newest CUDA is 13 or above, or 12.
CUDA_MAJOR := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p')
EXTRA      := $(if $(CUDA_MAJOR),$(if $(filter 10 11 12,$(CUDA_MAJOR)),[cuda12],[cuda13]),)

.PHONY: report test gate check clean

report: $(VENV)/.installed
	@stamp=$$(date -u +%Y%m%dT%H%M%SZ); records=$(OUT)/records-$$stamp.jsonl; mkdir -p $(OUT); \
	$(BIN)/fluxperf run --all --workload tiny -o $$records && \
	$(BIN)/fluxperf run --all --workload tiny-57 --repeat 3 -o $$records && \
	$(BIN)/fluxperf report $$records -o $(OUT)/index.html && \
	echo "Open $(CURDIR)/$(OUT)/index.html"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadgroup

gate: $(VENV)/.installed
	@mkdir -p $(OUT)
	$(BIN)/fluxperf gate exact --json $(OUT)/gate.json --junit $(OUT)/gate.xml --sarif $(OUT)/gate.sarif \
	  $(if $(GITHUB_STEP_SUMMARY),--github)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".$(EXTRA)"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(OUT) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
