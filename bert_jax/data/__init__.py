"""Text to batches: corpora, tokenizers, examples, masking and the tf.data pipeline. Never JAX."""

import os

# TensorFlow only makes batches here: no use for oneDNN's products, nor for the lines that it prints about them.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
