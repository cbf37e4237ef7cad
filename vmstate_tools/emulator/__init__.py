"""Real QEMU in the loop: capture streams, try loading them, and hold predictions against what happened."""
