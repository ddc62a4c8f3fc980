"""What everything else stands on: types, coordinates, errors."""
