"""Settings proposed from the trials so far by a tree-structured Parzen estimator, through Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drex_jax.common.errors import UserError
from drex_jax.config import tree
from drex_jax.metrics.names import lower_is_better
from drex_jax.training import search_space
from drex_jax.training.search import Constants, Trial
from drex_jax.training.settings import Settings

if TYPE_CHECKING:
    import optuna

ASKS = 100  # proposals in a row that repeat a trial or are not valid, before settings are drawn at random


class Proposer:
    """Propose the next trial's settings (Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011).

    The study lives in memory and is built from the finished trials each time, with a seed of `config.seed` and the
    trial's number. So a search that was stopped proposes what it would have proposed without the stop.

    Attributes:
      count: number of trials: `tune.trials`, or all settings of a smaller space.

    Raises:
      UserError: if Optuna is not installed, or `tune.space` is not valid.
    """

    def __init__(self, config: Settings):
        try:
            import optuna
        except ImportError:
            raise UserError("tune.search=tpe needs the package optuna: pip install -e '.[tune]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._config = optuna, config
        self._dimensions = search_space.parse(config)
        fields = tree.flatten_settings(config)
        self._own = {dimension.field: fields[dimension.field] for dimension in self._dimensions}
        self.count = int(min(config.tune.trials, search_space.size(self._dimensions, self._own)))
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            dimension.field: optuna.distributions.CategoricalDistribution(dimension.values)
            if dimension.values
            else optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=True)
            for dimension in self._dimensions
        }

    def __call__(self, trials: Sequence[Trial]) -> Constants | None:
        """Return the configuration's own settings, then proposals, none of them twice; None if there is no new one."""
        if not trials:
            return self._own
        study, seen = self._study(trials), [trial.constants for trial in trials]
        for ask in range(search_space.MANY):
            if ask == ASKS:
                study.sampler = self._optuna.samplers.RandomSampler(self._config.seed + len(trials))
            asked = study.ask(self._distributions).params
            proposed = {dimension.field: dimension.rounded(asked[dimension.field]) for dimension in self._dimensions}
            if proposed not in seen and search_space.fault(self._config, proposed) is None:
                return proposed
        return None

    def _study(self, trials: Sequence[Trial]) -> optuna.Study:
        """Make a study of the trials whose settings are in the space; failed trials count as the worst."""
        optuna, lower = self._optuna, lower_is_better(self._config.train.selection)
        study = optuna.create_study(
            direction="minimize" if lower else "maximize",
            sampler=optuna.samplers.TPESampler(seed=self._config.seed + len(trials)),
        )
        for trial in trials:
            if self._is_inside(trial.constants):
                failed, value = trial.selection is None, trial.selection and trial.selection.value
                study.add_trial(
                    optuna.trial.create_trial(
                        state=optuna.trial.TrialState.PRUNED if failed else optuna.trial.TrialState.COMPLETE,
                        params=dict(trial.constants),
                        distributions=dict(self._distributions),
                        value=value,
                    )
                )
        return study

    def _is_inside(self, settings: Mapping[str, Any]) -> bool:
        """Tell whether settings are in the space; the configuration's own need not be."""
        return all(dimension.contains(settings[dimension.field]) for dimension in self._dimensions)
