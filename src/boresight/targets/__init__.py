"""What a detector should emit, cell by cell."""
