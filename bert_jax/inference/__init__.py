"""A trained model in use: vectors, guesses for masked tokens, labels and answers for texts."""
