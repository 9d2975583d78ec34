"""The experiments of this repository, in the wheel as `drex_jax.experiments`: one file each, for `--config`."""
