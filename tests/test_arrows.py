"""Who may import whom: the rooms of the project, read from the imports of every file.

An arrow that is not in these tables is a decision that nobody made. Imports inside functions and
under TYPE_CHECKING count as well: they are arrows all the same.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("litapi", "cache", "bench", "deploy")
WITHOUT_MEANING = {"utils", "util", "common", "helpers", "helper", "core", "base", "misc"}

# module of litapi → the modules of the project that it may import
ARROWS: dict[str, set[str]] = {
    "litapi": set(),
    # leaves
    "litapi.errors": set(),
    "litapi.cores": set(),
    "litapi.channel": set(),
    "litapi.descriptors": set(),
    "litapi.byte_budget": set(),
    "litapi.processor": set(),
    "litapi.probe": {"litapi.messages"},
    "litapi.settings": {"litapi.cores"},
    "litapi.messages": set(),
    "litapi.lifeline": set(),
    "litapi.interest": set(),
    "litapi.checkpoint": set(),
    "litapi.metrics": set(),
    "litapi.provoke": set(),
    "litapi.warm": set(),  # a client: it knows the service by HTTP only
    # what a request is made of
    "litapi.canonical": {"litapi.errors"},
    "litapi.forms": {"litapi.errors"},
    "litapi.incoming": {"litapi.errors"},
    "litapi.answer": {"cache", "litapi.errors"},
    "litapi.quantized": {"cache", "litapi.answer"},
    "litapi.fetch": {"litapi.byte_budget", "litapi.errors"},
    "litapi.access": {"litapi.errors", "litapi.incoming"},
    "litapi.admission": {"litapi.errors"},
    "litapi.logs": {"litapi.settings"},
    "litapi.docs": {
        "litapi.access",
        "litapi.answer",
        "litapi.errors",
        "litapi.forms",
        "litapi.samples",
    },
    "litapi.samples": {"litapi.errors", "litapi.forms"},
    "litapi.middleware": {"litapi.incoming", "litapi.settings"},
    "litapi.reader": {
        "litapi.canonical",
        "litapi.errors",
        "litapi.fetch",
        "litapi.forms",
        "litapi.incoming",
        "litapi.messages",
        "litapi.settings",
    },
    "litapi.service": {
        "cache",
        "cache.key",
        "litapi.checkpoint",
        "litapi.fidelity",
        "litapi.messages",
        "litapi.settings",
    },
    "litapi.embedder": {"cache", "cache.key", "litapi.errors", "litapi.messages"},
    "litapi.routes": {
        "cache",
        "litapi.answer",
        "litapi.embedder",
        "litapi.errors",
        "litapi.forms",
        "litapi.incoming",
        "litapi.quantized",
        "litapi.reader",
        "litapi.service",
    },
    "litapi.replay": {"cache.watcher", "litapi.answer", "litapi.embedder", "litapi.incoming"},
    # the model, which knows nothing of HTTP and nothing of the cache
    "litapi.pixel_budget": set(),
    "litapi.picture": {"litapi.errors", "litapi.pixel_budget"},
    "litapi.pixels": {"litapi.checkpoint"},
    "litapi.tokens": {"litapi.canonical", "litapi.checkpoint"},
    "litapi.body": set(),
    "litapi.compiled": {"litapi.checkpoint"},
    "litapi.int8_linear": set(),
    "litapi.precision": {"litapi.checkpoint", "litapi.int8_linear"},
    "litapi.encoder": {
        "litapi.body",
        "litapi.checkpoint",
        "litapi.compiled",
        "litapi.pixels",
        "litapi.precision",
    },
    "litapi.check": {
        "litapi.checkpoint",
        "litapi.encoder",
        "litapi.pixels",
        "litapi.tokens",
    },
    # the quality of a precision, on what the demo draws or on somebody's own pairs
    "litapi.fidelity": {"litapi.demo.judge"},
    "litapi.pairs": {
        "litapi.demo.heldout",
        "litapi.demo.questions",
        "litapi.errors",
        "litapi.picture",
        "litapi.pixel_budget",
        "litapi.settings",
    },
    "litapi.gate": {
        "litapi.checkpoint",
        "litapi.compiled",
        "litapi.demo.judge",
        "litapi.encoder",
        "litapi.fidelity",
        "litapi.logs",
        "litapi.messages",
        "litapi.pairs",
        "litapi.pixels",
        "litapi.precision",
        "litapi.settings",
        "litapi.tokens",
    },
    "litapi.verdict": {
        "litapi.checkpoint",
        "litapi.fidelity",
        "litapi.messages",
        "litapi.pairs",
        "litapi.processor",
        "litapi.service",
        "litapi.settings",
    },
    # processes
    "litapi.dispatcher": {
        "litapi.channel",
        "litapi.errors",
        "litapi.guard",
        "litapi.interest",
        "litapi.lifeline",
        "litapi.messages",
    },
    "litapi.towers": {
        "litapi.check",
        "litapi.checkpoint",
        "litapi.compiled",
        "litapi.cores",
        "litapi.encoder",
        "litapi.errors",
        "litapi.lifeline",
        "litapi.logs",
        "litapi.messages",
        "litapi.picture",
        "litapi.pixel_budget",
        "litapi.pixels",
        "litapi.precision",
        "litapi.provoke",
        "litapi.settings",
        "litapi.tokens",
    },
    "litapi.loop": {
        "litapi.dispatcher",
        "litapi.errors",
        "litapi.messages",
        "litapi.metrics",
        "litapi.towers",
    },
    "litapi.pool": {
        "litapi.admission",
        "litapi.dispatcher",
        "litapi.errors",
        "litapi.messages",
        "litapi.metrics",
        "litapi.settings",
    },
    "litapi.health": {
        "litapi.dispatcher",
        "litapi.errors",
        "litapi.messages",
        "litapi.probe",
        "litapi.settings",
    },
    "litapi.guard": {"litapi.answer", "litapi.errors", "litapi.incoming", "litapi.metrics"},
    "litapi.front": {
        "cache",
        "litapi.access",
        "litapi.answer",
        "litapi.dispatcher",
        "litapi.docs",
        "litapi.embedder",
        "litapi.errors",
        "litapi.fetch",
        "litapi.health",
        "litapi.incoming",
        "litapi.messages",
        "litapi.metrics",
        "litapi.middleware",
        "litapi.pool",
        "litapi.reader",
        "litapi.routes",
        "litapi.service",
        "litapi.settings",
        "litapi.guard",
        "litapi.replay",
    },
    # composition
    "litapi.server": {
        "cache",
        "litapi.checkpoint",
        "litapi.cores",
        "litapi.descriptors",
        "litapi.dispatcher",
        "litapi.fidelity",
        "litapi.front",
        "litapi.guard",
        "litapi.loop",
        "litapi.messages",
        "litapi.metrics",
        "litapi.service",
        "litapi.settings",
        "litapi.towers",
    },
    "litapi.__main__": {
        "litapi.check",
        "litapi.checkpoint",
        "litapi.dispatcher",
        "litapi.gate",
        "litapi.logs",
        "litapi.messages",
        "litapi.metrics",
        "litapi.server",
        "litapi.settings",
        "litapi.verdict",
        "litapi.warm",
    },
}
# The benchmark measures over HTTP. Some of its files may look inside: to draw the demo's pictures
# as work to send, or to measure a part of the service without a server around it.
BENCH_EXTRA: dict[str, set[str]] = {
    "bench.workload": {"litapi.demo.caption", "litapi.demo.drawing"},
    "bench.lookups": {"cache"},
    "bench.load": {"litapi.descriptors"},
    "bench.compare.__main__": {"litapi.checkpoint", "litapi.descriptors", "litapi.precision"},
    "bench.faults.__main__": {"litapi.descriptors"},
    "bench.bulk": {"litapi.checkpoint", "litapi.towers"},
    "bench.baselines.bare": {
        "litapi.checkpoint",
        "litapi.compiled",
        "litapi.encoder",
        "litapi.picture",
        "litapi.pixels",
        "litapi.settings",
        "litapi.tokens",
    },
    "bench.output_types": {"litapi.demo.drawing", "litapi.demo.heldout", "litapi.demo.judge"},
    "bench.footprint": {"cache", "cache.key", "cache.memory"},
    "bench.zipf": {"cache", "cache.memory"},
    "bench.speed": {"litapi.fidelity"},
    "bench.study": {
        "litapi.checkpoint",
        "litapi.demo.judge",
        "litapi.encoder",
        "litapi.fidelity",
        "litapi.pairs",
        "litapi.pixels",
        "litapi.tokens",
    },
    "bench.precision.__main__": {"litapi.checkpoint", "litapi.precision", "litapi.settings"},
    "bench.precision.quality": {"litapi.checkpoint", "litapi.gate", "litapi.settings"},
    "bench.precision.system": {
        "litapi.checkpoint",
        "litapi.compiled",
        "litapi.encoder",
        "litapi.pixels",
        "litapi.precision",
    },
    "bench.machine": {"litapi.cores"},
    "bench.pixels": {"litapi.checkpoint", "litapi.picture", "litapi.pixels"},
    "bench.faults.question": {"litapi.demo.drawing"},
    "bench.offline.__main__": {"litapi.checkpoint", "litapi.encoder"},
    "bench.offline.sweep": {"litapi.checkpoint", "litapi.encoder"},
    "bench.offline.tower": {"litapi.checkpoint", "litapi.encoder", "litapi.pixels"},
}
# What stands around the service knows it by its files and by HTTP. Bulk runs its towers itself, and
# takes its parts for that.
DEPLOY_EXTRA: dict[str, set[str]] = {
    "deploy.inputs": {"bench.result_file"},
    "deploy.bulk": {"litapi.cores"},
    "deploy.bulk.__main__": {
        "litapi.checkpoint",
        "litapi.logs",
        "litapi.messages",
        "litapi.service",
        "litapi.settings",
        "litapi.verdict",
    },
    "deploy.bulk.cluster": {"litapi.cores", "litapi.settings"},
    "deploy.bulk.discovery": {"litapi.messages"},
    "deploy.bulk.fault": {"litapi.errors"},
    "deploy.bulk.intake": {
        "litapi.errors",
        "litapi.messages",
        "litapi.reader",
        "litapi.settings",
    },
    "deploy.bulk.json_lines": {"litapi.messages"},
    "deploy.bulk.parquet_column": {"litapi.messages"},
    "deploy.bulk.port": {"litapi.dispatcher", "litapi.interest", "litapi.messages"},
    "deploy.bulk.source": {"litapi.messages", "litapi.settings"},
    "deploy.bulk.task": {"litapi.checkpoint", "litapi.settings"},
    "deploy.bulk.vector_file": {"cache", "litapi.errors"},
    "deploy.bulk.worker": {
        "cache",
        "litapi.checkpoint",
        "litapi.embedder",
        "litapi.errors",
        "litapi.logs",
        "litapi.loop",
        "litapi.messages",
        "litapi.service",
        "litapi.settings",
        "litapi.towers",
    },
}
# module → the names of litserve's that it may import, by the module they come from; "*": any
LITSERVE: dict[str, dict[str, set[str]]] = {
    "litapi.loop": {"litserve.loops.base": {"LitLoop"}},
    "litapi.towers": {"litserve": {"LitAPI"}},
    "bench.baselines.litserve_api": {"litserve": {"LitAPI", "LitServer"}},
}
TORCH = {
    "bench.baselines.siglip",
    "bench.precision.system",
    "bench.reference",
    "litapi.body",
    "litapi.check",
    "litapi.compiled",
    "litapi.encoder",
    "litapi.int8_linear",
    "litapi.precision",
}
TORCH_ROOMS = ("litapi.demo.", "bench.offline")


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
    """What a file imports, as modules: `from litapi.demo import tokenizer` is that module."""
    whole = {f"{source}.{name}" for source, name in imports(module) if f"{source}.{name}" in FILES}
    rest = {source for source, name in imports(module) if f"{source}.{name}" not in FILES}
    return whole | rest


def inside(module: str) -> set[str]:
    """The arrows of a file that stay in the project."""
    return {one for one in targets(module) if one.partition(".")[0] in ROOMS}


def outside(module: str) -> set[str]:
    """The packages beyond the standard library that a file imports."""
    packages = {one.partition(".")[0] for one in targets(module)}
    return packages - set(ROOMS) - set(sys.stdlib_module_names)


def of_room(room: str) -> list[str]:
    return [module for module in FILES if module == room or module.startswith(room + ".")]


def strays(module: str) -> set[str]:
    """The arrows of a file that no table allows."""
    if module.startswith("cache"):
        return {one for one in inside(module) if not one.startswith("cache")}
    if module.startswith("litapi.demo"):
        return {one for one in inside(module) if not one.startswith("litapi.demo")}
    if module.startswith("deploy"):
        extra = DEPLOY_EXTRA.get(module, set())
        return {one for one in inside(module) if not one.startswith("deploy")} - extra
    if module.startswith("bench"):
        extra = BENCH_EXTRA.get(module, set())
        return {one for one in inside(module) if not one.startswith("bench")} - extra
    return inside(module) - ARROWS.get(module, set())


# -- arrows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", FILES)
def test_a_file_imports_only_what_its_table_allows(module: str) -> None:
    """Every arrow in the project was decided on."""
    assert strays(module) == set()


def test_every_file_of_litapi_is_in_the_table() -> None:
    """A new file gets its place before it gets its imports; one that is gone leaves no row."""
    known = {one for one in of_room("litapi") if not one.startswith("litapi.demo")}
    assert known - ARROWS.keys() == set()
    assert {one for one in ARROWS if one not in FILES} == set()


@pytest.mark.parametrize("module", ["litapi.settings", "litapi.errors"])
def test_settings_and_errors_are_leaves(module: str) -> None:
    """Everybody may import them because they import nobody, but for the count of cores."""
    assert inside(module) <= {"litapi.cores"}


@pytest.mark.parametrize("module", of_room("cache"))
def test_the_cache_knows_numpy_and_redis_only(module: str) -> None:
    """It could be lifted out and used by another service as it is."""
    assert outside(module) <= {"numpy", "redis", "hiredis"}


def test_there_is_no_cycle() -> None:
    """Every file can be understood from what lies below it."""
    graph = {module: {one for one in inside(module) if one in FILES} for module in FILES}
    while leaves := [module for module, arrows in graph.items() if not arrows]:
        for leaf in leaves:
            del graph[leaf]
        for arrows in graph.values():
            arrows.difference_update(leaves)
    assert graph == {}, f"in or above a cycle: {sorted(graph)}"


def test_the_reading_of_imports_finds_those_in_functions() -> None:
    """The tests above are worth as much as their eyes: these four arrows are known to be there."""
    assert "litapi.warm" in inside("litapi.__main__")  # inside a function
    assert "litapi.encoder" in inside("litapi.towers")  # under TYPE_CHECKING
    assert "litapi.demo.tokenizer" in inside("litapi.demo.make")  # a module out of a package
    assert "torch" in outside("litapi.encoder")


# -- LitServe --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", FILES)
def test_only_the_dispatcher_reaches_into_litserve(module: str) -> None:
    """The loop and the towers take one public class each; an upgrade is one file's work."""
    if module == "litapi.dispatcher":
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
    ["litapi.loop", "litapi.towers", "litapi.server", "litapi.front", "litapi.pool"],
)
def test_no_other_file_touches_litserves_private_parts(module: str) -> None:
    """Neither by reading them nor by defining a method of the same name in a subclass."""
    assert set(private_names(tree_of(module))) & litserves_own() == set()


