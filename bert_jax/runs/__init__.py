"""The runs that a user starts: pretraining, fine-tuning, evaluation, prediction."""
