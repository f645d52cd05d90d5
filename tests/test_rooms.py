"""Who may touch LitServe and torch, and what a process loads.

Which room may import which is checked by import-linter (pyproject.toml). Here are the rules that it
cannot state: names that are imported from a package, private names, and what is loaded at run time.
"""

import ast
import functools
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import VERIFY

ROOT = Path(__file__).parent.parent
ROOMS = ("litapi", "cache", "demo", "bench", "notebooks", "deploy")
WITHOUT_MEANING = {"utils", "util", "common", "helpers", "helper", "core", "base", "misc"}

# module → the names of litserve's that it may import, by the module they come from; "*": any
LITSERVE: dict[str, dict[str, set[str]]] = {
    "litapi.loop": {"litserve.loops.base": {"LitLoop"}},
    "litapi.towers": {"litserve": {"LitAPI"}},
    "bench.compare.baselines.litserve_api": {"litserve": {"LitAPI", "LitServer"}},
}
TORCH = {
    "bench.compare.baselines.siglip",
    "bench.reference",
    "bench.rig.random_checkpoint",  # in a function
    "litapi.model.engines.card",
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
    """The module's name as one would import it."""
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
    whole = {f"{source}.{name}" for source, name in imports(module) if f"{source}.{name}" in FILES}
    rest = {source for source, name in imports(module) if f"{source}.{name}" not in FILES}
    return whole | rest


def inside(module: str) -> set[str]:
    """The imports of a file that stay in the project."""
    return {one for one in targets(module) if one.partition(".")[0] in ROOMS}


def outside(module: str) -> set[str]:
    """The packages beyond the standard library that a file imports."""
    packages = {one.partition(".")[0] for one in targets(module)}
    return packages - set(ROOMS) - set(sys.stdlib_module_names)


def test_there_is_no_cycle() -> None:
    """Every file can be understood from what lies below it."""
    graph = {module: {one for one in inside(module) if one in FILES} for module in FILES}
    while leaves := [module for module, arrows in graph.items() if not arrows]:
        for leaf in leaves:
            del graph[leaf]
        for arrows in graph.values():
            arrows.difference_update(leaves)
    assert graph == {}, f"in or above a cycle: {sorted(graph)}"


def test_imports_inside_functions_are_found() -> None:
    """The tests below see only what this reading of the files sees."""
    assert "litapi.warm" in inside("litapi.__main__")  # inside a function
    assert "litapi.model.encoder" in inside("litapi.towers")  # under TYPE_CHECKING
    assert "demo.tokenizer" in inside("demo.__main__")  # a module out of a package
    assert "torch" in outside("litapi.model.engines.torch_engine")
    assert "torch" in outside("litapi.model.precision")  # inside a function


@pytest.mark.parametrize("module", FILES)
def test_only_the_supervisor_reaches_into_litserve(module: str) -> None:
    """The loop and the towers take one public class each; an upgrade is one file's work."""
    if module == "litapi.supervisor":
        return
    taken: dict[str, set[str]] = {}
    for source, name in imports(module):
        if source.partition(".")[0] == "litserve":
            taken.setdefault(source, set()).add(name)
    assert taken == LITSERVE.get(module, {})


def private_names(tree: ast.AST) -> Iterator[str]:
    """Every single-underscore name that is touched or defined as part of an object."""
    for node in ast.walk(tree):
        name = ""
        if isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = node.name
        if name.startswith("_") and not name.startswith("__"):
            yield name


@functools.cache
def litserves_own() -> frozenset[str]:
    """The private names of LitServe's classes: attributes of self, and methods."""
    spec = importlib.util.find_spec("litserve")
    assert spec is not None
    assert spec.origin is not None
    names: set[str] = set()
    for path in Path(spec.origin).parent.rglob("*.py"):
        classes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef)]
        for one in classes:
            names.update(private_names(one))
    return frozenset(names)


@pytest.mark.parametrize(
    "module",
    ["litapi.loop", "litapi.towers", "litapi.server", "litapi.http.app", "litapi.transport.pool"],
)
def test_no_other_file_touches_litserves_private_parts(module: str) -> None:
    """Neither by reading them nor by defining a method of that name; the supervisor does."""
    touched = set(private_names(tree_of("litapi.supervisor"))) & litserves_own()
    assert touched >= {"_transport", "_queues"}
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
ALONE = "import sys, cache; b = set(sys.modules); import litapi; print(set(sys.modules) - b)"


@pytest.mark.parametrize(
    ("script", "said"),
    [(SERVING, "set()"), (ALONE, "{'litapi'}")],
    ids=["what HTTP processes are forked from", "the package"],
)
def test_imports_load_no_more_than_they_must(script: str, said: str) -> None:
    """An HTTP process is small and ready at once; `import litapi` in a notebook costs nothing."""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == said


def test_no_file_is_called_after_nothing() -> None:
    """A file is named after what is in it."""
    rooms = [*ROOMS, "tests"]
    paths = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert paths
    named = [p for p in paths if {p.stem, p.parent.name} & WITHOUT_MEANING]
    assert named == []


def test_every_file_that_verify_names_exists() -> None:
    """A file that is renamed would move to `make test` without a word."""
    assert [name for name in VERIFY if not (ROOT / "tests" / name).is_file()] == []
