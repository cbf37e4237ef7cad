"""pandas frames of many streams."""
