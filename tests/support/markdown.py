"""The project's documents as tests read them: fenced blocks, code spans, links, headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = (
    *(ROOT / name for name in ("README.md", "DECISIONS.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "notebooks" / "README.md",
    ROOT / "litapi" / "demo" / "README.md",
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a console block and what is printed under it."""

    command: str
    printed: str


def blocks(page: Path, *languages: str) -> list[str]:
    """The text of the fenced blocks in one of `languages`; "" is a block without one."""
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def steps(page: Path) -> Iterator[Step]:
    """The commands of all console blocks, in order."""
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, printed = part.partition("\n")
            yield Step(command, printed.strip())


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def code(page: Path) -> Iterator[str]:
    """Every line of a shell block and every code span."""
    for block in blocks(page, "", "sh", "bash"):
        yield from block.splitlines()
    yield from (step.command for step in steps(page))
    yield from (span.replace(r"\|", "|") for span in SPAN.findall(prose(page)))


def links(page: Path) -> Iterator[str]:
    """The targets of links and pictures that stay in the repository."""
    for target in LINK.findall(prose(page)):
        if "://" not in target:
            yield target


def anchors(page: Path) -> set[str]:
    """The fragments under which the page's headings can be linked, as GitHub makes them."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose(page)))
    return {heading.replace(" ", "-") for heading in plain}
