"""Files of waivers beside the profiles."""

from __future__ import annotations

import datetime
import fnmatch
from pathlib import Path

import pytest

from mlcheck.model.errors import UsageError
from mlcheck.profile.catalog import Profile
from mlcheck.profile.waivers import ListedWaiver, WaiversFile, for_subject, updated

DAY = datetime.date(2999, 12, 31)


def waiver(check: str, match: str = "*", profile: str = "mini") -> ListedWaiver:
    return ListedWaiver(check=check, match=match, profile=profile, reason="soon", until=DAY)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "waivers.toml"
    new = [waiver("files", for_subject('/opt/a b"\\[x]*?')), waiver("imports", profile="*")]
    file.write_text(updated(file, without=[], new=new))
    assert [one for one, _ in WaiversFile.read(file).waivers] == new
    assert fnmatch.fnmatchcase('/opt/a b"\\[x]*?', new[0].match)
    assert not fnmatch.fnmatchcase('/opt/a b"\\x**', new[0].match)


@pytest.mark.parametrize(
    "before",
    [
        "# mine\nwaivers = []\n",
        "# mine\n",
        '# mine\nwaivers = [{check = "old", reason = "r", until = 2999-12-31}]\n',
        '# mine\n[[waivers]]\ncheck = "old"\nreason = "r"\nuntil = 2999-12-31\n',
    ],
)
def test_a_file_is_brought_up_to_date(tmp_path: Path, before: str) -> None:
    file = tmp_path / "waivers.toml"
    file.write_text(before)
    count = len(WaiversFile.read(file).waivers)
    file.write_text(updated(file, without=[], new=[waiver("new")]))
    kept = [one.check for one, _ in WaiversFile.read(file).waivers]
    assert kept == ["old"] * count + ["new"]
    old = [source for _, source in WaiversFile.read(file).waivers[:count]]
    file.write_text(updated(file, without=old, new=[waiver("newer")]))
    assert [one.check for one, _ in WaiversFile.read(file).waivers] == ["new", "newer"]
    every = [source for _, source in WaiversFile.read(file).waivers]
    file.write_text(updated(file, without=every, new=[]))
    assert WaiversFile.read(file).waivers == ()
    assert "# mine" in file.read_text()


def test_a_waiver_is_for_the_profiles_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "waivers.toml"
    new = [waiver("a", profile="other"), waiver("b"), waiver("c", profile="m*")]
    file.write_text(updated(file, without=[], new=new))
    own = {"waivers": [{"check": "own", "reason": "r", "until": DAY}]}
    profile = WaiversFile.read(file).added_to(Profile.of(own, "mini"))
    assert [one.check for one in profile.expect.waivers] == ["own", "b", "c"]
    lines = file.read_text().splitlines()
    for number, name in ((1, "b"), (2, "c")):
        source = profile.source("waivers", number)
        assert source is not None
        assert f'check = "{name}"' in lines[source.line : source.line + 3]


def test_a_mistake_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "waivers.toml"
    file.write_text('[[waivers]]\ncheck = "a"\nreson = "r"\nuntil = 2999-12-31\n')
    with pytest.raises(UsageError) as raised:
        WaiversFile.read(file)
    assert f"{file}:3: waivers.0.reson: unknown key." in str(raised.value)
    assert "Did you mean 'reason'?" in str(raised.value)
    assert f"{file}:1: waivers.0.reason: this key is missing." in str(raised.value)
