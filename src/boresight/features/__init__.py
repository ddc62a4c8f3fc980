"""What turns pixels into features."""
