"""Migration tools: what is pending, and how one is applied."""
