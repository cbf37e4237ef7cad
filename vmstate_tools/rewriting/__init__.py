"""A stream with fields changed: in a file, on a pipe, for a release.

changes : what a change is, and the bytes with it
file, pipe : where the changed stream goes
for_release : the changes that a release needs
"""
