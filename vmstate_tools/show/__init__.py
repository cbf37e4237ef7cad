"""How results look: text, HTML, charts, widgets, reports."""
