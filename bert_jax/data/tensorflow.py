"""TensorFlow, with what batches and old checkpoints need of it."""

import os

# No matrix products of oneDNN, nor log lines about them.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# TensorFlow imports Keras, which takes as long as all the rest, unless it is to use the old Keras and that isn't
# installed. `tf.keras` then still is the Keras that the environment names: it is looked up when it is first used.
NAME = "TF_USE_LEGACY_KERAS"
asked = os.environ.get(NAME)
os.environ[NAME] = "1"
try:
    import tensorflow as tf
finally:
    del os.environ[NAME]
    if asked is not None:
        os.environ[NAME] = asked

__all__ = ["tf"]
