# `make report` and `make test` are all one needs; `make help` lists the rest.

VENV    ?= .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.vmstate-tools
# The first Python that is new enough and can make virtual environments. PYTHON=… overrides.
PYTHON  ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

NOTEBOOKS := $(wildcard notebooks/*.ipynb)
PAGES     := $(NOTEBOOKS:notebooks/%.ipynb=reports/notebooks/%.html)
SOURCES   := $(shell find vmstate_tools data -type f -not -name '*.pyc')
# Times of execution would make every run a change; a widget's state would stand in the place of its still picture.
NBCONVERT := $(BIN)/jupyter nbconvert --log-level=WARN --ExecutePreprocessor.timeout=600 --ExecutePreprocessor.record_timing=False \
	--ExecutePreprocessor.store_widget_state=False

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help report docs test fuzz lab lint notebooks wheel bench clean

help:  ## say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

report: $(PAGES) reports/report.html reports/pseries-2016.html  ## execute the notebooks and write the reports, all under reports/
	@echo "Reports:"
	@for f in $(abspath reports/report.html reports/report.txt reports/pseries-2016.html reports/pseries-2016.txt $(PAGES)); do echo "  $$f"; done

docs: $(READY)  ## build the documentation into site/; any warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "$(abspath site/index.html)"

test: $(READY)  ## run the tests; with CI=true also on the larger collection of captures, where there is one
	@$(BIN)/python -m pytest -n auto $(if $(CI),-m "" --formats)

fuzz: $(READY)  ## read 2,000 mutated inputs under limits of time and memory; COUNT=… for more
	$(BIN)/python -m fuzz.stress --count $(or $(COUNT),2000) --workers $(shell nproc)

lab: $(READY)  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

lint: $(READY)  ## ruff, mypy, and the layers of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check vmstate_tools notebooks/course tests benchmarks fuzz
	$(BIN)/mypy
	$(BIN)/lint-imports

notebooks: $(READY)  ## execute the notebooks in place, to commit them
	$(if $(NOTEBOOKS),$(NBCONVERT) --execute --inplace --to notebook $(NOTEBOOKS),@echo "there are no notebooks")

bench: $(READY)  ## measure, beside cat, cp and others, into reports/bench.json; CAPTURES=DIR: a folder of streams
	$(BIN)/python -m benchmarks $(or $(CAPTURES),data/streams)

wheel: $(READY)  ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove what was built; the virtual environment stays
	rm -rf reports site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find vmstate_tools tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The text lies beside the page.
reports/report.html: $(READY) $(SOURCES)
	@mkdir -p $(@D)
	$(BIN)/vmstate report data/streams -o $@ -o $(@:.html=.txt) --force

reports/pseries-2016.html: $(READY) $(SOURCES)
	@mkdir -p $(@D)
	$(BIN)/vmstate report --case pseries-2016 -o $@ -o $(@:.html=.txt) --force

# Executed beside the data, written elsewhere: the committed notebooks stay as they are.
reports/notebooks/%.html: notebooks/%.ipynb $(READY) $(SOURCES)
	@mkdir -p $(@D)
	$(NBCONVERT) --execute --to notebook --output-dir $(@D) $<
	$(NBCONVERT) --to html --output-dir $(@D) $(@D)/$*.ipynb
	@# Links between notebooks lead to pages; others lead from here to the checkout.
	@sed -E 's#href="([0-9][^"/]*)\.ipynb#href="\1.html#g; s#href="(\.\./|solutions/)#href="../../notebooks/\1#g' $@ > $@.new && mv $@.new $@

# An environment that is already there is used, never replaced. Nothing is installed again until pyproject.toml changes.
$(READY): pyproject.toml
	@if [ ! -e $(VENV) ] && [ ! -L $(VENV) ]; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "No Python 3.11 or newer with venv found. Install one (Debian: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "Making $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv $(VENV) || exit 1; \
	fi
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(VENV) is not a working environment of Python 3.11 or newer. Move it away, or use another: make VENV=/path/to/venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@echo "Installing the project and its tools into $(VENV)"
	@# Dependency groups need pip 25.1.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@# So that the first command is as quick as the second.
	@$(BIN)/python -m compileall -q vmstate_tools
	@touch $@
