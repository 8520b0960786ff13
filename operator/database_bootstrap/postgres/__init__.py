"""The server: sessions, SQLSTATEs, password verifiers, ownership marks and the ledger."""
