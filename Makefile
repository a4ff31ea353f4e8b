# One command each. A stamp in .venv skips what is done; delete .venv to start anew.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

PACKAGES := chromium bubblewrap libseccomp2

EXTENSION := syft_lab/labextension/static/style.js
SOURCES := $(shell find labextension/src labextension/style labextension/schema labextension/package.json -type f)

.PHONY: demo lab test check bench peers pictures packages clean
.DELETE_ON_ERROR:

demo: $(EXTENSION)
	$(BIN)/python examples/demo.py

lab: $(EXTENSION)
	$(BIN)/python examples/lab.py $(ARGS)

test: $(EXTENSION)
	$(BIN)/python -m pytest -n 3

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pictures in docs/days.md, anew.
pictures: $(EXTENSION)
	$(BIN)/python -m pytest tests/ui/test_workbench.py
	for p in docs/images/days/*.png; do cp demo-output/screenshots/`basename $$p` $$p; done

bench: $(EXTENSION)
	$(BIN)/python -m benchmarks $(ARGS)

# What the benchmarks of secure computation are compared with; an environment of its own, for SPU wants numpy 1.
peers:
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 spu==0.9.5
	.peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps crypten==0.4.1
	.peers/bin/python -m pip install --quiet --disable-pip-version-check omegaconf 'onnx<2' 'pandas<2.3' 'scipy<1.14' scikit-learn future

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Syft Lab needs Python 3.11 or newer; found `$(PYTHON) --version`. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python lacks the venv module: on Debian and Ubuntu, install it with: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[tensors,fast,code,lab,qr,demo,test,dev]'
	@rm -rf .venv/share/jupyter/labextensions/syft-lab && ln -s ../../../../syft_lab/labextension .venv/share/jupyter/labextensions/syft-lab
	@touch $(EXTENSION) $@

# The installation above builds the workbench; this builds it again where its sources changed.
$(EXTENSION): $(STAMP) $(SOURCES)
	cd labextension && PATH="$(abspath $(BIN)):$$PATH" jlpm install && PATH="$(abspath $(BIN)):$$PATH" jlpm build
	@touch $@

# Debian packages: Chromium for the browser tests, bubblewrap for the strongest isolation. Without them those tests are skipped.
packages:
	@missing=""; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then :; \
	elif [ "`id -u`" = 0 ]; then apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; \
	else echo "For all tests, install as root:$$missing"; fi

clean:
	rm -rf .venv .peers syft_lab/labextension labextension/lib labextension/node_modules demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
