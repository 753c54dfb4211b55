# Two commands: `make report` measures and shows, `make test` proves. Both install what they need into .venv.
# `make renew` draws again what is committed from the records in reports/records: README, docs, sample, pictures.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    := reports/out
# Python compiles what it imports; all of PyTorch and its friends at once takes longer than the rest of installing.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

# The CUDA extra that fits the driver, if there is one: its newest CUDA is 13 or above, or 12.
CUDA_MAJOR := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p')
STACK      := $(if $(CUDA_MAJOR),$(if $(filter 10 11 12,$(CUDA_MAJOR)),cuda12,cuda13),)
EXTRA      := $(if $(STACK),[$(STACK)],)
# Without a GPU the compiler alone. The release of PyTorch in `dev` is for CUDA 13.
DEV_cuda12 := .[cuda12,pipeline,tools]
DEV_cuda13 := .[cuda13,dev]
DEV_       := .[nvrtc,dev]
DEV        := "$(DEV_$(STACK))"

# Where Python is told to keep nothing that it compiled, as container images often tell it, it keeps it apart: pip compiles
# nothing here, and each of the many processes would compile all that it imports, PyTorch for 20 seconds.
ifneq ($(PYTHONDONTWRITEBYTECODE),)
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/bytecode
endif

.PHONY: report evidence renew drawn sample picture test break test-numbers test-core test-sums golden gate check docs asv extras install clean

report: $(VENV)/.installed
	@stamp=$$(date -u +%Y%m%dT%H%M%SZ); records=$(OUT)/records-$$stamp.jsonl; mkdir -p $(OUT); \
	$(BIN)/fluxperf run --all --workload tiny -o $$records && \
	$(BIN)/fluxperf run --all --workload tiny-57 --repeat 3 -o $$records && \
	$(BIN)/fluxperf report $$records --sample reports/sample --timeline reports/sample/$(notdir $(CAPTURE)) \
	  -o $(OUT)/index.html && \
	echo "Open $(CURDIR)/$(OUT)/index.html"

# All that a page of evidence needs, of this commit: of a GPU in $(BUDGET) seconds, again until nothing is missing; else of
# host twins.
EVIDENCE := $(OUT)/evidence
SUITE    := $(if $(STACK),headline,tiny)

evidence: $(VENV)/.installed
	$(BIN)/fluxperf evidence $(SUITE) -o $(EVIDENCE) $(if $(BUDGET),--budget $(BUDGET))
	$(BIN)/fluxperf report $(EVIDENCE) -o $(OUT)/evidence.html

# What README, docs, sample and pictures show: a folder of `fluxperf evidence headline` and nothing else. It lacks no
# process but those of the parts in LACKING, which the pages name.
SHOWN   := reports/records/evidence-h200
LACKING :=

# One command after records were added or SHOWN was changed; in this order, also with -j.
.NOTPARALLEL:
renew: drawn sample golden picture

drawn: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.results $(SHOWN) $(LACKING:%=--without %)

# A whole ladder of one card, to be seen beside what a machine without a GPU measures: the records as they are.
SAMPLE  := $(wildcard $(SHOWN)/*.jsonl $(SHOWN)/*.json)
CAPTURE := tests/timeline/exports/h100-schnell-1024-fused.sqlite

sample: drawn
	@mkdir -p reports/sample && rm -f reports/sample/*.jsonl reports/sample/*.json reports/sample/*.sqlite
	@cp $(SAMPLE) $(CAPTURE) reports/sample/
	@ls -l reports/sample

# The pictures of README and docs: the ladder, the course over commits, and the first screen of the page, by Debian's chromium.
picture: $(VENV)/.installed
	$(BIN)/fluxperf report reports/sample -o $(OUT)/sample.html --chart reports/ladder.svg
	$(BIN)/fluxperf report reports/records/host-tiny-57.jsonl --sample reports/sample -o $(OUT)/page.html
	$(BIN)/fluxperf history reports/records --committed --chart reports/course.svg
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1200,945 --screenshot=reports/page.png \
	  file://$(CURDIR)/$(OUT)/page.html
	-$(BIN)/python -c "from PIL import Image; page = Image.open('reports/page.png').convert('RGB'); \
	  page.quantize(64).save('reports/page.png', optimize=True)"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadgroup

# What touches numbers once more, as other machines round: with another core type of OpenBLAS (x86-64 only; others take
# no notice), and with products that are summed in an order of their sizes.
NUMBERS := tests/model/test_forward_float64.py tests/model/test_hoisting.py tests/quality/test_figures.py \
             tests/cli/test_gate.py::test_another_implementation_is_named_by_its_row
BITS    := tests/model/test_memory_mode.py tests/model/test_replays.py

test-numbers: test-core test-sums

test-core: $(VENV)/.installed-dev
	OPENBLAS_CORETYPE=$(or $(CORETYPE),Sandybridge) $(BIN)/python -m pytest -q $(NUMBERS)

test-sums: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -p tests.another_blas $(BITS)

# What the faces of one small study say, and tables of records in the docs, after a change that is meant; the diff shows it.
golden: $(VENV)/.installed-dev
	FLUXPERF_RENEW_GOLDEN=1 $(BIN)/python -m pytest -q tests/report/test_golden.py tests/contracts/test_readme.py
	git diff --stat tests/report/golden README.md docs

# Everything that breaks things on purpose, with more inputs than `make test` has; a line for each kind says what came.
break: $(VENV)/.installed-dev
	FLUXPERF_BREAK=$(or $(INPUTS),5000) $(BIN)/python -m pytest -rP -q tests/breaking

gate: $(VENV)/.installed
	@mkdir -p $(OUT)
	$(BIN)/fluxperf gate exact --json $(OUT)/gate.json --junit $(OUT)/gate.xml --sarif $(OUT)/gate.sarif \
	  $(if $(GITHUB_STEP_SUMMARY),--github)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The public API as pages, from docstrings; a link that leads nowhere fails.
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/api/build.py $(OUT)/api

# The suite is sound and every benchmark runs, at some of its parameters; nothing is kept. asv writes what it knows of
# machines into the home folder: here another one.
asv: $(VENV)/.installed-dev
	@mkdir -p .asv && HOME=$(CURDIR)/.asv $(BIN)/asv machine --yes >/dev/null
	HOME=$(CURDIR)/.asv $(BIN)/asv check -E existing:$(BIN)/python
	HOME=$(CURDIR)/.asv OPENBLAS_NUM_THREADS=1 FLUXPERF_ASV_SAMPLES=2 $(BIN)/asv run --quick -E existing:$(BIN)/python \
	  --bench "Ops.*(modulate|attention)', 'tiny', 'fused'|double.*fused.*tiny'|Model.*fused', 'tiny'|startup.*fluxperf|error.*fused|transfers.*fused"

# Every extra and combination fits together, with the releases of the day; those without PyTorch are installed and
# imported. It asks the package index, and needs Python 3.11, 3.12 and 3.13 on PATH.
extras: $(VENV)/.installed
	$(BIN)/python -m benchmarks.extras

# All that these targets need.
install: $(VENV)/.installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable ".$(EXTRA)"
	touch $@

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable ".[docs]"
	touch $@

# Everything at once: what `report`, `gate` and `docs` need is among it.
$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable $(DEV)
	touch $(VENV)/.installed $(VENV)/.installed-docs $@

clean:
	rm -rf $(VENV) $(OUT) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
