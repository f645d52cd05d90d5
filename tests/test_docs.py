"""The documents: generated tables are current, links and names exist, commands do what is printed.

Commands in `console` blocks are run against a real server with the demo checkpoint and their output
is compared; so are the Python snippets. Commands in other blocks need a network, Docker, a GPU or
minutes: their files, modules, options and variables must exist.
"""

import importlib.util
import itertools
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.rig.server_process import ServerProcess
from docs.__main__ import generated
from litapi.settings import ALIASES, BARE, PREFIX, Settings, flag_of
from tests.support.command import output_of as command_output
from tests.support.markdown import PAGES, ROOT, Step, anchors, blocks, code, links, steps

COMMANDS = re.compile(r"python -m ([\w.]+)(.*)")
FLAG = re.compile(r"--[a-z][a-z0-9-]+")
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
FOLDERS = ("bench", "cache", "deploy", "docs", "examples", "litapi", "notebooks", "tests")
OPTIONS = {*map(flag_of, Settings.model_fields), *itertools.chain(*ALIASES.values())}
VARIABLES = {PREFIX + name.upper() for name in Settings.model_fields} | {*map(str.upper, BARE)}
MAKEFILE = (ROOT / "Makefile").read_text()
RUN = [step for page in PAGES for step in steps(page)]
CARD = ROOT / "litapi" / "demo" / "README.md"  # its snippet is transformers alone
SNIPPETS = [text for page in PAGES if page != CARD for text in blocks(page, "python")]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def sources(module: str) -> Iterator[str]:
    """The text of a module of this project, or of all modules of a package."""
    path = ROOT / module.replace(".", "/")
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    yield from (file.read_text() for file in files)


def is_runnable(module: str) -> bool:
    """Whether `python -m` finds it; a package needs a `__main__`."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.submodule_search_locations is None:
        return spec is not None
    return importlib.util.find_spec(f"{module}.__main__") is not None


def has_option(module: str, flag: str) -> bool:
    """Whether a command of this project knows a flag: its own, or one of the server's settings."""
    texts = (*sources(module), *sources("bench.rig.command"))  # options that measurements share
    own = flag == "--help" or any(f'"{flag}"' in text for text in texts)
    return own or (module in ("litapi", "deploy.bulk") and flag in OPTIONS)


@pytest.mark.parametrize(("page", "text"), [*generated()], ids=lambda one: getattr(one, "name", ""))
def test_a_generated_table_is_what_the_code_says(page: Path, text: str) -> None:
    """An option or an error that changes makes the page old: python -m docs writes it again."""
    assert page.read_text() == text, "run: python -m docs"


def test_the_readme_is_short() -> None:
    """What does not fit belongs in docs/; some of the pages' commands are run below."""
    assert (len(RUN), len(SNIPPETS)) >= (6, 1)
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    assert len((ROOT / "DECISIONS.md").read_text().split()) <= 1800


@every_page
def test_every_link_leads_to_a_file_or_a_heading(page: Path) -> None:
    """Also the part behind the #."""
    for link in links(page):
        name, _, fragment = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


def test_every_document_can_be_found_from_the_readme() -> None:
    """A page that nothing leads to does not exist for its readers."""
    found, queue = set[Path](), [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page not in found and page in PAGES:
            found.add(page)
            queue += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert found >= set(PAGES) - {CARD}


@every_page
def test_every_module_and_every_option_exists(page: Path) -> None:
    """`python -m X --flag` names what there is; a span that begins with -- is an option of the
    server, or of another command here."""
    others = "".join(text for module in FOLDERS for text in sources(module))
    for line in code(page):
        for module, rest in COMMANDS.findall(line):
            assert is_runnable(module), module
            if module.partition(".")[0] in FOLDERS:
                unknown = [flag for flag in FLAG.findall(rest) if not has_option(module, flag)]
                assert not unknown, f"python -m {module}"
        for flag in FLAG.findall(line) if line.startswith("--") else ():
            assert flag in OPTIONS or f'"{flag}"' in others, flag


@every_page
def test_every_variable_that_is_named_is_an_option(page: Path) -> None:
    """Of the server, or of the Makefile where `make` is called, whose targets exist."""
    assert set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", page.read_text())) <= VARIABLES
    for line in (one for one in code(page) if re.search(r"\bmake [a-z]", one)):
        for name in re.findall(r"\b([A-Z_]{4,})=", line):
            assert name in VARIABLES or f"\n{name} ?=" in MAKEFILE, name
        for target in " ".join(re.findall(r"\bmake ((?:[a-z]+ ?)+)", line.split("#")[0])).split():
            assert re.search(rf"^{target}:", MAKEFILE, re.M), target


@every_page
def test_every_shell_block_parses_and_names_files_that_exist(page: Path) -> None:
    """The commands that a test cannot run."""
    for block in blocks(page, "", "sh", "bash"):
        if not re.match(r"[a-z.]+ |[A-Z_]+=", block) or "─" in block:
            continue  # a drawing
        command_output("bash", "-n", said=block)
        for word in shlex.split(block, comments=True):
            if word.partition("/")[0] in FOLDERS and "/" in word:
                assert (ROOT / word).exists(), word


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of all pages are run, one after another."""
    return tmp_path_factory.mktemp("reader")


def output_of(folder: Path, *command: str) -> str:
    """What a command prints that goes well, with this Python and the repository importable."""
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return command_output(*command, cwd=folder, env=env)


def comparable(text: str) -> tuple[list[float], str]:
    """Its numbers, and what stands between them. Whether an item was cached depends on the day."""
    text = re.sub(r'"cached":(\[[^\]]*\]|true|false)', '"cached":…', text)
    return [float(number) for number in NUMBER.findall(text)], NUMBER.sub("#", text)


def assert_as_printed(answer: str, printed: str) -> None:
    """Equal but for the last digits, which are each machine's own; "…" follows a cut number."""
    if printed.endswith("…"):
        printed, answer = printed.rpartition(",")[0], answer.rpartition(",")[0]
    numbers, between = comparable(answer)
    expected, expected_between = comparable(printed)
    assert between == expected_between
    assert numbers == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("step", RUN, ids=lambda step: step.command[:60])
def test_a_command_prints_what_a_page_says(server: ServerProcess, folder: Path, step: Step) -> None:
    """Against a server with the demo checkpoint in float32, as the page says."""
    command = step.command.replace("localhost:8080", server.url.removeprefix("http://"))
    assert_as_printed(output_of(folder, "bash", "-c", command).strip(), step.printed)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_prints_what_its_comments_say(
    server: ServerProcess, folder: Path, snippet: str
) -> None:
    """`print(…)  # 96` prints 96."""
    code = snippet.replace("http://localhost:8080", server.url)
    said = output_of(folder, sys.executable, "-c", code)
    assert said.splitlines() == re.findall(r"^ *print\(.*\)  # (.*)$", snippet, re.M)
