"""Every field that a package below knows arrives there."""

import dataclasses

from drex_jax.config import defaults as config_lib
from drex_jax.data.load import DataSettings, SyntheticSettings
from drex_jax.runs.dataset import data_options


def test_defaults_are_the_same_on_both_sides() -> None:
    options = data_options(config_lib.base())
    assert dataclasses.replace(options, columns={}) == DataSettings()


def test_every_field_arrives() -> None:
    config = config_lib.base()
    values = {
        "format": "table",
        "path": "somewhere",
        "name": "mine",
        "max_interactions": 5,
        "max_bad_share": 0.5,
        "max_ids": 70,
        "k_core": 2,
        "rating_min": 1.0,
        "rating_max": 3.0,
        "item_features": ("image",),
        "time_format": "%Y",
        "tfds_dir": "prepared",
    }
    synthetic = {
        "interactions": 11,
        "users": 12,
        "items": 13,
        "missing_text": 0.25,
        "missing_rating": 0.75,
        "noise": 1.5,
        "seed": 14,
    }
    config.update_from_flattened_dict({f"data.{name}": value for name, value in values.items()})
    for name, value in synthetic.items():
        prefix = "num_" if name in ("interactions", "users", "items") else ""
        config.update_from_flattened_dict({f"data.synthetic.{prefix}{name}": value})
    config.update_from_flattened_dict({"data.columns.text": "body"})
    options = data_options(config)
    assert options.synthetic == SyntheticSettings(**synthetic)
    assert options.columns["text"] == "body"
    expected = DataSettings(**values, columns=options.columns, synthetic=options.synthetic)
    assert options == expected
    for field in dataclasses.fields(DataSettings):  # so that a new field cannot be forgotten here
        assert field.name in {*values, "columns", "synthetic"}
