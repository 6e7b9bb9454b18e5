"""The configs that ship with bert_jax, chosen by name: bert-jax pretrain --config pretrain_tiny --workdir DIR."""
