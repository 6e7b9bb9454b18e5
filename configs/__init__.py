"""The configs that ship with bert_jax, found by their names: bert-jax pretrain --config pretrain_tiny --workdir DIR."""
