"""Fine-tuning of sequence-to-sequence models on a user's own notes; `run.py` is the page to read."""
