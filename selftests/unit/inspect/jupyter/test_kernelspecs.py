"""Kernelspecs: the directories, the shape of kernel.json, and what Jupyter says."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from mlcheck.engines.base import PLAINLY
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.jupyter import kernelspecs
from mlcheck.inspect.jupyter.facts import Kernelspecs
from mlcheck.inspect.probe_catalog import to_json
from mlcheck.model.environment import Environment
from selftests.images import opened, script, write
from selftests.reference_fixtures import reference_image  # noqa: F401

KERNELS = "opt/conda/share/jupyter/kernels"
GOOD = {
    "argv": ["python3-nohome", "-s", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "ML-Python3",
    "language": "python",
    "metadata": {"debugger": True},
}


@pytest.fixture
def root(tiny_rootfs: Path, tmp_path: Path) -> Path:
    """An image of our own with the environment of the ML images."""
    root = Path(shutil.copytree(tiny_rootfs, tmp_path / "image", symlinks=True))
    write(
        root,
        ".singularity.d/env/10-docker2singularity.sh",
        "export PATH='/opt/conda/bin:/usr/bin:/bin'\n"
        "export CONDA_PREFIX='/opt/conda'\n"
        "export JUPYTER_PATH='/opt/conda/share/jupyter'\n",
    )
    return root


def probe(root: Path) -> Kernelspecs:
    with opened(root) as image:
        return kernelspecs.probe(image, PLAINLY)


def test_a_good_kernelspec(root: Path) -> None:
    write(root, f"{KERNELS}/python3/kernel.json", json.dumps(GOOD))
    script(root, "opt/conda/bin/python3-nohome", "true")
    (root / KERNELS / "no-kernel").mkdir()
    found = probe(root)
    (spec,) = found.specs
    assert spec.name == "python3"
    assert spec.path == f"/{KERNELS}/python3/kernel.json"
    assert list(spec.argv) == GOOD["argv"]
    assert (spec.display_name, spec.language) == ("ML-Python3", "python")
    assert spec.metadata == {"debugger": True}
    assert spec.env == {}
    assert spec.argv0 == "/opt/conda/bin/python3-nohome"
    assert not found.problems


def test_directories_in_jupyters_order_each_once(root: Path) -> None:
    (root / "home/ann").mkdir(parents=True)
    found = probe(root)
    assert found.searched[0] == f"/{KERNELS}"
    assert found.searched.count(f"/{KERNELS}") == 1
    for directory in ("/root/.local/share", "/home/ann/.local/share", "/usr/local/share"):
        assert f"{directory}/jupyter/kernels" in found.searched
    assert found.searched.index("/usr/local/share/jupyter/kernels") < found.searched.index(
        "/usr/share/jupyter/kernels"
    )


def test_kernels_of_user_and_system_are_found(root: Path) -> None:
    for top in ("root/.local/share", "home/ann/.local/share", "usr/share", "usr/local/share"):
        write(root, f"{top}/jupyter/kernels/{top.replace('/', '-')}/kernel.json", json.dumps(GOOD))
    assert len(probe(root).specs) == 4


@pytest.mark.parametrize(
    ("argv0", "expected"),
    [
        ("env", "/usr/bin/env"),
        ("/bin/env", "/bin/env"),
        ("absent", None),
        ("/absent", None),
        ("bin/env", None),
        ("plain", None),
        ("out", None),
        ("", None),
        ("a\0b", None),
    ],
)
def test_first_word_on_the_images_path(root: Path, argv0: str, expected: str | None) -> None:
    write(root, "opt/conda/bin/plain", "not executable")
    (root / "opt/conda/bin/out").symlink_to(shutil.which("git") or "/usr/bin/perl")
    write(root, f"{KERNELS}/x/kernel.json", json.dumps({**GOOD, "argv": [argv0]}))
    assert probe(root).specs[0].argv0 == expected


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"argv": None}, "$.argv"),
        ({"argv": []}, "$.argv"),
        ({"argv": "python3"}, "$.argv"),
        ({"argv": ["python3", 5]}, "$.argv[1]"),
        ({"display_name": 1}, "$.display_name"),
        ({"language": None}, "$.language"),
        ({"metadata": []}, "$.metadata"),
        ({"env": ["A=1"]}, "$.env"),
        ({"env": {"A": 1}}, "$.env['A']"),
        ({"interrupt_mode": "never"}, "$.interrupt_mode"),
    ],
)
def test_wrong_shapes_name_the_place(root: Path, change: dict[str, object], where: str) -> None:
    write(root, f"{KERNELS}/x/kernel.json", json.dumps({**GOOD, **change}))
    write(root, f"{KERNELS}/y/kernel.json", json.dumps(GOOD))
    found = probe(root)
    assert [spec.name for spec in found.specs] == ["y"]
    (problem,) = found.problems
    assert problem.path == f"/{KERNELS}/x/kernel.json"
    assert where in problem.what


@pytest.mark.parametrize("key", ["argv", "display_name", "language"])
def test_missing_keys(root: Path, key: str) -> None:
    rest = {name: value for name, value in GOOD.items() if name != key}
    write(root, f"{KERNELS}/x/kernel.json", json.dumps(rest))
    assert f"$.{key} is missing" in probe(root).problems[0].what


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{} {}",
        b"[]",
        b"null",
        b"\xff",
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        b'{"argv": ["a"], "argv": ["b"], "display_name": "x", "language": "x"}',
        b'{"argv": ["a"], "display_name": "x", "language": "x", "metadata": {"x": NaN}}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 500_000,
        b'{"argv": ["\\udc00"], "display_name": "x", "language": "x"}',
    ],
    ids=[
        *("empty", "two", "list", "null", "not UTF-8", "BOM", "key twice", "NaN"),
        *("deep lists", "deep objects", "half a megabyte", "half a pair"),
    ],
)
def test_what_is_no_kernelspec(root: Path, content: bytes) -> None:
    write(root, f"{KERNELS}/x/kernel.json", content)
    found = probe(root)
    assert not found.specs
    assert [problem.path for problem in found.problems] == [f"/{KERNELS}/x/kernel.json"]
    json.dumps(to_json(found))


def test_half_a_gigabyte(root: Path) -> None:
    with write(root, f"{KERNELS}/x/kernel.json", "").open("wb") as file:
        file.truncate(500 * 1024**2)
    assert "larger" in probe(root).problems[0].what


def test_links(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kernel.json").write_text(json.dumps(GOOD))
    kernels = root / KERNELS
    kernels.mkdir(parents=True)
    write(root, "opt/elsewhere/kernel.json", json.dumps(GOOD))
    (kernels / "inside").symlink_to("/opt/elsewhere")
    (kernels / "host").symlink_to(outside)
    (kernels / "loop").symlink_to("loop")
    (kernels / "dangling").mkdir()
    (kernels / "dangling/kernel.json").symlink_to("/absent")
    found = probe(root)
    assert [spec.name for spec in found.specs] == ["inside"]
    assert [problem.path for problem in found.problems] == [f"/{KERNELS}/dangling/kernel.json"]


LISTED = '{"kernelspecs": {"python3": {"resource_dir": "/opt/k/python3", "spec": {}}}}'


def test_what_jupyter_lists(root: Path) -> None:
    script(root, "opt/conda/bin/jupyter", f"echo 'a {{ banner }}'; echo '{LISTED}'; echo bye")
    found = probe(root)
    assert found.listed == {"python3": "/opt/k/python3"}
    assert found.note == ""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("exit 1", "exit code 1"),
        ("echo", "JSON"),
        ("echo '{}'", "kernelspecs"),
        ('echo \'{"kernelspecs": {"x": 1}}\'', "resource_dir"),
        ("exec yes '{'", "without end"),
    ],
)
def test_jupyter_that_does_not_answer(root: Path, text: str, word: str) -> None:
    script(root, "opt/conda/bin/jupyter", text)
    found = probe(root)
    assert found.listed is None
    assert word in found.note


def test_no_jupyter(root: Path) -> None:
    found = probe(root)
    assert found.listed is None
    assert "not on the image's PATH" in found.note


def test_a_kernel_that_another_shadows(root: Path) -> None:
    shadowed = "usr/local/share/jupyter/kernels/python3/kernel.json"
    write(root, f"{KERNELS}/python3/kernel.json", json.dumps(GOOD))
    write(root, shadowed, "no JSON, and Jupyter never reads it")
    write(root, "root/.local/share/jupyter/kernels/python3/kernel.json", json.dumps(GOOD))
    write(root, "usr/share/jupyter/kernels/Python3/kernel.json", json.dumps(GOOD))
    found = probe(root)
    # JUPYTER_PATH goes before everything else.
    assert [spec.path for spec in found.specs] == [f"/{KERNELS}/python3/kernel.json"]
    assert not found.problems
    assert found.shadowed[f"/{shadowed}"] == f"/{KERNELS}/python3/kernel.json"
    assert len(found.shadowed) == 3


def test_a_kernel_of_a_user_shadows_that_of_the_system_for_one_user_alone(root: Path) -> None:
    for top in ("home/ann/.local/share", "usr/share"):
        write(root, f"{top}/jupyter/kernels/mine/kernel.json", json.dumps(GOOD))
    found = probe(root)
    assert [spec.name for spec in found.specs] == ["mine", "mine"]
    assert not found.shadowed


def test_names_are_those_of_jupyters_list(root: Path) -> None:
    write(root, f"{KERNELS}/ROOT/kernel.json", json.dumps(GOOD))
    (spec,) = probe(root).specs
    assert (spec.name, spec.path) == ("root", f"/{KERNELS}/ROOT/kernel.json")


@pytest.mark.parametrize(
    ("argv0", "env", "found"),
    [
        ("{resource_dir}/start.sh", {}, f"/{KERNELS}/mine/start.sh"),
        ("{resource_dir}/gone.sh", {}, None),
        ("{prefix}/bin/tool", {}, "/opt/conda/bin/tool"),
        ("{other}/bin/tool", {}, None),
        ("start.sh", {"PATH": f"/{KERNELS}/mine:${{PATH}}"}, f"/{KERNELS}/mine/start.sh"),
        ("tool", {"PATH": f"/{KERNELS}/mine:$PATH"}, "/opt/conda/bin/tool"),
        ("tool", {"PATH": "/nowhere"}, None),
    ],
)
def test_templates_in_argv(root: Path, argv0: str, env: dict[str, str], found: str | None) -> None:
    spec = {**GOOD, "argv": [argv0, "-f", "{connection_file}"], "env": env}
    write(root, f"{KERNELS}/mine/kernel.json", json.dumps(spec))
    script(root, f"{KERNELS}/mine/start.sh", "true")
    script(root, "opt/conda/bin/tool", "true")
    (one,) = probe(root).specs
    assert one.argv0 == found
    assert one.argv[0] == argv0


_ASKED = """\
import json, os, sys, tempfile
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
top = tempfile.mkdtemp()
answers = []
places, cases = json.load(sys.stdin)
for number, files in enumerate(cases):
    at = f"{top}/{number}"
    for path, text in files.items():
        os.makedirs(os.path.dirname(at + path), exist_ok=True)
        open(at + path, "w").write(text)
    dirs = [at + directory for directory in places]
    specs = KernelSpecManager(kernel_dirs=dirs, ensure_native_kernel=False)
    there = {name: path[len(at):] for name, path in specs.find_kernel_specs().items()}
    argv = {}
    for name in there:
        manager = KernelManager(kernel_name=name, kernel_spec_manager=specs)
        argv[name] = manager.format_kernel_cmd()[0].replace(at, "").replace(sys.prefix, "/prefix")
    answers.append([there, argv])
