"""Pages that are made from the code: API pages at each build of the site, and `docs/configuration.md`.

    python docs/pages.py        # writes docs/configuration.md anew

MkDocs calls `on_files` and `on_post_build` (`hooks` in mkdocs.yml). Only the page of the configuration imports the
package; API pages are read from the source.
"""

from __future__ import annotations

import ast
import inspect
import json
import pathlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "drex_jax"
CONFIGURATION = ROOT / "docs" / "configuration.md"
NOT_SHOWN = ("experiments",)  # files of configuration, not an API


def rooms() -> list[str]:
    """Return the rooms of the package, by name."""
    found = (folder.parent.name for folder in PACKAGE.glob("*/__init__.py"))
    return sorted(room for room in found if room not in NOT_SHOWN)


def modules(room: str) -> list[str]:
    """Return the dotted names of the modules of a room that are not empty."""
    files = (file for file in sorted((PACKAGE / room).rglob("*.py")) if file.name != "__init__.py")
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]


def room_page(room: str) -> str:
    """Return the API page of a room: what it is for, then every module."""
    about = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
    blocks = "\n\n".join(f"::: {module}" for module in modules(room))
    return f"# drex_jax.{room}\n\n{about}\n\n{blocks}\n"


def public_names() -> list[str]:
    """Return the dotted names that the package exports."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    exported = next(
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return [f"drex_jax.{name}" for name in ast.literal_eval(exported) if not name.startswith("__")]


def configuration_page() -> str:
    """Return the text of `docs/configuration.md`: every field of the settings."""
    from drex_jax.training.settings import Settings

    parts = [
        "# Configuration",
        "<!-- Made by `python docs/pages.py` from the declarations of the fields; a test compares. -->",
        "An experiment file changes fields of `base()`; `--config.FIELD=VALUE` changes one more on the command line.\n"
        "An unknown field or a wrong value ends the run with one line that says what is accepted. `--help` prints the\n"
        "same list.",
        *_tables(Settings, ""),
    ]
    return "\n\n".join(parts) + "\n"


def _tables(group: type, prefix: str) -> list[str]:
    """Return the heading, the description and the table of a group, then those of its inner groups."""
    from drex_jax.config.tree import Field, OpenField, declared

    rows, inner = [], []
    for name, what in declared(group):
        if isinstance(what, Field):
            rows.append(_row(prefix + name, what))
        elif isinstance(what, OpenField):
            rows += [_row(f"{prefix}{name}.{key}", entry) for key, entry in what.entries.items()]
            rows.append(f"| `{prefix}{name}.NAME` | | {_cell(what.others.wants)} | a further name of your own |")
        else:
            inner += _tables(what, f"{prefix}{name}.")
    doc = re.sub(r"^`[^`]*`: ", "", inspect.getdoc(group) or "").strip()
    about = doc[:1].upper() + doc[1:] if prefix else "Fields of the run as a whole."
    heading = f"## {prefix.rstrip('.') or 'The run'}"
    return [heading, about, "\n".join(["| field | default | accepts | meaning |", "|---|---|---|---|", *rows]), *inner]


def _row(name: str, field: Any) -> str:
    default = "" if field.default is None else f"`{json.dumps(field.default, ensure_ascii=False)}`"
    return f"| `{name}` | {_cell(default)} | {_cell(field.rule.wants)} | {_cell(field.help)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add an API page for each room."""
    from mkdocs.structure.files import File

    for room in rooms():
        files.append(File.generated(config, f"api/{room}.md", content=room_page(room)))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Stop the build if a public name or a module is not on the site."""
    from mkdocs.exceptions import PluginError

    text = "".join(page.read_text() for page in (pathlib.Path(config.site_dir) / "api").rglob("index.html"))
    wanted = [*public_names(), *(module for room in rooms() for module in modules(room))]
    missing = [name for name in wanted if f'id="{name}"' not in text]
    if missing:
        raise PluginError(f"not on the site: {' '.join(missing)}")


if __name__ == "__main__":
    CONFIGURATION.write_text(configuration_page())
