"""Exporting a release: what is released, which shards are exported already, and what is checked. The formats are transforms.exports."""
