"""What streams, releases and proposals say when they are compared."""
