"""Who may touch LitServe and torch, and what a process loads.

Which room may import which is checked by import-linter (pyproject.toml). Here are the rules that it
cannot state: names that are imported from a package, private names, and what is loaded at run time.
"""

import ast
import functools
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import litserve
import pytest

from bench.rig.server_process import ROOT
from tests.conftest import VERIFY
from tests.support.command import python

ROOMS = ("litapi", "cache", "demo", "bench", "notebooks", "deploy")
WITHOUT_MEANING = {"utils", "util", "common", "helpers", "helper", "core", "base", "misc"}

# module → what it may import of litserve's, as the module it comes from and the name
LITSERVE = {
    "litapi.loop": {("litserve.loops.base", "LitLoop")},
    "litapi.towers": {("litserve", "LitAPI")},
    "bench.compare.baselines.litserve_api": {("litserve", "LitAPI"), ("litserve", "LitServer")},
}
TORCH = {
    "bench.compare.baselines.siglip",
    "bench.reference",
    "bench.rig.random_checkpoint",  # in a function
    "litapi.model.engines.compiled",
    "litapi.model.engines.conversion",
    "litapi.model.engines.layers",
    "litapi.model.engines.stream",
    "litapi.model.engines.torch_engine",
    "litapi.model.engines.torch_precision",
    "litapi.model.precision",  # in a function, for GPUs
    "litapi.model.reference",
}
TORCH_ROOMS = ("demo.", "bench.gpu", "bench.offline")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(p): p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))}


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


@functools.cache
def imports(module: str) -> frozenset[tuple[str, str]]:
    """(module, name) of everything that is imported anywhere in a file; name "" is the module."""
    found = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written in full"
            found |= {(str(node.module), alias.name) for alias in node.names}
    return frozenset(found)


def targets(module: str) -> set[str]:
    """What a file imports, as modules: `from demo import tokenizer` is that module."""
    pairs = ((source, f"{source}.{name}") for source, name in imports(module))
    return {whole if whole in FILES else source for source, whole in pairs}


def inside(module: str) -> set[str]:
    return {one for one in targets(module) if one.partition(".")[0] in ROOMS}


def outside(module: str) -> set[str]:
    """The packages that a file imports, the standard library's among them."""
    return {one.partition(".")[0] for one in targets(module)} - set(ROOMS)


def test_there_is_no_cycle() -> None:
    """Every file can be understood from what lies below it; the error names a cycle."""
    TopologicalSorter({module: inside(module) & FILES.keys() for module in FILES}).prepare()


def test_imports_inside_functions_are_found() -> None:
    """The tests below see only what this reading of the files sees."""
    assert "litapi.embed" in inside("litapi.__main__")  # inside a function
    assert "litapi.model.encoder" in inside("litapi.towers")  # under TYPE_CHECKING
    assert "demo.tokenizer" in inside("demo.__main__")  # a module out of a package
    assert "torch" in outside("litapi.model.engines.torch_engine")
    assert "torch" in outside("litapi.model.precision")  # inside a function


@pytest.mark.parametrize("module", FILES)
def test_only_the_supervisor_reaches_into_litserve(module: str) -> None:
    """The loop and the towers take one public class each; an upgrade is one file's work."""
    if module == "litapi.supervisor":
        return
    taken = {one for one in imports(module) if one[0].partition(".")[0] == "litserve"}
    assert taken == LITSERVE.get(module, set())


def private_names(tree: ast.AST) -> Iterator[str]:
    """Every single-underscore name that is touched or defined as part of an object."""
    for node in ast.walk(tree):
        name = getattr(node, "attr", "")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = node.name
        if name.startswith("_") and not name.startswith("__"):
            yield name


@functools.cache
def litserves_own() -> frozenset[str]:
    """The private names of LitServe's classes: attributes of self, and methods."""
    trees = [ast.parse(p.read_text()) for p in Path(litserve.__file__).parent.rglob("*.py")]
    classes = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    return frozenset(name for one in classes for name in private_names(one))


@pytest.mark.parametrize(
    "module",
    ["litapi.loop", "litapi.towers", "litapi.server", "litapi.http.app", "litapi.transport.pool"],
)
def test_no_other_file_touches_litserves_private_parts(module: str) -> None:
    """Neither by reading them nor by defining a method of that name; the supervisor does."""
    touched = set(private_names(tree_of("litapi.supervisor"))) & litserves_own()
    assert touched >= {"_transport", "_init_manager"}
    assert set(private_names(tree_of(module))) & litserves_own() == set()


@pytest.mark.parametrize("module", FILES)
def test_what_is_heavy_is_imported_only_where_it_is_needed(module: str) -> None:
    """torch where vectors are made, Ray where blocks are given out: all else starts in a moment."""
    if not module.startswith("deploy.bulk"):
        tables = set() if module == "litapi.embed" else {"pyarrow"}  # it may write Parquet
        assert not ({"ray", "pandas"} | tables) & outside(module)
    if module not in TORCH and not module.startswith(TORCH_ROOMS):
        assert not {"torch", "torchao", "torchvision"} & outside(module)


SERVING = (
    "import sys, litapi.server, litapi.http.app, litapi.text, litapi.quality.verdict;"
    "import litapi.prepare;"
    "heavy = {'torch', 'openvino', 'transformers', 'tokenizers', 'httpx'};"
    "print(heavy & set(sys.modules))"
)
READING = (
    "import sys; from litapi.checkpoint import Checkpoint, fetch; Checkpoint.open(fetch('', None));"
    "print({'torch', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules))"
)
ALONE = "import sys, cache; b = set(sys.modules); import litapi; print(set(sys.modules) - b)"


@pytest.mark.parametrize(
    ("script", "said"),
    [(SERVING, "set()"), (READING, "set()"), (ALONE, "{'litapi'}")],
    ids=["what HTTP processes are forked from", "a checkpoint", "the package"],
)
def test_imports_load_no_more_than_they_must(script: str, said: str) -> None:
    """An HTTP process is small and ready at once; `import litapi` in a notebook costs nothing."""
    assert python(script).stdout.strip() == said


def test_no_file_is_called_after_nothing() -> None:
    """A file is named after what is in it."""
    paths = [*FILES.values(), *(ROOT / "tests").rglob("*.py")]
    assert [p for p in paths if {p.stem, p.parent.name} & WITHOUT_MEANING] == []


def test_every_file_that_verify_names_exists() -> None:
    """A file that is renamed would move to `make test` without a word."""
    assert [name for name in VERIFY if not (ROOT / "tests" / name).is_file()] == []
