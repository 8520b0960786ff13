"""The contract: what people type and read."""
