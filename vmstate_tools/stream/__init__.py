"""One opened migration stream: its sections, its fields, the guest's memory.

stream : `Stream`, what a user opens
walk, joined, section_readers, section_end : one pass over the records, of a file or piece by piece
records, coverage, pieces, summary, html : what was read: records, bytes, a summary
ram, ram_reader, ram_bytes, ram_channels, guest_memory, page_* : the RAM section and the guest's memory
field_tables, field_frames, field_rows, cpu_words : values
observed_layouts : makes `data/layouts/observed.json` from streams
"""
