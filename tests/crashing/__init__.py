"""The crash harness: proxies that count what the operator sends, and end something at the n-th message."""
