"""VMState descriptions: one tree for each device, laid out, decoded and encoded."""
