"""What happens to the data: each file holds pure functions and the thin Beam transform that applies them."""
