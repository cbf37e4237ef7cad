"""What one moves in a notebook: the explorer of streams, the policy lab."""
