"""The wire format: what stands in a migration stream, record by record.

The formats are stated in construct (`source.parsing.Format`); the same statements parse and build.

framing : file header, configuration, section headers and footers, commands, end mark, vmdesc
ram_blocks, ram_pages, xbzrle : the RAM section
multifd, multifd_channel, multifd_pages : the connections that carry pages beside the main stream
sections : sections that QEMU writes by hand
shared_limit : how much a stream may make this package guess
"""