print("\\n" + json.dumps(answers))
"""


@pytest.mark.slow
def test_the_list_is_that_of_jupyter_client_compared(
    reference_image: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The same directories, by the image's own jupyter_client."""
    chosen = random.Random(7)
    system = ["/usr/local/share/jupyter/kernels", "/usr/share/jupyter/kernels"]
    dirs = ["/first/kernels", "/prefix/share/jupyter/kernels", *system]
    programs = ["{resource_dir}/run", "{prefix}/bin/run", "run", "{unknown}/run", "{resource_dir}"]
    cases = []
    for _ in range(60):
        files = {}
        for directory in dirs:
            # Of two names that differ in case alone in one directory, either may be the kernel.
            for name in chosen.sample(["root", "ir", "py-3", "a.b"], chosen.randint(0, 3)):
                name = chosen.choice([name, name.upper(), name.capitalize()])
                spec = {**GOOD, "argv": [chosen.choice(programs), "-f", "{connection_file}"]}
                files[f"{directory}/{name}/kernel.json"] = json.dumps(spec)
        cases.append(files)
    with opened(reference_image) as image:
        asked = json.dumps([dirs, cases]).encode()
        done = image.run(["python3", "-c", _ASKED], stdin=asked, limit_s=120)
    answers = json.loads(done.stdout.decode().strip().splitlines()[-1])
    assert len(answers) == len(cases)
    env = {"JUPYTER_PATH": "/first", "CONDA_PREFIX": "/prefix", "PATH": "/bin"}
    environment = Environment(env, None, None, None, None, None, None, "")
    for number, (case, (there, argv)) in enumerate(zip(cases, answers, strict=True)):
        top = tmp_path / str(number)
        top.mkdir()
        for path, text in case.items():
            write(top, path.lstrip("/"), text)
        found = kernelspecs.from_files(DirectoryRootFS(top), environment)
        assert {spec.name: spec.path.removesuffix("/kernel.json") for spec in found.specs} == there
        started = {
            spec.name: kernelspecs.started(spec.argv[0], spec.path, "/prefix")
            for spec in found.specs
        }
        assert started == argv
        assert len(found.specs) + len(found.shadowed) == len(case)
