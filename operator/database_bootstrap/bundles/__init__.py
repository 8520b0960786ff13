"""Files that a resource brings: ordered, checked, immutable."""
