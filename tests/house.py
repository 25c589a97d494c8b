"""Measures how the package is laid out: its floors, its imports and its size.

Run ``python tests/house.py`` for the figures; ``tests/test_architecture.py`` holds them to their limits.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "captioner"

# A room is a folder or a module of the package; it imports only from the floors below its own.
FLOORS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("errors",), "failures, each with one line that says what to do"),
    (
        ("files", "tars", "interrupt", "options", "html", "batcher"),
        "whole files or none; files inside tars; Ctrl-C; options as data; HTML pages; calls of many threads as batches",
    ),
    (
        ("caption", "confidence", "vocabulary"),
        "a caption and how sure it is; the fit of that; sentences become words",
    ),
    (("images",), "images are found, read and become pixels, or are drawn on"),
    (
        ("model", "decoding", "progress", "records"),
        "the network, in torch; choosing words; how far a job is; what became of an image",
    ),
    (
        ("weights", "writers"),
        "where a checkpoint lies and what its header says, without torch; records as text in every format",
    ),
    (
        ("checkpoint", "concepts", "datasets"),
        "one file a model; what the classifier names; captioned images as records",
    ),
    (("runtime",), "a model at work, in ONNX Runtime or torch; its graphs"),
    (
        ("scoring", "saving", "metadata", "metrics", "features"),
        "how probable a text is; checkpoints written, and described; judging captions; encoded images on disk",
    ),
    (("captioner",), "images in, captions out: the one service of all doors"),
    (("engine",), "many images at once, each with the caption that it has alone"),
    (
        ("bulk", "vectors", "search", "training", "gradients", "download"),
        "long jobs: caption folders and vectors, find images by a sentence, fit a model, measure gradients, fetch data",
    ),
    (("evaluation",), "caption a data set and score it"),
    (("embed", "cluster"), "captions inside image files and web pages; folders on a Ray cluster"),
    (("web",), "the page over one captioner"),
    (("cli",), "the command line: parse, call, print"),
    (("__main__", "batch"), "python -m captioner; module paths of earlier releases"),
)
TORCH_ENGINE = {"captioner.checkpoint", "captioner.runtime.torch"}
"""How the other engine is entered; captions on a processor do without it."""
FLOOR = {room: number for number, (rooms, _) in enumerate(FLOORS, start=1) for room in rooms}


@dataclass(frozen=True)
class Module:
    """One file of the package, read."""

    name: str
    path: Path
    lines: int
    tree: ast.Module

    @property
    def room(self) -> str:
        """The first part of its name below the package; empty for the package itself."""
        return self.name.partition(".")[2].partition(".")[0]

    @property
    def import_lines(self) -> int:
        """Lines of import statements, those inside functions and under TYPE_CHECKING included."""
        nodes = (node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom))
        return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes)

    def functions(self) -> Iterator[tuple[str, int]]:
        """Names and lengths in lines of its functions and methods."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def read_package(folder: Path = PACKAGE) -> dict[str, Module]:
    """All modules of a package by their dotted names."""
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        modules[name] = Module(name, path, text.count("\n"), ast.parse(text))
    return modules


def public_names(stub: Path, package: str) -> dict[str, str]:
    """The module behind each public name, from the package's stub."""
    nodes = ast.parse(stub.read_text(encoding="utf-8")).body if stub.exists() else []
    return {
        alias.name: f"{package}.{node.module}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def imports(modules: dict[str, Module]) -> dict[str, set[str]]:
    """Which modules of the package each module imports, wherever the statement stands.

    The package itself only names what it offers: who uses one of its public names imports the module behind it.
    """
    found: dict[str, set[str]] = {}
    package = min(modules, key=len)
    public = public_names(modules[package].path.with_suffix(".pyi"), package)
    for name, module in modules.items():
        named: set[str] = set()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == package:
                named |= {public[node.attr]} if node.attr in public else set()
            elif isinstance(node, ast.ImportFrom) and node.module:
                if node.module == package:
                    named |= {public[alias.name] for alias in node.names if alias.name in public}
                below = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= (below & modules.keys()) or {node.module}
        found[name] = (named & modules.keys()) - {name, package}
    return found


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components of two or more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            start = stack.index(node)
            group = set(stack[start:])
            del stack[start:]
            if len(group) > 1:
                found.append(group)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def rooms(modules: dict[str, Module]) -> dict[str, set[str]]:
    """Which rooms each room imports."""
    graph: dict[str, set[str]] = {}
    for name, others in imports(modules).items():
        room = modules[name].room
        if room:
            graph.setdefault(room, set()).update({modules[other].room for other in others} - {room})
    return graph


def heart(graph: dict[str, set[str]]) -> set[str]:
    """``captioner/captioner.py`` and what it imports, directly or not, where torch is absent."""
    found = {"captioner.captioner"}
    waiting = list(found)
    while waiting:
        for other in graph[waiting.pop()] - found - TORCH_ENGINE:
            found.add(other)
            waiting.append(other)
    return found


def import_share(modules: Iterable[Module]) -> float:
    """Import lines per 100 lines."""
    modules = list(modules)
    return 100 * sum(module.import_lines for module in modules) / sum(module.lines for module in modules)


def floor_table() -> str:
    """The table of docs/architecture.md, highest floor first."""
    rows = ["| floor | rooms | what they do |", "|---|---|---|"]
    for number, (names, purpose) in reversed(list(enumerate(FLOORS, start=1))):
        shown = (f"`captioner/{name}/`" if (PACKAGE / name).is_dir() else f"`captioner/{name}.py`" for name in names)
        rows.append(f"| {number} | {', '.join(shown)} | {purpose} |")
    return "\n".join(rows)


def main() -> None:
    """Print the figures."""
    modules = read_package()
    graph = imports(modules)
    core = heart(graph)
    functions = [(length, f"{name}.{function}") for name in modules for function, length in modules[name].functions()]
    print(f"modules        {len(modules)}")
    print(f"lines          {sum(module.lines for module in modules.values())}")
    print(f"import lines   {import_share(modules.values()):.2f} per 100")
    print(f"circles        {len(circles(graph))} of files, {len(circles(rooms(modules)))} of rooms")
    print(f"longest        function {max(functions)}, module {max((m.lines, m.name) for m in modules.values())}")
    print(f"heart          {len(core)} modules, {sum(modules[name].lines for name in core)} lines")


if __name__ == "__main__":
    main()
