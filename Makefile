# make run     set up if needed, then `localism run-all`     make run ARGS="--run first --set mix.k=3"
# make test    set up with the test tools, then pytest       make test ARGS="tests/unit -k store"
# make check   formatting, lint, types
# make setup   the environment alone                         make setup WHEELS=/media/wheels   (no index is asked)
# make clean   remove everything that make made; runs/ stays
#
# PYTHON=python3     the interpreter that makes the environment, 3.11 or newer
# VENV=.venv         where the environment goes (about 3 GB without a GPU)
# WHEELS=DIR         install from this folder of wheels alone, with no network
# TORCH_INDEX=URL    an index that has the CPU build of torch. Needed without a GPU on ordinary PyPI, whose torch is the CUDA
#                    build: give PyTorch's own index of CPU wheels, as its install page names it
# LOCK=FILE          requirements/gpu.txt where nvidia-smi answers, else requirements/cpu.txt

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WHEELS ?=
TORCH_INDEX ?=
ifndef LOCK
LOCK := requirements/$(if $(shell nvidia-smi -L 2>/dev/null | grep GPU),gpu,cpu).txt
endif

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.PHONY: help run test check setup setup-dev clean
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# A stamp names what the environment was made from: another lock or pyproject.toml asks for another stamp.
KIND := $(basename $(notdir $(LOCK)))
checksum = $(shell cat $(1) 2>/dev/null | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/.setup-$(KIND)-$(call checksum,$(LOCK) pyproject.toml)
DEV_STAMP := $(STAMP)-dev-$(call checksum,requirements/dev.txt requirements/lm-eval.txt requirements/ray.txt)

# --no-deps: the locks are complete, and on a CPU they leave out on purpose what would break it (requirements/cpu.txt).
PIP_INSTALL = "$(VENV)/bin/python" -m pip install --no-deps --only-binary=:all: $(if $(WHEELS),--no-index --find-links "$(WHEELS)")
LOG = $(VENV)/setup.log

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

run: $(STAMP)
	@"$(VENV)/bin/localism" run-all $(ARGS)

# File by file, side by side; of the slow ones never more than two at once, since each may start an
# engine that takes 2 GB and a core.
test: $(DEV_STAMP)
	@export OMP_NUM_THREADS=1
	if [ -n '$(ARGS)' ]; then exec "$(VENV)/bin/python" -m pytest $(ARGS); fi
	failed=0
	"$(VENV)/bin/python" -m pytest -n auto --maxprocesses 4 --dist loadfile tests/unit || failed=1
	"$(VENV)/bin/python" -m pytest -n auto --maxprocesses 2 --dist loadfile --ignore tests/unit || failed=1
	exit $$failed

check: $(DEV_STAMP)
	@"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/mypy"

setup: $(STAMP)
setup-dev: $(DEV_STAMP)

$(STAMP):
	@stop() { printf 'error: %s\nwhere: %s\nfix:   %s\n' "$$1" "$$2" "$$3" >&2; exit 1; }
	# pip's own words go to the log: on a machine with several indexes they are hundreds of lines.
	pip_install() {
	  $(PIP_INSTALL) "$$@" >> "$(LOG)" 2>&1 && return
	  grep -E '^ *(ERROR|error)' "$(LOG)" | tail -n 5 >&2 || tail -n 5 "$(LOG)" >&2
	  stop "pip could not install $$*" "$(LOG)" "read its last lines; check the network, the disk, or WHEELS= and TORCH_INDEX="
	}
	[ "$$(uname -sm)" = "Linux x86_64" ] || stop "the locked set-up is for Linux x86_64" "$$(uname -sm)" "install pyproject.toml's dependencies yourself"
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || stop \
	  "localism needs Python 3.11 or newer" "$(PYTHON) is $$("$(PYTHON)" --version 2>/dev/null || echo "not there")" \
	  "name one: make setup PYTHON=python3.11"
	[ -f "$(LOCK)" ] || stop "there is no such lock" "$(LOCK)" "give requirements/cpu.txt or requirements/gpu.txt"
	[ -z "$(WHEELS)" ] || [ -d "$(WHEELS)" ] || stop "WHEELS is not a folder" "$(WHEELS)" "give the folder that holds the .whl files"
	# Never empty a folder that is not an environment.
	if [ -e "$(VENV)" ] && [ ! -e "$(VENV)/pyvenv.cfg" ] && [ -n "$$(ls -A "$(VENV)" 2>&1)" ]; then
	  stop "VENV exists and is not a virtual environment" "$(VENV)" "choose another: make setup VENV=DIR"
	fi
	# Finished once for the same kind of machine: bring it up to date. Anything else, an interrupted set-up included, starts over.
	if ls "$(VENV)"/.setup-$(KIND)-* >/dev/null 2>&1; then
	  echo "setup: bringing $(VENV) up to date with $(LOCK)"
	  rm -f "$(VENV)"/.setup-*
	else
	  echo "setup: $(VENV) from $(LOCK); about 3 GB, some minutes (to watch: tail -f $(LOG))"
	  # pyvenv.cfg stays throughout (`venv --clear` would drop it), so that a set-up cut short here is still seen as ours.
	  mkdir -p "$(VENV)"
	  touch "$(VENV)/pyvenv.cfg"
	  find "$(VENV)" -mindepth 1 -maxdepth 1 ! -name pyvenv.cfg -exec rm -rf {} +
	  "$(PYTHON)" -m venv "$(VENV)" || stop "no virtual environment could be made" "$(VENV)" \
	    "on Debian and Ubuntu: apt-get install python3-venv"
	fi
	: > "$(LOG)"
	# torch first and alone: only torch may come from TORCH_INDEX, and a wrong build is found before the other 2 GB.
	pip_install "$$(grep '^torch==' "$(LOCK)")" $(if $(and $(TORCH_INDEX),$(filter cpu,$(KIND))),--extra-index-url "$(TORCH_INDEX)")
	if [ $(KIND) = cpu ] && grep -qiE '^Requires-Dist: (nvidia|cuda)' "$(VENV)"/lib/python*/site-packages/torch-*.dist-info/METADATA; then
	  stop "this is the CUDA build of torch, and nvidia-smi finds no GPU here" "$(VENV), $(LOCK)" \
	    "make setup TORCH_INDEX=(PyTorch's index of CPU wheels, see its install page), or put the +cpu wheel into WHEELS=DIR"
	fi
	pip_install -r "$(LOCK)"
	pip_install --no-build-isolation -e .
	"$(VENV)/bin/python" -c 'import torch' 2>> "$(LOG)" || stop "torch was installed and does not import: $$(tail -n 1 "$(LOG)")" \
	  "$(LOG)" "check that $(LOCK) suits this machine, or name another: make setup LOCK=requirements/cpu.txt"
	touch "$@"
	echo "setup: done"

$(DEV_STAMP): $(STAMP)
	@$(PIP_INSTALL) -r requirements/dev.txt -r requirements/lm-eval.txt -r requirements/ray.txt >> "$(LOG)" 2>&1 || {
	  tail -n 5 "$(LOG)" >&2
	  printf 'error: %s\nwhere: %s\nfix:   %s\n' "the test tools were not installed" "$(LOG)" "read its last lines" >&2
	  exit 1
	}
	touch "$@"

clean:
	@[ ! -e "$(VENV)/pyvenv.cfg" ] || rm -rf "$(VENV)"
	rm -rf build dist .ruff_cache .mypy_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
