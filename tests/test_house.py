"""The map in gateway/__init__.py, held to the tree."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs
import pytest

import gateway
from tests.mirrors import AS_A_WHOLE, ELSEWHERE

TOP = Path(__file__).parent.parent
HOUSE = TOP / "gateway"

WORDS = ("model", "principal", "errors", "config")
CLIENT_MAY_IMPORT = {*WORDS, "wire", "kit", "client"}
SHARED_BY_STAGES = {f"gateway.flow.{name}" for name in ("ring", "stage", "convert", "names", "plugin")}
"""What stages are made of: rings, and the work that a pipeline's stages do."""
TRIO = {"trio", "trio_websocket"}
TOP_LEVEL = {"pyproject.toml", "gateway", "tests", "deploy", "Makefile", "README.md", "LICENSE", "CHANGELOG.md"}


@attrs.frozen
class Import:
    """One import of one module; `target` is a module of ours by its full name, or a package of others by its first."""

    target: str
    line: int
    for_types: bool
    """Under `if TYPE_CHECKING`: it says what a module knows of, but does not run."""


def rows(map_: str) -> dict[str, int | None]:
    """Room as the map writes it (a folder ends in a slash) -> floor; None for the rooms beside the floors."""
    lines = re.findall(r"^ {4}(\d+|-) +(\S+(?: \S+)*) {2,}\S", map_, re.MULTILINE)
    return {name: None if floor == "-" else int(floor) for floor, names in lines for name in names.split()}


MAP = rows(gateway.__doc__ or "")
FLOORS = {name.removesuffix("/"): floor for name, floor in MAP.items()}
FILES = {name for name in MAP if not name.endswith("/")}
"""Rooms of one file; those of one floor share the house's own folder."""


def module_name(file: Path) -> str:
    parts = file.relative_to(TOP).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(HOUSE.rglob("*.py"))}


def room_of(module: str) -> str | None:
    """The room a module of ours stands in; None for the map itself."""
    _, _, below = module.partition(".")
    return below.split(".")[0] or None


