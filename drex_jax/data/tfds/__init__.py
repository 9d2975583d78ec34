"""TFDS builders of the review data sets, without TensorFlow, and the reader of the data sets they prepared.

Nothing is imported here: `tensorflow_datasets` takes a second to import, and importing the module of a builder
registers it with TFDS.
"""
