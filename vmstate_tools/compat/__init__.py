"""Will it load there, and if not, why."""