def test_the_dispatcher_does_touch_them() -> None:
    """Or the test above would look for names that do not exist."""
    assert set(private_names(tree_of("litapi.dispatcher"))) & litserves_own() >= {
        "_transport",
        "_queues",
    }


# -- weight ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", FILES)
def test_ray_is_imported_only_where_blocks_are_given_out(module: str) -> None:
    """Half a gigabyte that serving does not need."""
    if not module.startswith("deploy.bulk"):
        assert not {"ray", "pyarrow", "pandas"} & outside(module)


@pytest.mark.parametrize("module", FILES)
def test_torch_is_imported_only_where_vectors_are_made(module: str) -> None:
    """Every other file starts in a moment and runs on a machine without it."""
    if module not in TORCH and not module.startswith(TORCH_ROOMS):
        assert not {"torch", "torchao", "torchvision"} & outside(module)


def test_the_front_loads_neither_torch_nor_transformers() -> None:
    """An HTTP process is small: hundreds of megabytes less, and ready at once."""
    script = (
        "import sys, litapi.server, litapi.front;"
        "print([m for m in ('torch', 'transformers', 'tokenizers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_importing_the_package_loads_nothing() -> None:
    """`import litapi` in a notebook costs nothing, and the cache stands without litapi."""
    script = (
        "import sys, cache; before = set(sys.modules);"
        "assert not any(m.startswith('litapi') for m in before), 'cache imports litapi';"
        "import litapi; print(sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['litapi']"


# -- names -----------------------------------------------------------------------------------------


def test_no_file_is_called_after_nothing() -> None:
    """A file is named after what is in it."""
    rooms = [*ROOMS, "tests", "notebooks", "deploy"]
    paths = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert paths
    named = [p for p in paths if {p.stem, p.parent.name} & WITHOUT_MEANING]
    assert named == []
