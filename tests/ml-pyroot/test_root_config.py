"""root-config, which names libz so that the incompatible one of the system is not taken."""

from __future__ import annotations

from mlcheck.checks import root_config
from mlcheck.facts import RootConfig
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_root_config_links_libz(
    root_config_libs: RootConfig, profile: Profile, judge: Judge
) -> None:
    judge(root_config.libs(root_config_libs, profile))
