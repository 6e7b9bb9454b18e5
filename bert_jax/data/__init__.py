"""Text to batches: corpora, tokenizers, examples, masking and the tf.data pipeline. Never JAX."""

import os

# TensorFlow only makes batches here, so it needs neither oneDNN's matrix products nor the log lines about them.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
