"""The packaged models: how they were made, from a pretrained BERT, pairs of notes and summaries, and texts with records."""
