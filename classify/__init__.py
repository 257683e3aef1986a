"""Train, evaluate and fine-tune classifiers."""
