"""A trained model in use: vectors, fillings, labels and answers for texts."""
