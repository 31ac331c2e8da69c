# make demo [DEFECT=NAME]   judge the reference image ml-pyroot, with a planted fault if you like
# make selftest             run mlcheck's own tests: about an hour on two cores
# make bench [QUICK=1]      how fast, against peers on this machine; QUICK: small sizes, a minute
# make test/IMAGENAME [REPO=...] [TAG=...]   judge REPO/IMAGENAME:TAG, as in AAW's repository
# make docs                 the API reference, from docstrings, in build/api
# make lint                 ruff and mypy
PYTHON ?= python3
DEFECT ?=
QUICK ?=
REPO ?=
TAG ?= latest

.PHONY: demo selftest bench docs lint venv-reference venv-dev clean

demo: venv-reference
	@image=$(if $(DEFECT),"$$(.venv/bin/mlcheck reference build ml-pyroot $(addprefix --defect ,$(DEFECT)))",reference:ml-pyroot) \
	&& .venv/bin/pytest --image="$$image"

selftest: venv-dev
	@echo "This takes about an hour on two cores. What fails is named at once."
	.venv/bin/pytest -rfEs -n auto --dist worksteal --durations=20 selftests

bench: venv-dev
	.venv/bin/python -m benchmarks $(if $(QUICK),--quick)

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
