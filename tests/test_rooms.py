"""The import rule of CONTRIBUTING.md: a room of the package imports only from rooms below it."""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "drex_jax"
FLOORS = (  # from the bottom up; rooms on one floor do not import each other
    ("common", "metrics"),
    ("config", "data", "devices"),
    *(("text",), ("models",), ("runs",), ("explain",), ("evaluation",)),
    *(("training",), ("serving",), ("report",), ("cli",)),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports(room: str) -> Iterator[tuple[pathlib.Path, ast.Import | ast.ImportFrom]]:
    for file in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield file, node


def modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return [prefix + alias.name for alias in node.names]


@pytest.mark.parametrize("room", sorted(FLOOR_OF))
def test_a_room_imports_only_from_rooms_below(room: str) -> None:
    for file, node in imports(room):
        assert isinstance(node, ast.Import) or not node.level, f"{file}: write imports in full, without dots"
        for module in modules(node):
            package, _, rest = module.partition(".")
            other = rest.partition(".")[0]
            fine = package != PACKAGE.name or other == room or FLOOR_OF.get(other, len(FLOORS)) < FLOOR_OF[room]
            assert fine, f"{file}:{node.lineno}: {room} imports {module}, which is not below it"


@pytest.mark.parametrize("room", sorted(FLOOR_OF))
def test_no_file_imports_a_private_name_of_another(room: str) -> None:
    for file, node in imports(room):
        private = [name for name in modules(node) if name.startswith(PACKAGE.name) and re.search(r"\._[a-z]", name)]
        assert not private, f"{file}:{node.lineno}: {private[0]} is private to its file"


def test_every_folder_of_the_package_is_a_room() -> None:
    assert {file.parent.name for file in PACKAGE.glob("*/__init__.py")} == set(FLOOR_OF) | (
        {"experiments"} if (PACKAGE / "experiments").exists() else set()
    )
