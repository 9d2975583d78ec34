"""The command line's meaning: flags, an experiment file and overrides to one checked, locked configuration."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import os
import pathlib
import re
from collections.abc import Callable, Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from drex_jax.common.errors import UserError
from drex_jax.config import tree
from drex_jax.runs.layout import RunLayout
from drex_jax.training.settings import Settings, read_settings, require_agreement, settings_of

MODES = ("train", "evaluate", "recommend", "explain", "update", "report")
WRITERS = ("train", "update", "report")  # modes that write to the run directory; the others only read it
FORMATS = ("table", "json")
QUESTIONS = {  # flags, and the modes that read them
    "user": ("recommend", "explain"),
    "item": ("explain",),
    "k": ("recommend",),
    "interactions": ("update",),
    "format": ("recommend", "explain", "update"),
}
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)")


@dataclasses.dataclass(frozen=True)
class Command:
    """One checked command.

    Attributes:
      mode: one of `MODES`.
      workdir: the run directory.
      settings: the checked settings of the run.
      user: who asks, in modes recommend and explain.
      item: what mode explain explains.
      k: how long a list is.
      interactions: the file that mode update reads.
      format: of answers, one of `FORMATS`.
    """

    mode: str
    workdir: pathlib.Path
    settings: Settings
    user: str | None = None
    item: str | None = None
    k: int = 10
    interactions: str | None = None
    format: str = "table"


def parse(argv: Sequence[str], suffix: str = "") -> Command | None:
    """The command in `argv` (the program's name first); None where it asks for help.

    A configuration comes from `--config` and its overrides, or else from the run in `--workdir`. Where both exist they
    must agree, so that nobody resumes or evaluates a run under settings it was not made with. `suffix` ends the name of
    the default run directory.

    Raises:
      UserError: an unknown flag or field, a wrong value, no or a broken experiment file, a disagreement.
    """
    values = _flags()
    try:
        remaining = values(list(argv), known_only=True)[1:]
    except (flags.Error, ValueError) as error:
        number = re.match(r"flag (--k=.*?): invalid literal", str(error), re.DOTALL)
        raise UserError(f"{number[1]}: it must be a whole number, 1 or more" if number else str(error)) from None
    if values.help:
        return None
    for argument in remaining:
        if argument.startswith("-") and not _OVERRIDE.match(argument):
            raise UserError(f"unknown flag {argument}; --help lists them, and --config.FIELD=VALUE changes a field")
    reference, mode = values.config, values.mode
    workdir = _workdir(values.workdir, reference, suffix, writes=mode in WRITERS)
    stored = _stored(workdir)
    if reference is not None:
        settings = settings_of(_overridden(load_experiment(reference), remaining))
        if stored is not None:
            require_agreement(stored, settings, workdir, goes_on=mode == "train")
    elif remaining:
        raise UserError(f"{remaining[0]} goes with --config=experiments/NAME.py, which is not given")
    elif stored is None:
        raise UserError(f"{workdir} holds no run, and no --config=experiments/NAME.py says what to train there")
    else:
        settings = stored
    if mode != "train" and stored is None:
        raise UserError(f"{workdir} holds no run (no config.json); --mode=train makes one")
    for name, modes in QUESTIONS.items():
        if values[name].present and mode not in modes:
            raise UserError(f"--{name} goes with --mode={'|'.join(modes)}, not with --mode={mode}")
    for name in ("user", "item", "interactions"):
        if values[name].present and not values[name].value:
            raise UserError(f"--{name} is empty; it must be {'a file' if name == 'interactions' else 'an id'}")
    if mode == "recommend" and not values.user:
        raise UserError("--mode=recommend needs --user=ID, whom to recommend to")
    if mode == "explain" and not (values.user or values.item):
        raise UserError("--mode=explain needs --user=ID, --item=ID or both, what to explain")
    if mode == "update" and not values.interactions:
        raise UserError("--mode=update needs --interactions=FILE, what has happened since")
    return Command(mode, workdir, settings, values.user, values.item, values.k, values.interactions, values.format)


def usage() -> str:
    """The flags, and every field of the configuration with its default and help, for `--help`."""
    flag_help = _flags().get_help(include_special_flags=False)
    return f"{flag_help}\n\nFields of the configuration:\n{tree.describe(Settings)}"


def load_experiment(reference: str) -> ConfigDict:
    """The configuration that the file FILE returns from `get_config()`, or from `get_config(ARGUMENT)`.

    Args:
      reference: `FILE` or `FILE:ARGUMENT`.

    Raises:
      UserError: the file is missing, fails, has no `get_config`, or does not take the argument.
    """
    file, _, argument = reference.partition(":")
    get_config = _get_config(pathlib.Path(file))
    arguments = (argument,) if argument else ()
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        raise UserError(
            f"{file} takes no argument, but :{argument} was given"
            if argument
            else f"{file} needs an argument after a colon: --config={file}:ARGUMENT"
        ) from None
    try:
        config = get_config(*arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"get_config of {file} failed with {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config of {file} returned {type(config).__name__}; it must return a ConfigDict")
    return config.lock()


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "config",
        None,
        "Experiment file, with an optional argument: experiments/NAME.py[:ARGUMENT]. Any field of it (see "
        "below) is changed by --config.FIELD=VALUE, such as --config.train.epochs=5.",
        flag_values=values,
    )
    flags.DEFINE_string("workdir", None, "Run directory; default: runs/NAME[-ARGUMENT].", flag_values=values)
    flags.DEFINE_enum(
        "mode",
        "train",
        MODES,
        "train: train, or continue, evaluate and write results; on a finished run, print them. evaluate: evaluate the "
        "run in --workdir again. recommend: print what the run in --workdir recommends to --user. explain: print why, "
        "for --user, --item or both. update: let the run in --workdir learn from --interactions, and save it. report: "
        "write report.html into the run in --workdir.",
        flag_values=values,
    )
    flags.DEFINE_string("user", None, "Id of the user, known or not.", flag_values=values)
    flags.DEFINE_string("item", None, "Id of the item to explain, known or not.", flag_values=values)
    flags.DEFINE_integer("k", 10, "How many items to recommend.", flag_values=values)
    flags.DEFINE_string("interactions", None, "File of new interactions.", flag_values=values)
    flags.DEFINE_enum("format", "table", FORMATS, "Answers for people, or for programs.", flag_values=values)
    flags.DEFINE_boolean("help", False, "Show this help.", short_name="h", flag_values=values)
    values.set_gnu_getopt(True)  # so that `--config.train.epochs 5` does not end the flags at the 5
    return values


def _get_config(file: pathlib.Path) -> Callable[..., object]:
    if not file.is_file():
        raise UserError(f"--config: there is no file {file}")
    spec = importlib.util.spec_from_file_location(f"experiment_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"--config: {file} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{file}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise UserError(f"{file} failed with {type(error).__name__}: {error}") from error
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError(f"{file} has no function get_config(), which must return the experiment's configuration")
    return get_config


def _overridden(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """`config` with `--config.FIELD=VALUE` applied, each value read as its field's type."""
    matches = [match for match in map(_OVERRIDE.match, overrides) if match]
    for match in matches:
        tree.add_key(Settings, config, match[1])
    fields = tree.flatten(config)
    for match in matches:
        if match[1] not in fields:
            raise UserError(f"unknown configuration field {match[1]}; {tree.suggestion(match[1], fields)}")
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    argv = ["", *overrides]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        surplus = values(argv)[1:]
    except (flags.Error, TypeError, ValueError) as error:
        field = _OVERRIDE.search(str(error))
        known = tree.fields_of(Settings).get(field[1]) if field else None
        rule = known.rule if known else None
        raise UserError(f"{str(error).partition(': ')[0]}: it must be {rule.wants}" if rule else f"{error}") from None
    if surplus:
        raise UserError(f"unknown argument {surplus[0]}; --help lists the flags")
    return config


def _workdir(given: str | None, reference: str | None, suffix: str, writes: bool) -> pathlib.Path:
    if given is not None:
        if not given:
            raise UserError("--workdir is empty; it must name a directory")
        workdir = pathlib.Path(given)
    elif reference is not None:
        file, _, argument = reference.partition(":")
        name = pathlib.Path(file).stem + (f"-{argument}" if argument else "") + suffix
        workdir = pathlib.Path("runs", re.sub(r"[^\w.-]", "_", name))
    else:
        raise UserError("neither --config nor --workdir is given; try --config=experiments/quickstart.py")
    try:
        nearest = next((folder for folder in (workdir, *workdir.absolute().parents) if folder.exists()), workdir)
    except OSError as error:  # a name too long, a loop of links
        raise UserError(f"--workdir={workdir} can be no directory: {error.strerror}") from None
    if not nearest.is_dir() or (writes and not os.access(nearest, os.W_OK | os.X_OK)):
        raise UserError(f"--workdir={workdir}: {nearest} is no directory that can be written to")
    return workdir


def _stored(workdir: pathlib.Path) -> Settings | None:
    path = RunLayout(workdir).config
    return read_settings(path) if path.exists() else None
