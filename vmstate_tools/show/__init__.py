"""How results look: text, HTML, charts, widgets and reports. Nothing below may import it, only `cli` and notebooks."""
