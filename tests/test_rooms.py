"""The import rule of CONTRIBUTING.md: a room of the package imports only from rooms below it."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "drex_jax"
FLOORS = (  # from the bottom up; rooms on one floor do not import each other
    ("common", "metrics"),
    ("config", "data", "devices"),
    *(("text",), ("models",), ("runs",), ("explain",), ("evaluation",)),
    *(("training",), ("serving",), ("report",), ("cli",)),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


@pytest.mark.parametrize("room", sorted(FLOOR_OF))
def test_a_room_imports_only_from_rooms_below(room: str) -> None:
    for file in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules: list[str] = []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{file}:{node.lineno}: write the import in full, without dots"
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
                private = [name for name in modules if re.search(r"\._[a-z]", name) and name.startswith(PACKAGE.name)]
                assert not private, f"{file}:{node.lineno}: {private[0]} is private to its file"
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            for module in modules:
                package, _, rest = module.partition(".")
                other = rest.partition(".")[0]
                fine = package != PACKAGE.name or other == room or FLOOR_OF.get(other, len(FLOORS)) < FLOOR_OF[room]
                assert fine, f"{file}:{node.lineno}: {room} imports {module}, which is not below it"


def test_every_folder_of_the_package_is_a_room() -> None:
    assert {file.parent.name for file in PACKAGE.glob("*/__init__.py")} == set(FLOOR_OF) | (
        {"experiments"} if (PACKAGE / "experiments").exists() else set()
    )
