"""`chartmill evaluate`: summaries against references, beside baselines, with intervals."""
