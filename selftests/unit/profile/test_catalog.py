"""Profiles: validation with file, line and key; extends; variants; the schema for editors."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from mlcheck.cli.schemas import SCHEMAS, as_text, image_schema
from mlcheck.model.errors import UsageError
from mlcheck.profile.catalog import Catalog, Profile
from selftests.checkout import CHECKOUT


def catalog(directory: Path, **documents: str) -> Catalog:
    for name, text in documents.items():
        folder = directory / name.replace("_", "-")
        folder.mkdir()
        (folder / "image.toml").write_text(text, encoding="utf-8")
    return Catalog([directory])


def test_the_severity_of_a_rule_is_what_the_nearest_profile_says(tmp_path: Path) -> None:
    profiles = catalog(
        tmp_path,
        parent='[severity]\n"layers-*" = "warning"\nlayers-size = "error"\n',
        child='extends = "parent"\n[severity]\n"layers-s*" = "warning"\n"*-size" = "warning"\n',
    )
    expect = profiles.load("child").expect
    said = {name: expect.severity_of(name) for name in ("layers-caches", "layers-size", "files")}
    assert said == {"layers-caches": "warning", "layers-size": "error", "files": "error"}
    assert expect.severity_of("image-size") == "warning"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[rpth]\n", 1, ["rpth", "unknown key", "Did you mean 'rpath'"]),
        ("\n[packages]\nrequried = {}\n", 3, ["packages.requried", "list, sorted, checked_in"]),
        ('[files."/a"]\nmode = "abc"\n', 2, ["files./a.mode", "abc"]),
        ('[files."/a"]\nmode = 755\n', 2, ["files./a.mode", "string", "755"]),
        ('[files."a"]\n', 1, ["files", "pattern"]),
        ('[os]\nid = "x"\n[os.sub]\n', 3, ["os.sub", "Allowed here: id, version"]),
        ('shells = [\n  "/bin/sh",\n  "bash",\n]\n', 3, ["shells.1", "bash"]),
        ('[variants."x-*".os]\nidd = 3\n', 2, ["variants.x-*.os.idd", "Did you mean 'id'"]),
        ('[[waivers]]\ncheck = "c"\nuntil = 2030-01-01\n', 1, ["reason", "missing"]),
        ('[[waivers]]\ncheck = "c"\nreason = "r"\n', 1, ["until", "missing"]),
        ('[[waivers]]\ncheck = "c"\nreason = ""\nuntil = 2030-01-01\n', 3, ["reason"]),
        ('[[waivers]]\ncheck = "c"\nreason = "r"\nuntil = "soon"\n', 4, ["until", "date"]),
        ("commands.x = []\n", 1, ["commands.x"]),
        ('[tags]\npattern = "("\n', 2, ["tags.pattern", "regular expression"]),
        ("a = [\n", 0, ["not TOML"]),
        ("x = 1\nx = 2\n", 2, ["not TOML"]),
    ],
)
def test_a_mistake_names_file_line_key_and_what_is_allowed(
    tmp_path: Path, text: str, line: int, words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        catalog(tmp_path, bad=text).load("bad")
    message = str(caught.value)
    place = str(tmp_path / "bad" / "image.toml") + (f":{line}:" if line else ":")
    assert place in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "line", "key", "other"),
    [
        (
            '[framework]\nmodule = "torch"\ncuda = false\nopens = ["a"]\n',
            4,
            "framework.opens",
            "framework.cuda",
        ),
        ('[integrity.edited]\n"bin/a" = "why"\n', 1, "integrity.edited", "prefix"),
        ('[integrity.replaced]\n"bin/a" = "why"\n', 1, "integrity.replaced", "prefix"),
        ('[packages]\nchecked_in = "list.txt"\n', 2, "packages.checked_in", "packages.list"),
        ('[packages]\nsystem = ["zlib"]\n', 2, "packages.system", "packages.list"),
        ('[scripts]\nportable = ["pip"]\n', 2, "scripts.portable", "prefix"),
    ],
)
def test_a_promise_that_nothing_would_judge_is_a_mistake(
    tmp_path: Path, text: str, line: int, key: str, other: str
) -> None:
    with pytest.raises(UsageError) as caught:
        catalog(tmp_path, bad=text).load("bad")
    assert f"bad/image.toml:{line}: {key} is judged together with" in caught.value.what
    assert other in caught.value.what
    given = f'prefix = "/p"\n{text}'.replace("cuda = false", 'cuda = "12"')
    given = given.replace("[packages]", '[packages]\nlist = "/l"')
    assert catalog(tmp_path, good=given).load("good").says(key)


def test_every_mistake_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        catalog(tmp_path, bad="[one]\n[two]\n").load("bad")
    assert "bad/image.toml:1: one" in str(caught.value)
    assert "bad/image.toml:2: two" in str(caught.value)


def test_an_unknown_profile_lists_the_known_ones_and_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no profile 'ml-bse'.*Did you mean 'ml-base'"):
        catalog(tmp_path, ml_base="").load("ml-bse")


def test_an_unknown_parent_is_named_at_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"child/image.toml:2: extends: there is no profile 'up'"):
        catalog(tmp_path, child='description = "d"\nextends = "up"\n').load("child")


def test_a_circle_of_extends_is_named(tmp_path: Path) -> None:
    profiles = catalog(tmp_path, a='extends = "b"', b='extends = "c"', c='extends = "a"')
    with pytest.raises(UsageError, match=r"c/image.toml:1: .*circle: a -> b -> c -> a"):
        profiles.load("a")


PARENT = """\
prefix = "/opt/conda"
shells = ["/bin/sh"]
[tags]
pattern = '(?P<os>[a-z]+)-py(?P<minor>\\d+)'
[python]
version = "3.{tag.minor}"
[environment.equals]
A = "parent"
B = "parent"
[[waivers]]
check = "one"
reason = "r"
until = 2030-01-01
[variants."x-*".environment.equals]
A = "parent's variant"
"""
CHILD = """\
extends = "parent"
shells = ["/bin/zsh"]
[environment.equals]
B = "child"
[[waivers]]
check = "two"
reason = "r"
until = 2030-01-01
[variants."*-py12"]
environment.equals.C = "child's variant"
"""


def test_extends_and_variants_merge_tables_and_replace_values(tmp_path: Path) -> None:
    profile = catalog(tmp_path, parent=PARENT, child=CHILD).load("child", "x-py12")
    assert profile.lineage == ("child", "parent")
    assert profile.expect.prefix == "/opt/conda"
    assert profile.expect.shells == ("/bin/zsh",)
    assert profile.expect.environment.equals == {
        "A": "parent's variant",
        "B": "child",
        "C": "child's variant",
    }
    assert [waiver.check for waiver in profile.expect.waivers] == ["one", "two"]


def test_each_value_knows_the_line_it_comes_from(tmp_path: Path) -> None:
    profile = catalog(tmp_path, parent=PARENT, child=CHILD).load("child", "x-py12")

    def place(*path: str | int) -> str:
        source = profile.source(*path)
        assert source is not None
        return f"{Path(source.file).parent.name}:{source.line}"

    assert place("prefix") == "parent:1"
    assert place("shells", 0) == "child:2"
    assert place("environment", "equals", "A") == "parent:15"
    assert place("environment", "equals", "B") == "child:4"
    assert place("environment", "equals", "C") == "child:10"
    assert place("waivers", 0) == "parent:10"
    assert place("waivers", 1) == "child:5"


def test_the_tag_fills_in_its_parts(tmp_path: Path) -> None:
    profiles = catalog(tmp_path, parent=PARENT)
    python = profiles.load("parent", "x-py11").expect.python
    assert python is not None
    assert python.version == "3.11"
    assert profiles.load("parent").expect.python is None, "without a tag nothing is promised"


def test_a_part_that_the_tag_does_not_have_is_a_mistake(tmp_path: Path) -> None:
    text = PARENT.replace("{tag.minor}", "{tag.miner}")
    with pytest.raises(UsageError, match=r"no part 'miner'.*\n.*os, minor"):
        catalog(tmp_path, parent=text).load("parent", "x-py11")


def test_a_tag_that_does_not_match_the_pattern_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'latest' is no tag of parent"):
        catalog(tmp_path, parent=PARENT).load("parent", "latest")


def test_a_key_that_is_missing_after_the_merge_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"bad/image.toml:1: os: the key 'version' is missing"):
        catalog(tmp_path, bad='[os]\nid = "x"\n').load("bad", "any")


def test_a_generation_that_is_not_defined_is_a_mistake(tmp_path: Path) -> None:
    text = '[kernelspecs]\ngeneration = "new"\ngenerations.old = {}\n'
    with pytest.raises(UsageError, match=r"image.toml:2: .*no generation 'new'"):
        catalog(tmp_path, bad=text).load("bad", "any")


def test_the_first_directory_wins(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "theirs").mkdir()
    catalog(tmp_path / "mine", image='prefix = "/mine"')
    catalog(tmp_path / "theirs", image='prefix = "/theirs"')
    both = Catalog([tmp_path / "mine", tmp_path / "theirs"])
    assert both.load("image").expect.prefix == "/mine"


PUBLISHED = [
    "centos7-python38",
    "centos7-python39",
    "alma9-python39",
    "alma9-python311",
]


@pytest.mark.parametrize(
    "name", ["ml-base", "ml-pyroot", "ml-tensorflow", "ml-tensorflow-cpu", "ml-tensorflow-gpu"]
)
@pytest.mark.parametrize("tag", PUBLISHED)
def test_the_suite_has_every_published_variant(name: str, tag: str) -> None:
    expect = Catalog([CHECKOUT / "tests"]).load(name, tag).expect
    system, _, python = tag.partition("-python")
    assert expect.os is not None
    assert expect.python is not None
    assert expect.os.id == {"centos7": "centos", "alma9": "almalinux"}[system]
    assert expect.python.version == f"3.{python[1:]}"
    assert ("LC_ALL" in expect.environment.equals) == (system == "alma9")
    assert ("/lib64/libcrypt.so.1" in expect.files) == (system == "alma9")


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("ml-base", ()),
        ("ml-pyroot", ("ml-base",)),
        ("ml-tensorflow-cpu", ("ml-base",)),
        ("ml-torch-gpu", ("ml-base",)),
    ],
)
def test_a_profile_without_examples_is_no_image(name: str, bases: tuple[str, ...]) -> None:
    assert Catalog([CHECKOUT / "tests"]).load(name, "alma9-python311").bases == bases


# The versions that the published images have (their own package lists say so).
@pytest.mark.parametrize(
    ("tag", "micromamba", "root"),
    [
        ("centos7-python38", "1.5.1", "6.28.4"),
        ("centos7-python39", "1.5.1", "6.28.4"),
        ("alma9-python39", "2.0.4", "6.30.4"),
        ("alma9-python311", "2.1.0", "6.30.4"),
    ],
)
def test_the_variants_promise_the_published_versions(tag: str, micromamba: str, root: str) -> None:
    required = Catalog([CHECKOUT / "tests"]).load("ml-pyroot", tag).expect.packages.required
    assert required["micromamba"].version == micromamba
    assert required["root"].version == root
    assert required["uproot"].version == "5.0.13"
    assert ("_x86_64-microarch-level" in required) == tag.startswith("alma9")


@pytest.mark.parametrize(
    ("name", "package", "alma9", "centos7"),
    [
        ("ml-tensorflow-cpu", "tensorflow", "2.15.0", "2.10.0"),
        ("ml-tensorflow", "tensorflow", "2.15.0", "2.10.0"),
        ("ml-tensorflow-gpu", "tensorflow", "2.14.0", "2.10.0"),
        ("ml-tensorflow-gpu", "cudatoolkit", "11.8.0", "11.8.0"),
        ("ml-torch-gpu", "pytorch", "2.5.1", None),
    ],
)
def test_the_frameworks_have_the_published_versions(
    name: str, package: str, alma9: str, centos7: str | None
) -> None:
    catalog = Catalog([CHECKOUT / "tests"])
    expect = catalog.load(name, "alma9-python311").expect
    assert expect.packages.required[package].version == alma9
    cuda = ("/usr/lib64", "/usr/local/nvidia/lib64", "/usr/local/cuda/lib64")
    assert expect.environment.starts["LD_LIBRARY_PATH"] == cuda
    if centos7 is None:
        with pytest.raises(UsageError, match="alma9-python311"):
            catalog.load(name, "centos7-python39")
        return
    expect = catalog.load(name, "centos7-python39").expect
    assert expect.packages.required[package].version == centos7
    only = ("/usr/lib64",) if name != "ml-tensorflow-gpu" else cuda
    assert expect.environment.starts["LD_LIBRARY_PATH"] == only


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_in_docs_are_those_of_the_code(name: str) -> None:
    written = (CHECKOUT / "docs" / name).read_text(encoding="utf-8")
    assert written == as_text(SCHEMAS[name]()), "run: python -m mlcheck.cli.schemas docs"


@pytest.mark.parametrize("file", sorted(CHECKOUT.glob("tests/*/image.toml")), ids=str)
def test_the_schema_accepts_the_suite_s_profiles(file: Path) -> None:
    import tomllib

    data = json.loads(json.dumps(tomllib.loads(file.read_text()), default=str))
    jsonschema.Draft202012Validator(image_schema()).validate(data)


def test_the_schema_rejects_what_loading_rejects() -> None:
    validator = jsonschema.Draft202012Validator(image_schema())
    documents: list[dict[str, object]] = [
        {"rpth": {}},
        {"shells": ["bash"]},
        {"waivers": [{"check": "c"}]},
    ]
    for bad in documents:
        assert list(validator.iter_errors(bad)), bad


@pytest.mark.parametrize(
    ("data", "key", "said"),
    [
        ({"prefix": "/opt/conda"}, "prefix", True),
        ({}, "prefix", False),
        ({"rpath": {}}, "rpath", True),
        ({"rpath": {"forbidden": []}}, "rpath.forbidden", False),
        ({"rpath": {"forbidden": ["/x"]}}, "rpath.forbidden", True),
        ({"packages": {"contains_base": False}}, "packages.contains_base", False),
        ({"packages": {"contains_base": True}}, "packages.contains_base", True),
        ({"entrypoint": {"argv": ["/x"], "activates": False}}, "entrypoint.activates", True),
        ({"entrypoint": {"argv": ["/x"]}}, "entrypoint.activates", False),
        (
            {"kernelspecs": {"generation": "a", "generations": {}, "clean": False}},
            "kernelspecs.clean",
            False,
        ),
        ({"kernelspecs": {"generation": "a", "generations": {}}}, "kernelspecs.clean", True),
        ({"framework": {"module": "torch", "cuda": False}}, "framework.cuda", False),
        ({"framework": {"module": "torch", "cuda": "12.1"}}, "framework.cuda", True),
        ({"deployed": {}}, "deployed", True),
        ({}, "environment", False),
        ({"environment": {"equals": {"A": "b"}}}, "environment", True),
        ({"tasks": {"a": {"run": ["x"]}}}, "tasks", True),
        (
            {"kernelspecs": {"generation": "a", "generations": {"a": {"k": {"argv": ["x"]}}}}},
            "kernelspecs.generations.*.*.cells",
            False,
        ),
    ],
)
def test_which_keys_of_a_profile_promise_something(
    data: dict[str, object], key: str, said: bool
) -> None:
    assert Profile.of(data).says(key) is said
