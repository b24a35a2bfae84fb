"""The packaged model: how it was made, from a pretrained BERT and pairs of notes and summaries."""
