"""The wire format: what stands in a migration stream, record by record."""
