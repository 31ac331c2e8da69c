# make demo [DEFECT=NAME] [REAL=1]   judge the reference image ml-pyroot, with a planted fault if you
#                           like; REAL: with ROOT itself, 248 MB from PyPI, and g++ from Debian
# make selftest [FAST=1]    run mlcheck's own tests: twenty minutes on two cores; FAST: those
#                           that need no engine, reference image, browser or network, two minutes
# make compare              the self-tests that put the same input to a model of mlcheck's and to its
#                           consumer (ld.so, musl, Python, rattler, bash, dpkg, rpm, jupyter_client)
# make verdicts             write the record of verdicts anew, after a change of what is said
# make bench [QUICK=1]      how fast, against peers on this machine; QUICK: small sizes, a minute
# make attack [QUICK=1]     inputs that cost more than they weigh, and archives broken at random, with
#                           memory and time measured: ten minutes; QUICK: a minute
# make test/IMAGENAME [REPO=...] [TAG=...]   judge REPO/IMAGENAME:TAG, as in AAW's repository
# make docs                 the API reference, from docstrings, in build/api
# make lint                 ruff and mypy
PYTHON ?= python3
DEFECT ?=
REAL ?=
FAST ?=
QUICK ?=
REPO ?=
TAG ?= latest

# Without its byte code, pytest compiles mlcheck anew at each of a thousand starts.
unexport PYTHONDONTWRITEBYTECODE

BUILD = .venv/bin/mlcheck reference build $(if $(REAL),--real)

QUICK_ATTACK = a-layer-that-is-named-again implied-directories long-targets empty-members \
	names-for-the-loader

.PHONY: demo selftest compare verdicts bench attack docs lint venv-reference venv-dev clean

demo: venv-reference
	$(if $(REAL),,@echo "ROOT is a stand-in in this image; REAL=1 takes ROOT itself.")
	@base=$$($(BUILD) ml-base) && image=$$($(BUILD) ml-pyroot $(addprefix --defect ,$(DEFECT))) \
	&& .venv/bin/pytest --image="$$image" --base-list="$$base/list-of-pkgs-inside.txt"

# Many a self-test waits for something: two more at a time than there are cores.
SELFTESTS = .venv/bin/pytest -rfEs -n $$(($$(nproc) + 2)) --dist worksteal --durations=20 selftests

selftest: venv-dev
ifdef FAST
	UV_OFFLINE=1 $(SELFTESTS) -m "not slow and not engine"
else
	@echo "This takes about twenty minutes on two cores. What fails is named at once."
	$(SELFTESTS)
endif

compare: venv-dev
	.venv/bin/pytest -rs -n $$(nproc) -k compared selftests

verdicts: venv-dev
	rm -rf selftests/verdicts
	MLCHECK_WRITE_VERDICTS=1 .venv/bin/pytest -n auto --dist worksteal -k "conforms or caught" selftests/suite/test_defects.py

bench: venv-dev
	.venv/bin/python -m benchmarks $(if $(QUICK),--quick)

attack: venv-dev
	.venv/bin/python -m selftests.attack --seconds $(if $(QUICK),5,400) $(if $(QUICK),$(QUICK_ATTACK))

test/%: venv-reference
	@IMAGE_NAME="$(if $(REPO),$(REPO)/)$*:$(TAG)" .venv/bin/pytest

docs: venv-dev
	.venv/bin/python -m selftests.api build/api

lint: venv-dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

venv-reference:
	@$(PYTHON) scripts/set_up_venv.py reference

venv-dev:
	@$(PYTHON) scripts/set_up_venv.py dev

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
