"""Verifiers: as the server itself would make them."""

from database_bootstrap.postgres import scram


def test_verifier_is_that_of_rfc_7677() -> None:
    # The salt and password of RFC 7677, section 3; the keys follow from them, and PostgreSQL stores them so.
    salt = b"W22ZaJ0SNY7soEsUEjb6gQ=="
    import base64

    made = scram.verifier("pencil", base64.b64decode(salt))
    assert made == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_two_verifiers_of_a_password_differ() -> None:
    assert scram.verifier("x") != scram.verifier("x")


def test_generated_passwords_differ_and_need_no_quoting() -> None:
    first, second = scram.generate_password(), scram.generate_password()
    assert first != second
    assert first.isalnum() and first.isascii() and len(first) == 32
