"""Generated passwords; that their verifiers are right is for a server to say."""

from database_bootstrap.postgres import scram


def test_generated_passwords_differ_and_need_no_quoting() -> None:
    first, second = scram.generate_password(), scram.generate_password()
    assert first != second
    assert first.isalnum() and first.isascii() and len(first) == 32
