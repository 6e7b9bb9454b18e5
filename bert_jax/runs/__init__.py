"""What a person asks for: pretraining, fine-tuning, evaluation."""