def walk(node: ast.AST, for_types: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below `node`, and whether it stands under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        yield child, for_types
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for part in child.body:
                yield part, True
                yield from walk(part, True)
            for part in child.orelse:
                yield part, for_types
                yield from walk(part, for_types)
        else:
            yield from walk(child, for_types)


def targets(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import hides the floor it goes to"
        assert node.module is not None
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in MODULES else node.module


@cache
def imports(module: str) -> tuple[Import, ...]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return tuple(
        Import(name if name.partition(".")[0] == "gateway" else name.partition(".")[0], node.lineno, for_types)
        for node, for_types in walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in targets(node)
    )


def all_imports() -> Iterator[tuple[str, Import]]:
    for module in MODULES:
        for item in imports(module):
            yield module, item


def may_import(importer: str, target: str) -> bool:
    """Whether a file in room `importer` may import from room `target`."""
    if importer == target:
        return True
    if importer == "client":
        return target in CLIENT_MAY_IMPORT
    importer_floor, target_floor = FLOORS[importer], FLOORS[target]
    if importer_floor is None:
        return True
    if target_floor is None:  # the rooms beside the floors are for the command line, and for each other
        return importer_floor >= (FLOORS["cli"] or 0)
    return target_floor < importer_floor or (target_floor == importer_floor and {importer, target} <= FILES)


def cycles(edges: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """The groups of modules that import each other in a circle."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = edges.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    reach = {module: reached(module) for module in edges}
    return sorted({tuple(sorted(m for m in reach[n] if n in reach[m])) for n in edges if n in reach[n]}, key=len)


@pytest.mark.parametrize("module", MODULES)
def test_a_file_imports_only_from_its_own_room_and_from_floors_below(module: str) -> None:
    importer = room_of(module)
    wrong = []
    for item in imports(module):
        target = room_of(item.target) if item.target.startswith("gateway.") else None
        if target is None:
            continue
        if importer is None or not may_import(importer, target):
            wrong.append(f"{MODULES[module].relative_to(TOP)}:{item.line} imports {item.target}")
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    edges = {
        module: {item.target for item in imports(module) if item.target in MODULES and not item.for_types}
        for module in MODULES
    }
    assert cycles(edges) == []


def test_only_rooms_that_wait_know_the_run_loop() -> None:
    synchronous = {*WORDS, "kit", "wire", "store", "broker"}
    wrong = [
        f"{MODULES[module].relative_to(TOP)}:{item.line} imports {item.target}"
        for module, item in all_imports()
        if item.target in TRIO and room_of(module) in synchronous and module != "gateway.store.flusher"
    ]
    assert wrong == []


def test_stages_do_not_import_each_other() -> None:
    def is_stage(module: str) -> bool:
        return module.startswith("gateway.flow.") and module not in SHARED_BY_STAGES

    wrong = [
        f"{MODULES[module].relative_to(TOP)}:{item.line} imports {item.target}"
        for module, item in all_imports()
        if room_of(module) == "flow" and module != "gateway.flow" and is_stage(item.target) and item.target != module
    ]
    assert wrong == []


def test_every_room_of_the_map_stands_in_the_tree() -> None:
    files = {name: HOUSE / (f"{name}__init__.py" if name.endswith("/") else f"{name}.py") for name in MAP}
    missing = [name for name, file in files.items() if not file.is_file()]
    assert missing == []


def test_every_room_of_the_tree_stands_in_the_map() -> None:
    rooms = {room for room in map(room_of, MODULES) if room is not None}
    assert rooms - FLOORS.keys() == set()


def test_the_map_is_read_as_it_is_meant() -> None:
    assert [FLOORS[word] for word in WORDS] == [0, 0, 0, 1]
    assert (FLOORS["kit"], FLOORS["wire"], FLOORS["store"], FLOORS["broker"]) == (1, 2, 2, 3)
    assert (FLOORS["engine"], FLOORS["flow"], FLOORS["edge"], FLOORS["control"]) == (4, 5, 6, 7)
    assert (FLOORS["node"], FLOORS["cli"], FLOORS["__main__"]) == (8, 9, 10)
    assert (FLOORS["client"], FLOORS["bench"], FLOORS["testing"]) == (None, None, None)
    assert FLOORS.get("trace", 5) == 5


@pytest.mark.parametrize(
    ("importer", "target", "allowed"),
    [
        ("model", "errors", True),
        ("kit", "model", True),
        ("model", "kit", False),
        ("wire", "store", False),
        ("flow", "engine", True),
        ("engine", "flow", False),
        ("edge", "control", False),
        ("node", "edge", True),
        ("node", "testing", False),
        ("cli", "bench", True),
        ("__main__", "cli", True),
        ("client", "wire", True),
        ("client", "flow", False),
        ("client", "testing", False),
        ("testing", "node", True),
    ],
)
def test_the_rule_of_floors(importer: str, target: str, allowed: bool) -> None:
    assert may_import(importer, target) is allowed


def test_imports_are_found_wherever_they_stand() -> None:
    source = (
        "import trio.lowlevel\n"
        "if TYPE_CHECKING:\n    from gateway.kit.ranges import RangeSet\nelse:\n    import orjson\n"
        "def late() -> None:\n    from gateway.kit import wheel\n"
    )
    found = [(name, types) for node, types in walk(ast.parse(source)) for name in targets(node)]
    assert found == [
        ("trio.lowlevel", False),
        ("gateway.kit.ranges", True),
        ("orjson", False),
        ("gateway.kit.wheel", False),
    ]


def test_a_circle_of_imports_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": {"a"}}) == [("d",), ("b", "c")]


def mirror_of(module: str) -> Path:
    """Where the tests of a module of ours stand: gateway/a/b.py -> tests/a/test_b.py."""
    *folders, name = module.split(".")
    return TOP.joinpath("tests", *folders, f"test_{name}.py")


TESTED = {
    module.removeprefix("gateway.")
    for module, file in MODULES.items()
    if file.stem not in ("__init__", "__main__") and room_of(module) not in AS_A_WHOLE
}


@pytest.mark.parametrize("module", sorted(TESTED))
def test_every_module_has_its_tests_where_they_are_looked_for(module: str) -> None:
    """In its mirror, or where tests/mirrors.py says."""
    assert mirror_of(module).is_file() or module in ELSEWHERE


def test_the_tests_that_are_named_are_there() -> None:
    missing = [file for file in {*ELSEWHERE.values(), *AS_A_WHOLE.values()} if not (TOP / file).is_file()]
    assert missing == []


def test_the_top_of_the_repository_holds_only_what_belongs_there() -> None:
    if not (TOP / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True)
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} - TOP_LEVEL == set()
