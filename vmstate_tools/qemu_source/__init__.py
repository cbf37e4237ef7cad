"""QEMU's source → facts: git checkouts and released source trees, read release by release into the tables in `data/`.

C is parsed, not searched; what is not understood is an error that names revision, file and line. Nothing but
facts leaves: names, values, hashes, dates and the subjects of commits.

build : makes `data/catalog`
source_tables : makes `data/source`
descriptions, extract : make the tables of descriptions in `data/fingerprint` and `data/compat`
"""
