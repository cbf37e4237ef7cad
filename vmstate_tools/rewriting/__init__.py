"""A stream with fields changed: in a file, on a pipe, for a release."""
