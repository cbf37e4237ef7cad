"""VMState descriptions: one tree for each device, laid out, decoded and encoded.

description : the tree, and the vmdesc that a stream carries
dump : the tree from -dump-vmstate, and where two dumps differ
builtin, null_pointers : what a vmdesc does not say
layout, decode, value_column : where each value lies, and what it is
"""
