# Two commands do everything:   make demo   and   make test
# Variables: PYTHON (>= 3.10), VENV, DATA (a collection with midi.csv and midi.tar.xz, for `make styles` and the tests that need music),
#            TORCH_INDEX (an index with another build of torch; empty for pip's own choice), PYTEST_ARGS.

SHELL := /bin/bash
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= $(or $(STYLESTREAM_DATA),$(wildcard ../shared/data))
PYTEST_ARGS ?=
WORK ?= build/styles
PICTURE ?= strings

export PYTHON VENV TORCH_INDEX

.PHONY: help demo test lint format styles quality picture bench wheel clean
help:
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.core  ## play the bundled song in every bundled style: demo/STYLE.wav and demo/STYLE.png
	$(BIN)/stylestream demo -o demo --force

test: $(VENV)/.dev  ## everything the tests need, then the tests
	@tools/system-packages
	OMP_NUM_THREADS=1 STYLESTREAM_DATA='$(abspath $(DATA))' $(BIN)/python -m pytest $(PYTEST_ARGS)

# of scripts only what would break them: names that are not there
LOOSE = arg-type assignment call-arg call-overload dict-item import-not-found index misc operator override return-value union-attr var-annotated
lint: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-defs --disable-error-code=arg-type --disable-error-code=union-attr --no-warn-unused-ignores tests
	$(BIN)/mypy --allow-untyped-defs $(addprefix --disable-error-code=,$(LOOSE)) --no-warn-unused-ignores benchmarks tools/*.py

format: $(VENV)/.dev  ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

styles: $(VENV)/.dev  ## retrain all bundled styles from the collection at DATA
	@test -n '$(DATA)' || { echo "make styles DATA=FOLDER   (a folder with midi.csv and midi.tar.xz; see docs/data.md)"; exit 2; }
	@tools/system-packages
	$(BIN)/python tools/make_styles.py all --data '$(DATA)' --work '$(WORK)'

quality: $(VENV)/.dev  ## measure the bundled styles on held-out pieces of DATA; writes report/, README.md, docs/quality.md, docs/sound.md's pictures, the cards
	@test -n '$(DATA)' || { echo "make quality DATA=FOLDER   (a folder with midi.csv and midi.tar.xz; see docs/data.md)"; exit 2; }
	@tools/system-packages
	$(BIN)/stylestream evaluate '$(DATA)' $(patsubst stylestream/styles/%.safetensors,-s %,$(wildcard stylestream/styles/*.safetensors)) \
		$(addprefix --baselines ,$(wildcard benchmarks/baselines)) -o report --card --force
	$(BIN)/python tools/fill README.md quality report/summary.md
	$(BIN)/python tools/fill docs/quality.md quality report/report.md
	$(BIN)/python tools/pictures report docs/images > report/pictures.md
	$(BIN)/python tools/fill docs/sound.md pictures report/pictures.md

picture: demo  ## the README's picture, of what make demo just drew
	mkdir -p docs/images
	$(BIN)/python -c "from PIL import Image; Image.open('demo/$(PICTURE).png').convert('RGB').quantize(48).save('docs/images/lamplight-$(PICTURE).png', optimize=True)"

bench: $(VENV)/.dev  ## measure speed and memory; writes docs/benchmarks.md
	$(BIN)/python benchmarks/speed.py --out docs/benchmarks.md

wheel: $(VENV)/.dev  ## build dist/*.whl and dist/*.tar.gz
	$(BIN)/python -m build

clean:  ## remove what make made, the virtual environment included
	rm -rf '$(VENV)' build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.core: pyproject.toml constraints.txt tools/setup
	@tools/setup core

$(VENV)/.dev: pyproject.toml constraints.txt tools/setup
	@tools/setup dev
