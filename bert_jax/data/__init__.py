"""Text to batches: corpora, tokenizers, examples, masking and the tf.data pipeline. Never JAX."""
