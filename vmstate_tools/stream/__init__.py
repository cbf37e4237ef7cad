"""One opened migration stream: its sections, its fields, the guest's memory."""
