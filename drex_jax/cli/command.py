"""The command line of `drex` without a subcommand: from flags, experiment file and overrides to one configuration."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import inspect
import logging
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from drex_jax.cli.flags import at_least
from drex_jax.common.errors import UserError
from drex_jax.config import tree
from drex_jax.runs.layout import RunLayout
from drex_jax.training.settings import Settings, add_own, read_settings, require_agreement, settings_class, settings_of

MODES = ("train", "evaluate", "recommend", "explain", "update", "report")
WRITERS = ("train", "update", "report")  # modes that write to the run directory; the others only read it
FORMATS = ("table", "json")
QUESTIONS = {  # modes that read each flag
    "user": ("recommend", "explain"),
    "item": ("explain",),
    "k": ("recommend",),
    "interactions": ("update",),
    "format": ("recommend", "explain", "update"),
}
EXPERIMENTS = "experiments"  # the folder of the repository, and the package drex_jax.experiments of the wheel
LOGGER = logging.getLogger(__name__)
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)")


@dataclasses.dataclass(frozen=True)
class Command:
    """A checked command.

    Attributes:
      mode: one of `MODES`.
      workdir: the run directory.
      settings: the checked settings of the run.
      user: id of the user, in modes recommend and explain.
      item: id of the item that mode explain explains.
      k: length of the list that mode recommend returns.
      interactions: file that mode update reads.
      format: form of the answers, one of `FORMATS`.
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
    """Return the command in `argv` (the program's name first), or None if it asks for help.

    The configuration comes from `--config` and its overrides, or else from the run in `--workdir`. If both exist they
    must agree, so that no run is resumed or evaluated under settings it was not made with.

    Args:
      argv: the command line.
      suffix: end of the name of the default run directory.

    Raises:
      UserError: an unknown flag or field, a wrong value, a missing or broken experiment file, or a disagreement.
    """
    values = _flags()
    try:
        remaining = values(list(argv), known_only=True)[1:]
    except (flags.Error, ValueError) as error:
        raise UserError(str(error)) from None
    if values.help:
        return None
    for argument in remaining:
        if argument.startswith("-") and not _OVERRIDE.match(argument):
            raise UserError(f"unknown flag {argument}; --help lists them, and --config.FIELD=VALUE changes a field")
    reference, mode = values.config, values.mode
    workdir = _workdir(values.workdir, reference, suffix, writes=mode in WRITERS)
    if reference is None and remaining:
        raise UserError(f"{remaining[0]} goes with --config=experiments/NAME.py, which is not given")
    # The experiment comes first: it may import a model of the user's own, which a run directory alone may not.
    given = None if reference is None else settings_of(_overridden(load_experiment(reference), remaining))
    stored = _stored(workdir)
    if given is not None and stored is not None:
        require_agreement(stored, given, workdir, goes_on=mode == "train")
    settings = given or stored
    if settings is None:
        raise UserError(f"{workdir} holds no run, and no --config=experiments/NAME.py says what to train there")
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
    """Return the flags, and every field of the configuration with its default and help, for `--help`."""
    flag_help = _flags().get_help(include_special_flags=False)
    return f"{flag_help}\n\nFields of the configuration:\n{tree.describe(Settings)}"


def load_experiment(reference: str) -> ConfigDict:
    """Return the configuration that `get_config()` or `get_config(ARGUMENT)` of an experiment file returns.

    Args:
      reference: `FILE` or `FILE:ARGUMENT`. If `experiments/NAME.py` does not exist here, the experiment of that name
        in this package is used.

    Raises:
      UserError: the file is missing, fails, has no `get_config`, or does not take the argument.
    """
    file, _, argument = reference.partition(":")
    get_config = _get_config(_experiment_file(pathlib.Path(file)))
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
    flags.DEFINE(_Count(), "k", 10, "How many items to recommend.", values, flags.ArgumentSerializer())
    flags.DEFINE_string("interactions", None, "File of new interactions.", flag_values=values)
    flags.DEFINE_enum("format", "table", FORMATS, "Answers for people, or for programs.", flag_values=values)
    flags.DEFINE_boolean("help", False, "Show this help.", short_name="h", flag_values=values)
    values.set_gnu_getopt(True)  # so that `--config.train.epochs 5` does not end the flags at the 5
    return values


class _Count(flags.ArgumentParser):
    """The type of a flag that takes whole numbers from 1 on."""

    def parse(self, argument: Any) -> int:
        """Return the number. Raises ValueError with the rule if `argument` is another."""
        try:
            return at_least(1)(str(argument))
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from None

    def flag_type(self) -> str:
        """Return the name of the type."""
        return "int"


def _experiment_file(file: pathlib.Path) -> pathlib.Path:
    """Return `file`, or the packaged experiment that an installation without a checkout has in its place."""
    if file.exists() or file.parent != pathlib.Path(EXPERIMENTS):
        return file
    package = importlib.util.find_spec(f"drex_jax.{EXPERIMENTS}")
    for folder in (package and package.submodule_search_locations) or ():
        packaged = pathlib.Path(folder, file.name)
        if packaged.is_file():
            LOGGER.info("%s does not exist here; using the packaged %s", file, packaged)
            return packaged
    return file


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
    """Apply `--config.FIELD=VALUE` arguments to `config`; each value is read as the type of its field."""
    groups: list[list[str]] = []  # a flag each, and the value that follows it as a word of its own
    for argument in overrides:
        if not groups or _OVERRIDE.match(argument):
            groups.append([])
        groups[-1].append(argument)
    model = _model_of(config, groups)
    add_own(config, model)
    matches = [match for match in map(_OVERRIDE.match, overrides) if match]
    for match in matches:
        tree.add_key(Settings, config, match[1])
    fields = tree.flatten(config)
    for match in matches:
        if match[1] not in fields:
            raise UserError(f"unknown configuration field {match[1]}; {tree.suggestion(match[1], fields)}")
    declared = tree.fields_of(settings_class(model))
    for group in groups:
        _override(config, group, declared)
    return config


def _override(config: ConfigDict, group: list[str], declared: Mapping[str, tree.Field]) -> None:
    """Apply one override: `--config.FIELD=VALUE`, or its two words."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    argv = ["", *group]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        surplus = values(argv)[1:]
    except (flags.Error, TypeError, ValueError) as error:
        match = _OVERRIDE.match(group[0])
        known = declared.get(match[1]) if match else None
        rule = known.rule if known else None
        given = group[0] if "=" in group[0] else "=".join(group[:2])
        raise UserError(f"{given}: it must be {rule.wants}" if rule else str(error)) from None
    if surplus:
        raise UserError(f"unknown argument {surplus[0]}; --help lists the flags")


def _model_of(config: Any, groups: Sequence[Sequence[str]]) -> str:
    """Return the model that overrides name, or else the configuration's."""
    for group in groups:
        field, _, value = "=".join(group).partition("=")
        if field.lstrip("-") == "config.model.name":
            return value
    return str(config.model.name) if "model" in config and "name" in config.model else "drex"


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
