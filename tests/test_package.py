"""What is installed is what is here: metadata, packages, names, and a README whose commands are the ones that run."""

import ast
import importlib
import importlib.metadata
import pathlib
import pkgutil
import re
import subprocess
import sys
import tomllib

import drex_jax

ROOT = pathlib.Path(__file__).parents[1]
RUN_WHAT_IS_READ = {"eval", "exec", "compile", "__import__", "exec_module", "unsafe_load"}
UNPICKLE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_version_and_metadata() -> None:
    metadata = importlib.metadata.metadata("drex_jax")
    assert metadata["Version"] == drex_jax.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", drex_jax.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or ()) == set(PROJECT["project"]["optional-dependencies"])
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert f"version: {drex_jax.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_every_folder_with_code_is_a_package_of_the_wheel() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert setuptools["package-dir"] == {"drex_jax.experiments": "experiments"}
    folders = {file.parent for file in (ROOT / "drex_jax").rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]
    names = [".".join(folder.relative_to(ROOT).parts) for folder in folders]
    assert setuptools["packages"] == sorted([*names, "drex_jax.experiments"])


def test_the_command_is_the_same_by_each_name() -> None:
    assert PROJECT["project"]["scripts"] == {"drex": "drex_jax.main:drex"}
    for module in ("drex_jax", "drex_jax.main"):
        command = [sys.executable, "-m", module, "--moon"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("drex_jax: unknown flag --moon")


def test_every_module_imports() -> None:
    names = [module.name for module in pkgutil.walk_packages(drex_jax.__path__, "drex_jax.")]
    assert len(names) > 10
    for name in names:
        importlib.import_module(name)


def test_nothing_that_is_read_is_run() -> None:
    """Experiment files are code, and said to be; all else is data. `ast.literal_eval` runs nothing."""
    for file in (ROOT / "drex_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {str(getattr(node, "module", ""))}
                assert not names & UNPICKLE, f"{file}:{node.lineno}"
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            own = isinstance(node.func, ast.Name) or name != "compile"  # of the built-in functions
            assert not own or name not in RUN_WHAT_IS_READ or file.name == "command.py", f"{file}:{node.lineno}"
            if name == "load" and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "np":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("allow_pickle") == "False", f"{file}:{node.lineno}"


def test_files_are_named_for_what_they_hold() -> None:
    files = [file for folder in ("drex_jax", "experiments", "tools") for file in (ROOT / folder).rglob("*.py")]
    assert not [file for file in files if file.stem in {"utils", "util", "helpers", "common", "misc"}]
    assert not [str(file) for file in files if len(file.read_text().splitlines()) > 400]


def test_readme_commands_are_the_ones_that_ci_runs() -> None:
    """`.ci/run` takes them out of the README by their first words; both must be there, once."""
    commands = re.findall(r"^```bash\n(python3 -m venv .+?)\n```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert len(commands) == 2
    assert "drex_jax.main --config=experiments/quickstart.py" in commands[0]
    assert commands[1].endswith("pytest -n auto")
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
