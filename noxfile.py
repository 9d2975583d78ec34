"""Tasks of development: `nox -l` lists them, `nox -s lint` runs one. CONTRIBUTING.md says when to run which.

Sessions use the environment that nox itself runs in, with the extras `test` and `docs` installed.
"""

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "test", "docs"]


@nox.session
def test(session: nox.Session) -> None:
    """Run the tests; arguments after `--` go to pytest (`nox -s test -- tests/data`)."""
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "auto"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    session.run("pyright", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site in `site/`; any warning is an error."""
    session.run("mkdocs", "build", "--strict")


@nox.session
def bench(session: nox.Session) -> None:
    """Time the recurrence of DReX on this machine; arguments after `--` go to tools/profile.py."""
    session.run("python", "tools/profile.py", *session.posargs)
