"""pandas frames of many streams: found, read, labelled by manifests, collected, and written as Parquet."""
