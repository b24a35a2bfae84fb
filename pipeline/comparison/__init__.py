"""`chartmill compare`: ways to summarize the same notes, side by side in quality, speed, memory and cost."""
