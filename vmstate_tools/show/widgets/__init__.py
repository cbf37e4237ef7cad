"""Widgets for notebooks: the explorer of streams and the policy lab."""
