"""docs/rules: a page for each rule of the suite, and a list of them.

`python -m selftests.rule_pages` writes them from the docstrings of the rules and the keys of
profiles; test_rule_pages.py holds them true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mlcheck.cli.explain import defects_of
from mlcheck.inspect import rules
from mlcheck.model.rule import Rule
from mlcheck.profile.schema.keys import meaning
from selftests.checkout import CHECKOUT

DIRECTORY = CHECKOUT / "docs/rules"
INDEX = "README.md"

_HEAD = """\
# Rules

By these rules mlcheck judges images. Each has a page, whose address does not change as long as the
rule exists: it is the rule's name. Reports name it, and `mlcheck explain RULE` prints the same.
Written by `python -m selftests.rule_pages`.
"""


def pages() -> Mapping[str, str]:
    """The text of each file in docs/rules, by its name."""
    found = {rule.id: rule for rule in rules.all_rules().values() if rules.page_of(rule)}
    return {INDEX: _index(found.values()), **{f"{n}.md": page(r) for n, r in found.items()}}


def page(rule: Rule) -> str:
    """The page of a rule."""
    return "\n".join(_page(rule))


def _page(rule: Rule) -> Iterator[str]:
    yield f"# {rule.id}\n\n{_escaped(rule.text)}\n"
    yield f"## Why\n\n{_escaped(rule.why)}\n"
    yield f"## What to do\n\n{_escaped(rule.fix)}\n"
    yield "## How it is judged\n\n| | |\n|---|---|"
    for name, said in rules.facts_of(rule).items():
        yield f"| fact | `{name}`: {_cell(said)} |"
    for key in (*rule.keys, *rule.also):
        yield f"| key in `image.toml` | `{key}`: {_cell(meaning(key) or '')} |"
    if not rule.keys:
        yield "| judged for | every image |"
    if only := rules.only_for(rule):
        yield f"| only for | the profile `{only}`, and those that extend it |"
    if rule.slow:
        yield '| slow | `-m "not slow"` leaves it out |'
    place = f"tests/{rule.file.parent.name}/{rule.file.name}"
    yield f"| code | [{place}](../../{place}) |"
    faults = ", ".join(f"`{defect.name}`" for defect in defects_of(rule))
    yield f"| proven by the faults | {faults or 'none: self-tests with a stand-in prove it'} |\n"
    yield f"""\
## Judge by it alone, or waive it

```sh
mlcheck check IMAGE --rule {rule.id}
```

```toml
[[waivers]]                # in the image.toml of the image
check = "{rule.id}"
match = "*"                # which findings: a pattern for the subject
reason = "..."             # why it is accepted, with a link
until = YYYY-MM-DD         # after that day it fails again
```

[All rules]({INDEX}) · [Waivers](../adding-an-image.md#waivers)
"""


def _index(listed: Iterable[Rule]) -> str:
    lines, about = [_HEAD], ""
    for rule in listed:
        if rule.about != about:
            about = rule.about
            lines.append(f"## {_escaped(about.removesuffix('.'))}\n\n| rule | |\n|---|---|")
        first = rule.text.partition(": ")[0].removesuffix(".")
        lines.append(f"| [{rule.id}]({rule.id}.md) | {_cell(first)} |")
    text = "\n".join(lines) + "\n"
    return text.replace("|\n##", "|\n\n##")


def _cell(said: str) -> str:
    return _escaped(said).replace("|", "\\|")


def _escaped(said: str) -> str:
    """Docstrings are read by people: what they write in angle brackets is no markup."""
    parts = said.split("`")
    if len(parts) % 2 == 0:  # a backquote that opens nothing
        parts = [said.replace("`", "\\`")]
    for number in range(0, len(parts), 2):
        for sign in "<*_[":
            parts[number] = parts[number].replace(sign, f"\\{sign}")
    return "`".join(parts)


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    made = pages()
    for old in DIRECTORY.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
