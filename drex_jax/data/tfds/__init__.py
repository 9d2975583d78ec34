"""TFDS builders of the review data sets, without TensorFlow, and the way a run reads what they have prepared.

Nothing is imported here: `tensorflow_datasets` takes a second to import, and a builder is registered with it when the
module that holds it is imported.
"""
